"""What the store keeps: each number once whatever comes in whatever order, and within its bounds."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hub.errors import EnrolledError, StoreError, UnknownDeviceError
from edge_hub.ranges import to_ranges
from edge_hub.store import _retention
from edge_hub.store.records import Arrival, CommandRecord, CommandState, Malformed, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Event, Report, Up, UpEnvelope
from edge_sdk.wire import new_token

T = TypeVar("T")

CAM = DeviceId(tenant="acme", device="cam1")
EVERYTHING = Retention(max_age_s=1e9, max_bytes=10**12)
NOTHING = Retention(max_age_s=0.0, max_bytes=10**12)


def within(path: Path, work: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Run with a store that is closed in the end."""

    async def run() -> T:
        store = SqliteStore(path)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_number_counts_once_and_is_confirmed_each_time(tmp_path: Path, steps: list[tuple[str, object]]) -> None:
    path = tmp_path / f"{new_token()}.db"
    seen: set[tuple[int, int]] = set()
    came = 0

    async def play() -> None:
        nonlocal came
        store = SqliteStore(path)
        for what, batch in steps:
            if what == "trim":
                while await store.trim(NOTHING, now=1e6):
                    pass
            elif what == "reopen":
                await store.close()
                store = SqliteStore(path)
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


def test_what_is_too_old_goes_and_the_latest_state_stays(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.commit([event(1, received=100.0, text="old"), event(2, received=900.0, text="new")])
        assert await store.trim(Retention(max_age_s=500.0, max_bytes=10**9), now=1000.0) > 0
        assert await store.trim(Retention(max_age_s=500.0, max_bytes=10**9), now=1000.0) == 0
        assert [one.event.text for one in await store.events()] == ["new"]
        record = await store.device(CAM)
        assert record is not None
        assert record.messages == 2
        committed = await store.commit([event(1, received=1000.0, text="old")])
        assert (committed.stored, committed.duplicates) == (0, 1)

    within(tmp_path / "hub.db", play)


def test_what_is_too_much_goes_until_it_fits(tmp_path: Path) -> None:
    bound = Retention(max_age_s=1e9, max_bytes=400_000)

    async def play(store: SqliteStore) -> None:
        for start in range(0, 2000, 500):
            await store.commit([event(start + n + 1, text="x" * 900) for n in range(500)])
        assert (await store.totals()).size_bytes > bound.max_bytes
        while await store.trim(bound, now=1000.0):
            pass
        totals = await store.totals()
        assert totals.size_bytes <= bound.max_bytes
        assert totals.messages == 2000
        assert len(await store.events(limit=1000)) > 0 or totals.events == 2000

    within(tmp_path / "hub.db", play)


def test_a_bound_that_cannot_be_kept_ends_the_trimming_all_the_same(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.commit([event(1)])
        for _ in range(10):
            if not await store.trim(Retention(max_age_s=1e9, max_bytes=1), now=1000.0):
                return
        pytest.fail("it never ends")

    within(tmp_path / "hub.db", play)


def test_boots_are_remembered_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retention, "_KEPT_BOOTS", 5)
    path = tmp_path / "hub.db"

    async def play(store: SqliteStore) -> None:
        await store.commit([event(1, of=of) for of in range(20)])
        while await store.trim(EVERYTHING, now=1000.0):
            pass
        assert kept() == 20  # their messages are there
        while await store.trim(NOTHING, now=1e6):
            pass
        assert kept() == 5
        committed = await store.commit([event(1, of=19)])
        assert committed.duplicates == 1

    def kept() -> int:
        connection = sqlite3.connect(path)
        try:
            return int(connection.execute("SELECT count(*) FROM boots").fetchone()[0])
        finally:
            connection.close()

    within(path, play)


def test_a_refused_message_is_kept_for_who_looks_but_not_for_ever(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
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

    within(tmp_path / "hub.db", play)


def test_another_message_under_a_number_that_is_taken_is_put_aside(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.commit([event(1, text="first")])
        committed = await store.commit([event(1, text="second")])
        assert (committed.duplicates, committed.malformed) == (1, 1)
        assert [one.event.text for one in await store.events()] == ["first"]
        assert "another message" in (await store.quarantined())[0].problem

    within(tmp_path / "hub.db", play)


def test_commands_for_several_devices_are_kept_all_or_none(tmp_path: Path) -> None:
    nobody = DeviceId(tenant="acme", device="nobody")

    async def play(store: SqliteStore) -> None:
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

    within(tmp_path / "hub.db", play)


def test_a_command_expires_only_after_the_grace(tmp_path: Path) -> None:
    order = CommandRecord(id=new_token(), device=CAM, command=Report(), sent=1.0, expires=10.0)

    async def play(store: SqliteStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.add_commands([order])
        assert await store.expire_commands(now=14.0, grace_s=5.0) == ()
        (over,) = await store.expire_commands(now=16.0, grace_s=5.0)
        assert over.state is CommandState.EXPIRED
        assert await store.expire_commands(now=20.0, grace_s=5.0) == ()

    within(tmp_path / "hub.db", play)


def test_events_are_paged_in_both_directions(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.commit([event(n, text=str(n)) for n in range(1, 11)])
        last = await store.events(limit=3)
        assert [one.event.text for one in last] == ["8", "9", "10"]
        before = await store.events(before=last[0].id, limit=3)
        assert [one.event.text for one in before] == ["5", "6", "7"]
        after = await store.events(after=before[-1].id, limit=2)
        assert [one.event.text for one in after] == ["8", "9"]
        assert await store.events(device=DeviceId(tenant="acme", device="other")) == ()

    within(tmp_path / "hub.db", play)


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (day)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    within(path, lambda store: store.totals())
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
