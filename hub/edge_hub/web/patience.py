"""How long the HTTP server waits for whoever keeps it waiting. uvicorn itself has a limit after an answer alone.

Without more, a thousand connections that never say a word keep everybody out, and take no token to make; and who stops
reading an answer holds what was to follow for as long as it likes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

# A request's head is a packet or a few; this is what they take over a bad radio link.
HEAD_S = 15.0
# Who has taken nothing of an answer for so long is asleep, or means harm.
TAKES_S = 60.0


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
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Whatever came, a head is waited for unless an answer is under way or was given just now."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
        if cycle is not None and not cycle.response_complete:
            self._had_head()
        elif self._silent is None and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._await_head()

    def on_response_complete(self) -> None:
        """The next request is uvicorn's to wait for, until something of it comes."""
        self._had_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """It reads more slowly than we write."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _await_head(self) -> None:
        self.silent_since = time.monotonic()
        self._silent = self.loop.call_later(self.head_s, self.transport.abort)

    def _had_head(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
            self.silent_since = 0.0

    def _watch(self) -> None:
        """Look again in a while whether it has taken anything."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() >= left:
                self.transport.abort()
            else:
                self._watch()

        self._stalled = self.loop.call_later(self.takes_s, look)
