"""All that is sensed as one value: from recorded boards, a played one, this machine, and through broken sensors."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_daemon.sensors.desk import Desk
from edge_daemon.sensors.network import RoundTrip, Trips
from edge_daemon.sensors.reading import Heat, Load, Reading, Unavailable
from edge_daemon.sensors.suite import SENSORS, SensorSuite
from edge_daemon.sensors.tcpinfo import TcpInfo, tcp_info
from edge_lab.played import PlayedBoard, PlayedConditions
from edge_sdk import profile
from edge_sdk.mqtt import Conditions, Throttle

pytestmark = pytest.mark.device

Make = Callable[..., Any]
OPTIONAL = (
    "temp_c",
    "temp_limit_c",
    "battery_pct",
    "charging",
    "power_w",
    "load_pct",
    "memory_available_mb",
    "rtt_ms",
    "battery_wh",
    "battery_full_wh",
    "clock",
    "gpu_pct",
    "npu_pct",
    "edgetpu_pct",
    "up_mbps",
    "down_mbps",
    "metered",
)
# What each recorded board tells; everything else is missing with a reason. Of all boards of the profiles.
TOLD: dict[str, set[str]] = {
    "pi-zero": {"temp_c", "clock"},  # no alarm: the Zero has no detector of under-voltage
    "pi3": {"temp_c", "clock"},
    "pi4": {"temp_c", "clock"},
    "pi5": {"temp_c"},
    "jetson-nano": {"temp_c", "power_w", "gpu_pct"},
    "xavier-nx": {"temp_c", "power_w", "gpu_pct"},
    "orin-nano": {"temp_c", "power_w", "gpu_pct"},
    "orin-nx": {"temp_c", "power_w", "gpu_pct"},
    "coral-dev": {"temp_c", "temp_limit_c"},
    "coral-mini": {"temp_c"},
    "coral-usb": {"temp_c", "clock"},
    "imx8mp": {"temp_c", "temp_limit_c", "gpu_pct", "npu_pct"},
    "imx93": {"temp_c"},
    "rk3588": {"temp_c", "gpu_pct", "npu_pct"},
    "x86": {"temp_c", "clock", "gpu_pct"},  # its power takes an interval
    "android": set(),
    "pisugar": {"battery_pct", "charging"},
    "laptop": {"temp_c", "battery_pct", "battery_wh", "battery_full_wh", "charging", "power_w"},
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def check(conditions: Conditions) -> None:
    """Every value that is missing has its reason, no other has one, and all of it can travel."""
    none = {name for name in OPTIONAL if getattr(conditions, name) is None}
    assert none <= set(conditions.missing) <= none | {"throttle"}
    assert all(conditions.missing.values())
    assert msgspec.json.decode(msgspec.json.encode(conditions), type=Conditions) == conditions


@pytest.mark.parametrize("name", TOLD)
def test_a_recorded_board_tells_what_it_has_and_every_missing_value_has_its_reason(board: Make, name: str) -> None:
    with SensorSuite(board(name).root) as suite:
        conditions = suite.read()
        sources = {one.field: one.source for one in suite.survey() if one.value is not None}
    check(conditions)
    assert {field for field in OPTIONAL if getattr(conditions, field) is not None} == TOLD[name]
    assert all(sources[field] for field in TOLD[name])


def test_a_raspberry_pi_with_its_profile(board: Make) -> None:
    made = board("pi4", {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"})
    with SensorSuite(made.root, profile.load("rpi4")) as suite:
        conditions = suite.read()
    assert conditions.temp_c == 61.824
    assert conditions.temp_limit_c == 75
    assert conditions.throttle is Throttle.POWER
    assert conditions.missing["battery_pct"] == "no battery in sys/class/power_supply"


def test_a_temperature_is_told_with_its_zone_and_the_trip_points_that_were_read(board: Make) -> None:
    with SensorSuite(board("coral-dev").root) as suite:
        found = {one.field: one for one in suite.survey()}
    assert found["temp_c"].remark == "cpu-thermal; passive cooling from 75 C; 27 degrees below shutdown"
    assert found["temp_c"].source == "sys/class/thermal/thermal_zone0/temp"


def test_without_a_profile_the_limit_is_the_boards_own_passive_trip_point(board: Make) -> None:
    with SensorSuite(board("coral-dev").root) as suite:
        assert suite.read().temp_limit_c == 75.0


def test_an_empty_tree_is_all_reasons(tmp_path: Path) -> None:
    with SensorSuite(tmp_path) as suite:
        conditions = suite.read()
    check(conditions)
    assert set(conditions.missing) == {*OPTIONAL, "throttle"}


def test_the_machine_this_runs_on_is_read() -> None:
    with SensorSuite() as suite:
        suite.read()
        conditions = suite.read()
    check(conditions)
    assert conditions.memory_available_mb is not None


def test_names_that_are_no_utf_8_can_still_be_told(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/sys/class/power_supply/BAT\xff"
    os.makedirs(folder)  # noqa: PTH103 - pathlib takes no bytes
    with open(folder + b"/type", "wb") as file:  # noqa: PTH123 - as above
        file.write(b"Battery\n")
    with SensorSuite(tmp_path) as suite:
        check(suite.read())


@pytest.mark.parametrize("name", ["pi4", "orin-nano", "imx8mp", "x86", "laptop"])
def test_a_pipe_in_place_of_every_file_holds_nobody(board: Make, name: str) -> None:
    made = board(name)
    for file in made.root.rglob("*"):
        if file.is_file():
            file.unlink()
            os.mkfifo(file)
    begun = time.monotonic()
    with SensorSuite(made.root) as suite:
        check(suite.read())
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("content", ["", "nan\n", "9" * 30])
@pytest.mark.parametrize("name", TOLD)
def test_garbage_in_every_file_of_every_board_is_all_reasons(board: Make, name: str, content: str) -> None:
    made = board(name)
    for file in made.root.rglob("*"):
        if file.is_file():
            file.write_text(content)
    with SensorSuite(made.root) as suite:
        suite.read()
        conditions = suite.read()
    check(conditions)
    assert {field for field in OPTIONAL if getattr(conditions, field) is not None} <= {"metered"}


@pytest.mark.parametrize("name", TOLD)
def test_a_board_whose_files_vanish_while_it_is_read_is_all_reasons_and_comes_back(board: Make, name: str) -> None:
    made = board(name)
    with SensorSuite(made.root) as suite:
        suite.read()
        (made.root / "sys").rename(made.root / "gone") if (made.root / "sys").exists() else None
        without = suite.read()
        check(without)
        assert not {field for field in OPTIONAL if getattr(without, field) is not None}
        (made.root / "gone").rename(made.root / "sys") if (made.root / "gone").exists() else None
        for _ in range(62):  # what was not there is looked for again within a minute
            back = suite.read()
    told = {field for field in OPTIONAL if getattr(back, field) is not None}
    assert TOLD[name] <= told <= TOLD[name] | {"power_w"}  # what takes an interval had one, on a slow machine


@pytest.mark.parametrize("name", ["pi4", "pi5", "jetson-nano", "orin-nano", "laptop"])
def test_zones_and_chips_that_are_renumbered_change_nothing(board: Make, name: str) -> None:
    made = board(name)
    with SensorSuite(made.root) as suite:
        before = suite.read()
        for folder in ("sys/class/thermal", "sys/class/hwmon"):
            for kind in ("thermal_zone", "hwmon"):
                there = sorted((made.root / folder).glob(f"{kind}[0-9]"))
                for number, place in enumerate(there):
                    place.rename(place.with_name(f"{kind}{90 - number}"))
        after = suite.read()
    assert msgspec.structs.replace(after, missing={}) == msgspec.structs.replace(before, missing={})


def test_what_the_kernel_says_of_the_hubs_connection_stands_in_for_round_trips(tmp_path: Path) -> None:
    with SensorSuite(tmp_path) as suite:
        suite.look(TcpInfo(rtt_ms=31.5, acked_bytes=1, busy_s=0.0))
        assert suite.read().rtt_ms == 31.5
        suite.look(TcpInfo(rtt_ms=31.5, acked_bytes=1_000_001, busy_s=4.0))
        assert suite.read().up_mbps == 2.0


# ----------------------------------------------------------------------------------------------- the played board


def test_a_played_board_is_read_as_it_is_played(tmp_path: Path) -> None:
    calm = PlayedConditions(temp_c=45.0, battery_pct=80.0, charging=False, rtt_ms=1.0)
    made = PlayedBoard(tmp_path, calm, limit_c=72.0)
    with SensorSuite(tmp_path, profile.load("rpi4")) as suite:
        first = suite.read()
        made.show(PlayedConditions(temp_c=74.5, battery_pct=9.0, charging=True, rtt_ms=200.0))
        second = suite.read()
    check(second)
    assert (first.temp_c, first.battery_pct, first.charging, first.temp_limit_c) == (45.0, 80.0, False, 75)
    assert (second.temp_c, second.battery_pct, second.charging) == (74.5, 9.0, True)
    assert first.memory_available_mb is not None  # a link to the machine's own
    assert (first.throttle, second.throttle) == (Throttle.NONE, Throttle.THERMAL)  # 72 is its passive trip point
    with SensorSuite(tmp_path) as suite:
        assert suite.read().temp_limit_c == 72.0


def test_a_played_board_that_is_read_while_it_is_written_never_shows_half_a_value(tmp_path: Path) -> None:
    def conditions(step: int) -> PlayedConditions:
        return PlayedConditions(
            temp_c=10.0 + step % 90, battery_pct=float(step % 101), charging=bool(step % 2), rtt_ms=0
        )

    made = PlayedBoard(tmp_path, conditions(0), limit_c=75.0)
    done = threading.Event()

    def play() -> None:
        step = 0
        while not done.is_set():
            step += 1
            made.show(conditions(step))

    player = threading.Thread(target=play)
    player.start()
    try:
        with SensorSuite(tmp_path) as suite:
            for _ in range(100):
                seen = suite.read()
                assert seen.temp_c is not None
                assert seen.temp_c >= 10
                assert seen.battery_pct is not None
                assert seen.charging is not None
    finally:
        done.set()
        player.join()


# ------------------------------------------------------------------------------------------------- broken sensors


class Fixed:
    """A sensor that always says the same."""

    def __init__(self, name: str, reading: Reading) -> None:
        self.name = name
        self._reading = reading

    def read(self) -> Reading:
        return self._reading


class Hanging:
    """A sensor whose driver does not let go until it is told to."""

    name = "power"

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def read(self) -> Reading:
        self.entered.set()
        self.let_go.wait(30)
        return Unavailable("let go")


class Broken:
    """A plug-in that breaks the contract."""

    name = "battery"

    def read(self) -> Reading:
        raise ZeroDivisionError


HOT = Heat(temp_c=50.0, where="cpu")


def test_a_sensor_that_raises_is_a_reason_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk([Broken(), Fixed("load", Load(percent=1.0))], Clock())
    answers = desk.answers(10)
    desk.close()
    assert answers == {"battery": Unavailable("failed: ZeroDivisionError"), "load": Load(percent=1.0)}
    assert "sensor battery failed" in caplog.text


def test_a_sensor_that_raises_at_each_reading_is_told_of_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    desk = Desk([Broken()], clock)
    for _ in range(3601):
        desk.answers(10)
        clock.now_s += 1
    desk.close()
    assert caplog.text.count("sensor battery failed") == 2
    assert "(3599 more such lines held back)" in caplog.text


def test_a_driver_that_hangs_for_a_while_at_each_reading_is_told_of_once_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Slow:
        name = "power"

        def read(self) -> Reading:
            entered.release()
            let_go.acquire(timeout=30)
            return Unavailable("at last")

    clock, entered, let_go = Clock(), threading.Semaphore(0), threading.Semaphore(0)
    desk = Desk([Slow()], clock)
    for _ in range(3):
        desk.answers(0)
        assert entered.acquire(timeout=10)
        hung = desk._clerk
        clock.now_s += 3
        desk.answers(10)  # of the others; the thread that reads it is given up
        let_go.release()
        assert hung is not None
        hung.join(10)
    let_go.release()
    desk.close()
    assert caplog.text.count("sensor power hangs") == 1


def test_a_driver_that_hangs_holds_nobody_and_the_others_go_on_without_it(caplog: pytest.LogCaptureFixture) -> None:
    clock, hanging = Clock(), Hanging()
    desk = Desk([Fixed("temperature", HOT), hanging, Fixed("load", Load(percent=2.0))], clock)
    try:
        first = desk.answers(0.05)
        assert hanging.entered.wait(60)
        assert first["power"] == Unavailable("has not answered yet")
        clock.now_s += 3
        second = desk.answers(10)
        assert second["temperature"] == HOT
        assert second["load"] == Load(percent=2.0)
        assert "sensor power hangs" in caplog.text
        clock.now_s += 3
        assert desk.answers(10)["load"] == Load(percent=2.0)  # and it is not asked again while it hangs
        hanging.let_go.set()
        deadline = time.monotonic() + 60
        while desk.answers(1)["power"] != Unavailable("let go"):
            assert time.monotonic() < deadline
    finally:
        hanging.let_go.set()
        desk.close()
        for thread in threading.enumerate():
            if thread.name == "edge-sensors":
                thread.join(60)


def test_an_answer_older_than_five_seconds_is_none() -> None:
    clock, hanging = Clock(), Hanging()
    desk = Desk([Fixed("temperature", HOT), hanging], clock)
    try:
        desk.answers(0.05)
        assert hanging.entered.wait(60)
        clock.now_s += 1.9
        assert desk.answers(0)["temperature"] == HOT
        desk._answers["temperature"] = (clock.now_s - 6, HOT)
        assert desk.answers(0)["temperature"] == Unavailable("does not answer for 6 s")
    finally:
        hanging.let_go.set()
        desk.close()


def test_a_registry_without_some_sensor_says_so(tmp_path: Path) -> None:
    few = {name: make for name, make in SENSORS.items() if name != "battery"}
    with SensorSuite(tmp_path, sensors=few) as suite:
        assert suite.read().missing["battery_pct"] == "no such sensor is registered"


# -------------------------------------------------------------------------------------------------------- network


def test_the_kernels_round_trip_of_a_real_connection_is_told_and_the_socket_still_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=60) as client,
        server.accept()[0] as peer,
    ):
        for _ in range(20):
            client.sendall(b"?")
            assert peer.recv(1) == b"?"
            peer.sendall(b"!")
            assert client.recv(1) == b"!"
        info = tcp_info(client.fileno())
        assert isinstance(info, TcpInfo)
        assert isinstance(info.rtt_ms, float)
        assert 0 < info.rtt_ms < 1000
        client.sendall(b".")
        assert peer.recv(1) == b"."


def test_what_is_no_connection_has_no_round_trip(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert isinstance(tcp_info(file.fileno()), Unavailable)
    with socket.socket() as unconnected:
        assert isinstance(tcp_info(unconnected.fileno()), Unavailable)
    one, other = socket.socketpair()
    with one, other:
        assert isinstance(tcp_info(one.fileno()), Unavailable)
    assert isinstance(tcp_info(10_000), Unavailable)


def test_round_trips_are_smoothed_and_go_stale_and_are_forgotten() -> None:
    clock = Clock()
    trip = RoundTrip(clock)
    assert trip.read() == Unavailable("no connection to a hub")
    trip.feed(10.0)
    trip.feed(50.0)
    assert trip.read() == Trips(smoothed_ms=20.0, last_ms=50.0, min_ms=10.0, at_s=clock.now_s)
    for nonsense in (float("nan"), -1.0, float("inf"), 1e12):
        trip.feed(nonsense)
    assert isinstance(trip.read(), Trips)
    clock.now_s += 30.1
    assert trip.read() == Unavailable("stale")
    trip.feed(5.0)
    assert isinstance(trip.read(), Trips)
    trip.forget()
    assert isinstance(trip.read(), Unavailable)


def test_the_round_trip_is_part_of_the_conditions(tmp_path: Path) -> None:
    with SensorSuite(tmp_path) as suite:
        suite.round_trip.feed(12.5)
        assert suite.read().rtt_ms == 12.5
