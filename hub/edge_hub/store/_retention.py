"""Deleting what exceeds the bounds, a little at a time, so that arriving messages never wait long."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

from edge_hub.ranges import to_ranges
from edge_hub.store._roll_up import apply, mark, next_step, set_mark
from edge_hub.store.condense import HOUR_S, MINUTE_S
from edge_hub.store.records import Retention

_STEP_ROWS = 1000
# A spool is replayed within days; a thousand restarts later nothing of that boot comes any more.
KEPT_BOOTS = 1000


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the database holds; pages freed by deleting are used again and don't count."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page_bytes)


def trim(connection: sqlite3.Connection, retention: Retention, *, now: float) -> int:
    """Delete about one step's worth, within a transaction; returns how many rows."""
    deleted = 0
    for rule in _by_age(connection, retention, now):
        deleted += rule()
        if deleted >= _STEP_ROWS:
            return deleted
    if not deleted and used_bytes(connection) > retention.max_bytes:
        return _trim_for_size(connection, retention, now)
    return deleted


def _by_age(connection: sqlite3.Connection, retention: Retention, now: float) -> Iterator[Callable[[], int]]:
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
    yield lambda: _trim_boots(connection)


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


def _trim_boots(connection: sqlite3.Connection) -> int:
    """Forget a device's oldest boots of which no message is left, beyond those worth remembering."""
    crowded = connection.execute(
        "SELECT device FROM boots GROUP BY device HAVING count(*) > ?", (KEPT_BOOTS,)
    ).fetchall()
    deleted = 0
    for row in crowded:
        going = connection.execute(
            "SELECT b.id FROM boots b JOIN devices d ON d.id = b.device"
            " WHERE b.device = ? AND b.boot IS NOT d.boot AND NOT EXISTS (SELECT 1 FROM log WHERE log.boot = b.id)"
            " AND b.id <= (SELECT id FROM boots WHERE device = b.device ORDER BY id DESC LIMIT 1 OFFSET ?) LIMIT ?",
            (row["device"], KEPT_BOOTS, _STEP_ROWS),
        ).fetchall()
        for boot in going:
            connection.execute("DELETE FROM trimmed WHERE boot = ?", (boot["id"],))
            connection.execute("DELETE FROM boots WHERE id = ?", (boot["id"],))
        deleted += len(going)
    return deleted


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
        for first, last in to_ranges(numbers):
            _remember(connection, boot, first, last)
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


def _remember(connection: sqlite3.Connection, boot: int, first: int, last: int) -> None:
    """Keep the numbers that go, joined with ranges they touch: they must never count again."""
    touching = connection.execute(
        "SELECT first, last FROM trimmed WHERE boot = ? AND first <= ? AND last >= ?", (boot, last + 1, first - 1)
    ).fetchall()
    for row in touching:
        connection.execute("DELETE FROM trimmed WHERE boot = ? AND first = ?", (boot, row["first"]))
    first = min([first, *(row["first"] for row in touching)])
    last = max([last, *(row["last"] for row in touching)])
    connection.execute("INSERT INTO trimmed VALUES (?, ?, ?)", (boot, first, last))
