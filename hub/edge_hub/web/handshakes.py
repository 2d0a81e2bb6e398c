"""Connections on their way to TLS: how many there may be, for how long, and what is told to who speaks none.

asyncio knows of a connection once its handshake is done. Until then nobody counts it, and a thousand that never say a
word would take a descriptor each: so they are accepted here, and whoever has been on the way longest makes room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from asyncio import sslproto
from collections.abc import Callable
from typing import Any, Final

from edge_sdk.local import ErrorBody
from edge_sdk.wire import encode

_log = logging.getLogger(__name__)

# A few round trips, and what they take over a bad radio link.
HANDSHAKE_S = 15.0
# More than there are streams, which all come back at once after a restart.
MOST = 500
# How long to leave it at that where no descriptor is free.
_PAUSE_S = 0.2
# A connection that ends is the HTTP protocol's to hang up on (`patience`): it knows whether the other side still takes.
_PARTING_S = 3600.0
# asyncio reads into a buffer of 256 KB for each connection (`SSLProtocol.max_size`, which it documents nowhere), and a
# request has some hundred bytes. So 500 on their way take 37 MB instead of 157 (2026-11, x86-64, Python 3.11).
_READ_BYTES = 16 * 1024
# RFC 8446, section 5.1: what a client says first is a record of this type.
_HANDSHAKE = b"\x16"
_LISTEN_S = 1.0
_MAX_UNHEARD_BYTES = 64 * 1024
_BODY = encode(ErrorBody(code="bad-request", text="this port speaks TLS: ask https:// instead of http://"))
_PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Handshakes:
    """Accepts connections.

    Args:
        listener: Where they come in.
        context: Called for each: how to encrypt.
        protocol: Called for each: who speaks on it once it is encrypted.
        most: On their way at once.
        patience_s: For each.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        context: Callable[[], ssl.SSLContext],
        protocol: Callable[[], asyncio.Protocol],
        most: int = MOST,
        patience_s: float = HANDSHAKE_S,
    ) -> None:
        self._listener = listener
        self._context = context
        self._protocol = protocol
        self._most = most
        self._patience_s = patience_s
        self._accepting: asyncio.Task[None] | None = None
        # Each with its end, in the order in which they came.
        self._under_way: dict[asyncio.Task[None], asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Accept until `stop`."""
        sslproto.SSLProtocol.max_size = _READ_BYTES  # type: ignore[attr-defined]
        self._accepting = asyncio.ensure_future(self._accept())
        await asyncio.wait({self._accepting})
        if not self._accepting.cancelled():
            self._accepting.result()

    async def stop(self) -> None:
        """Accept no more, and let go of those on their way."""
        ending = [*self._under_way, *([] if self._accepting is None else [self._accepting])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # who knocked is gone, or no descriptor is free
                _log.debug("a connection could not be accepted: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._under_way) >= self._most:
                self._drop(next(iter(self._under_way)))
            task = asyncio.create_task(self._encrypt(sock), name="hub-handshake")
            self._under_way[task] = loop.call_later(self._patience_s, self._drop, task)
            task.add_done_callback(self._ended)
            await asyncio.sleep(0)  # where many knock, accepting never waits, and nobody else would have a turn

    def _drop(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task).cancel()
        task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if (end := self._under_way.pop(task, None)) is not None:
            end.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("a connection did not come to TLS: %s", error)

    async def _encrypt(self, sock: socket.socket) -> None:
        """Hand a connection on once it is encrypted, or close it.

        Raises:
            OSError: It did not come to that.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            first = await _first_byte(sock)
            if first != _HANDSHAKE:
                if first.isalpha():
                    await _answer_plainly(sock)
                return
            undo.pop_all()  # from here on asyncio closes it
        more: dict[str, Any] = {}
        if sys.version_info >= (3, 11):
            more = {"ssl_shutdown_timeout": _PARTING_S}
        await asyncio.get_running_loop().connect_accepted_socket(
            self._protocol, sock, ssl=self._context(), ssl_handshake_timeout=self._patience_s, **more
        )


async def _first_byte(sock: socket.socket) -> bytes:
    """What it says first, which stays to be read; empty where it hangs up."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(sock)
    return sock.recv(1, socket.MSG_PEEK)


async def _answer_plainly(sock: socket.socket) -> None:
    """Say what is spoken here, in words that a client without TLS understands."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _PLAIN)
    sock.shutdown(socket.SHUT_WR)
    # Closing with something unread would take the answer away from who has not read it (RFC 9112, section 9.6).
    heard = 0
    with contextlib.suppress(asyncio.TimeoutError):
        while heard < _MAX_UNHEARD_BYTES:
            part = await asyncio.wait_for(loop.sock_recv(sock, 4096), _LISTEN_S)
            if not part:
                return
            heard += len(part)
