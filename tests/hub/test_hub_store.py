"""What the store keeps: each number once whatever comes in whatever order, and within its bounds."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_stage import PostgresServer
from store_stage import AnyStore, Place, SqlitePlace, postgres_place, within

from edge_hub.errors import EnrolledError, StoreError, UnknownDeviceError
from edge_hub.ranges import to_ranges
from edge_hub.store.records import Arrival, CommandRecord, CommandState, Malformed, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Event, Report, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
DAY_S = 86_400.0
NOTHING = Retention(max_age_s=0.0, max_bytes=10**12)


def boot(number: int) -> str:
    return f"{number:032x}"


def event(seq: int, *, of: int = 0, received: float = 100.0, text: str = "", device: DeviceId = CAM) -> Arrival:
    envelope = UpEnvelope(
        id=new_token(), boot=boot(of), seq=seq, sent=received, body=Event(at=received, kind="sensor", text=text)
    )
    return Arrival(device=device, kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=received)


def test_ranges_hold_exactly_the_numbers() -> None:
    assert to_ranges([]) == ()
    assert to_ranges([3, 1, 2, 2, 7]) == ((1, 3), (7, 7))


@given(st.sets(st.integers(0, 50)))
def test_ranges_are_apart_and_whole(numbers: set[int]) -> None:
    found = to_ranges(numbers)
    assert {n for first, last in found for n in range(first, last + 1)} == numbers
    assert all(left[1] + 1 < right[0] for left, right in itertools.pairwise(found))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), max_size=8)),
        st.tuples(st.just("trim"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=12,
)


def counts_each_number_once(place: Place, steps: list[tuple[str, object]]) -> None:
    seen: set[tuple[int, int]] = set()
    came = 0

    async def play() -> None:
        nonlocal came
        store = await place.open()
        for what, batch in steps:
            if what == "trim":
                while await store.trim(NOTHING, now=1e6):
                    pass
            elif what == "reopen":
                await store.close()
                store = await place.open()
            else:
                committed = await store.commit([event(seq, of=of) for of, seq in batch])
                acked = {
                    (int(of, 16), seq)
                    for (_, of), ranges in committed.acks.items()
                    for first, last in ranges
                    for seq in range(first, last + 1)
                }
                assert acked == set(batch)
                came += len(batch)
                assert committed.stored == len(set(batch) - seen)
                assert len(committed.events) == committed.stored
                seen.update(batch)
        record = await store.device(CAM)
        assert (record.messages if record else 0) == len(seen)
        assert (record.duplicates if record else 0) == came - len(seen)
        await store.close()

    asyncio.run(play())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_number_counts_once_and_is_confirmed_each_time(tmp_path: Path, steps: list[tuple[str, object]]) -> None:
    counts_each_number_once(SqlitePlace(tmp_path), steps)


@pytest.mark.postgres
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_number_counts_once_in_postgresql_too(postgres: PostgresServer, steps: list[tuple[str, object]]) -> None:
    with postgres_place(postgres) as place:
        counts_each_number_once(place, steps)


def test_what_is_too_old_goes_and_the_latest_state_stays(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(1, received=1 * DAY_S, text="old"), event(2, received=8.5 * DAY_S, text="new")])
        steps = 0
        while await store.trim(Retention(max_age_s=5 * DAY_S, max_bytes=10**9), now=9 * DAY_S):
            steps += 1
        assert steps
        assert [one.event.text for one in await store.events()] == ["new"]
        record = await store.device(CAM)
        assert record is not None
        assert record.messages == 2
        committed = await store.commit([event(1, received=9 * DAY_S, text="old")])
        assert (committed.stored, committed.duplicates) == (0, 1)

    within(place, play)


def test_what_is_too_much_goes_until_it_fits(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(1)])
        empty = (await store.totals()).size_bytes  # PostgreSQL's tables take some room before anything is in them
        bound = Retention(max_age_s=1e9, max_bytes=empty + 300_000)
        for start in range(0, 2000, 500):
            await store.commit([event(start + n + 1, text="x" * 900) for n in range(500)])
        assert (await store.totals()).size_bytes > bound.max_bytes
        while await store.trim(bound, now=1000.0):
            pass
        totals = await store.totals()
        assert totals.size_bytes <= bound.max_bytes
        assert totals.messages == 2000
        assert len(await store.events(limit=1000)) > 0 or totals.events == 2000

    within(place, play)


def test_a_bound_that_cannot_be_kept_ends_the_trimming_all_the_same(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(1)])
        for _ in range(10):
            if not await store.trim(Retention(max_age_s=1e9, max_bytes=1), now=1000.0):
                return
        pytest.fail("it never ends")

    within(place, play)


def test_a_refused_message_is_kept_for_who_looks_but_not_for_ever(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        for start in range(3):
            refused = [
                Malformed(topic=f"t{start}-{n}", payload=b"x" * 10_000, problem="no", received=1.0) for n in range(500)
            ]
            await store.commit(refused)
        found = await store.quarantined(limit=2000)
        assert len(found) == 1000
        assert found[0].topic == "t2-499"
        assert (found[0].size_bytes, len(found[0].payload)) == (10_000, 4096)
        assert (await store.totals()).malformed == 1500

    within(place, play)


def test_another_message_under_a_number_that_is_taken_is_put_aside(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(1, text="first")])
        committed = await store.commit([event(1, text="second")])
        assert (committed.duplicates, committed.malformed) == (1, 1)
        assert [one.event.text for one in await store.events()] == ["first"]
        assert "another message" in (await store.quarantined())[0].problem

    within(place, play)


def test_commands_for_several_devices_are_kept_all_or_none(place: Place) -> None:
    nobody = DeviceId(tenant="acme", device="nobody")

    async def play(store: AnyStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        orders = [
            CommandRecord(id=new_token(), device=device, command=Report(), sent=1.0, expires=2.0)
            for device in (CAM, nobody)
        ]
        with pytest.raises(UnknownDeviceError):
            await store.add_commands(orders)
        assert await store.pending() == ()
        with pytest.raises(EnrolledError):
            await store.enrol(CAM, "other", now=2.0, again=False)
        assert await store.accounts() == {str(CAM): "hash"}

    within(place, play)


def test_a_command_expires_only_after_the_grace(place: Place) -> None:
    order = CommandRecord(id=new_token(), device=CAM, command=Report(), sent=1.0, expires=10.0)

    async def play(store: AnyStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.add_commands([order])
        assert await store.expire_commands(now=14.0, grace_s=5.0) == ()
        (over,) = await store.expire_commands(now=16.0, grace_s=5.0)
        assert over.state is CommandState.EXPIRED
        assert await store.expire_commands(now=20.0, grace_s=5.0) == ()

    within(place, play)


def test_events_are_paged_in_both_directions(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit([event(n, text=str(n)) for n in range(1, 11)])
        last = await store.events(limit=3)
        assert [one.event.text for one in last] == ["8", "9", "10"]
        before = await store.events(before=last[0].id, limit=3)
        assert [one.event.text for one in before] == ["5", "6", "7"]
        after = await store.events(after=before[-1].id, limit=2)
        assert [one.event.text for one in after] == ["8", "9"]
        assert await store.events(device=DeviceId(tenant="acme", device="other")) == ()

    within(place, play)


def test_a_store_that_is_closed_says_so(place: Place) -> None:
    async def play() -> None:
        store = await place.open()
        await store.close()
        with pytest.raises(StoreError, match="the store is closed"):
            await store.device(CAM)
        with pytest.raises(StoreError, match="the store is closed"):
            await store.enrol(CAM, "hash", now=1.0, again=False)

    asyncio.run(play())


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (day)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    SqliteStore(path)._writing.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"\0" * 8192), "refuses"),
        (lambda path: path.write_bytes(b"no database at all, and long enough to be looked at" * 100), "refuses"),
        (lambda path: path.mkdir(), "refuses"),
        (foreign, "not a hub's"),
        (newer, "format 99"),
    ],
    ids=["zeros", "text", "directory", "foreign", "newer"],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    path = tmp_path / "hub.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=says):
        SqliteStore(path)
    assert (path.read_bytes() if path.is_file() else b"") == before
