"""Partitions by day: made ahead, dropped whole. Days are counted from 1970, in UTC."""

from __future__ import annotations

import calendar
import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_hub.store._postgres_history import all_rolled_up
from edge_hub.store._postgres_pool import rows_changed
from edge_hub.store._postgres_schema import DAILY, LOCK, SCHEMA
from edge_hub.store.condense import HOUR_S, MINUTE_S
from edge_hub.store.records import Retention

if TYPE_CHECKING:
    from edge_hub.store._postgres_pool import Connection

DAY_S = 86_400
# Made ahead of their time: a hub that is not looked after over a weekend must not wait for a lock at midnight.
AHEAD_DAYS = 3
_STEP_ROWS = 2000
# Dropping waits for nobody: who holds a day, reads it; there is a next time.
_PATIENCE = "2s"


def day_of(at: float) -> int:
    """The day of a moment."""
    return int(at // DAY_S)


async def make_days(connection: Connection, days: Iterable[int]) -> None:
    """Make the partitions that are not there, within a transaction; readers and writers go on meanwhile."""
    await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
    for table in DAILY:
        there = {day for day, _ in await kept_days(connection, table)}
        for day in sorted(set(days) - there):
            name = f"{table}_{time.strftime('%Y%m%d', time.gmtime(day * DAY_S))}"
            # Made beside the table and then joined to it: `PARTITION OF` would lock everybody out.
            await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)")
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({day * DAY_S}) TO ({(day + 1) * DAY_S})"
            )


async def kept_days(connection: Connection, table: str) -> list[tuple[int, str]]:
    """Day and name of each partition, the oldest first."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::regclass",
        f"{SCHEMA}.{table}",
    )
    found = []
    for row in rows:
        name = row["relname"]
        when = time.strptime(name.rpartition("_")[2], "%Y%m%d")
        found.append((calendar.timegm(when) // DAY_S, name))
    return sorted(found)


async def used_bytes(connection: Connection) -> int:
    """What all tables and indexes take on the server's disk."""
    return int(
        await connection.fetchval(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'",
            SCHEMA,
        )
    )


async def trim(connection: Connection, retention: Retention, *, now: float) -> int:
    """Delete about one step's worth, within a transaction; returns how many partitions and rows.

    Raises:
        NotRolledUpError: What is to be dropped is not in the minutes yet.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    dropped = await _drop_old_days(connection, now - retention.max_age_s)
    # Before rows go by age: a little always does, and who asks again only after much would never come to this.
    dropped = dropped or await _trim_by_size(connection, retention.max_bytes)
    if dropped:
        return dropped  # what dropping locks is let go of before anything else is waited for
    deleted = 0
    for table, where, order, age_s in (
        ("commands", "finished", "finished", retention.max_age_s),
        ("audit", "at", "id", retention.audit_age_s),
        ("alerts", "ended", "ended", retention.alerts_age_s),
    ):
        deleted += await _trim_rows(connection, table, where, order, now - age_s)
    for step, age_s in ((MINUTE_S, retention.minutes_age_s), (HOUR_S, retention.hours_age_s)):
        deleted += await _trim_condensed(connection, step, now - age_s)
    return deleted


class NotRolledUpError(Exception):
    """A day is to go of which the minutes do not know all; a roll-up comes first."""


async def _drop_old_days(connection: Connection, too_old: float) -> int:
    dropped = 0
    for table in DAILY:
        for day, name in await kept_days(connection, table):
            if (day + 1) * DAY_S <= too_old:
                await _drop(connection, table, name)
                dropped += 1
    return dropped


async def _drop(connection: Connection, table: str, name: str) -> None:
    if table == "log" and not await all_rolled_up(connection, name):
        raise NotRolledUpError
    await connection.execute(f"DROP TABLE {name}")


async def _trim_rows(connection: Connection, table: str, column: str, order: str, too_old: float) -> int:
    """Of a table whose oldest rows are found by an index; the names are our own."""
    return rows_changed(
        await connection.execute(
            f"WITH oldest AS (SELECT id, {column} AS at FROM {table} WHERE {column} IS NOT NULL"  # noqa: S608
            f" ORDER BY {order} LIMIT $2)"
            f" DELETE FROM {table} WHERE id IN (SELECT id FROM oldest WHERE at < $1)",
            *(too_old, _STEP_ROWS),
        )
    )


async def _trim_condensed(connection: Connection, step: int, too_old: float) -> int:
    return rows_changed(
        await connection.execute(
            "DELETE FROM condensed WHERE (device, step, at) IN"
            " (SELECT device, step, at FROM condensed WHERE step = $1 AND at < $2 ORDER BY at LIMIT $3)",
            *(step, math.ceil(too_old), _STEP_ROWS),
        )
    )


async def _trim_by_size(connection: Connection, max_bytes: int) -> int:
    """Drop the oldest day while all is too much: telemetry is the bulk, so events go last.

    Rows that are deleted one by one leave their room to others, not to the disk. So a day goes as a whole, and a day
    that alone is too large goes as well.
    """
    if await used_bytes(connection) <= max_bytes:
        return 0
    for table in DAILY:
        for _, name in await kept_days(connection, table):
            if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {name})"):  # noqa: S608 - our own name
                await _drop(connection, table, name)
                return 1
    return 0
