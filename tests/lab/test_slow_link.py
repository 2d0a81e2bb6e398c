"""The played network really is slow, keeps what passes through it whole, and leaves nothing behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edge_lab.slow_link import SlowLink


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A TCP service that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                while chunk := connection.recv(65536):
                    connection.sendall(chunk)
            except OSError:
                pass

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    yield server.getsockname()
    stop.set()
    acceptor.join(30)
    for thread in threads:
        thread.join(30)
    server.close()


def round_trip_ms(client: socket.socket) -> float:
    begun = time.perf_counter()
    client.sendall(b"?")
    assert client.recv(1) == b"?"
    return (time.perf_counter() - begun) * 1000


def fastest_ms(client: socket.socket) -> float:
    """Of a few round trips: one of them a busy machine may have held up."""
    return min(round_trip_ms(client) for _ in range(10))


def test_a_round_trip_takes_what_the_link_is_set_to_and_is_fast_again_at_once(echo: tuple[str, int]) -> None:
    with SlowLink(echo) as link, socket.create_connection(link.address, timeout=30) as client:
        round_trip_ms(client)
        assert fastest_ms(client) < 60
        link.rtt_ms = 120
        assert 118 <= fastest_ms(client) < 400
        link.rtt_ms = 0
        assert fastest_ms(client) < 60


def test_many_bytes_arrive_whole_and_in_order_while_the_delay_changes(echo: tuple[str, int]) -> None:
    sent = bytes(range(256)) * 8192  # 2 MiB: more than the link holds in flight
    with SlowLink(echo, rtt_ms=4) as link, socket.create_connection(link.address, timeout=30) as client:

        def send() -> None:
            for start in range(0, len(sent), 65536):
                link.rtt_ms = (start // 65536) % 5
                client.sendall(sent[start : start + 65536])
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        while chunk := client.recv(65536):
            got += chunk
        sender.join(30)
    assert bytes(got) == sent


def test_a_cut_link_drops_its_connections_refuses_new_ones_and_mends(echo: tuple[str, int]) -> None:
    with SlowLink(echo) as link, socket.create_connection(link.address, timeout=30) as client:
        round_trip_ms(client)
        link.cut()
        assert not _answers(client)
        with socket.create_connection(link.address, timeout=30) as refused:
            assert not _answers(refused)
        link.mend()
        with socket.create_connection(link.address, timeout=30) as again:
            round_trip_ms(again)


def _answers(client: socket.socket) -> bool:
    try:
        round_trip_ms(client)
    except (OSError, AssertionError):
        return False
    return True


def test_a_service_that_is_away_ends_the_connection_and_not_the_link(echo: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()
    with SlowLink(closed) as link:
        for _ in range(3):
            with socket.create_connection(link.address, timeout=30) as client:
                assert not _answers(client)


def test_closing_ends_open_connections_and_may_be_done_twice(echo: tuple[str, int]) -> None:
    link = SlowLink(echo, rtt_ms=120_000)
    with socket.create_connection(link.address, timeout=30) as client:
        client.sendall(b"held back for a minute")
        begun = time.monotonic()
        link.close()
        link.close()
        assert time.monotonic() - begun < 30
        assert not _answers(client)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(link.address, timeout=30)
