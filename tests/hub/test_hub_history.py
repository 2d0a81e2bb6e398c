"""The history of a device: each sample once, as fine as it is kept, and a copy of everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import PATIENCE_S
from history_stage import CAM, NOON, OTHER, boot, rolled_up, sample, telemetry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_stage import AnyStore, Place, within

from edge_hub.errors import StoreError, UnknownDeviceError
from edge_hub.store import _backup, _roll_up
from edge_hub.store.records import Arrival, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_sdk.errors import StorageError, UsageError
from edge_sdk.wire import new_token

NOTHING = Retention(max_age_s=0.0, max_bytes=10**12)


def rows(path: Path) -> dict[tuple[int, int, int], bytes]:
    connection = sqlite3.connect(path)
    try:
        return {row[:3]: row[3] for row in connection.execute("SELECT device, step, at, body FROM condensed")}
    finally:
        connection.close()


def day(*, step_s: int = 600, batch: int = 6) -> list[Arrival]:
    """A day of a device's, a sample every ten minutes, six to a message."""
    samples = [sample(NOON + n * step_s, temp_c=20.0 + n % 50) for n in range(86_400 // step_s)]
    return [
        telemetry(seq, samples[start : start + batch])
        for seq, start in enumerate(range(0, len(samples), batch), start=1)
    ]


def test_minutes_and_hours_come_from_the_log_once(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit(day())
        assert await rolled_up(store) == 24
        assert await rolled_up(store) == 0
        minutes = await store.history(CAM, since=NOON, until=NOON + 86_400, step_s=60)
        hours = await store.history(CAM, since=NOON, until=NOON + 86_400, step_s=3600)
        # The first sample is of the window before noon.
        assert (len(minutes), len(hours)) == (143, 24)
        assert sum(point.samples for point in minutes) == 143
        assert sum(point.calls for point in hours) == 1430
        assert [point.at for point in hours] == [NOON + 3600 * n for n in range(24)]
        tens = await store.history(CAM, since=NOON, until=NOON + 3600, step_s=600)
        assert [point.samples for point in tens] == [1, 1, 1, 1, 1, 1]

    within(place, play)


def test_a_spool_that_is_replayed_days_later_counts_where_it_belongs(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        live, spooled = day()[0::2], day()[1::2]
        await store.commit(live)
        await rolled_up(store)
        for arrival in spooled:
            await store.commit([arrival, arrival])  # and each twice, as after a connection that broke
        await rolled_up(store)
        hours = await store.history(CAM, since=NOON, until=NOON + 86_400, step_s=3600)
        assert [point.samples for point in hours] == [6] * 23 + [5]

    within(place, play)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.lists(st.integers(0, 39), max_size=8)),
        st.tuples(st.just("roll up"), st.integers(1, 5)),
        st.tuples(st.just("cut"), st.none()),
        st.tuples(st.just("trim"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=12,
)
MADE = [telemetry(n + 1, [sample(NOON + 45 * n, temp_c=n)], of=n % 2) for n in range(40)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_sample_counts_once_whatever_is_cut_or_trimmed_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, object]]
) -> None:
    path, straight = tmp_path / f"{new_token()}.db", tmp_path / f"{new_token()}.db"
    came: dict[int, Arrival] = {}

    async def play() -> None:
        store = SqliteStore(path)
        for what, how in steps:
            if what == "commit":
                batch = {n: MADE[n] for n in how}  # type: ignore[attr-defined]
                came.update(batch)
                await store.commit(list(batch.values()))
            elif what == "roll up":
                monkeypatch.setattr(_roll_up, "_STEP_MESSAGES", how)
                await store.roll_up(now=NOON)
            elif what == "cut":  # as if killed between reading a step and adding it, or while adding it
                await store._read(_roll_up.next_step)
                with pytest.raises(ZeroDivisionError):
                    await store._write(lambda c: _roll_up.apply(c, _roll_up.next_step(c)) // 0)
            elif what == "trim":
                while await store.trim(NOTHING, now=NOON + 1e6):
                    pass
            else:
                await store.close()
                store = SqliteStore(path)
        await rolled_up(store)
        await store.close()

    asyncio.run(play())

    async def at_once(store: SqliteStore) -> None:
        await store.commit([came[n] for n in came])
        await rolled_up(store)

    within(straight, at_once)
    assert rows(path) == rows(straight)


KILLED = """
import asyncio, sys
from pathlib import Path
from history_stage import NOON
from edge_hub.store import _roll_up
from edge_hub.store.sqlite import SqliteStore

_roll_up._STEP_MESSAGES = 2

async def run():
    store = SqliteStore(Path(sys.argv[1]))
    print("up", flush=True)
    while await store.roll_up(now=NOON):
        print("step", flush=True)
    await store.close()

asyncio.run(run())
"""


def test_a_roll_up_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path, straight = tmp_path / "hub.db", tmp_path / "straight.db"
    for where in (path, straight):
        within(where, lambda store: store.commit(day()))
    for steps in (1, 3, 2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        )
        assert process.stdout is not None
        with process.stdout:
            for _ in range(steps + 1):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            process.wait()
    within(path, rolled_up)
    within(straight, rolled_up)
    assert rows(path) == rows(straight)


def test_what_retention_takes_is_summed_up_before(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit(day())
        while await store.trim(NOTHING, now=NOON + 3 * 86_400):
            pass
        hours = await store.history(CAM, since=NOON, until=NOON + 86_400, step_s=3600)
        assert sum(point.samples for point in hours) == 143
        # The log is empty now and counts its rows from 1 again: what comes next is not overlooked.
        await store.commit([telemetry(100, [sample(NOON + 86_400 + 30)])])
        assert await rolled_up(store) == 1

    within(place, play)


def test_what_is_not_kept_that_fine_any_more_comes_coarser(tmp_path: Path) -> None:
    now = NOON + 86_400

    async def play(store: SqliteStore) -> None:
        await store.commit(day())
        await rolled_up(store)
        while await store.trim(Retention(max_age_s=3 * 3600, minutes_age_s=6 * 3600), now=now):
            pass
        found = await store.history(CAM, since=NOON, until=now, step_s=60)
        assert sum(point.samples for point in found) == 143
        assert [point.samples for point in found[:18]] == [6] * 18
        assert {point.samples for point in found[18:]} == {1}
        fine = await store.history(CAM, since=now - 4 * 3600, until=now - 4 * 3600 + 1999, step_s=1)
        assert [point.at % 60 for point in fine] == [0.0] * len(fine)
        assert len(fine) == 3

    within(tmp_path / "hub.db", play)


def test_samples_are_shown_one_by_one_where_the_step_is_short(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        told = [sample(NOON + 10 + n * 10, temp_c=float(n)) for n in range(60)]
        await store.commit([telemetry(1, told[:30]), telemetry(1, told[30:], of=1)])
        await store.commit([telemetry(2, told, of=2, device=OTHER)])
        found = await store.history(CAM, since=NOON, until=NOON + 600, step_s=10)
        assert [point.at for point in found] == [NOON + n * 10 for n in range(60)]
        assert [point.temp_c for point in found] == [(n, n, n) for n in range(60)]
        part = await store.history(CAM, since=NOON + 100, until=NOON + 200, step_s=20)
        assert [(point.at, point.samples) for point in part] == [(NOON + 100 + n * 20, 2) for n in range(5)]

    within(place, play)


def test_too_much_and_nonsense_are_refused(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.commit(day()[:1])
        for since, until, step_s in ((0, NOON, 60), (NOON, NOON, 60), (NOON, NOON + 60, 0), (0, float("nan"), 60)):
            with pytest.raises(UsageError):
                await store.history(CAM, since=since, until=until, step_s=step_s)
        assert await store.history(CAM, since=NOON - 2000 * 60, until=NOON, step_s=60) == ()
        with pytest.raises(UnknownDeviceError):
            await store.history(OTHER, since=NOON, until=NOON + 60, step_s=60)

    within(place, play)


# ----------------------------------------------------------------------------------------------------- retention


def test_each_kind_has_its_age(tmp_path: Path) -> None:
    path, now = tmp_path / "hub.db", NOON + 86_400

    async def play(store: SqliteStore) -> None:
        await store.commit(day())
        await rolled_up(store)
        connection = sqlite3.connect(path)
        with connection:
            for days in (5, 3, 1):
                at = now - days * 86_400
                connection.execute(
                    "INSERT INTO audit (at, who, role, what, target, detail) VALUES (?, 'a', 'admin', 'x', 'y', '{}')",
                    (at,),
                )
                connection.execute(
                    "INSERT INTO alerts (rule, device, severity, began, ended, text) VALUES (?, 1, 'low', 0, ?, '')",
                    (f"r{days}", None if days == 5 else at),
                )
        connection.close()
        kept = Retention(
            max_age_s=1e9,
            minutes_age_s=6 * 3600,
            hours_age_s=12 * 3600,
            audit_age_s=4 * 86_400,
            alerts_age_s=2 * 86_400,
        )
        while await store.trim(kept, now=now):
            pass

    within(path, play)
    steps = [(step, at) for _, step, at in rows(path)]
    assert min(at for step, at in steps if step == 60) >= now - 6 * 3600
    assert min(at for step, at in steps if step == 3600) == now - 12 * 3600
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM log").fetchone() == (24,)
        assert connection.execute("SELECT count(*) FROM audit").fetchone() == (2,)
        assert connection.execute("SELECT rule FROM alerts ORDER BY id").fetchall() == [("r5",), ("r1",)]


def test_for_want_of_room_goes_what_has_come_nearest_to_its_age(tmp_path: Path) -> None:
    path, now = tmp_path / "hub.db", NOON + 86_400

    def counts() -> tuple[int, int]:
        connection = sqlite3.connect(path)
        try:
            return (
                connection.execute("SELECT count(*) FROM log").fetchone()[0],
                connection.execute("SELECT count(*) FROM condensed WHERE step = 60").fetchone()[0],
            )
        finally:
            connection.close()

    async def play(store: SqliteStore, minutes_age_s: float) -> tuple[int, int]:
        await store.trim(Retention(max_age_s=30 * 86_400, minutes_age_s=minutes_age_s, max_bytes=1), now=now)
        return counts()

    async def fill(store: SqliteStore) -> None:
        await store.commit(day())
        await rolled_up(store)

    within(path, fill)
    assert counts() == (24, 144)
    assert within(path, lambda store: play(store, 90 * 86_400)) == (0, 144)
    assert within(path, lambda store: play(store, 90 * 86_400)) == (0, 0)


# ------------------------------------------------------------------------------------------------------- back-up


def test_a_copy_is_made_while_messages_come_and_is_a_hub_when_put_in_place(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def play(store: SqliteStore) -> int:
        done = asyncio.Event()
        stored = 0

        async def messages() -> None:
            nonlocal stored
            while not done.is_set():
                stored += 1
                await store.commit([telemetry(stored, [sample(NOON + stored)], of=1, device=OTHER)])

        writing = asyncio.create_task(messages())
        await store.commit(day())
        await rolled_up(store)
        await store.back_up(copy)
        done.set()
        await writing
        return stored

    stored = within(tmp_path / "hub.db", play)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.db", "hub.db"]

    async def look(store: SqliteStore) -> int:
        hours = await store.history(CAM, since=NOON, until=NOON + 86_400, step_s=3600)
        assert sum(point.samples for point in hours) == 143
        record = await store.device(OTHER)
        committed = await store.commit(
            [telemetry(n, [sample(NOON + n)], of=1, device=OTHER) for n in range(1, stored + 1)]
        )
        return (record.messages if record else 0) + committed.stored

    assert within(copy, look) == stored
    connection = sqlite3.connect(copy)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_log_that_retention_empties_while_it_is_summed_up_counts_once(tmp_path: Path) -> None:
    async def play(store: AnyStore) -> None:
        assert isinstance(store, SqliteStore)
        busy = threading.Event()

        async def asked(work: Coroutine[Any, Any, object], waiting: int) -> asyncio.Future[object]:
            """Begin it; so many wait for the thread that writes, then."""
            task = asyncio.ensure_future(work)
            deadline = time.monotonic() + 0.5
            while store._writer._work_queue.qsize() != waiting and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            return task

        await store.commit([telemetry(1, [sample(NOON)])])
        tasks = [await asked(store._write(lambda _: busy.wait(PATIENCE_S)), 0)]
        tasks.append(await asked(store.trim(Retention(max_age_s=1.0), now=NOON + 60), 1))
        tasks.append(await asked(store.commit([telemetry(2, [sample(NOON + 60)])]), 2))
        tasks.append(await asked(store.roll_up(now=NOON), 3))
        busy.set()
        await asyncio.gather(*tasks)
        await rolled_up(store)
        found = await store.history(CAM, since=NOON - 3600, until=NOON + 3600, step_s=60)
        assert [point.samples for point in found] == [1, 1]

    within(tmp_path / "hub.db", play)


def test_a_copy_that_is_given_up_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backup, "_STEP_PAGES", 1)
    path, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    copy.write_bytes(b"of last week")
    within(path, lambda store: store.commit(day()))
    asked = threading.Event()

    def stopped() -> bool:
        was = asked.is_set()
        asked.set()
        return was

    with pytest.raises(_backup.StoppedError):
        _backup.copy(path, copy, stopped=stopped)
    assert copy.read_bytes() == b"of last week"
    assert sorted(entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("hub.db-")) == [
        "copy.db",
        "hub.db",
    ]


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    foreign = tmp_path / "diary.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE diary (day)")
    connection.close()
    with pytest.raises(StoreError, match="no database of a hub"):
        _backup.copy(foreign, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="there is no database"):
        _backup.copy(tmp_path / "hub.db", tmp_path / "copy.db")
    within(tmp_path / "hub.db", lambda store: store.totals())
    with pytest.raises(StorageError):
        _backup.copy(tmp_path / "hub.db", tmp_path / "nowhere" / "copy.db")
    assert boot(1) == f"{1:032x}"
