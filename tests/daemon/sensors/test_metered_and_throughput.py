"""Whether the network costs by the byte, and how much goes through it: real sockets, a real bus where there is one."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_daemon.sensors.dbus import Property, get_number
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.metered import MeteredNetwork
from edge_daemon.sensors.network import RoundTrip, Throughput
from edge_daemon.sensors.reading import Metered, Unavailable
from edge_daemon.sensors.tcpinfo import TcpInfo, parse, tcp_info

pytestmark = pytest.mark.device

Make = Callable[..., Any]
Bus = Callable[..., Path]
Answering = Callable[[Path, Callable[[socket.socket], None]], None]
ROUTES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
WANTED = Property(service="org.example.Net", path="/org/example/Net", interface="org.example.Net", name="Metered")


def route(interface: str, metric: int, destination: str = "00000000") -> str:
    return f"{interface}\t{destination}\t0101A8C0\t0003\t0\t0\t{metric}\t{destination}\t0\t0\t0\n"


def message(order: str, kind: int, fields: bytes, body: bytes) -> bytes:
    """A message of a bus, as the specification lays it out."""
    first = b"l" if order == "<" else b"B"
    head = first + struct.pack(f"{order}BBBIII", kind, 0, 1, len(body), 7, len(fields)) + fields
    return head.ljust(-(-len(head) // 8) * 8, b"\0") + body


def reply_to(order: str, serial: int) -> bytes:
    sender = b"\x07\x01s\0" + struct.pack(f"{order}I", 4) + b":1.9\0"
    return sender.ljust(16, b"\0") + b"\x05\x01u\0" + struct.pack(f"{order}I", serial)


def number(value: int, order: str = "<") -> bytes:
    """The answer of `Get`, after those that a bus sends before: `Hello`'s, and a signal."""
    hello = message(order, 2, reply_to(order, 1), struct.pack(f"{order}I", 4) + b":1.5\0")
    signal = message(order, 4, b"\x01\x01o\0" + struct.pack(f"{order}I", 1) + b"/\0", b"")
    return hello + signal + message(order, 2, reply_to(order, 2), b"\x01u\0\0" + struct.pack(f"{order}I", value))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no silent bus."""
    monkeypatch.setattr("edge_daemon.sensors.dbus._DEADLINE_S", 10.0)


@pytest.fixture
def bus(short_path: Path, answering: Answering) -> Bus:
    """A bus that admits who asks and sends these bytes; the root below which its socket is."""

    def serve(answer: bytes, greeting: bytes = b"OK 0123456789abcdef\r\n") -> Path:
        def admit(connection: socket.socket) -> None:
            asked = b""
            while not asked.endswith(b"\r\n"):
                asked += connection.recv(1000)
            user = str(os.geteuid()).encode().hex().encode()
            assert asked == b"\0AUTH EXTERNAL " + user + b"\r\n"
            connection.sendall(greeting)
            while b"Metered" not in asked:
                more = connection.recv(1000)
                if not more:
                    return
                asked += more
            connection.sendall(answer)

        answering(short_path / "run/dbus/system_bus_socket", admit)
        return short_path

    return serve


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "metered"), [(1, True), (2, False), (3, True), (4, False)])
def test_networkmanager_is_believed_before_the_kind_of_interface(
    bus: Bus, order: str, value: int, metered: bool
) -> None:
    root = bus(number(value, order))
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/route").write_text(ROUTES + route("eth0" if metered else "wwan0", 100))
    reading = MeteredNetwork(Files(root)).read()
    assert reading == Metered(metered=metered)
    assert isinstance(reading, Metered)
    assert reading.source == "NetworkManager"


@pytest.mark.parametrize(
    "answer",
    [
        number(0),  # unknown to it
        number(99),
        b"",
        b"\0" * 64,
        b"l\x02\0\1" + b"\xff" * 12,  # announces gigabytes
        number(1)[:-3],
        message("<", 2, reply_to("<", 2), b"\x01s\0\0\1\0\0\0x\0"),
        message("<", 3, reply_to("<", 2), b""),
        message("<", 2, b"\x05\x01v\0\0\0\0\0", b""),
        message("<", 4, b"", b"") * 50,
    ],
)
def test_a_bus_that_does_not_tell_leaves_the_kind_of_interface(bus: Bus, answer: bytes) -> None:
    root = bus(answer)
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/route").write_text(ROUTES + route("eth0", 100, "0000FEA9") + route("wwan0", 700))
    assert MeteredNetwork(Files(root)).read() == Metered(metered=True)


def test_a_bus_that_does_not_admit_us_is_a_reason(bus: Bus) -> None:
    root = bus(b"", b"REJECTED EXTERNAL\r\n")
    answer = get_number(str(root / "run/dbus/system_bus_socket"), WANTED)
    assert isinstance(answer, Unavailable)
    assert "does not admit us" in answer.reason


def test_a_real_bus_understands_the_question(short_path: Path) -> None:
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("no dbus-daemon here")
    path = short_path / "bus"
    config = short_path / "bus.conf"
    config.write_text(
        f"<busconfig><listen>unix:path={path}</listen><auth>EXTERNAL</auth>"
        '<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>'
    )
    with subprocess.Popen(
        [program, f"--config-file={config}", "--nofork", "--print-address=1"], stdout=subprocess.PIPE
    ) as daemon:
        try:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            nobody = get_number(str(path), WANTED)
            own = Property(
                service="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                name="Features",
            )
            no_number = get_number(str(path), own)
        finally:
            daemon.terminate()
    assert isinstance(nobody, Unavailable)
    assert "does not tell Metered: org.freedesktop.DBus.Error." in nobody.reason
    assert no_number == Unavailable("D-Bus: Features is no number")


@pytest.mark.parametrize(
    ("routes", "metered"),
    [
        (route("wlan0", 600), False),
        (route("ppp0", 50) + route("eth0", 100), True),
        (route("eth0", 50) + route("wwan0", 700), False),
        (route("usb0", 1), True),
        (route("eth0", 0, "0001A8C0"), None),
        ("", None),
        ("eth0 nonsense\n\n", None),
    ],
)
def test_without_a_bus_the_interface_of_the_default_route_tells(board: Make, routes: str, metered: bool | None) -> None:
    reading = MeteredNetwork(Files(board(None, {"proc/net/route": ROUTES + routes}).root)).read()
    assert (reading.metered if isinstance(reading, Metered) else None) is metered


def test_the_boards_owner_knows_best(tmp_path: Path) -> None:
    assert MeteredNetwork(Files(tmp_path), given=True).read() == Metered(metered=True)


# ----------------------------------------------------------------------------------------------------- throughput


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_throughput_is_seen_in_transfers_that_are_large_enough_and_goes_stale() -> None:
    clock = Clock()
    seen = Throughput(clock)
    assert isinstance(seen.read("up"), Unavailable)
    for size, seconds in ((1000, 0.01), (1e6, 0.0), (float("nan"), 1.0), (1e6, float("nan")), (-1e9, 1.0)):
        seen.feed("up", size, seconds)
    assert isinstance(seen.read("up"), Unavailable)
    seen.feed("up", 1_000_000, 4.0)
    assert seen.read("up") == 2.0
    seen.feed("up", 1_000_000, 2.0)
    assert seen.read("up") == 3.0
    assert isinstance(seen.read("down"), Unavailable)
    clock.now_s += 601
    assert seen.read("up") == Unavailable("the last transfer is too long ago")
    seen.feed("up", 1_000_000, 8.0)
    assert seen.read("up") == 1.0


def test_what_a_real_connection_sent_while_it_was_busy_is_a_throughput() -> None:
    seen = Throughput(Clock())
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)  # so that it cannot take all at once
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.settimeout(10)
        client.connect(server.getsockname())
        peer = server.accept()[0]
        peer.settimeout(10)
        before = tcp_info(client.fileno())
        assert isinstance(before, TcpInfo)
        seen.look(before)
        sending = threading.Thread(target=client.sendall, args=(bytes(3_000_000),))
        sending.start()
        left = 3_000_000
        while left:
            left -= len(peer.recv(65536))
            time.sleep(0.001)
        sending.join()
        after = tcp_info(client.fileno())
        assert isinstance(after, TcpInfo)
        seen.look(after)
        peer.close()
    if after.busy_s is None:
        pytest.skip("this kernel does not count busy time")
    mbps = seen.read("up")
    assert isinstance(mbps, float)
    assert mbps > 1
    seen.look(before)  # another connection: its counters are lower
    assert seen.read("up") == mbps


def test_a_short_struct_of_an_old_kernel_gives_what_it_has() -> None:
    info = bytearray(104)
    info[0] = 1
    struct.pack_into("=I", info, 68, 18_500)
    assert parse(bytes(info)) == TcpInfo(rtt_ms=18.5, acked_bytes=None, busy_s=None)
    assert isinstance(parse(bytes(40)), Unavailable)
    info[0] = 7  # closed
    assert isinstance(parse(bytes(info)), Unavailable)


def test_the_kernels_round_trip_stands_in_while_the_broker_answers_no_probe() -> None:
    clock = Clock()
    trip = RoundTrip(clock)
    trip.look(TcpInfo(rtt_ms=None, acked_bytes=None, busy_s=None))
    assert trip.read() == Unavailable("no connection to a hub")
    trip.look(TcpInfo(rtt_ms=7.0, acked_bytes=None, busy_s=None))
    trips = trip.read()
    assert not isinstance(trips, Unavailable)
    assert trips.smoothed_ms == 7.0
    trip.feed(20.0)
    trips = trip.read()
    assert not isinstance(trips, Unavailable)
    assert trips.smoothed_ms == 20.0
    clock.now_s += 31
    trip.look(TcpInfo(rtt_ms=9.0, acked_bytes=None, busy_s=None))
    trips = trip.read()
    assert not isinstance(trips, Unavailable)
    assert trips.smoothed_ms == 9.0
