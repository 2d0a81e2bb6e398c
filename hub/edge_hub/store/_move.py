"""Everything of an SQLite store, copied into an empty one in PostgreSQL.

It is one transaction: a hub that looks meanwhile, or after it broke off, sees a store in which nothing ever was. Rows
keep their numbers, so what devices, browsers and exports remember of them stays true.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edge_hub.errors import MoveError
from edge_hub.store._counters import STORED_EVENTS
from edge_hub.store._postgres_books import storable
from edge_hub.store._postgres_control import note
from edge_hub.store._postgres_days import day_of, make_days
from edge_hub.store._postgres_history import mend_order, set_position
from edge_hub.store._postgres_pool import Database, DatabaseUrl, bring_up, durable
from edge_hub.store._postgres_schema import DAILY
from edge_hub.store._roll_up import MARK, mark
from edge_hub.store.records import AuditRecord

# Alike in both; what is referred to comes before what refers to it. `counters` and `trimmed` go by ways of their own.
TABLES = (
    "devices", "boots", "log", "events", "commands", "quarantine", "audit", "tokens", "rules", "alerts", "condensed",
    "leases", "removed",
)  # fmt: skip
# Of PostgreSQL alone, or filled otherwise.
_FURTHER = ("numbers", "births", "counters")
# Whose numbers PostgreSQL counts up by itself.
_COUNTED = ("devices", "boots", "quarantine", "audit", "alerts")
# 0 and 1 in SQLite.
_FLAGS = frozenset({"born", "late", "swept"})
# Whichever is reached first; PostgreSQL remembers each row of a statement until it has looked up what that refers to.
_BATCH_ROWS = 2000
_BATCH_BYTES = 1_000_000
# For one statement, such as counting the log; and between two, while ranges are summed up from millions of rows.
_STATEMENT_S = 600.0
_CLOSE_S = 5.0

Record = tuple[Any, ...]


async def move(
    source: sqlite3.Connection,
    url: str,
    *,
    audit: Callable[[dict[str, int]], AuditRecord],
    close: Callable[[], None],
    told: Callable[[str], None],
) -> dict[str, int]:
    """Copy all of it.

    Args:
        source: A hub's file that nobody writes to.
        url: Of the database.
        audit: Makes the note that is kept of it, from how many rows each table has.
        close: Keeps hubs from the source, once all else is done but nothing counts yet; what it raises ends the move.
        told: Is called with a line for people after each table.

    Returns:
        How many rows each table has now, in both.

    Raises:
        UsageError: It is no `postgresql://` URL.
        MoveError: The store there is not empty, a hub uses it, or a table has not as many rows as here.
        StoreError: A database refuses.
    """
    database = Database(DatabaseUrl.parse(url), connections=1, mend=mend_order)
    with database.refusals():
        connection = await database.connect(patience_s=_STATEMENT_S)
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_STATEMENT_S:.0f}s'")
                for name, value in (await durable(connection)).items():
                    await connection.execute(f"SET LOCAL {name} = '{value}'")
                await bring_up(connection, database.url, mend_order)
                await _empty(connection, where=str(database.url))
                source.execute("BEGIN")
                copied = await _copy_all(source, connection, told)
                await _go_on_counting(source, connection)
                await _compare(source, connection, copied, where=str(database.url))
                await note(connection, audit(copied))
                await connection.execute(f"ANALYZE {', '.join((*TABLES, *_FURTHER))}")
                # Before the commit: else a full disk here, or a kill, would leave two places that hubs go on with.
                close()
        finally:
            await connection.close(timeout=_CLOSE_S)
    return copied


async def _empty(connection: Any, *, where: str) -> None:
    """Refuse a store that somebody uses or has used; what a hub leaves that only ran goes away."""
    others = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND application_name = current_setting('application_name')"
    )
    if others:
        raise MoveError("a hub uses it, or an export from it", where=where, hint="stop that first")
    # How far alerts were looked at, and told on each way: any hub that runs notes it.
    noted = " WHERE name NOT LIKE 'state:%' AND name NOT LIKE 'told:%'"
    for table, more in (("devices", ""), ("tokens", ""), ("rules", noted)):
        there = await connection.fetchval(f"SELECT count(*) FROM {table}{more}")  # noqa: S608 - our own words
        if there:
            raise MoveError(
                f"it is not empty: {there} {table}", where=where, hint="name another database; nothing was changed"
            )
    await connection.execute(f"TRUNCATE {', '.join((*TABLES, *_FURTHER))} RESTART IDENTITY")


async def _copy_all(source: sqlite3.Connection, connection: Any, told: Callable[[str], None]) -> dict[str, int]:
    copied = {}
    for table in TABLES:
        columns = [column["name"] for column in source.execute(f"PRAGMA table_info({table})")]
        rows = (_record(columns, row) for row in source.execute(f"SELECT * FROM {table}"))  # noqa: S608 - as above
        copied[table] = await _copy(connection, table, columns, rows)
        told(f"{table}: {copied[table]} rows")
    copied["numbers"] = await _copy(connection, "numbers", ["boot", "first", "last"], _numbers(source))
    told(f"numbers: {copied['numbers']} ranges")
    return copied


def _record(columns: list[str], row: sqlite3.Row) -> Record:
    return tuple(
        bool(value) if name in _FLAGS else storable(value) if isinstance(value, str) else value
        for name, value in zip(columns, row, strict=True)
    )


async def _copy(connection: Any, table: str, columns: list[str], rows: Iterable[Record]) -> int:
    """Returns how many."""
    copied = 0
    days: set[int] = set()
    received = columns.index("received") if table in DAILY else None
    for batch in _batches(rows):
        if received is not None:
            needed = {day_of(row[received]) for row in batch}
            if not needed <= days:
                await make_days(connection, needed)
                days |= needed
        await connection.copy_records_to_table(table, records=batch, columns=columns)
        copied += len(batch)
    return copied


def _batches(rows: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size_bytes = 0
    for row in rows:
        batch.append(row)
        size_bytes += sum(len(value) for value in row if isinstance(value, (bytes, str)))
        if len(batch) >= _BATCH_ROWS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _numbers(source: sqlite3.Connection) -> Iterator[tuple[int, int, int]]:
    """The numbers of each boot that were ever stored: those of the log, and those that retention took from it."""
    logged = source.execute("SELECT boot, seq, seq FROM log ORDER BY boot, seq")
    trimmed = source.execute("SELECT boot, first, last FROM trimmed ORDER BY boot, first")
    held: tuple[int, int, int] | None = None
    for boot, first, last in heapq.merge(map(tuple, logged), map(tuple, trimmed)):
        if held is not None and boot == held[0] and first <= held[2] + 1:
            held = boot, held[1], max(held[2], last)
            continue
        if held is not None:
            yield held
        held = boot, first, last
    if held is not None:
        yield held


async def _go_on_counting(source: sqlite3.Connection, connection: Any) -> None:
    """What comes next gets the numbers that it would have got here, and the roll-up goes on where it is."""
    ever: dict[str, int] = dict(source.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    # What is left of a removed device goes by the number it had.
    ever["devices"] = source.execute("SELECT coalesce(max(device), 0) FROM removed").fetchone()[0]
    for table in _COUNTED:
        highest = source.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 - as above
        await _set(connection, f"pg_get_serial_sequence('{table}', 'id')", max(highest, ever.get(table, 0)))
    await _set(connection, "'log_id'", source.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()[0])
    counters: dict[str, int] = dict(
        source.execute("SELECT name, value FROM counters WHERE name <> ?", (MARK,)).fetchall()
    )
    counters[STORED_EVENTS] = ever.get("events", 0)
    await connection.execute(
        "INSERT INTO counters SELECT * FROM unnest($1::text[], $2::bigint[])",
        list(counters),
        list(counters.values()),
    )
    # All rows of the log are of this transaction, in the order of their numbers.
    transaction = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await set_position(connection, (transaction, mark(source)))


async def _set(connection: Any, sequence: str, last: int) -> None:
    await connection.execute(f"SELECT setval({sequence}, greatest($1::bigint, 1), $1::bigint > 0)", last)


async def _compare(source: sqlite3.Connection, connection: Any, copied: dict[str, int], *, where: str) -> None:
    for table, rows in copied.items():
        count = f"SELECT count(*) FROM {table}"  # noqa: S608 - as above
        here = source.execute(count).fetchone()[0] if table in TABLES else rows
        there = await connection.fetchval(count)
        if here != there:
            raise MoveError(
                f"{table} has {there} rows there and {here} here",
                where=where,
                hint="nothing was changed; is the file damaged? Then restore a copy of it first",
            )
