"""How long the HTTP server waits for whoever keeps it waiting. uvicorn itself has a limit after an answer alone.

Without more, a thousand connections that never say a word keep everybody out, and take no token to make; and who stops
reading an answer holds what was to follow for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

# A request's head is a packet or a few; this is what they take over a bad radio link.
HEAD_S = 15.0
# Who has taken nothing of an answer for so long is asleep, or means harm.
TAKES_S = 60.0
# TLS is ended by both sides, each with a word. Who is sent ours, and is owed nothing else, is waited for so long.
_GOODBYE_S = 0.5


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on who sends no whole head of a request, or takes nothing of an answer.

    Attributes:
        head_s: How long the one may take.
        takes_s: How long a part of the other, however small.
    """

    head_s = HEAD_S
    takes_s = TAKES_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silent: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.silent_since = 0.0  # 0 while no head is waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request. Where too many do, whoever has waited longest without a word makes room."""
        super().connection_made(transport)
        if len(self.connections) * 2 > (self.limit_concurrency or len(self.connections) * 2):
            silent = [one for one in self.connections if isinstance(one, PatientProtocol) and one.silent_since]
            if silent:
                min(silent, key=lambda one: one.silent_since).transport.abort()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._had_head()
        self._unwatch()
        super().resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Whatever came, a head is waited for unless an answer is under way or was given just now."""
        before: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not before:
            self._unwatch()  # what is to be taken is another answer
        if cycle is not None and not cycle.response_complete:
            self._had_head()
        elif self.transport.is_closing():
            self._watch_until_taken()
        elif self._silent is None and self.timeout_keep_alive_task is None:
            self._await_head()

    def on_response_complete(self) -> None:
        """The next request is uvicorn's to wait for, until something of it comes; that the answer is taken, ours."""
        self._had_head()
        self._unwatch()
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next was there already
            self._watch_until_taken()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked."""
        super().timeout_keep_alive_handler()
        self._part()

    def shutdown(self) -> None:
        """The hub ends."""
        super().shutdown()
        self._part()

    def pause_writing(self) -> None:
        """It reads more slowly than we write."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._unwatch()
        super().resume_writing()
        self._watch_until_taken()

    def _await_head(self) -> None:
        self.silent_since = time.monotonic()
        self._silent = self.loop.call_later(self.head_s, self.transport.abort)

    def _had_head(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
            self.silent_since = 0.0

    def _watch_until_taken(self) -> None:
        """What is left of an answer goes on being taken; and once the connection is to end, it ends."""
        if self._stalled is None and (self.transport.is_closing() or _unsent(self.transport)):
            self._watch()

    def _watch(self) -> None:
        """Look again in a while whether it has taken anything."""
        left = _untaken(self.transport)

        def look() -> None:
            self._stalled = None
            if left and _untaken(self.transport) < left:
                self._watch_until_taken()
            else:
                self.transport.abort()

        self._unwatch()
        self._stalled = self.loop.call_later(self.takes_s, look)

    def _unwatch(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _part(self) -> None:
        """Do not wait for the other side's goodbye, where nothing is left to send."""
        if self.transport.is_closing() and not _unsent(self.transport):
            self.loop.call_later(_GOODBYE_S, self.transport.abort)


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that wait in this process; asyncio has no public word for those that TLS has encrypted already."""
    if not hasattr(transport, "_ssl_protocol"):
        return transport.get_write_buffer_size()
    below: asyncio.Transport | None = getattr(transport._ssl_protocol, "_transport", None)  # noqa: SLF001 - see above
    return 0 if below is None else transport.get_write_buffer_size() + below.get_write_buffer_size()


def _untaken(transport: asyncio.Transport) -> int:
    """Bytes that wait here or, tcp(7), in the kernel, which asks for more once a third of its megabytes has gone."""
    waiting, sock = bytes(4), transport.get_extra_info("socket")  # None once TLS has lost its connection
    with contextlib.suppress(OSError, ValueError):  # no such question here; closed
        waiting = waiting if sock is None else fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)
    (queued,) = struct.unpack("i", waiting)
    return _unsent(transport) + int(queued)
