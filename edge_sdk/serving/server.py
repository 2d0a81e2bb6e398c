"""The process: a listening socket, uvicorn on it, threads that compute, and an end that does not hang."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_sdk.errors import TransportError
from edge_sdk.serving.app import Host, build_app
from edge_sdk.serving.gate import Gate
from edge_sdk.serving.served import Served

_POLL_S = 0.01
_READY_S = 10.0
# One computes while the next is decoded: calls of one model are answered one at a time.
_THREADS = 2
_KEEP_ALIVE_S = 75
HEAD_S = 30.0  # for the head of a request to arrive; a body has its own (`app.BODY_S`)
_MOST_CONNECTIONS = 256  # well below the 1024 descriptors a process has by default
_HEADER_BYTES = 32 * 1024
_SECOND_SIGNAL = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server bears.

    Attributes:
        max_body_bytes: Of a request.
        grace_s: For the requests that are in it when it ends.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    grace_s: float = 10.0


class HurriedProtocol(H11Protocol):
    """Closes a connection on which the head of a request does not arrive in time.

    uvicorn waits for one without end, and as many idle connections as are let in would keep out everybody else.
    """

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands, and the time for the first head begins."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvicorn narrows what asyncio declares
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """It stands no longer."""
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A piece of a head ends the wait of a kept connection, and begins that for the rest of the head."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._calm()
        elif getattr(before, "response_complete", True):  # it is None before the first, whatever uvicorn annotates
            self._hurry()

    def _hurry(self) -> None:
        if self._giving_up is None:
            self._giving_up = self.loop.call_later(HEAD_S, self.transport.close)

    def _calm(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to us."""
        yield


def serve(
    served: Served,
    listener: socket.socket,
    *,
    gate: Gate,
    limits: Limits,
    token: str | None,
    started: Callable[[], None],
) -> bool:
    """Serve until SIGINT or SIGTERM; a second one ends the process at once.

    Args:
        served: What computes; closed by the caller.
        listener: Bound and listening; closed here.
        gate: Closed when the end begins.
        limits: What is borne.
        token: Who asks must have it; None asks for none.
        started: Called once requests are answered.

    Returns:
        Whether all that was asked has been answered; where not, a thread still computes.

    Raises:
        TransportError: It does not come up.
    """
    executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="edge-serve")
    host = Host(served=served, gate=gate, executor=executor, token=token, max_body_bytes=limits.max_body_bytes)
    server = _Uvicorn(
        uvicorn.Config(
            build_app(host),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(limits.grace_s)),
            h11_max_incomplete_event_size=_HEADER_BYTES,
            # h11 is the same everywhere; httptools saves 0.15 ms of 1 ms a call and has no wheel for 32-bit ARM
            http=HurriedProtocol,
            ws="none",
        )
    )
    try:
        with listener:
            asyncio.run(_run(server, gate, listener, started))
        return gate.wait_empty(limits.grace_s)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


async def _run(server: _Uvicorn, gate: Gate, listener: socket.socket, started: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        if len(heard) > 1:
            os._exit(_SECOND_SIGNAL + number)
        gate.close()
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        for _ in range(int(_READY_S / _POLL_S)):
            if server.started or serving.done():
                break
            await asyncio.sleep(_POLL_S)
        if server.started:
            started()
        elif not heard:
            server.should_exit = True
            raise TransportError("the server does not come up")
        await serving
    finally:
        server.should_exit = True
        await asyncio.wait({serving})
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
