"""uvicorn as one part of the hub: on a socket that is bound already, with signals left to the hub.

With TLS it has no socket at all: connections come to it from `handshakes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from edge_hub.web.app import build_app
from edge_hub.web.handshakes import Handshakes
from edge_hub.web.patience import PatientProtocol
from edge_sdk.errors import TransportError

if TYPE_CHECKING:
    from edge_hub.service import Hub
    from edge_hub.web.certificate import ServerCertificate

_POLL_S = 0.01
_READY_S = 10.0
_GRACEFUL_S = 3


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the hub."""
        yield


class Server:
    """Serves the API of a hub on a listening socket.

    Args:
        hub: What it is about.
        listener: Where it is asked.
        certificate: What to show, with TLS.
    """

    def __init__(self, hub: Hub, listener: socket.socket, certificate: ServerCertificate | None) -> None:
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._listener = listener
        config = uvicorn.Config(
            build_app(hub, self._stopping),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            h11_max_incomplete_event_size=32 * 1024,
            limit_concurrency=1000,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_GRACEFUL_S,
            http=PatientProtocol,
            ws="none",
        )
        self._server = _Uvicorn(config)
        state = self._server.server_state
        self._handshakes = (
            None
            if certificate is None
            else Handshakes(
                listener,
                context=lambda: certificate.context,
                protocol=lambda: PatientProtocol(config=config, server_state=state, app_state={}),
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        try:
            if self._handshakes is None:
                await self._server.serve(sockets=[self._listener])
            else:
                await asyncio.gather(self._server.serve(sockets=[]), self._handshakes.run())
        finally:
            self._ended.set()

    async def ready(self) -> None:
        """Return once it answers.

        Raises:
            TransportError: It does not come up.
        """
        for _ in range(int(_READY_S / _POLL_S)):
            if self._server.started:
                return
            await asyncio.sleep(_POLL_S)
        raise TransportError("the HTTP API does not come up")

    async def stop(self) -> None:
        """Answer what was asked, end the streams, close."""
        if self._handshakes is not None:
            await self._handshakes.stop()
        self._stopping.set()
        self._server.should_exit = True
        await self._ended.wait()
