"""Deleting what exceeds the bounds, a little at a time, so that arriving messages never wait long."""

from __future__ import annotations

import sqlite3

from edge_hub.ranges import to_ranges
from edge_hub.store.records import Retention

_STEP_ROWS = 2000
# A spool is replayed within days; a thousand restarts later nothing of that boot comes any more.
_KEPT_BOOTS = 1000


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the database holds; pages freed by deleting are used again and don't count."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page_bytes)


def trim(connection: sqlite3.Connection, retention: Retention, *, now: float) -> int:
    """Delete one step's worth, within a transaction; returns how many rows."""
    too_old = now - retention.max_age_s
    too_much = used_bytes(connection) > retention.max_bytes
    deleted = _trim_log(connection, too_old=too_old, too_much=too_much)
    # Telemetry is the bulk: events only go for their age, or when no log is left to delete.
    by_size = too_much and not deleted
    deleted += connection.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE received < ? OR ? ORDER BY id LIMIT ?)",
        (too_old, by_size, _STEP_ROWS),
    ).rowcount
    deleted += connection.execute(
        "DELETE FROM commands WHERE id IN"
        " (SELECT id FROM commands WHERE state <> 'pending' AND finished < ? ORDER BY sent LIMIT ?)",
        (too_old, _STEP_ROWS),
    ).rowcount
    return deleted + _trim_boots(connection)


def _trim_boots(connection: sqlite3.Connection) -> int:
    """Forget a device's oldest boots of which no message is left, beyond those worth remembering."""
    crowded = connection.execute(
        "SELECT device FROM boots GROUP BY device HAVING count(*) > ?", (_KEPT_BOOTS,)
    ).fetchall()
    deleted = 0
    for row in crowded:
        going = connection.execute(
            "SELECT b.id FROM boots b JOIN devices d ON d.id = b.device"
            " WHERE b.device = ? AND b.boot IS NOT d.boot AND NOT EXISTS (SELECT 1 FROM log WHERE log.boot = b.id)"
            " AND b.id <= (SELECT id FROM boots WHERE device = b.device ORDER BY id DESC LIMIT 1 OFFSET ?) LIMIT ?",
            (row["device"], _KEPT_BOOTS, _STEP_ROWS),
        ).fetchall()
        for boot in going:
            connection.execute("DELETE FROM trimmed WHERE boot = ?", (boot["id"],))
            connection.execute("DELETE FROM boots WHERE id = ?", (boot["id"],))
        deleted += len(going)
    return deleted


def _trim_log(connection: sqlite3.Connection, *, too_old: float, too_much: bool) -> int:
    rows = connection.execute("SELECT id, boot, seq, received FROM log ORDER BY id LIMIT ?", (_STEP_ROWS,)).fetchall()
    # The log grows at its end, so the first row that is young enough ends the search.
    going = rows if too_much else _while_older(rows, too_old)
    if not going:
        return 0
    by_boot: dict[int, list[int]] = {}
    for row in going:
        by_boot.setdefault(row["boot"], []).append(row["seq"])
    for boot, numbers in by_boot.items():
        for first, last in to_ranges(numbers):
            _remember(connection, boot, first, last)
    connection.execute("DELETE FROM log WHERE id <= ?", (going[-1]["id"],))
    return len(going)


def _while_older(rows: list[sqlite3.Row], too_old: float) -> list[sqlite3.Row]:
    for index, row in enumerate(rows):
        if row["received"] >= too_old:
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
