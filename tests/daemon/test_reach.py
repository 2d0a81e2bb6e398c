"""A look at a server: one round trip, or no answer, and never longer than its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from daemon_stage import PATIENCE_S, free_port, until
from remote_stage import speaks_no_ipv6

from edge_daemon import reach
from edge_daemon.policy.types import Looked
from edge_daemon.reach import Reach, Resolved, round_trip_ms
from edge_sdk.local import AssignedServer
from edge_sdk.server_address import ServerAddress

pytestmark = pytest.mark.device

Talks = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is about the deadline sets its own."""
    monkeypatch.setattr(reach, "DEADLINE_S", PATIENCE_S)


@contextlib.asynccontextmanager
async def server(says: bytes, asked: list[bytes] | None = None) -> AsyncIterator[ServerAddress]:
    """Reads a request's head and answers these bytes; nothing at all without any."""
    talks: list[asyncio.Task[None] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            writer.write(says)
            if not says:
                await reader.read()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield ServerAddress(scheme="http", host="127.0.0.1", port=listening.sockets[0].getsockname()[1], prefix="/api")
    finally:
        listening.close()
        await asyncio.gather(*filter(None, talks))  # each sees the end of its connection


def test_a_ready_server_tells_how_long_a_round_trip_takes() -> None:
    async def scene() -> None:
        asked: list[bytes] = []
        async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", asked) as address:
            found = await round_trip_ms(address, time.monotonic)
        assert found is not None
        assert 0 < found < 1000 * reach.DEADLINE_S
        assert asked[0].startswith(b"GET /api/v2/health/ready HTTP/1.1\r\nHost: 127.0.0.1:")

    asyncio.run(scene())


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_server_that_tells_only_who_has_a_token_is_there(status: bytes) -> None:
    async def scene() -> None:
        asked: list[bytes] = []
        async with server(b"HTTP/1.1 " + status + b"\r\n\r\n", asked) as address:
            assert await round_trip_ms(address, time.monotonic) is not None
        assert b"uthorization" not in asked[0]

    asyncio.run(scene())


@pytest.mark.parametrize(
    "says", [b"HTTP/1.1 503 Busy\r\n\r\n", b"no http", b"x" * 100_000, b"HTTP/1.1\r\n", b"\x00\xff\n"]
)
def test_what_is_no_yes_is_no_answer(says: bytes) -> None:
    async def scene() -> None:
        async with server(says) as address:
            assert await round_trip_ms(address, time.monotonic) is None

    asyncio.run(scene())


def test_a_server_that_says_nothing_or_is_not_there_costs_no_more_than_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "DEADLINE_S", 0.05)

    async def scene() -> None:
        async with server(b"") as address:
            assert await round_trip_ms(address, time.monotonic) is None
        assert (
            await round_trip_ms(ServerAddress(scheme="http", host="127.0.0.1", port=free_port()), time.monotonic)
            is None
        )

    asyncio.run(scene())


def test_a_name_is_looked_up_and_one_that_nobody_knows_is_no_answer() -> None:
    async def scene() -> None:
        async with server(b"HTTP/1.1 200 OK\r\n\r\n") as address:
            named = replace(address, host="localhost")
            assert await round_trip_ms(named, time.monotonic) is not None
            unknown = replace(address, host="x" * 64 + ".invalid")
            assert await round_trip_ms(unknown, time.monotonic) is None

    asyncio.run(scene())


def test_an_address_that_this_board_cannot_speak_to_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    speaks_no_ipv6(monkeypatch)

    async def scene() -> None:
        async with server(b"HTTP/1.1 200 OK\r\n\r\n") as address:
            assert await round_trip_ms(address, time.monotonic) is not None

    asyncio.run(scene())


def test_a_resolver_that_hangs_is_asked_once_and_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "DEADLINE_S", 0.05)
    asked: list[str] = []
    answers = threading.Event()
    real = socket.getaddrinfo

    def hangs(host: str, *given: Any, flags: int = 0, **named: Any) -> Any:
        if not flags:
            asked.append(host)
            answers.wait(PATIENCE_S)
        return real(host, *given, flags=flags, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    address = ServerAddress(scheme="http", host="localhost", port=free_port())

    async def scene() -> None:
        resolved = Resolved(address)
        for _ in range(3):
            assert await round_trip_ms(address, time.monotonic, resolved) is None

    asyncio.run(scene())
    assert not answers.is_set()
    until(lambda: asked, "it to be asked")
    assert asked == ["localhost"]
    answers.set()


def test_of_an_address_that_is_not_http_a_connection_is_enough() -> None:
    async def scene() -> None:
        async with server(b"") as address:
            grpc = ServerAddress(scheme="grpc", host=address.host, port=address.port)
            assert await round_trip_ms(grpc, time.monotonic) is not None

    asyncio.run(scene())


def test_it_looks_while_somebody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(reach, "WANTED_EVERY_S", 0.01)
    told: list[Looked] = []
    asked: list[None] = []
    enough = asyncio.Event()

    async def feed(looked: Looked) -> None:
        told.append(looked)
        if len(told) == 3:
            enough.set()

    def wanted() -> bool:
        asked.append(None)
        return len(asked) % 2 == 0

    async def scene() -> None:
        gone = AssignedServer(url=f"http://127.0.0.1:{free_port()}", model="m")
        looking = asyncio.ensure_future(Reach(gone, time.monotonic, wanted, feed).run())
        await asyncio.wait_for(enough.wait(), PATIENCE_S)
        looking.cancel()
        await asyncio.wait({looking})

    asyncio.run(scene())
    assert {each.rtt_ms for each in told} == {None}
    assert len(asked) >= 2 * len(told)
