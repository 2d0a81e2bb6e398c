"""A network that really is slow: a TCP proxy on loopback that holds back what passes through it.

The daemon's broker connection goes through one of these, so that its round trip is measured and not pretended. The
delay may be set at any time; bytes keep their order. `cut()` is a link that goes down, `mend()` one that comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from edge_lab.errors import LabError

if TYPE_CHECKING:
    from typing_extensions import Self

_CHUNK_BYTES = 16 * 1024
# Chunks on their way in one direction; when they are used up the sender is held back, as by a full socket buffer.
_IN_FLIGHT = 64
_START_S = 5.0
_STOP_S = 5.0
_SETTLE_S = 0.02

T = TypeVar("T")


class SlowLink:
    """A link to one TCP service, slowed at will.

    Args:
        target: Host and port of the service.
        rtt_ms: What the link adds to a round trip at first; half of it in each direction.

    Raises:
        LabError: The proxy could not be started.
    """

    def __init__(self, target: tuple[str, int], *, rtt_ms: float = 0.0) -> None:
        self._target = target
        self._one_way_s = rtt_ms / 2000
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="slow-link")
        self._thread.start()
        try:
            self.address: tuple[str, int] = self._call(self._listen(), _START_S)
        except OSError as cause:
            self._stop_loop()
            raise LabError("the played network cannot listen on loopback", where=str(cause)) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rtt_ms(self) -> float:
        """What the link adds to a round trip."""
        return self._one_way_s * 2000

    @rtt_ms.setter
    def rtt_ms(self, value: float) -> None:
        # Read by the loop's thread for each chunk; a float is replaced whole.
        self._one_way_s = max(0.0, value) / 2000

    def cut(self) -> None:
        """Drop all connections and refuse new ones until `mend()`."""
        self._is_cut = True
        self._call(self._drop_all(), _STOP_S)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def close(self) -> None:
        """Stop listening, drop all connections, end the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        self._call(self._close(), _STOP_S)
        self._stop_loop()

    # ------------------------------------------------------------------------------------- in the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T], limit_s: float) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    async def _listen(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return host, port

    async def _close(self) -> None:
        if self._server is not None:
            # Up to Python 3.11 a connection accepted in the very turn of `Server.close()` fails an assertion in asyncio
            # and its socket is never closed. So: stop accepting, let it hand over what it has, then close.
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            await asyncio.sleep(_SETTLE_S)
            self._server.close()
        await self._drop_all()
        await asyncio.sleep(_SETTLE_S)  # an aborted transport closes its socket in a later turn of the loop

    async def _drop_all(self) -> None:
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._is_cut:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            # The service is away, one side reset, or the link was cut: both sides see a connection that ends.
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.ensure_future(self._one_way(reader, far_writer)),
            asyncio.ensure_future(self._one_way(far_reader, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the sender ends; each chunk leaves one delay after it came, never before its forerunner."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)

        async def take() -> None:
            while chunk := await reader.read(_CHUNK_BYTES):
                await held.put((self._loop.time(), chunk))
            await held.put((self._loop.time(), b""))

        taker = asyncio.ensure_future(take())
        try:
            while True:
                came_at, chunk = await held.get()
                # The delay is read when the chunk's turn comes, so that a link made fast again is fast at once.
                if (wait_s := came_at + self._one_way_s - self._loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if not chunk:
                    break
                writer.write(chunk)
                await writer.drain()
            with contextlib.suppress(OSError):  # the receiver is gone already
                writer.write_eof()
        finally:
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)
