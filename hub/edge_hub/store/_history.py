"""Telemetry over time in the SQLite store: read from whatever is fine enough; and the store's `History`."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_hub.store._backup import copy
from edge_hub.store._logged import log_of
from edge_hub.store._objections import unknown
from edge_hub.store._opening import SqliteFile
from edge_hub.store._roll_up import apply, in_snapshot, next_step
from edge_hub.store.condense import (
    HOUR_S,
    MINUTE_S,
    Span,
    begin,
    decode_span,
    of_sample,
    points,
    widened,
)
from edge_hub.store.records import Point
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

MAX_POINTS = 2000
LOG_STEP_S = 1.0


def read_history(
    connection: sqlite3.Connection, device: DeviceId, *, since: float, until: float, step_s: float
) -> tuple[Point, ...]:
    """Points of a device; `History.history` says which."""
    check_asked(since, until, step_s)
    row = connection.execute(
        "SELECT id FROM devices WHERE tenant = ? AND name = ?", (device.tenant, device.device)
    ).fetchone()
    if row is None:
        raise unknown(device)
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


def check_asked(since: float, until: float, step_s: float) -> None:
    """Refuse what is no span of time, or too many points.

    Raises:
        UsageError: Says why.
    """
    if not (0 <= since < until < math.inf and LOG_STEP_S <= step_s < math.inf):
        raise UsageError("a history needs since < until and a step of 1 s or more")
    if math.ceil((until - begin(since, step_s)) / step_s) > MAX_POINTS:
        raise UsageError(
            f"more than {MAX_POINTS} points", hint=f"ask for a step of {math.ceil((until - since) / MAX_POINTS) + 1} s"
        )


def _from_log(connection: sqlite3.Connection, device: int, since: float, until: float) -> Iterator[tuple[float, Span]]:
    """Each sample by itself."""
    for message in log_of(connection, device, since=since, until=until):
        for moment, sample in zip(message.when, message.samples, strict=True):
            if since <= moment < until:
                yield moment, of_sample(sample, moment=moment)


def _condensed(
    step: int, connection: sqlite3.Connection, device: int, since: float, until: float
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
    _Level(width_s=LOG_STEP_S, read=_from_log),
    _Level(width_s=MINUTE_S, read=partial(_condensed, MINUTE_S)),
    _Level(width_s=HOUR_S, read=partial(_condensed, HOUR_S)),
)


class SqliteHistory(SqliteFile):
    """`History` of a `SqliteStore`."""

    async def history(self, device: DeviceId, *, since: float, until: float, step_s: float) -> tuple[Point, ...]:
        """At most 2,000 points in ascending order, from whichever of samples, minutes and hours has this step."""
        return await self._read(lambda c: read_history(c, device, since=since, until=until, step_s=step_s))

    async def roll_up(self, *, now: float) -> int:  # noqa: ARG002 - one writer: nothing is still on its way
        """Condense some of what is in the log and not in the minutes and hours yet; how many messages."""
        step = await self._read(lambda c: in_snapshot(c, next_step))
        if step.messages:
            await self._write(lambda c: apply(c, step))
        return step.messages

    async def back_up(self, target: Path) -> None:
        """A consistent copy of everything while the hub runs; whole or not at all."""
        stopped = threading.Event()
        try:
            await asyncio.to_thread(copy, self._path, target, stopped=stopped.is_set)
        finally:
            stopped.set()  # the thread ends within a step
