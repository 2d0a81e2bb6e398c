"""Nobody is kept out by somebody who keeps the server waiting, with TLS as without."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Message

from edge_hub.broker.authority import Authority
from edge_hub.web import door
from edge_hub.web.certificate import context_of
from edge_hub.web.handshakes import Handshakes
from edge_hub.web.patience import PatientProtocol, _untaken
from edge_sdk.errors import WireError

_PATIENCE_S = 60.0
_MUCH = b"x" * 4_000_000
_MORE = _MUCH * 6  # than the kernel keeps for who does not read
_ASK = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"

Play = Callable[[int], Awaitable[None]]


class Hasty(PatientProtocol):
    head_s = 0.5
    takes_s = 0.2


class Measured(PatientProtocol):
    takes_s = 2.0


class Calm(PatientProtocol):
    head_s = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How server and client speak; None is in clear."""

    served: ssl.SSLContext | None = None
    asked: ssl.SSLContext | None = None

    async def connect(self, port: int, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=self.asked, **more)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Way:
    authority = Authority(tmp_path_factory.mktemp("a"))
    authority.ensure_server(("127.0.0.1",))
    return Way(
        served=context_of(authority.server_cert, authority.server_key),
        asked=ssl.create_default_context(cafile=authority.ca),
    )


@pytest.fixture(params=["clear", "tls"])
def way(request: pytest.FixtureRequest, encrypted: Way) -> Way:
    return encrypted if request.param == "tls" else Way()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def app(scope: Any, _receive: Any, send: Any) -> None:
    body = {"/much": _MUCH, "/more": _MORE}.get(scope["path"], b"well")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(
    protocol: type[PatientProtocol], way: Way, *, limit: int = 100
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    config = uvicorn.Config(
        app,
        http=protocol,
        limit_concurrency=limit,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=1,
        timeout_graceful_shutdown=1,
    )
    server = _Uvicorn(config)
    state, served = server.server_state, way.served
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        handshakes = None
        if served is not None:
            handshakes = Handshakes(
                listener,
                context=lambda: served,
                protocol=lambda: protocol(config=config, server_state=state, app_state={}),
            )
        tasks = [asyncio.ensure_future(server.serve(sockets=[] if handshakes else [listener]))]
        if handshakes:
            tasks.append(asyncio.ensure_future(handshakes.run()))
        try:
            while not server.started:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            yield listener.getsockname()[1], server
        finally:
            if handshakes:
                await handshakes.stop()
            server.should_exit = True
            await asyncio.gather(*tasks)


def played(protocol: type[PatientProtocol], way: Way, play: Play) -> None:
    async def run() -> None:
        async with serving(protocol, way) as (port, _):
            await asyncio.wait_for(play(port), _PATIENCE_S)

    asyncio.run(run())


@pytest.mark.parametrize(
    "said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: hub\r\n", _ASK + b"GET / HT"], ids=["none", "a", "b", "second"]
)
def test_who_sends_no_whole_request_is_hung_up_on(way: Way, said: bytes) -> None:
    async def play(port: int) -> None:
        reader, writer = await way.connect(port)
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await reader.read()
            while await reader.read(1000):
                pass
        writer.close()

    played(Hasty, way, play)


def test_a_drip_of_bytes_wins_no_time(way: Way) -> None:
    async def play(port: int) -> None:
        reader, writer = await way.connect(port)
        ended = asyncio.ensure_future(reader.read())
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\n")
            while not ended.done():
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.05)
            await ended
        writer.close()

    played(Hasty, way, play)


def test_who_takes_nothing_of_an_answer_is_hung_up_on(way: Way) -> None:
    async def play() -> None:
        async with serving(Hasty, way) as (port, server):
            _, writer = await way.connect(port, limit=1000)
            writer.write(b"GET /more HTTP/1.1\r\nHost: hub\r\n\r\n")
            state = server.server_state
            while not (state.tasks or state.total_requests):  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            while state.connections:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            writer.transport.abort()

    asyncio.run(asyncio.wait_for(play(), _PATIENCE_S))


def test_who_reads_slowly_gets_all_of_it(way: Way) -> None:
    def read(port: int) -> int:
        with contextlib.ExitStack() as ends:
            sock = ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            if way.asked is not None:
                sock = ends.enter_context(way.asked.wrap_socket(sock, server_hostname="127.0.0.1"))
            sock.sendall(b"GET /much HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
            began_s, got = time.monotonic(), 0
            while chunk := sock.recv(16_384):
                got += len(chunk)
                if time.monotonic() - began_s < 1.5 * Measured.takes_s:
                    time.sleep(0.1)
            return got

    async def play(port: int) -> None:
        assert await asyncio.to_thread(read, port) > len(_MUCH)

    played(Measured, way, play)


def test_how_much_is_left_of_an_answer_can_be_asked_until_the_end_is_told(way: Way) -> None:
    """TLS has lost its connection by then; a timer may be due before it says so."""
    found: list[int] = []

    class Asking(Calm):
        def connection_lost(self, exc: Exception | None) -> None:
            try:
                found.append(_untaken(self.transport))
            finally:
                super().connection_lost(exc)
                ended.set()

    async def play(port: int) -> None:
        _, writer = await way.connect(port)
        writer.transport.abort()
        await ended.wait()

    ended = asyncio.Event()
    played(Asking, way, play)
    assert len(found) == 1


def test_connections_that_say_nothing_keep_nobody_out(way: Way) -> None:
    async def play() -> None:
        async with serving(Calm, way, limit=20) as (port, _):
            silent = [await way.connect(port) for _ in range(40)]
            for _ in range(3):
                reader, writer = await way.connect(port)
                writer.write(_ASK)
                assert b" 200 " in await reader.readline()
                writer.close()
            for _, writer in silent:
                writer.close()

    asyncio.run(asyncio.wait_for(play(), _PATIENCE_S))


def test_a_body_that_never_ends_is_waited_for_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(door, "_BODY_S", 0.05)
    scope = {"type": "http", "method": "POST", "scheme": "http", "server": ("hub", 80), "path": "/", "headers": []}
    request = Request({**scope, "query_string": b""}, silent)
    with pytest.raises(WireError, match="did not arrive"):
        asyncio.run(door.read_body(request, dict))
