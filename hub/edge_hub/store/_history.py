"""Telemetry over time in the SQLite store: rolled up from the log in steps, read from whatever is fine enough.

What is rolled up already is one number, the id of the last message of the log that was; it moves in the transaction
that writes the sums. So each sample counts once, whatever is killed when.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from edge_hub.errors import UnknownDeviceError
from edge_hub.store._backup import copy
from edge_hub.store.condense import (
    HOUR_S,
    MINUTE_S,
    Span,
    begin,
    condense,
    decode_span,
    encode_span,
    gather,
    merged,
    moments,
    of_sample,
    points,
    widened,
)
from edge_hub.store.records import Point
from edge_sdk import mqtt
from edge_sdk.errors import UsageError, WireError
from edge_sdk.mqtt import DeviceId, Sample, Up

T = TypeVar("T")

MAX_POINTS = 2000
# A step ends at whichever comes first.
_STEP_MESSAGES = 250
_STEP_BYTES = 128 * 1024
_STEP_ROWS = 2000
_LOG_STEP_S = 1.0
_MARK = "condensed"

Key = tuple[int, int, int]  # device, step, at


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of the roll-up changes.

    Attributes:
        after: The last message rolled up before it.
        last: The last one of it; `after` where there is nothing to do.
        messages: How many it takes.
        rows: The sums as they are with them, by device, step and begin.
    """

    after: int
    last: int
    messages: int
    rows: tuple[tuple[int, int, int, bytes], ...]


def mark(connection: sqlite3.Connection) -> int:
    """The id of the last message of the log that is rolled up."""
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (_MARK,)).fetchone()
    return 0 if row is None else int(row[0])


def set_mark(connection: sqlite3.Connection, last: int) -> None:
    """Remember it; in the transaction that makes it true."""
    connection.execute(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (_MARK, last)
    )


def next_step(connection: sqlite3.Connection) -> Step:
    """Sum up the next messages of the log; only reads. All of the work is here, so that writers hardly wait."""
    after = last = mark(connection)
    spans: dict[Key, Span] = {}
    messages = size_bytes = 0
    rows = connection.execute(
        "SELECT log.id, log.received, boots.device, CASE WHEN log.kind = 'tele' THEN log.payload END AS payload"
        " FROM log JOIN boots ON boots.id = log.boot WHERE log.id > ? ORDER BY log.id LIMIT ?",
        (after, _STEP_MESSAGES),
    )
    with contextlib.closing(rows):
        for row in rows:
            last = row["id"]
            messages += 1
            if row["payload"] is not None:
                size_bytes += len(row["payload"])
                for at, span in condense(samples_of(row["payload"]), received=row["received"]).items():
                    gather(spans, (row["device"], MINUTE_S, int(at)), span)
                    gather(spans, (row["device"], HOUR_S, int(begin(at, HOUR_S))), span)
            if size_bytes >= _STEP_BYTES or len(spans) >= _STEP_ROWS:
                break
    return Step(
        after=after,
        last=last,
        messages=messages,
        rows=tuple((*key, encode_span(_with_present(connection, key, spans[key]))) for key in sorted(spans)),
    )


def _with_present(connection: sqlite3.Connection, key: Key, span: Span) -> Span:
    row = connection.execute("SELECT body FROM condensed WHERE device = ? AND step = ? AND at = ?", key).fetchone()
    return span if row is None else merged(decode_span(row["body"]), span)


def apply(connection: sqlite3.Connection, step: Step) -> bool:
    """Write what a step changes, within a transaction; false, and nothing done, where another came before it."""
    if mark(connection) != step.after:
        return False
    connection.executemany("INSERT OR REPLACE INTO condensed VALUES (?, ?, ?, ?)", step.rows)
    set_mark(connection, step.last)
    return True


def in_snapshot(connection: sqlite3.Connection, look: Callable[[sqlite3.Connection], T]) -> T:
    """Look at one moment of the database, whatever is written meanwhile."""
    connection.execute("BEGIN")
    try:
        return look(connection)
    finally:
        connection.execute("COMMIT")


def read_history(
    connection: sqlite3.Connection, device: DeviceId, *, since: float, until: float, step_s: float
) -> tuple[Point, ...]:
    """Points of a device; `History.history` says which."""
    _check(since, until, step_s)
    row = connection.execute(
        "SELECT id FROM devices WHERE tenant = ? AND name = ?", (device.tenant, device.device)
    ).fetchone()
    if row is None:
        raise UnknownDeviceError(
            "no such device", where=str(device), hint="`edge hub devices` lists them, `edge hub enroll` adds one"
        )
    first = begin(since, step_s)
    start = max(index for index, level in enumerate(_LEVELS) if level.width_s <= step_s)
    found: dict[float, Span] = {}
    # The coarsest that is fine enough; what is not kept that fine any more of the time before comes from the next.
    for level in _LEVELS[start:]:
        edge = min(found, default=until)
        width_s = max(step_s, level.width_s)
        older = widened(level.read(connection, row["id"], first, edge), step_s=width_s)
        found.update({at: span for at, span in older.items() if not found or at + width_s <= edge})
    return points(found)


def _check(since: float, until: float, step_s: float) -> None:
    if not (0 <= since < until < math.inf and _LOG_STEP_S <= step_s < math.inf):
        raise UsageError("a history needs since < until and a step of 1 s or more")
    if math.ceil((until - begin(since, step_s)) / step_s) > MAX_POINTS:
        raise UsageError(
            f"more than {MAX_POINTS} points", hint=f"ask for a step of {math.ceil((until - since) / MAX_POINTS) + 1} s"
        )


def _from_log(connection: sqlite3.Connection, device: int, since: float, until: float) -> Iterator[tuple[float, Span]]:
    """Each sample by itself."""
    boots = connection.execute("SELECT id FROM boots WHERE device = ?", (device,)).fetchall()
    for boot in boots:
        # A message is sent after its last sample was taken, so none that was sent before `since` matters.
        rows = connection.execute(
            "SELECT received, payload FROM log WHERE boot = ? AND kind = 'tele' AND sent >= ? ORDER BY sent",
            (boot["id"], since),
        )
        with contextlib.closing(rows):
            for row in rows:
                told = samples_of(row["payload"])
                when = moments(told, received=row["received"])
                yield from (
                    (moment, of_sample(sample, moment=moment))
                    for moment, sample in zip(when, told, strict=True)
                    if since <= moment < until
                )
                if min(when, default=since) >= until:
                    break


def _minutes(connection: sqlite3.Connection, device: int, since: float, until: float) -> Iterator[tuple[float, Span]]:
    return _condensed(connection, device, MINUTE_S, since, until)


def _hours(connection: sqlite3.Connection, device: int, since: float, until: float) -> Iterator[tuple[float, Span]]:
    return _condensed(connection, device, HOUR_S, since, until)


def _condensed(
    connection: sqlite3.Connection, device: int, step: int, since: float, until: float
) -> Iterator[tuple[float, Span]]:
    rows = connection.execute(
        "SELECT at, body FROM condensed WHERE device = ? AND step = ? AND at >= ? AND at < ? ORDER BY at",
        (device, step, since, until),
    )
    return ((row["at"], decode_span(row["body"])) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Where telemetry is kept, and how fine."""

    width_s: float
    read: Callable[[sqlite3.Connection, int, float, float], Iterator[tuple[float, Span]]]


_LEVELS = (
    _Level(width_s=_LOG_STEP_S, read=_from_log),
    _Level(width_s=MINUTE_S, read=_minutes),
    _Level(width_s=HOUR_S, read=_hours),
)


def samples_of(payload: bytes) -> tuple[Sample, ...]:
    """Of a telemetry message in the log; none where this version does not read it any more."""
    try:
        samples: tuple[Sample, ...] = mqtt.unpack_up(Up.TELE, payload).body.samples
    except WireError:
        return ()
    return samples


class _Doors(Protocol):
    """What a store offers its parts."""

    _path: Path

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the reading thread."""

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the writing thread, as a transaction."""


class SqliteHistory:
    """`History` of a `SqliteStore`."""

    async def history(
        self: _Doors, device: DeviceId, *, since: float, until: float, step_s: float
    ) -> tuple[Point, ...]:
        """At most 2,000 points in ascending order, from whichever of samples, minutes and hours has this step."""
        return await self._read(lambda c: read_history(c, device, since=since, until=until, step_s=step_s))

    async def roll_up(self: _Doors, *, now: float) -> int:  # noqa: ARG002 - one writer: nothing is still on its way
        """Condense some of what is in the log and not in the minutes and hours yet; how many messages."""
        step = await self._read(lambda c: in_snapshot(c, next_step))
        if step.messages:
            await self._write(lambda c: apply(c, step))
        return step.messages

    async def back_up(self: _Doors, target: Path) -> None:
        """A consistent copy of everything while the hub runs; whole or not at all."""
        stopped = threading.Event()
        try:
            await asyncio.to_thread(copy, self._path, target, stopped=stopped.is_set)
        finally:
            stopped.set()  # the thread ends within a step
