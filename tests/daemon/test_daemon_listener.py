"""The unix socket against careless and hostile neighbours: too many, too large, too slow, not even HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S

from edge_daemon import listener as listening
from edge_daemon.listener import MAX_HEADER_BYTES, MAX_OF_ONE_PROCESS, Listener, Request, Response
from edge_sdk.errors import AddressInUseError, ConfigError, StorageError
from edge_sdk.local import MAX_BODY_BYTES

pytestmark = [pytest.mark.device, pytest.mark.timeout(60)]

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(request: Request) -> Response:
    body = {"method": request.method, "target": request.target, "length": len(request.body), "pid": request.peer.pid}
    return Response(status=200, body=json.dumps(body).encode())


@asynccontextmanager
async def serving(
    path: Path, handler: Callable[[Request], Awaitable[Response]] = echo
) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """A listener, and how to connect to it; connections are closed at the end."""
    listener = Listener(path, handler)
    await listener.open()
    writers = []

    async def connect() -> Connection:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        await listener.close()
        await hang_up(*writers)


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    """Status and body of the next response."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    length = int(
        next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split(b":")[1]
    )
    return int(head.split()[1]), json.loads(await asyncio.wait_for(reader.readexactly(length), PATIENCE_S))


def get(target: str = "/x") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_requests_are_answered_one_after_the_other_on_one_connection(short_path: Path) -> None:
    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            for number in range(3):
                writer.write(f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
                status, body = await answer(reader)
                assert (status, body["target"], body["length"]) == (200, f"/{number}", 3)
                assert body["pid"] == os.getpid()
            writer.write(get("/a") + get("/b"))  # pipelined
            assert [(await answer(reader))[1]["target"] for _ in range(2)] == ["/a", "/b"]

    asyncio.run(scene())


def test_whoever_asks_for_the_headers_alone_gets_them_and_can_ask_on(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            writer.write(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
            writer.write(get("/y"))
            assert (await answer(reader))[1]["target"] == "/y"

    asyncio.run(scene())
    assert not caplog.records


@pytest.mark.parametrize(
    "body", [b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_whoever_asks_for_the_headers_alone_by_a_bad_request_gets_no_more_either(
    short_path: Path, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            writer.write(b"HEAD /x HTTP/1.1\r\nHost: x\r\n" + body)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 4")

    asyncio.run(scene())
    assert not caplog.records


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_HEADER_BYTES + 70_000), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused_and_hung_up_on(short_path: Path, sent: bytes, status: int) -> None:
    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            writer.write(sent)
            refused, body = await answer(reader)
            assert refused == status
            assert body["code"] == "bad-request"
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
            reader, writer = await connect()
            writer.write(get())
            assert (await answer(reader))[0] == 200, "others are served"

    asyncio.run(scene())


def test_a_body_that_is_too_large_is_refused(short_path: Path) -> None:
    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            for head in (f"Content-Length: {MAX_BODY_BYTES + 1}", "Transfer-Encoding: chunked"):
                reader, writer = await connect()
                writer.write(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
                body = b"a" * (MAX_BODY_BYTES + 1)
                writer.write(b"%x\r\n" % len(body) + body + b"\r\n" if "chunked" in head else body)
                status, refusal = await answer(reader)
                assert status == 413
                assert str(MAX_BODY_BYTES) in str(refusal["text"])

    asyncio.run(scene())


def test_whoever_dawdles_within_a_request_is_hung_up_on(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "REQUEST_S", 0.2)

    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            writer.write(b"GET / HT")
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""

    asyncio.run(scene())


def test_an_idle_connection_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_S", 0.2)

    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, _ = await connect()
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""

    asyncio.run(scene())


def test_a_peer_that_does_not_read_its_answer_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ANSWER_S", 0.2)

    async def large(_request: Request) -> Response:
        return Response(status=200, body=b"1" * 5_000_000)

    async def scene() -> None:
        async with serving(short_path / "s", large):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.setblocking(False)
                peer.connect(str(short_path / "s"))
                peer.send(get())
                await asyncio.sleep(0.6)
                received = 0
                while chunk := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 1 << 20), PATIENCE_S):
                    received += len(chunk)
                assert received < 5_000_000

    asyncio.run(scene())


@pytest.mark.parametrize("bound", ["MAX_CONNECTIONS", "MAX_OF_ONE_PROCESS"])
def test_more_connections_than_the_daemon_bears_are_refused(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(listening, bound, MAX_OF_ONE_PROCESS // 2)

    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            held = [await connect() for _ in range(MAX_OF_ONE_PROCESS // 2)]
            for reader, writer in held:
                writer.write(get())
                assert (await answer(reader))[0] == 200
            reader, writer = await connect()
            writer.write(get())
            status, body = await answer(reader)
            assert status == 503
            assert "too many connections" in str(body["text"])
            held[0][1].close()
            await held[0][1].wait_closed()
            for _ in range(100):  # until the listener has seen it
                reader, writer = await connect()
                writer.write(get())
                if (status := (await answer(reader))[0]) == 200:
                    break
            assert status == 200

    asyncio.run(scene())


def test_whoever_is_not_let_in_and_speaks_no_http_is_told_so_without_a_traceback(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 0)

    async def scene() -> None:
        async with serving(short_path / "s") as connect:
            reader, writer = await connect()
            writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            assert (await answer(reader))[0] == 503

    asyncio.run(scene())
    assert not caplog.records


def test_a_request_whose_sender_hangs_up_is_given_up(short_path: Path) -> None:
    async def scene() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def patient(_request: Request) -> Response:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()
            raise AssertionError

        async with serving(short_path / "s", patient) as connect:
            _, writer = await connect()
            writer.write(get())
            await asyncio.wait_for(began.wait(), PATIENCE_S)
            writer.close()
            await asyncio.wait_for(ended.wait(), PATIENCE_S)

    asyncio.run(scene())


def test_at_the_end_who_waits_is_answered_and_who_idles_is_hung_up_on(short_path: Path) -> None:
    async def scene() -> None:
        began, release = asyncio.Event(), asyncio.Event()

        async def patient(_request: Request) -> Response:
            began.set()
            await release.wait()
            return Response(status=200, body=b"{}")

        listener = Listener(short_path / "s", patient)
        await listener.open()
        waiting = await asyncio.open_unix_connection(str(short_path / "s"))
        idle = await asyncio.open_unix_connection(str(short_path / "s"))
        waiting[1].write(get())
        await asyncio.wait_for(began.wait(), PATIENCE_S)
        asyncio.get_running_loop().call_later(0.1, release.set)
        await asyncio.wait_for(listener.close(), PATIENCE_S)
        assert (await answer(waiting[0]))[0] == 200
        assert await asyncio.wait_for(idle[0].read(), PATIENCE_S) == b""
        assert not (short_path / "s").exists()
        await hang_up(waiting[1], idle[1])

    asyncio.run(scene())


def test_a_socket_of_a_dead_daemon_is_replaced_and_a_living_one_is_not(short_path: Path) -> None:
    path = short_path / "s"

    async def scene() -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            with pytest.raises(AddressInUseError, match="another daemon answers"):
                await Listener(path, echo).open()
            assert path.exists()
        assert not path.exists()
        path.write_text("a file of somebody's")
        with pytest.raises(AddressInUseError, match="no socket"):
            await Listener(path, echo).open()
        assert path.read_text() == "a file of somebody's"

    asyncio.run(scene())


def test_a_place_where_others_could_put_a_socket_is_refused(short_path: Path) -> None:
    async def scene() -> None:
        (short_path / "open").mkdir()
        (short_path / "open").chmod(0o777)
        with pytest.raises(StorageError, match="written by everybody"):
            await Listener(short_path / "open" / "s", echo).open()
        with pytest.raises(StorageError, match="--socket"):
            await Listener(short_path / ("long" * 40) / "s", echo).open()

    asyncio.run(scene())
    with pytest.raises(ConfigError, match="groupadd"):
        Listener(short_path / "s", echo, group="no-such-group")


def test_an_ordinary_http_client_is_served(short_path: Path) -> None:
    """`http.client`, as the SDK has it, sends head and body apart."""

    async def scene() -> None:
        async with serving(short_path / "s"):

            def ask() -> tuple[int, bytes]:
                connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.connect(str(short_path / "s"))
                connection.request("POST", "/x", b"{}")
                response = connection.getresponse()
                body = response.read()
                connection.close()
                return response.status, body

            status, body = await asyncio.get_running_loop().run_in_executor(None, ask)
            assert status == 200
            assert json.loads(body)["length"] == 2

    asyncio.run(scene())
