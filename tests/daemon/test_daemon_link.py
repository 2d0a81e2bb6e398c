"""One connection, against brokers that misbehave; a real one is in `test_daemon_mqtt`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("paho")

from daemon_stage import PATIENCE_S

from edge_daemon import link as links
from edge_daemon.link import Address, Arrived, Connected, Denied, Echoed, Ended, Link, Looked, News, Will

pytestmark = [pytest.mark.device, pytest.mark.timeout(60)]

ACK = "edge/v1/t/d/down/ack"
OLD, V5 = 4, 5
Script = Callable[[socket.socket, int], None]


@contextmanager
def broker(script: Script) -> Iterator[Address]:
    """Plays a broker: `script` gets each connection and the protocol level of its CONNECT."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(PATIENCE_S)
                    try:
                        script(connection, packet(connection)[1][6])
                    except OSError:  # the link hung up
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(
                host="127.0.0.1",
                port=server.getsockname()[1],
                client_id="t/d",
                username="t/d",
                password="secret",
                tls=None,
                keepalive_s=5,
                probe_every_s=0.1,
                topics=(ACK,),
                probe_topic=ACK,
                will=Will(topic="edge/v1/t/d/up/birth", payload=b"gone", delay_s=1),
            )
        finally:
            ending.set()
            thread.join()


def packet(connection: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next packet of less than 16 kB."""
    kind, length = connection.recv(1), connection.recv(1)
    if not kind or not length:
        raise ConnectionError
    size = length[0]
    if size & 0x80:
        size = (size & 0x7F) + 128 * connection.recv(1)[0]
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return kind[0] & 0xF0, body


def run(address: Address, *, mqtt5: bool = True, act: Callable[[Link, News], None] | None = None):
    news: list[News] = []
    link: Link

    def tell(one: News) -> None:
        news.append(one)
        if act is not None:
            act(link, one)

    link = Link(address, mqtt5=mqtt5, tell=tell)
    return link.run(), news


def accept(connection: socket.socket, level: int) -> None:
    connection.sendall(b"\x20\x03\x00\x00\x00" if level == V5 else b"\x20\x02\x00\x00")


def is_hung_up_on(connection: socket.socket) -> None:
    """Read until the link has had enough: to close with something unread takes back what the link has still to read."""
    while connection.recv(4096):
        pass


def confirm_subscription(connection: socket.socket, body: bytes, level: int, code: int = 1) -> None:
    mid = body[:2]
    connection.sendall(
        b"\x90\x04" + mid + b"\x00" + bytes([code]) if level == V5 else b"\x90\x03" + mid + bytes([code])
    )


def test_a_broker_that_does_not_know_mqtt_5_is_told_from_one_that_refuses_us() -> None:
    def script(connection: socket.socket, level: int) -> None:
        connection.sendall(b"\x20\x02\x00\x01" if level == V5 else b"\x20\x02\x00\x04")

    with broker(script) as address:
        end, _ = run(address)
        assert end.how is Ended.OLD_BROKER
        end, _ = run(address, mqtt5=False)
        assert end.how is Ended.REFUSED
        assert not end.connected


def test_a_broker_that_hangs_up_on_mqtt_5_is_tried_with_the_older_one() -> None:
    with broker(lambda _connection, _level: None) as address:
        assert run(address)[0].how is Ended.OLD_BROKER
        assert run(address, mqtt5=False)[0].how is Ended.LOST


def test_a_broker_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "CONNECT_S", 0.3)
    with broker(lambda connection, _level: is_hung_up_on(connection)) as address:
        end, news = run(address)
        assert end.how is Ended.UNREACHABLE
        assert "does not answer CONNECT" in end.text
        assert news == []


def test_nobody_there_is_unreachable() -> None:
    with broker(lambda _connection, _level: None) as address:
        pass
    end, _ = run(address)
    assert end.how is Ended.UNREACHABLE
    assert end.text


@pytest.mark.parametrize("level", [OLD, V5])
def test_a_whole_connection_with_either_version(level: int) -> None:
    published = []

    def script(connection: socket.socket, got: int) -> None:
        assert got == level
        accept(connection, level)
        sent = False
        while True:
            kind, body = packet(connection)
            if kind == 0x80:
                confirm_subscription(connection, body, level)
            elif kind == 0x30:
                size = int.from_bytes(body[:2], "big")
                published.append(body[2 : 2 + size].decode())
                connection.sendall(b"\x40\x02" + body[2 + size : 4 + size])
            elif kind == 0xE0:
                published.append("goodbye")
                return
            if not sent:
                properties = b"\x00" if level == V5 else b""
                content = len(ACK).to_bytes(2, "big") + ACK.encode() + properties + b"{}"
                connection.sendall(b"\x30" + bytes([len(content)]) + content)
                sent = True

    def act(link: Link, news: News) -> None:
        if isinstance(news, Echoed):
            link.publish("edge/v1/t/d/up/birth", b"offline", retain=True)
            link.close()

    with broker(script) as address:
        end, news = run(address, mqtt5=level == V5, act=act)
    assert end.how is Ended.CLOSED
    assert isinstance(news[0], Connected)
    assert Arrived(topic=ACK, payload=b"{}", retained=False) in news
    assert any(isinstance(one, Looked) and one.info.rtt_ms is not None for one in news)
    assert published == ["edge/v1/t/d/up/birth", "goodbye"]


def test_a_subscription_that_is_denied_is_told() -> None:
    def script(connection: socket.socket, level: int) -> None:
        accept(connection, level)
        confirm_subscription(connection, packet(connection)[1], level, 0x87)
        is_hung_up_on(connection)

    def act(link: Link, news: News) -> None:
        if isinstance(news, Denied):
            link.close()

    with broker(script) as address:
        end, news = run(address, act=act)
    assert end.how is Ended.CLOSED
    assert any(isinstance(one, Denied) and "subscribe" in one.text for one in news)


def test_a_broker_that_says_another_took_our_place_is_understood() -> None:
    def script(connection: socket.socket, level: int) -> None:
        accept(connection, level)
        connection.sendall(b"\xe0\x02\x8e\x00")
        is_hung_up_on(connection)

    with broker(script) as address:
        assert run(address)[0].how is Ended.TAKEN_OVER


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"\x30\x02\xff\xff",
        b"\x30\x05\x00\x01\xff\x00\x00",
        b"\x90\x01\x00",
        b"\x40\x01\x00",
        b"\xe0\x02\x01\x00",
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    def script(connection: socket.socket, level: int) -> None:
        accept(connection, level)
        connection.sendall(garbage)
        time.sleep(0.2)

    with broker(script) as address:
        end, _ = run(address)
        assert end.how in {Ended.LOST, Ended.OLD_BROKER}
