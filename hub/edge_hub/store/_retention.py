"""Deleting what exceeds the bounds, a little at a time, so that arriving messages never wait long."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from edge_hub.store._forgetting import forget_boots, remember
from edge_hub.store._roll_up import apply, mark, next_step, set_mark
from edge_hub.store.condense import HOUR_S, MINUTE_S
from edge_hub.store.records import Retention

_STEP_ROWS = 1000


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the database holds; pages freed by deleting are used again and don't count."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page_bytes)


def trim(connection: sqlite3.Connection, retention: Retention, boots: Sequence[int], *, now: float) -> int:
    """Delete about one step's worth, within a transaction.

    Args:
        connection: To write with.
        retention: What is kept.
        boots: What there is too much of, see `_forgetting.boots_too_many`.
        now: Seconds since 1970.

    Returns:
        How many rows.
    """
    deleted = 0
    for rule in _by_age(connection, retention, boots, now):
        deleted += rule()
        if deleted >= _STEP_ROWS:
            return deleted
    # Also where a little went by age, as it always does: who asks again only after much would never come to this.
    if used_bytes(connection) > retention.max_bytes:
        deleted += _trim_for_size(connection, retention, now)
    return deleted


def _by_age(
    connection: sqlite3.Connection, retention: Retention, boots: Sequence[int], now: float
) -> Iterator[Callable[[], int]]:
    too_old = now - retention.max_age_s
    yield lambda: _trim_log(connection, too_old)
    yield lambda: _trim_in_order(connection, "events", "received", too_old)
    yield lambda: _trim_found(connection, "commands", "finished IS NOT NULL AND finished < ?", "finished", too_old)
    for step, age_s in ((MINUTE_S, retention.minutes_age_s), (HOUR_S, retention.hours_age_s)):
        yield partial(_trim_condensed, connection, step, now - age_s)
    yield lambda: _trim_in_order(connection, "audit", "at", now - retention.audit_age_s)
    yield lambda: _trim_found(
        connection, "alerts", "ended IS NOT NULL AND ended < ?", "ended", now - retention.alerts_age_s
    )
    yield lambda: forget_boots(connection, boots)


def _trim_for_size(connection: sqlite3.Connection, retention: Retention, now: float) -> int:
    """Messages and minutes are the bulk: of the two goes what has come nearer to its age; then hours, then events."""
    first = connection.execute("SELECT received FROM log ORDER BY id LIMIT 1").fetchone()
    minute = connection.execute("SELECT min(at) FROM condensed WHERE step = ?", (MINUTE_S,)).fetchone()
    used = {
        _trim_log: _share(first, now, retention.max_age_s),
        _trim_minutes: _share(minute, now, retention.minutes_age_s),
    }
    for rule in (*sorted(used, key=lambda rule: used[rule], reverse=True), _trim_hours, _trim_events):
        deleted = rule(connection, math.inf)
        if deleted:
            return deleted
    return 0


def _share(oldest: sqlite3.Row | None, now: float, age_s: float) -> float:
    """How much of its age the oldest row has behind it."""
    return -math.inf if oldest is None or oldest[0] is None else (now - oldest[0]) / max(age_s, 1.0)


def _trim_minutes(connection: sqlite3.Connection, too_old: float) -> int:
    return _trim_condensed(connection, MINUTE_S, too_old)


def _trim_hours(connection: sqlite3.Connection, too_old: float) -> int:
    return _trim_condensed(connection, HOUR_S, too_old)


def _trim_events(connection: sqlite3.Connection, too_old: float) -> int:
    return _trim_in_order(connection, "events", "received", too_old)


def _trim_condensed(connection: sqlite3.Connection, step: int, too_old: float) -> int:
    return connection.execute(
        "DELETE FROM condensed WHERE (device, step, at) IN"
        " (SELECT device, step, at FROM condensed WHERE step = ? AND at < ? ORDER BY at LIMIT ?)",
        (step, too_old, _STEP_ROWS),
    ).rowcount


def _trim_in_order(connection: sqlite3.Connection, table: str, column: str, too_old: float) -> int:
    """Of a table that only grows at its end, so that its first row that is young enough ends the search."""
    rows = connection.execute(
        f"SELECT id, {column} AS at FROM {table} ORDER BY id LIMIT ?",  # noqa: S608 - this module's own words
        (_STEP_ROWS,),
    ).fetchall()
    going = _while_older(rows, too_old)
    if going:
        connection.execute(f"DELETE FROM {table} WHERE id <= ?", (going[-1]["id"],))  # noqa: S608 - as above
    return len(going)


def _trim_found(connection: sqlite3.Connection, table: str, where: str, order: str, too_old: float) -> int:
    """Of a table with an index for it."""
    return connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {where} ORDER BY {order} LIMIT ?)",  # noqa: S608 - this module's own words
        (too_old, _STEP_ROWS),
    ).rowcount


def _trim_log(connection: sqlite3.Connection, too_old: float) -> int:
    rows = connection.execute(
        "SELECT id, boot, seq, received AS at FROM log ORDER BY id LIMIT ?", (_STEP_ROWS,)
    ).fetchall()
    going = _rolled_up(connection, _while_older(rows, too_old))
    if not going:
        return 0
    by_boot: dict[int, list[int]] = {}
    for row in going:
        by_boot.setdefault(row["boot"], []).append(row["seq"])
    for boot, numbers in by_boot.items():
        remember(connection, boot, numbers)
    connection.execute("DELETE FROM log WHERE id <= ?", (going[-1]["id"],))
    if connection.execute("SELECT 1 FROM log LIMIT 1").fetchone() is None:
        set_mark(connection, 0)  # SQLite counts from 1 again
    return len(going)


def _rolled_up(connection: sqlite3.Connection, going: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """Those of which the minutes know; where there are none, the next step of the roll-up is made here."""
    if going and going[0]["id"] > mark(connection):
        apply(connection, next_step(connection))
    rolled = mark(connection)
    return [row for row in going if row["id"] <= rolled]


def _while_older(rows: list[sqlite3.Row], too_old: float) -> list[sqlite3.Row]:
    for index, row in enumerate(rows):
        if row["at"] >= too_old:
            return rows[:index]
    return rows
