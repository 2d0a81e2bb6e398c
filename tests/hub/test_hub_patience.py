"""Nobody is kept out by somebody who keeps the server waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Message

from edge_hub.web import door
from edge_hub.web.patience import PatientProtocol
from edge_sdk.errors import WireError

_PATIENCE_S = 20.0
_MUCH = b"x" * 4_000_000
_ASK = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"

Play = Callable[[int], Awaitable[None]]


class Hasty(PatientProtocol):
    head_s = 0.2
    takes_s = 0.2


class Calm(PatientProtocol):
    head_s = 600.0


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def app(scope: Any, _receive: Any, send: Any) -> None:
    body = _MUCH if scope["path"] == "/much" else b"well"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(protocol: type[PatientProtocol], *, limit: int = 100) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    config = uvicorn.Config(
        app, http=protocol, limit_concurrency=limit, lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = _Uvicorn(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            while not server.started:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            await task


def played(protocol: type[PatientProtocol], play: Play) -> None:
    async def run() -> None:
        async with serving(protocol) as (port, _):
            await asyncio.wait_for(play(port), _PATIENCE_S)

    asyncio.run(run())


@pytest.mark.parametrize(
    "said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: hub\r\n", _ASK + b"GET / HT"], ids=["none", "a", "b", "second"]
)
def test_who_sends_no_whole_request_is_hung_up_on(said: bytes) -> None:
    async def play(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await reader.read()
            while await reader.read(1000):
                pass
        writer.close()

    played(Hasty, play)


def test_a_drip_of_bytes_wins_no_time() -> None:
    async def play(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.ensure_future(reader.read())
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\n")
            while not ended.done():
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.05)
            await ended
        writer.close()

    played(Hasty, play)


def test_who_takes_nothing_of_an_answer_is_hung_up_on() -> None:
    async def play() -> None:
        async with serving(Hasty) as (port, server):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(b"GET /much HTTP/1.1\r\nHost: hub\r\n\r\n")
            while not server.server_state.tasks:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            while server.server_state.connections:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(asyncio.wait_for(play(), _PATIENCE_S))


def test_who_reads_slowly_gets_all_of_it() -> None:
    async def play(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64_000)
        writer.write(b"GET /much HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        got = 0
        while chunk := await reader.read(100_000):
            got += len(chunk)
            await asyncio.sleep(0.01)
        assert got > len(_MUCH)
        writer.close()

    played(Hasty, play)


def test_connections_that_say_nothing_keep_nobody_out() -> None:
    async def play() -> None:
        async with serving(Calm, limit=20) as (port, _):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
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
