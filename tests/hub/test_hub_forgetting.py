"""What a faulty or hostile device may leave in the store for ever: little, and nothing counts twice for it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_stage import PostgresServer
from store_stage import AnyStore, Place, PostgresPlace, SqlitePlace, postgres_place, within

from edge_hub.errors import StoreError
from edge_hub.ranges import close_oldest, join_ranges
from edge_hub.store import _forgetting
from edge_hub.store import postgres as postgres_store
from edge_hub.store._forgetting import KEPT_BOOTS, KEPT_RANGES
from edge_hub.store.postgres import PostgresStore
from edge_hub.store.records import Arrival, AuditRecord, Retention
from edge_sdk import mqtt
from edge_sdk.mqtt import Birth, DeviceId, Event, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
EVERYTHING = Retention(max_age_s=1e9, max_bytes=10**12)
NOTHING = Retention(max_age_s=0.0, max_bytes=10**12)
# The most that one step may take of a store that is busy with messages.
STEP_ROWS = 12_000


def boot(number: int) -> str:
    return f"{number:032d}"


def event(seq: int, *, of: int = 0) -> Arrival:
    body = Event(at=100.0, kind="sensor", text=f"{of}/{seq}")
    envelope = UpEnvelope(id=new_token(), boot=boot(of), seq=seq, sent=100.0, body=body)
    return Arrival(device=CAM, kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=100.0)


def birth(of: int) -> Arrival:
    envelope = UpEnvelope(id=new_token(), boot=boot(of), seq=0, sent=100.0, body=Birth(online=True))
    return Arrival(device=CAM, kind=Up.BIRTH, envelope=envelope, payload=mqtt.pack(envelope), received=100.0)


def ranges(place: Place) -> list[tuple[int, int]]:
    table = "numbers" if isinstance(place, PostgresPlace) else "trimmed"
    return [tuple(row) for row in place.sql(f"SELECT first, last FROM {table} ORDER BY boot, first")]  # noqa: S608


async def trimmed(store: AnyStore, retention: Retention = NOTHING) -> int:
    """Trim until there is nothing more to do; how many steps it took."""
    steps = 0
    while done := await store.trim(retention, now=1e6):
        assert done <= STEP_ROWS
        steps += 1
    return steps


def leave_out_every_other_number(place: Place, count: int) -> None:
    """Have so many even numbers of the one boot come: in the log, or, where days go whole, gone with their day."""
    into = (
        "numbers (boot, first, last) SELECT boots.id, 2 * i, 2 * i"
        if isinstance(place, PostgresPlace)
        else "log (boot, seq, kind, message, sent, received, payload) SELECT boots.id, 2 * i, 'event', '', 1, 1, ''"
    )
    place.sql(
        f"WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"  # noqa: S608
        f" INSERT INTO {into} FROM n, boots"
    )
    if isinstance(place, SqlitePlace):  # the minutes know them all: what they cost is not looked at here
        place.sql(f"INSERT INTO counters VALUES ('condensed', {count})")  # noqa: S608


@given(st.sets(st.integers(0, 60)), st.integers(1, 8))
def test_closing_gaps_loses_no_number_and_leaves_the_highest_as_they_are(numbers: set[int], most: int) -> None:
    exact = join_ranges((number, number) for number in numbers)
    kept = close_oldest(exact, most)
    assert len(kept) == min(len(exact), most)
    assert join_ranges(kept) == kept
    assert join_ranges([*exact, *kept]) == kept
    assert kept[1:] == exact[len(exact) - len(kept) + 1 :]


def test_a_hundred_thousand_gaps_cost_a_thousand_rows(place: Place) -> None:
    count = 100_000

    async def play(store: AnyStore) -> None:
        await store.commit([event(2)])
        leave_out_every_other_number(place, count)
        await trimmed(store)
        kept = ranges(place)
        assert len(kept) == KEPT_RANGES
        assert kept[0] == (2, 2 * (count - KEPT_RANGES + 1))
        assert (await store.totals()).closed_gaps == count - KEPT_RANGES
        again = await store.commit([event(seq) for seq in (2, 2 * count, 3, 2 * count - 1)])
        # Of the two that never came, the one among the oldest is taken for a repetition.
        assert [one.event.text for one in again.events] == [f"0/{2 * count - 1}"]
        assert again.duplicates == 3

    within(place, play)


def test_twenty_thousand_boots_cost_a_thousand_rows(place: Place) -> None:
    count = 20_000

    async def play(store: AnyStore) -> None:
        await store.commit([birth(0), event(1)])
        place.sql(
            f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"  # noqa: S608
            f" INSERT INTO boots (device, boot) SELECT devices.id, '{'f' * 16}' || i FROM n, devices"
        )
        await trimmed(store)
        assert place.count("boots") == KEPT_BOOTS + 1  # the current one, too, old as it is
        assert (await store.totals()).forgotten_boots == count - KEPT_BOOTS
        assert (await store.commit([event(1)])).duplicates == 1
        assert await trimmed(store, EVERYTHING) == 0

    within(place, play)


def test_a_boot_stays_while_the_log_has_a_message_of_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forgetting, "KEPT_BOOTS", 5)

    async def play(store: AnyStore) -> None:
        await store.commit([event(1, of=of) for of in range(20)])
        await trimmed(store, EVERYTHING)
        assert place.count("boots") == 20
        await trimmed(store)
        assert place.count("boots") == 5
        assert (await store.totals()).forgotten_boots == 15
        assert (await store.commit([event(1, of=19)])).duplicates == 1
        # As long ago as that, nothing tells it from a new one any more.
        assert (await store.commit([event(1, of=0)])).stored == 1

    within(place, play)


def test_a_boot_that_is_forgotten_takes_its_ranges_along(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forgetting, "KEPT_BOOTS", 2)

    async def play(store: AnyStore) -> None:
        await store.commit([event(seq, of=of) for of in range(4) for seq in (1, 3, 5)])
        await trimmed(store)
        assert len(ranges(place)) == 2 * 3

    within(place, play)


def test_a_gap_between_messages_that_the_log_has_stays_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a spool whose events are in, while its telemetry is on the way."""
    monkeypatch.setattr(_forgetting, "KEPT_RANGES", 2)
    numbers = range(1, 61)

    async def play(store: AnyStore) -> None:
        await store.commit([event(seq) for seq in numbers if seq % 3 == 0])
        await trimmed(store, EVERYTHING)
        assert (await store.totals()).closed_gaps == 0
        assert (await store.commit([event(seq) for seq in numbers])).stored == 40

    within(place, play)


# Batches of devices and numbers; at None the log is trimmed.
STEPS = st.lists(
    st.one_of(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 16)), max_size=8), st.none()), max_size=14
)


def counts_no_number_twice(place: Place, steps: list[list[tuple[int, int]] | None]) -> None:
    seen: set[str] = set()

    async def play(store: AnyStore) -> None:
        lost = False
        for batch in steps:
            if batch is None:
                await trimmed(store)
                assert len(ranges(place)) <= 2 * 2
                continue
            committed = await store.commit([event(seq, of=of) for of, seq in batch])
            new = [one.event.text for one in committed.events]
            assert len(set(new)) == len(new)
            assert not seen & set(new)
            seen.update(new)
            lost |= any(f"{of}/{seq}" not in seen for of, seq in batch)
        assert not lost or (await store.totals()).closed_gaps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_forgetting, "KEPT_RANGES", 2)
        within(place, play)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_however_little_is_remembered_no_number_counts_twice(
    tmp_path: Path, steps: list[list[tuple[int, int]] | None]
) -> None:
    counts_no_number_twice(SqlitePlace(tmp_path), steps)


@pytest.mark.postgres
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_however_little_postgresql_remembers_no_number_counts_twice(
    postgres: PostgresServer, steps: list[list[tuple[int, int]] | None]
) -> None:
    with postgres_place(postgres) as place:
        counts_no_number_twice(place, steps)


def test_what_is_too_much_goes_while_a_little_goes_by_age(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(1)])
        await store.roll_up(now=1e6)
        await store.add_audit(AuditRecord(at=1.0, who="ann", role="admin", what="token", target="x"))
        await store.trim(Retention(max_age_s=1e9, max_bytes=1, audit_age_s=1.0), now=1e6)  # once: that was little

    within(place, play)
    assert place.count("log") == 0


@pytest.mark.postgres
def test_what_is_old_goes_where_forgetting_fails(database: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_connection: object) -> int:
        raise StoreError("it takes too long")

    async def play(store: AnyStore) -> None:
        await store.add_audit(AuditRecord(at=1.0, who="ann", role="admin", what="token", target="x"))
        monkeypatch.setattr(postgres_store, "forget", fails)
        with pytest.raises(StoreError, match="too long"):
            await store.trim(Retention(audit_age_s=1.0), now=1e6)

    within(database, play)
    assert database.count("audit") == 0


@pytest.mark.postgres
def test_gaps_are_closed_while_numbers_come_into_them(database: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forgetting, "KEPT_RANGES", 10)
    odd = random.Random(3).sample(range(3, 4000, 2), 400)

    async def play() -> None:
        store, other = [await PostgresStore.open(database.url) for _ in range(2)]
        try:
            await store.commit([event(2)])
            leave_out_every_other_number(database, 2000)

            async def commit() -> int:
                batches = [[event(seq) for seq in odd[start : start + 20]] for start in range(0, len(odd), 20)]
                return sum([(await store.commit(batch)).stored for batch in batches])

            stored, _ = await asyncio.gather(commit(), trimmed(other, EVERYTHING))
            assert (await store.totals()).messages == stored + 1
        finally:
            for each in (store, other):
                await each.close()
        assert database.count("log") == stored + 1

    asyncio.run(play())
    kept = ranges(database)
    assert join_ranges(kept) == kept
    assert all(any(first <= number <= last for first, last in kept) for number in range(2, 4001, 2))
