"""Where a store of the tests lies, whichever database it is in."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from postgres_stage import PostgresServer

from edge_hub.store.postgres import PostgresStore
from edge_hub.store.sqlite import SqliteStore
from edge_sdk.wire import new_token

T = TypeVar("T")
AnyStore = SqliteStore | PostgresStore


class Place(Protocol):
    """A place for a store, empty at first."""

    async def open(self) -> AnyStore:
        """The store that lies here; any number of times, one after the other."""

    def count(self, table: str) -> int:
        """The rows of a table."""

    def sql(self, statement: str) -> list[Any]:
        """Run a statement beside the store; its rows."""

    def another(self) -> Place:
        """An empty one of the same kind."""


class SqlitePlace:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / f"{new_token()}.db"

    async def open(self) -> SqliteStore:
        return SqliteStore(self.path)

    def count(self, table: str) -> int:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608

    def sql(self, statement: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement).fetchall()

    def another(self) -> SqlitePlace:
        return SqlitePlace(self._directory)


class PostgresPlace:
    """A database of its own on a server that runs, let go of with `ends`."""

    def __init__(self, server: PostgresServer, ends: ExitStack) -> None:
        self._server = server
        self._ends = ends
        self.database = ends.enter_context(server.database())
        self.url = server.url(self.database)

    async def open(self) -> PostgresStore:
        return await PostgresStore.open(self.url)

    def count(self, table: str) -> int:
        return int(self._server.sql(f"SELECT count(*) FROM {table}", database=self.database)[0][0])  # noqa: S608

    def sql(self, statement: str, *values: object) -> list[Any]:
        return self._server.sql(statement, *values, database=self.database)

    def another(self) -> PostgresPlace:
        return PostgresPlace(self._server, self._ends)


def within(where: Path | Place, work: Callable[[AnyStore], Awaitable[T]]) -> T:
    """Run with a store that is closed in the end; a path is of an SQLite file."""

    async def run() -> T:
        store = SqliteStore(where) if isinstance(where, Path) else await where.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


@contextlib.contextmanager
def postgres_place(server: PostgresServer) -> Iterator[PostgresPlace]:
    with ExitStack() as ends:
        yield PostgresPlace(server, ends)
