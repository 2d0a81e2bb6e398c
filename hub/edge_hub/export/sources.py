"""Where exported rows come from: the SQLite file of a hub, or its PostgreSQL; read, never changed.

From SQLite a page at a time, each a transaction of its own, so that the write-ahead log of a hub that runs does not
grow meanwhile; what came in after the first page is left out. From PostgreSQL as of one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edge_hub.store._backup import StoppedError
from edge_hub.store._logged import LONGEST_BATCH_S, Logged, log_of, logged
from edge_hub.store._opening import as_store_errors, read_only
from edge_hub.store._rows import Row
from edge_sdk.wire import encode

# A row may hold a message, of 256 KB at most: no more of them lie in memory at once.
PAGE_ROWS = 100
# Beyond every moment that is kept, and still a number that both databases compare.
_NEVER = 2**53
# How often somebody is asked whether to go on: steps of SQLite's machine, some milliseconds; and seconds.
_LOOK_STEPS = 100_000
_LOOK_S = 0.2
# A page lies with us until whoever reads the file has taken it, perhaps over a radio link. Meanwhile nothing is locked
# but old days against their end.
_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = '600s'"
Values = tuple[Any, ...]

T = TypeVar("T")


class Source(Protocol):
    """A database; variables are `?`, in the order of their values.

    Attributes:
        among: That a number is one of a JSON array, which is the next variable.
    """

    among: str

    def fetch(self, sql: str, values: Values = ()) -> list[Row]:
        """Few rows."""

    def stream(self, select: str, *, key: str, where: str = "TRUE", values: Values = ()) -> Iterator[Row]:
        """Any number of rows; `key` is the id by which there may be pages, and is among the columns as `id`."""

    def telemetry(self, device: int, *, since: float, until: float) -> Iterator[Logged]:
        """The messages of a device that may hold samples of this time."""

    def condensed(self, devices: Sequence[int], *, step: int, since: float, until: float) -> Iterator[Row]:
        """Minutes or hours (`device`, `at`, `body`) that begin in this time, device by device, the oldest first."""


class SqliteSource:
    """A hub's file, whether a hub runs or not."""

    among = "IN (SELECT value FROM json_each(?))"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fetch(self, sql: str, values: Values = ()) -> list[Row]:
        """Few rows."""
        return self._connection.execute(sql, values).fetchall()

    def stream(self, select: str, *, key: str, where: str = "TRUE", values: Values = ()) -> Iterator[Row]:
        """By ascending key, up to the last there is now."""
        last = self.fetch(f"{select} ORDER BY {key} DESC LIMIT 1")
        sql = f"{select} WHERE {key} > ? AND {key} <= ? AND {where} ORDER BY {key} LIMIT ?"
        done, end = 0, last[0]["id"] if last else 0
        while True:
            rows = self.fetch(sql, (done, end, *values, PAGE_ROWS))
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            done = rows[-1]["id"]

    def telemetry(self, device: int, *, since: float, until: float) -> Iterator[Logged]:
        """Boot by boot."""
        return log_of(self._connection, device, since=since, until=until)

    def condensed(self, devices: Sequence[int], *, step: int, since: float, until: float) -> Iterator[Row]:
        """In the order in which the devices are named."""
        sql = (
            "SELECT device, at, body FROM condensed WHERE device = ? AND step = ? AND at >= ? AND at < ?"
            " ORDER BY at LIMIT ?"
        )
        end = _whole(until)
        for device in devices:
            begin = _whole(since)
            while rows := self.fetch(sql, (device, step, begin, end, PAGE_ROWS)):
                yield from rows
                begin = rows[-1]["at"] + 1


class PostgresSource:
    """A hub's database, as it is at one moment.

    Args:
        loop: Runs while this is used, and only then.
        connection: In a transaction that reads.
        stopped: See `open_source`.
    """

    among = "IN (SELECT value::bigint FROM json_array_elements_text(?::text::json))"

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Any, stopped: Callable[[], bool]) -> None:
        self._loop = loop
        self._connection = connection
        self._stopped = stopped

    def fetch(self, sql: str, values: Values = ()) -> list[Row]:
        """Few rows."""
        found: list[Row] = self._wait(self._connection.fetch(_numbered(sql), *values))
        return found

    def stream(self, select: str, *, key: str, where: str = "TRUE", values: Values = ()) -> Iterator[Row]:
        """In the order in which they lie, which is that of the days."""
        del key
        sql = _numbered(f"{select} WHERE {where}")
        cursor = self._wait(self._connection.cursor(sql, *values))
        while rows := self._wait(cursor.fetch(PAGE_ROWS)):
            yield from rows

    def telemetry(self, device: int, *, since: float, until: float) -> Iterator[Logged]:
        """Boot by boot."""
        select = "SELECT log.seq, log.received, log.payload, boots.boot FROM log JOIN boots ON boots.id = log.boot"
        where = "boots.device = ? AND log.kind = 'tele' AND log.sent >= ? AND log.sent <= ? ORDER BY log.boot, log.sent"
        for row in self.stream(select, key="log.id", where=where, values=(device, since, until + LONGEST_BATCH_S)):
            yield logged(row, row["boot"])

    def condensed(self, devices: Sequence[int], *, step: int, since: float, until: float) -> Iterator[Row]:
        """In the order of the devices' numbers."""
        return self.stream(
            "SELECT device, at, body FROM condensed",
            key="at",
            where=f"step = ? AND at >= ? AND at < ? AND device {self.among} ORDER BY device, at",
            values=(step, _whole(since), _whole(until), encode(devices).decode()),
        )

    def _wait(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(_unless(self._stopped, work))


@contextlib.contextmanager
def open_source(file: Path, store: str | None, *, stopped: Callable[[], bool] = bool) -> Iterator[Source]:
    """The database of a hub.

    Args:
        file: SQLite's.
        store: Of PostgreSQL, instead.
        stopped: Is asked several times a second while the database works.

    Raises:
        StoreError: There is none, it is of another version, or it refuses.
        StoppedError: `stopped` said so.
    """
    if store is None:
        with contextlib.closing(read_only(file)) as connection, as_store_errors(file):
            connection.set_progress_handler(stopped, _LOOK_STEPS)
            try:
                yield SqliteSource(connection)
            except sqlite3.OperationalError as cause:
                if stopped():
                    raise StoppedError from cause
                raise
        return
    with contextlib.closing(asyncio.new_event_loop()) as loop, _postgres(loop, store) as reading:
        yield PostgresSource(loop, reading, stopped)


@contextlib.contextmanager
def _postgres(loop: asyncio.AbstractEventLoop, store: str) -> Iterator[Any]:
    """A connection in a transaction that reads; what the driver raises within is ours outside."""
    from edge_hub.store.choose import open_postgres

    kept = loop.run_until_complete(open_postgres(store))
    try:
        reading = kept.reading()
        connection = loop.run_until_complete(reading.__aenter__())
        try:
            loop.run_until_complete(connection.execute(_PATIENT))
            yield connection
        except BaseException as error:
            loop.run_until_complete(reading.__aexit__(type(error), error, error.__traceback__))
            raise
        loop.run_until_complete(reading.__aexit__(None, None, None))
    finally:
        loop.run_until_complete(kept.close())


async def _unless(stopped: Callable[[], bool], work: Awaitable[T]) -> T:
    working = asyncio.ensure_future(work)
    while not working.done():
        await asyncio.wait({working}, timeout=_LOOK_S)
        if stopped():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise StoppedError
    return working.result()


def _whole(at: float) -> int:
    """The first whole second that is not before."""
    return math.ceil(min(at, _NEVER))


def _numbered(sql: str) -> str:
    """`?` as PostgreSQL writes it; none of our statements has one in a text."""
    count = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(count)}", sql)
