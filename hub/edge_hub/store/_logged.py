"""Telemetry messages as the log has them: by device and time, and what is in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from edge_hub.store._rows import Row
from edge_hub.store.condense import moments
from edge_sdk import mqtt
from edge_sdk.errors import WireError
from edge_sdk.mqtt import Sample, Up

_PAGE_ROWS = 100
LONGEST_BATCH_S = 86_400.0  # the most that `mqtt.Configure.telemetry_every_s` can be


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A telemetry message of the log.

    Attributes:
        when: The moment at which each sample counts.
    """

    boot: str
    seq: int
    received: float
    samples: tuple[Sample, ...]
    when: tuple[float, ...]


def log_of(connection: sqlite3.Connection, device: int, *, since: float, until: float) -> Iterator[Logged]:
    """A device's telemetry messages that may hold samples of this time, boot by boot as they were composed.

    There is no index by time, which would cost every message that comes in: within a boot numbers and times both go up,
    so where to begin is found by halving. (Where a clock was set back within a boot, something may be overlooked here;
    minutes and hours know of it.)
    """
    for boot in connection.execute("SELECT id, boot FROM boots WHERE device = ?", (device,)).fetchall():
        for row in _since(connection, boot["id"], since):
            if row["kind"] != Up.TELE.value:
                continue
            message = logged(row, boot["boot"])
            if min(message.when, default=until - 1) >= until:
                break
            yield message


def logged(row: Row, boot: str) -> Logged:
    """A message from its row in the log."""
    samples, received = samples_of(row["payload"]), row["received"]
    when = tuple(moments(samples, received=received))
    return Logged(boot=boot, seq=row["seq"], received=received, samples=samples, when=when)


def _since(connection: sqlite3.Connection, boot: int, since: float) -> Iterator[sqlite3.Row]:
    """The messages of a boot that were sent then or later, by number, a page at a time."""
    seq = _first_since(connection, boot, since)
    while seq is not None:
        page = connection.execute(
            "SELECT seq, kind, received, payload FROM log WHERE boot = ? AND seq >= ? ORDER BY seq LIMIT ?",
            (boot, seq, _PAGE_ROWS),
        ).fetchall()
        yield from page
        seq = page[-1]["seq"] + 1 if len(page) == _PAGE_ROWS else None


def _first_since(connection: sqlite3.Connection, boot: int, since: float) -> int | None:
    """The number of the first message of a boot that was sent then or later; None where there is none."""
    last = connection.execute("SELECT seq, sent FROM log WHERE boot = ? ORDER BY seq DESC LIMIT 1", (boot,)).fetchone()
    if last is None or last["sent"] < since:
        return None
    low, high = 0, int(last["seq"])
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            "SELECT seq, sent FROM log WHERE boot = ? AND seq >= ? ORDER BY seq LIMIT 1", (boot, middle)
        ).fetchone()
        if row["sent"] >= since:
            high = middle
        else:
            low = int(row["seq"]) + 1
    return low


def samples_of(payload: bytes) -> tuple[Sample, ...]:
    """Of a telemetry message in the log; none where this version does not read it any more."""
    try:
        samples: tuple[Sample, ...] = mqtt.unpack_up(Up.TELE, payload).body.samples
    except WireError:
        return ()
    return samples
