"""Connecting to PostgreSQL: where it is, what of it may be said, and its tables brought to this version.

A pool that has lost its server connects anew as soon as somebody asks it to. Whatever the server or the way to it
refuses becomes a `StoreError` of one line, without the password.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import asyncpg

from edge_hub.errors import StoreError
from edge_hub.store._postgres_schema import FORMAT, LOCK, MIGRATIONS, RECORDED, SCHEMA
from edge_sdk._version import __version__
from edge_sdk.errors import UsageError

_log = logging.getLogger(__name__)

# gen_random_uuid is built in from 13 on, as are transaction numbers that do not wrap around.
_OLDEST = 130_000
_CONNECT_S = 10.0
_COMMAND_S = 30.0
_CLOSE_S = 5.0
_IDLE_S = 60.0
# For whoever else changes tables; shorter than a command may take, so that the reason can be told.
PATIENCE_S = 20
_REFUSALS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    asyncio.TimeoutError,
)


Record = Mapping[str, Any]


class Connection(Protocol):
    """What of the driver's connection is used; it has no types of its own. Parameters are `$1` and so on."""

    async def fetch(self, query: str, *values: object) -> list[Record]:
        """All rows."""

    async def fetchrow(self, query: str, *values: object) -> Record | None:
        """The first row."""

    async def fetchval(self, query: str, *values: object) -> Any:
        """The first row's first value, None without a row."""

    def cursor(self, query: str, *values: object) -> AsyncIterator[Record]:
        """Rows as they are asked for, within a transaction."""

    async def execute(self, query: str, *values: object) -> str:
        """Nothing but its status, such as `DELETE 3`; several statements where there are no values."""

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> contextlib.AbstractAsyncContextManager[object]:
        """All or nothing of what is done within; the server's own isolation where none is named."""


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """`postgresql://user:password@host:port/database`, as PostgreSQL itself reads it."""

    url: str

    def __str__(self) -> str:
        """Without user, password and settings: this reaches logs and errors."""
        parts = urlsplit(self.url)
        host = parts.hostname or next(iter(parse_qs(parts.query).get("host", ())), "localhost")
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{host}{port}{parts.path}"

    __repr__ = __str__

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Read it.

        Raises:
            UsageError: It is no such URL. The text does not repeat it, for it may hold a password.
        """
        hint = "such as postgresql://edge:PASSWORD@db.example:5432/edge"
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError as cause:
            raise UsageError(f"the store's URL has a bad port or host: {cause}", hint=hint) from cause
        if parts.scheme not in {"postgresql", "postgres"} or parts.path.strip("/") == "":
            raise UsageError("the store's URL is not postgresql://[user:password@]host[:port]/database", hint=hint)
        return cls(text)


class Database:
    """Connections to one database.

    Args:
        url: Where it is.
        connections: At most, beside those of who listens.
        mend: Awaited in the transaction that brings the tables to this version, once they are.
    """

    def __init__(self, url: DatabaseUrl, *, connections: int, mend: Callable[[Connection], Awaitable[None]]) -> None:
        self.url = url
        self._connections = connections
        self._mend = mend
        self._pool: Any = None

    async def open(self) -> None:
        """Bring its tables to this version, and make the pool.

        Raises:
            StoreError: It cannot be reached, or holds what this version does not know.
        """
        with self.refusals():
            first = await self.connect()
            try:
                async with first.transaction():
                    await bring_up(first, self.url, self._mend)
                settings = await durable(first)
            finally:
                await first.close(timeout=_CLOSE_S)
            self._pool = await asyncpg.create_pool(
                self.url.url,
                min_size=0,  # else it tries by itself to keep so many, and fails loudly while the server is away
                max_size=self._connections,
                timeout=_CONNECT_S,
                command_timeout=_COMMAND_S,
                server_settings={**_SETTINGS, **settings},
            )

    async def close(self) -> None:
        """Let go."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_S)
            except _REFUSALS:
                pool.terminate()

    async def connect(self, *, patience_s: float = _COMMAND_S) -> Any:
        """A connection beside the pool, for who listens or works for long. Raises what the driver raises."""
        return await asyncpg.connect(
            self.url.url, timeout=_CONNECT_S, command_timeout=patience_s, server_settings=_SETTINGS
        )

    @contextlib.asynccontextmanager
    async def transaction(self, *, readonly: bool = False) -> AsyncIterator[Connection]:
        """All or nothing; reads are of one moment.

        Raises:
            StoreError: The database refuses. Whether what was under way is durable, is not known.
        """
        isolation = "repeatable_read" if readonly else None
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=readonly):
            yield connection

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """For one statement, which is its own transaction.

        Raises:
            StoreError: The database refuses.
        """
        if self._pool is None:
            raise StoreError("the store is closed", where=str(self.url))
        with self.refusals():
            async with self._pool.acquire(timeout=_COMMAND_S) as connection:
                yield connection

    async def notify(self, channel: str, text: str) -> None:
        """Tell all that listen.

        Raises:
            StoreError: The database refuses.
        """
        async with self.connection() as connection:
            await connection.execute("SELECT pg_notify($1, $2)", channel, text)

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Make the driver's errors ours."""
        try:
            yield
        except _REFUSALS as cause:
            lines = str(cause).splitlines()
            what = lines[0] if lines else f"no answer ({type(cause).__name__})"
            if isinstance(cause, asyncpg.InternalClientError):  # the driver's own state, of a server that died under it
                what = "the connection broke while it was asked"
            raise StoreError(
                f"the database refuses: {what}", where=str(self.url), hint="does PostgreSQL run, and let the hub in?"
            ) from cause


_SETTINGS = {
    "application_name": "edge-hub",
    "search_path": SCHEMA,
    # A process that stands still in the middle must not keep the rows of its batch from the others for ever.
    "idle_in_transaction_session_timeout": f"{int(_IDLE_S)}s",
}


async def bring_up(connection: Any, url: DatabaseUrl, mend: Callable[[Connection], Awaitable[None]]) -> None:
    """Bring the tables to this version, within a transaction, until whose end nobody else changes them.

    Raises:
        StoreError: It holds what this version does not know, or somebody else is at it for long.
    """
    server = int(await connection.fetchval("SHOW server_version_num"))
    if server < _OLDEST:
        raise StoreError(f"PostgreSQL {server // 10_000} is too old", where=str(url), hint="use 13 or newer")
    if await connection.fetchval("SHOW fsync") == "off":
        _log.warning("%s runs without fsync: a power cut may damage it", url)
    # Several workers start at once: the first does it, the others find it done.
    await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'")
    try:
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
    except asyncpg.LockNotAvailableError as cause:
        raise StoreError(
            "another process changes its tables",
            where=str(url),
            hint="'edge hub move', or a hub that starts: wait for its end",
        ) from cause
    await connection.execute("SET LOCAL lock_timeout TO DEFAULT")
    # Asked first: creating takes a right that whoever only uses the schema may not have.
    if await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
    done = 0
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.migrations") is None:
        if await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", SCHEMA):
            raise StoreError(
                f"the schema {SCHEMA} is there, but not a hub's", where=str(url), hint="choose another database"
            )
        await connection.execute(RECORDED)
    else:
        done = await connection.fetchval("SELECT max(number) FROM migrations")
    if done > FORMAT:
        raise StoreError(
            f"a database of format {done}, this version reads {FORMAT}",
            where=str(url),
            hint="use the version that wrote it",
        )
    for number, statements in enumerate(MIGRATIONS[done:], done + 1):
        await connection.execute(statements)
        await connection.execute("INSERT INTO migrations VALUES ($1, now(), $2)", number, __version__)
    await mend(connection)


async def durable(connection: Any) -> dict[str, str]:
    """The settings that acknowledging after the commit takes."""
    # Where commits return before they are durable, we ask for the least that is; anything stronger stays.
    weak = await connection.fetchval("SHOW synchronous_commit") == "off"
    return {"synchronous_commit": "on"} if weak else {}


def rows_changed(status: str) -> int:
    """How many, of a command's status such as `DELETE 3`."""
    return int(status.rsplit(" ", 1)[-1])
