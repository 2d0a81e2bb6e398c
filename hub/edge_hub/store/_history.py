"""Telemetry over time in the SQLite store: read from whatever is fine enough; and the store's `History`."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from edge_hub.store._assembly import LOG_STEP_S, Assembly
from edge_hub.store._backup import copy
from edge_hub.store._logged import log_of
from edge_hub.store._objections import unknown
from edge_hub.store._opening import SqliteFile
from edge_hub.store._roll_up import apply, in_snapshot, next_step
from edge_hub.store.condense import (
    HOUR_S,
    MINUTE_S,
    Span,
    decode_span,
    of_sample,
)
from edge_hub.store.records import Point
from edge_sdk.mqtt import DeviceId


def read_history(
    connection: sqlite3.Connection, device: DeviceId, *, since: float, until: float, step_s: float
) -> tuple[Point, ...]:
    """Points of a device; `History.history` says which."""
    assembly = Assembly(since=since, until=until, step_s=step_s)
    row = connection.execute(
        "SELECT id FROM devices WHERE tenant = ? AND name = ?", (device.tenant, device.device)
    ).fetchone()
    if row is None:
        raise unknown(device)
    for width_s in assembly.widths_s:
        assembly.add(_KEPT[width_s](connection, row["id"], assembly.first, assembly.edge), width_s=width_s)
    return assembly.points()


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


_Read = Callable[[sqlite3.Connection, int, float, float], Iterator[tuple[float, Span]]]
_KEPT: dict[float, _Read] = {
    LOG_STEP_S: _from_log,
    MINUTE_S: partial(_condensed, MINUTE_S),
    HOUR_S: partial(_condensed, HOUR_S),
}


class SqliteHistory(SqliteFile):
    """`History` of a `SqliteStore`."""

    async def history(self, device: DeviceId, *, since: float, until: float, step_s: float) -> tuple[Point, ...]:
        """At most 2,000 points in ascending order, from whichever of samples, minutes and hours has this step."""
        return await self._read(lambda c: read_history(c, device, since=since, until=until, step_s=step_s))

    async def roll_up(self, *, now: float) -> int:  # noqa: ARG002 - one writer: nothing is still on its way
        """Condense some of what is in the log and not in the minutes and hours yet; how many messages."""
        async with self._condensing:
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
