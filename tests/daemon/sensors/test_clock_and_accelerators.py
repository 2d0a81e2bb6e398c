"""The clock that work meets, and how busy accelerators are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_daemon.sensors.accelerators import GpuLoad, NpuLoad
from edge_daemon.sensors.busy import Busy
from edge_daemon.sensors.clock import CpuClock, met_by_work
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.load import CpuLoad
from edge_daemon.sensors.reading import Clock, Load, Signals, Unavailable
from edge_daemon.sensors.suite import SensorSuite
from edge_sdk.mqtt import Throttle

pytestmark = pytest.mark.device

Make = Callable[..., Any]
POLICY = "sys/devices/system/cpu/cpufreq/policy0"


def read(root: Any) -> Clock:
    reading = CpuClock(Files(root)).read()
    assert isinstance(reading, Clock), reading
    return reading


def busy(percent: float) -> Load:
    return Load(percent=percent / 4, busiest_pct=percent)


def test_the_low_clock_of_an_idle_board_says_nothing_of_what_work_meets(board: Make) -> None:
    clock = read(board("pi4").root)
    assert clock.now == pytest.approx(600 / 1800)
    assert met_by_work(clock, busy(3), None) == 1.0
    assert met_by_work(clock, None, None) == 1.0


def test_a_clock_that_stays_low_under_load_is_what_work_meets(board: Make) -> None:
    clock = read(board("pi4", {f"{POLICY}/scaling_cur_freq": "1000000\n"}).root)
    assert met_by_work(clock, busy(97), None) == pytest.approx(1000 / 1800)


def test_a_limit_counts_at_any_load(board: Make) -> None:
    clock = read(board("pi4", {f"{POLICY}/scaling_max_freq": "900000\n"}).root)
    assert met_by_work(clock, busy(0), None) == 0.5
    assert met_by_work(clock, busy(100), None) == pytest.approx(600 / 1800)


def test_a_governor_that_never_raises_the_clock_is_believed_when_idle(board: Make) -> None:
    held = read(board("pi4", {f"{POLICY}/scaling_governor": "powersave\n"}).root)
    assert met_by_work(held, busy(1), None) == pytest.approx(600 / 1800)
    of_its_own = read(board("x86").root)  # intel_pstate calls its usual governor so
    assert met_by_work(of_its_own, busy(1), None) == 1.0


def test_the_firmwares_count_wins_over_what_the_kernel_asked_for(board: Make) -> None:
    clock = read(board("pi4", {f"{POLICY}/scaling_cur_freq": "1800000\n"}).root)
    throttled = Signals(worst=Throttle.THERMAL, clock_hz=1.0e9)
    assert met_by_work(clock, busy(100), throttled) == pytest.approx(1000 / 1800)


def test_the_fastest_cores_count(board: Make) -> None:
    little, big = "sys/devices/system/cpu/cpufreq/policy0", "sys/devices/system/cpu/cpufreq/policy4"
    made = board(
        None,
        {
            f"{little}/cpuinfo_max_freq": "1800000",
            f"{little}/scaling_max_freq": "1800000",
            f"{little}/scaling_cur_freq": "1800000",
            f"{big}/cpuinfo_max_freq": "2400000",
            f"{big}/scaling_max_freq": "1200000",
            f"{big}/scaling_cur_freq": "1200000",
        },
    )
    clock = read(made.root)
    assert (clock.now, clock.limit, clock.best_hz) == (0.5, 0.5, 2.4e9)


@pytest.mark.parametrize("text", ["", "nan", "-1", "0", "fast", None])
def test_a_clock_that_says_nonsense_is_a_reason(board: Make, text: str | None) -> None:
    made = board("pi4", {f"{POLICY}/scaling_cur_freq": text})
    assert isinstance(CpuClock(Files(made.root)).read(), Unavailable)


def test_a_clock_that_vanishes_is_a_reason_and_is_found_again_under_another_number(board: Make) -> None:
    made = board("pi4")
    sensor = CpuClock(Files(made.root))
    assert isinstance(sensor.read(), Clock)
    for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq", "scaling_governor"):
        made.remove(f"{POLICY}/{name}")
    assert isinstance(sensor.read(), Unavailable)
    (made.root / POLICY).rename(made.root / "sys/devices/system/cpu/cpufreq/gone")
    for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
        made.write(f"sys/devices/system/cpu/cpufreq/policy7/{name}", "1500000")
    assert isinstance(sensor.read(), Clock)


def test_the_busiest_core_is_told_beside_the_mean(board: Make) -> None:
    made = board(
        None, {"proc/stat": "cpu  0 0 0 400 0 0 0 0\ncpu0 0 0 0 200 0 0 0 0\ncpu1 0 0 0 200 0 0 0 0\nintr 1\n"}
    )
    sensor = CpuLoad(Files(made.root))
    made.write("proc/stat", "cpu  90 0 0 510 0 0 0 0\ncpu0 90 0 0 210 0 0 0 0\ncpu1 0 0 0 300 0 0 0 0\nintr 2\n")
    load = sensor.read()
    assert isinstance(load, Load)
    assert (load.percent, load.busiest_pct) == (45.0, 90.0)


# --------------------------------------------------------------------------------------------------- accelerators


@pytest.mark.parametrize(
    ("name", "gpu", "npu"),
    [
        ("jetson-nano", 76.0, None),
        ("xavier-nx", 4.5, None),
        ("orin-nano", 31.2, None),
        ("imx8mp", 12.0, 87.0),
        ("rk3588", 7.0, 41.0),
        ("x86", 23.0, None),
        ("pi4", None, None),
    ],
)
def test_gpu_and_npu_of_recorded_boards(board: Make, name: str, gpu: float | None, npu: float | None) -> None:
    files = Files(board(name).root)
    for sensor, percent in ((GpuLoad(files), gpu), (NpuLoad(files), npu)):
        reading = sensor.read()
        assert (reading.percent if isinstance(reading, Load) else None) == percent


@pytest.mark.parametrize("text", ["", "nan", "-5", "1001", "busy", "12 34"])
def test_a_load_that_is_none_is_a_reason(board: Make, text: str) -> None:
    made = board("jetson-nano", {"sys/devices/gpu.0/load": text})
    reading = GpuLoad(Files(made.root)).read()
    assert isinstance(reading, Unavailable)


def test_an_accelerator_that_vanishes_and_comes_back_is_read_again(board: Make) -> None:
    made = board("orin-nano")
    sensor = GpuLoad(Files(made.root))
    assert isinstance(sensor.read(), Load)
    made.remove("sys/class/devfreq/17000000.gpu/device/load")
    assert isinstance(sensor.read(), Unavailable)
    reading = sensor.read()
    assert isinstance(reading, Load)
    assert (reading.percent, reading.source) == (30.0, "sys/devices/platform/gpu.0/load")


def test_an_edge_tpu_is_as_busy_as_its_apps_calls_took() -> None:
    now_s = 100.0
    busy = Busy(lambda: now_s)
    assert isinstance(busy.read("edgetpu"), Unavailable)
    for nonsense in (float("nan"), -1.0, float("inf"), 1e12):
        busy.saw("app", "edgetpu", busy_ms=nonsense)
    busy.saw("app", "cpu", busy_ms=100.0)
    assert isinstance(busy.read("edgetpu"), Unavailable)
    for _ in range(5):
        now_s += 1
        busy.saw("app", "edgetpu:usb:0", busy_ms=30 * 8.0)  # 30 frames of 8 ms a second
    assert busy.read("edgetpu") == Load(percent=24.0)
    busy.saw("app", "edgetpu", busy_ms=20_000)
    assert busy.read("edgetpu") == Load(percent=100.0)
    now_s += 60
    assert isinstance(busy.read("edgetpu"), Unavailable)


def test_the_shares_of_time_of_several_apps_add_up() -> None:
    now_s = 100.0
    busy = Busy(lambda: now_s)
    for app in ("one", "other"):
        busy.saw(app, "teflon", busy_pct=90.0)  # of how long, nobody knows yet
    for _ in range(10):
        now_s += 0.5
        busy.saw("one", "teflon", busy_pct=30.0)
        busy.saw("other", "vx", busy_pct=40.0)
    reading = busy.read("npu")
    assert isinstance(reading, Load)
    assert reading.percent == pytest.approx(70.0)


def test_what_a_driver_counts_wins_over_what_apps_say(board: Make) -> None:
    for name, gpu in (("orin-nano", 31.2), ("pi4", 50.0)):
        with SensorSuite(board(name).root) as suite:
            suite.busy.saw("app", "gpu", busy_ms=2500.0)
            assert suite.read().gpu_pct == gpu
        for file in board(None).root.rglob("load"):
            file.unlink()
