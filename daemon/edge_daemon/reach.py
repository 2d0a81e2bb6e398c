"""Whether the server that a model names is there: a look every two seconds while an app may ask it and none does.

Of an `http://` address the look is the readiness request of the Open Inference Protocol v2 on a connection of its own,
timed from its sending to the first line of the answer: one round trip, and the server says that it is ready, or that it
tells that only to who has a token. Of any other address it is a TCP connection and nothing else. So whoever looks needs
neither token nor authority: what is wrong with those, the app finds out that asks with them, and says it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edge_daemon.lanes import Lane
from edge_daemon.policy.tables import LOOK_EVERY_S
from edge_daemon.policy.types import Looked
from edge_sdk.local import AssignedServer
from edge_sdk.server_address import ServerAddress

log = logging.getLogger(__name__)

DEADLINE_S: Final = 2.0  # no answer by then is none that a policy could use
WANTED_EVERY_S: Final = 0.5  # so soon after an app has come
_MOST_LINE: Final = 4096
_THERE: Final = (b"200", b"401", b"403")  # it is ready; who may ask is another matter


class Resolved:
    """The addresses of a host. One question at a time, on a thread that keeps nobody from ending.

    The system's resolver knows no deadline. Asked by way of the loop's own threads, one that does not answer would hold
    up the end of the process, which waits for them.
    """

    def __init__(self, address: ServerAddress) -> None:
        self._where = (address.host, address.port)
        self._asked: asyncio.Future[list[Any]] | None = None

    async def find(self) -> list[Any]:
        """As `socket.getaddrinfo` gives them; none where the name is not known. Being cancelled stops no question."""
        try:
            return socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:  # it is a name
            if self._asked is None or self._asked.done():
                self._asked = asyncio.ensure_future(self._ask())
            return await asyncio.shield(self._asked)

    async def _ask(self) -> list[Any]:
        lane = Lane("name")
        try:
            return await lane.run(lambda: socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return []
        finally:
            lane.close(0)


async def round_trip_ms(
    address: ServerAddress, clock: Callable[[], float], resolved: Resolved | None = None
) -> float | None:
    """One round trip to the server; None where it does not answer within `DEADLINE_S`, or is not ready."""
    try:
        return await asyncio.wait_for(_look(address, clock, resolved or Resolved(address)), DEADLINE_S)
    except (OSError, EOFError, ValueError, asyncio.TimeoutError, TimeoutError):  # a host that no name server takes, too
        return None


class Reach:
    """Looks at the server for as long as `run` runs.

    Args:
        server: Which.
        clock: Monotonic.
        wanted: Whether a look would tell anything new.
        feed: Is told of each.
    """

    def __init__(
        self,
        server: AssignedServer,
        clock: Callable[[], float],
        wanted: Callable[[], bool],
        feed: Callable[[Looked], Awaitable[None]],
    ) -> None:
        self._address = ServerAddress.read(server.url)
        self._resolved = Resolved(self._address)
        self._clock, self._wanted, self._feed = clock, wanted, feed
        self._is_there: bool | None = None

    async def run(self) -> None:
        """Look, tell, rest."""
        while True:
            if not self._wanted():
                await asyncio.sleep(WANTED_EVERY_S)
                continue
            rtt_ms = await round_trip_ms(self._address, self._clock, self._resolved)
            self._say(is_there=rtt_ms is not None)
            await self._feed(Looked(rtt_ms=rtt_ms))
            await asyncio.sleep(LOOK_EVERY_S)

    def _say(self, *, is_there: bool) -> None:
        if is_there != self._is_there:
            self._is_there = is_there
            where = f"{self._address.host}:{self._address.port}"
            if is_there:
                log.info("the server at %s answers", where)
            else:
                log.warning("the server at %s does not answer; what it would compute is computed here", where)


async def _look(address: ServerAddress, clock: Callable[[], float], resolved: Resolved) -> float | None:
    found = await resolved.find()
    sock, took_ms = await _connected(found, clock)
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=_MOST_LINE)
    except BaseException:
        sock.close()
        raise
    try:
        if address.scheme != "http":
            return took_ms
        host = f"[{address.host}]" if ":" in address.host else address.host
        head = f"GET {address.prefix}/v2/health/ready HTTP/1.1\r\nHost: {host}:{address.port}\r\nConnection: close\r\n"
        began_s = clock()
        writer.write(f"{head}\r\n".encode("ascii"))
        line = await reader.readline()
        took_ms = (clock() - began_s) * 1000
        parts = line.split()
        return took_ms if len(parts) > 1 and parts[0].startswith(b"HTTP/1.") and parts[1] in _THERE else None
    finally:
        writer.transport.abort()


async def _connected(found: list[Any], clock: Callable[[], float]) -> tuple[socket.socket, float]:
    """A socket to the first of these that takes one, and how long that took in ms."""
    for family, kind, protocol, _, where in found:
        with contextlib.suppress(OSError):  # of the socket, too: a board may speak no IPv6
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                began_s = clock()
                await asyncio.get_running_loop().sock_connect(sock, where)
            except BaseException:
                sock.close()
                raise
            return sock, (clock() - began_s) * 1000
    raise ConnectionError
