"""Exports over HTTP: a thread writes rows as CSV or Parquet, no faster than whoever asked reads them.

An answer that breaks off has no last chunk: so whoever reads it knows that it is not whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_hub.datadir import DATABASE
from edge_hub.errors import TooManyRequestsError
from edge_hub.export.choice import chosen
from edge_hub.export.files import WRITERS
from edge_hub.export.sources import open_source
from edge_hub.export.tables import TABLES, Wanted
from edge_hub.store._backup import StoppedError
from edge_hub.web.operation import Ask
from edge_sdk.errors import EdgeError, WireError
from edge_sdk.mqtt import DeviceId

if TYPE_CHECKING:
    from typing_extensions import Self

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

MAX_EXPORTS = 2  # at once: each is a thread, and reads all there is
_BUSY_S = 5.0
_CHUNK_BYTES = 64 * 1024
_AHEAD = 4  # chunks that are written and not sent
_LOOK_S = 0.2
_LONGEST_PAUSE_S = 0.5
MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class Writes(Protocol):
    """Whoever writes a file."""

    def write(self, stream: BinaryIO, *, stopped: Callable[[], bool]) -> None:
        """All of it, unless `stopped` says that nobody wants it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be written.

    Attributes:
        devices, query: Of which devices; as of `edge hub export`.
        unix: Times as seconds since 1970.
    """

    what: str
    format: str
    since: float
    until: float
    devices: tuple[DeviceId, ...] | None
    query: str | None
    unix: bool
    file: Path
    store: str | None

    def write(self, stream: BinaryIO, *, stopped: Callable[[], bool]) -> None:
        """See `Writes`."""
        table = TABLES[self.what]
        with open_source(self.file, self.store, stopped=stopped) as source:
            devices = chosen(source, self.devices, self.query, now=time.time())
            rows = table.read(source, Wanted(since=self.since, until=self.until, devices=devices))
            WRITERS[self.format](stream, table.columns, rows, unix=self.unix)


class Pipe(io.RawIOBase):
    """A file for the thread that writes, chunks for the loop that sends them."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self._gathered = bytearray()
        self._stopped = threading.Event()
        self._began = time.monotonic()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any, /) -> int:
        """Take it; a whole chunk waits until there is room.

        Raises:
            StoppedError: Nobody reads on.
        """
        self._gathered += data
        if len(self._gathered) >= _CHUNK_BYTES:
            self._pass_on()
        return len(data)

    def fill(self, job: Writes) -> None:
        """Write all of it, in the thread that calls; None comes last, whatever happens.

        Raises:
            EdgeError: What went wrong.
            StoppedError: Nobody reads on.
        """
        try:
            job.write(cast("BinaryIO", self), stopped=self._stopped.is_set)
            self._pass_on()
        finally:
            with contextlib.suppress(StoppedError):
                self._put(None)

    def stop(self) -> None:
        """Let whoever writes end."""
        self._stopped.set()

    async def next(self, over: Collection[asyncio.Future[Any]]) -> bytes | None:
        """The next chunk, None after the last.

        Raises:
            StoppedError: One of `over` is done.
        """
        return await _unless(over, self._chunks.get())

    def _pass_on(self) -> None:
        """Then wait as long as the work took: half of the hub's time is the fleet's."""
        worked_s = time.monotonic() - self._began
        chunk, self._gathered = bytes(self._gathered), bytearray()
        self._put(chunk)
        self._stopped.wait(min(worked_s, _LONGEST_PAUSE_S))
        self._began = time.monotonic()

    def _put(self, chunk: bytes | None) -> None:
        waiting = asyncio.run_coroutine_threadsafe(self._chunks.put(chunk), self._loop)
        while not self._stopped.is_set():
            with contextlib.suppress(NotYetError):
                return waiting.result(_LOOK_S)
        waiting.cancel()
        raise StoppedError


class _Answer(Response):
    """Chunks as long as somebody reads them; what breaks off in the middle gets no end."""

    def __init__(self, work: _Work, first: bytes | None, **more: Any) -> None:
        super().__init__(**more)
        del self.headers["content-length"]
        self._work, self._first = work, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        del scope, receive
        chunk = self._first
        async with self._work as work:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk is not None:
                await work.passes_on(send({"type": "http.response.body", "body": chunk, "more_body": True}))
                chunk = await work.next()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Work:
    """A thread that writes while somebody reads and the hub runs."""

    def __init__(self, job: Job, request: Request) -> None:
        self._state = request.app.state
        self._pipe = Pipe()
        self._writing = asyncio.create_task(self._write(job), name="hub-export")
        self._over = (
            asyncio.create_task(_gone(request.receive), name="hub-export-reader"),
            asyncio.create_task(self._state.stopping.wait(), name="hub-export-stopping"),
        )
        self._state.exports += 1

    async def next(self) -> bytes | None:
        """The next chunk, None after the last.

        Raises:
            EdgeError: What went wrong.
            StoppedError: Nobody reads on, or the hub ends.
        """
        chunk = await self._pipe.next(self._over)
        if chunk is None:
            await self._writing
        return chunk

    async def passes_on(self, sending: Awaitable[None]) -> None:
        """Send a chunk, which takes as long as the reader does.

        Raises:
            StoppedError: Nobody reads on, or the hub ends.
        """
        await _unless(self._over, sending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        await self.end()
        if isinstance(error, EdgeError):
            _log.warning("an export broke off: %s", error)
        return isinstance(error, (EdgeError, StoppedError))

    async def end(self) -> None:
        """Let the thread end, and wait for it."""
        self._pipe.stop()
        for one in self._over:
            one.cancel()
        await asyncio.gather(*self._over, self._writing, return_exceptions=True)

    async def _write(self, job: Job) -> None:
        try:
            await asyncio.to_thread(self._pipe.fill, job)
        finally:
            self._state.exports -= 1


async def _unless(over: Collection[asyncio.Future[Any]], wanted: Awaitable[_T]) -> _T:
    """What is wanted.

    Raises:
        StoppedError: One of `over` is done before.
    """
    getting = asyncio.ensure_future(wanted)
    await asyncio.wait({getting, *over}, return_when=asyncio.FIRST_COMPLETED)
    if not getting.done():
        getting.cancel()
        raise StoppedError
    return getting.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def export(ask: Ask) -> Response:
    """Rows of one kind."""
    job = _job(ask)
    if job.query is not None:
        await ask.hub.census.query(job.query)  # refused before anything is read
    if ask.request.app.state.exports >= MAX_EXPORTS:
        raise TooManyRequestsError(
            f"{MAX_EXPORTS} exports are under way, which are the most", wait_s=_BUSY_S, hint="wait for one to end"
        )
    work = _Work(job, ask.request)
    try:
        first = await work.next()
        await ask.hub.audit.note(ask.caller, "export", job.what, dict(ask.query))
    except StoppedError as cause:
        await work.end()
        raise ClientDisconnect from cause
    except BaseException:
        await work.end()
        raise
    name = f"{job.what}.{job.format}"
    # A proxy that collects the answer before it sends it on would hold all of it.
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return _Answer(work, first, media_type=MEDIA[job.format], headers=headers)


def _job(ask: Ask) -> Job:
    query, config = ask.query, ask.hub.config
    since, until = query.get("since", 0.0), query.get("until", math.inf)
    if not since < until:
        raise WireError("since is not before until", where="query", hint="times are seconds since 1970")
    named = [name for name in query.get("devices", "").split(",") if name]
    if "devices" in query and not named:  # of a script whose list is empty: it means none, and would get all
        raise WireError("devices names none", where="query", hint="TENANT/DEVICE with commas; without it, all")
    return Job(
        what=ask.path["what"],
        format=query.get("format", "csv"),
        since=since,
        until=until,
        devices=tuple(DeviceId.parse(name) for name in named) or None,
        query=query.get("query") or None,
        unix=query.get("times", "iso") == "unix",
        file=config.data / DATABASE,
        store=config.store,
    )
