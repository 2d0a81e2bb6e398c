"""The SQLite file: opened, brought to this version, worked on, and its complaints as errors of ours.

A store has two connections, each with a thread of its own: one writes, one reads, so that a page of the API never waits
for a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edge_hub.datadir import PRIVATE_FILE
from edge_hub.errors import StoreError
from edge_hub.store._schema import ADDED_IN_2, ADDED_IN_3, APPLICATION_ID, FORMAT, FROM_1, PRAGMAS, TABLES

T = TypeVar("T")

_LOOKED_AT_ROWS = 400  # sqlite.org/pragma.html#pragma_optimize, "Recommended usage"
# What leads here from an older format.
STEPS = {1: f"{FROM_1} {ADDED_IN_2} {ADDED_IN_3}", 2: ADDED_IN_3}


@contextlib.contextmanager
def as_store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system complain of into a `StoreError` that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as cause:
        raise StoreError(
            f"the database refuses: {cause}", where=str(path), hint="is the disk full, or the file damaged?"
        ) from cause


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, for one thread, beside others that may write.

    Raises:
        StoreError: There is no database, or none of a hub of this version.
    """
    if not path.is_file():
        raise StoreError("there is no database", where=str(path), hint="has a hub run with this --data?")
    with as_store_errors(path), contextlib.ExitStack() as opened:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        opened.callback(connection.close)
        connection.row_factory = sqlite3.Row
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError("no database of a hub", where=str(path), hint="name its data directory with --data")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != FORMAT:
            raise StoreError(
                f"a database of format {found}, this version reads {FORMAT}",
                where=str(path),
                hint="use the version that wrote it, or let a hub of this one run with it once",
            )
        opened.pop_all()
    return connection


class SqliteFile:
    """An open database; its parts work on it through `_read` and `_write`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with as_store_errors(path), contextlib.ExitStack() as opened:
            self._writing = opened.enter_context(contextlib.closing(_connect(path)))
            # Looked at before anything is set: a database of somebody else's is left as it is.
            _prepare(self._writing, path)
            path.chmod(PRIVATE_FILE)
            _configure(self._writing)
            self._reading = opened.enter_context(contextlib.closing(_connect(path)))
            _configure(self._reading)
            self._reading.execute("PRAGMA query_only = TRUE")
            opened.pop_all()
        self._is_closed = False
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub-store-write")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub-store-read")
        # Who condenses the log looks first and writes then; who deletes of it must not come in between.
        self._condensing = asyncio.Lock()

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        self._is_closed = True
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)
        self._reading.close()
        with contextlib.suppress(sqlite3.Error):
            # Of each index so many rows: else a hub's first end would go through all of a database of gigabytes.
            self._writing.execute(f"PRAGMA analysis_limit = {_LOOKED_AT_ROWS}")
            self._writing.execute("PRAGMA optimize")
        self._writing.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the writing thread, as a transaction."""
        return await self._run(self._writer, lambda: self._transact(work))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the reading thread."""

        def read() -> T:
            with as_store_errors(self._path):
                return work(self._reading)

        return await self._run(self._reader, read)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise StoreError("the store is closed", where=str(self._path))
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._writing
        with as_store_errors(self._path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk may have rolled back already
                    connection.execute("ROLLBACK")
                raise
        return result


def _connect(path: Path) -> sqlite3.Connection:
    # Each connection belongs to one thread at a time: this one while opening, its own afterwards.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.row_factory = sqlite3.Row
    return connection


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    if found == 0 and owner == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        connection.executescript(
            f"BEGIN; {TABLES} {ADDED_IN_2} {ADDED_IN_3} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {FORMAT}; COMMIT;"
        )
    elif owner != APPLICATION_ID:
        raise StoreError("a database, but not a hub's", where=str(path), hint="choose another --data")
    elif found in STEPS:
        connection.executescript(f"BEGIN IMMEDIATE; {STEPS[found]} PRAGMA user_version = {FORMAT}; COMMIT;")
    elif found != FORMAT:
        raise StoreError(
            f"a database of format {found}, this version reads {FORMAT}",
            where=str(path),
            hint="use the version that wrote it",
        )
