"""Telemetry of the SQLite store's log, rolled up into minutes and hours in steps.

What is rolled up already is one number, the id of the last message of the log that was; it moves in the transaction
that writes the sums. So each sample counts once, whatever is killed when.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edge_hub.store._logged import samples_of
from edge_hub.store._rows import Row
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
)

T = TypeVar("T")

# A step ends at whichever comes first.
_STEP_MESSAGES = 250
_STEP_BYTES = 128 * 1024
_STEP_ROWS = 2000
MARK = "condensed"

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
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (MARK,)).fetchone()
    return 0 if row is None else int(row[0])


def set_mark(connection: sqlite3.Connection, last: int) -> None:
    """Remember it; in the transaction that makes it true."""
    connection.execute(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (MARK, last)
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
                sum_up(row, spans)
            if size_bytes >= _STEP_BYTES or len(spans) >= _STEP_ROWS:
                break
    return Step(
        after=after,
        last=last,
        messages=messages,
        rows=tuple((*key, encode_span(_with_present(connection, key, spans[key]))) for key in sorted(spans)),
    )


def sum_up(row: Row, spans: dict[Key, Span]) -> None:
    """Add the samples of a telemetry message to the minutes and hours that are summed up."""
    for at, span in condense(samples_of(row["payload"]), received=row["received"]).items():
        gather(spans, (row["device"], MINUTE_S, int(at)), span)
        gather(spans, (row["device"], HOUR_S, int(begin(at, HOUR_S))), span)


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
