"""Charge, power, processor and memory on recorded boards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_daemon.sensors.battery import Battery
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.load import CpuLoad, MainMemory
from edge_daemon.sensors.power import BoardPower
from edge_daemon.sensors.reading import Charge, Load, Memory, Power, Unavailable

pytestmark = pytest.mark.device

Make = Callable[..., Any]
BAT = "sys/class/power_supply/BAT0"
AC = "sys/class/power_supply/AC0"


def test_a_ups_board_on_its_battery(board: Make) -> None:
    assert Battery(Files(board("pisugar").root)).read() == Charge(percent=87.0, charging=False)


def test_two_batteries_count_by_the_energy_they_hold_and_a_mouse_counts_for_nothing(board: Make) -> None:
    reading = Battery(Files(board("laptop").root)).read()
    assert reading == Charge(percent=pytest.approx((90 * 24 + 30 * 48) / 72), charging=False)


def test_a_tablets_own_charger_is_not_the_boards_mains(board: Make) -> None:
    made = board("laptop", {"sys/class/power_supply/BAT1/status": "Charging\n"})
    made.write("sys/class/power_supply/AC/online", "0\n")
    made.write("sys/class/power_supply/BAT1/status", "Not charging\n")
    reading = Battery(Files(made.root)).read()
    assert isinstance(reading, Charge)
    assert reading.charging is False


@pytest.mark.parametrize(
    ("status", "online", "charging"),
    [
        ("Charging", "1", True),
        ("Charging", "0", True),  # by a supply that is not listed
        ("Charging", None, True),
        ("Discharging", "1", False),  # a weak supply
        ("Discharging", "0", False),
        ("Full", "1", True),
        ("Full", "0", False),  # the plug was pulled a moment ago
        ("Full", None, True),
        ("Not charging", "1", True),  # held at a threshold
        ("Not charging", "0", False),
        ("Not charging", None, None),
        ("Unknown", None, None),
        ("", None, None),
        ("garbage", "2", True),
    ],
)
def test_whether_the_mains_carries_the_board(
    board: Make, status: str, online: str | None, charging: bool | None
) -> None:
    made = board(
        None, {f"{BAT}/type": "Battery", f"{BAT}/capacity": "50", f"{BAT}/status": status, f"{AC}/online": online}
    )
    assert Battery(Files(made.root)).read() == Charge(percent=50.0, charging=charging)


def test_no_battery_at_all_and_mains_alone(board: Make) -> None:
    none = Battery(Files(board("pi4").root)).read()
    assert none == Unavailable("no battery in sys/class/power_supply")
    mains = Battery(Files(board(None, {f"{AC}/type": "Mains", f"{AC}/online": "1"}).root)).read()
    assert mains == Charge(percent=None, charging=True)


def test_an_empty_bay_counts_for_nothing(board: Make) -> None:
    made = board(None, {f"{BAT}/type": "Battery", f"{BAT}/present": "0", f"{BAT}/capacity": "0"})
    assert isinstance(Battery(Files(made.root)).read(), Unavailable)


@pytest.mark.parametrize("capacity", ["", "nan", "140", "-3", "full", None])
def test_a_gauge_that_says_nonsense_is_a_reason_unless_it_counts_energy_or_charge(
    board: Make, capacity: str | None
) -> None:
    made = board(None, {f"{BAT}/type": "Battery", f"{BAT}/status": "Discharging", f"{BAT}/capacity": capacity})
    reading = Battery(Files(made.root)).read()
    assert isinstance(reading, Unavailable)
    assert "BAT0/capacity" in reading.reason
    made.write(f"{BAT}/charge_now", "1500000")
    made.write(f"{BAT}/charge_full", "2000000")
    assert Battery(Files(made.root)).read() == Charge(percent=75.0, charging=False)


def test_a_battery_that_is_pulled_while_we_look_is_none(board: Make) -> None:
    class Vanishing(Files):
        def text(self, path: str) -> str | Unavailable:
            return Unavailable(f"{path}: No such device") if path.endswith(("capacity", "_now")) else super().text(path)

    assert isinstance(Battery(Vanishing(board("pisugar").root)).read(), Unavailable)


def test_a_ups_is_a_battery(board: Make) -> None:
    made = board(None, {f"{BAT}/type": "UPS", f"{BAT}/capacity": "40", f"{BAT}/status": "Discharging"})
    assert Battery(Files(made.root)).read() == Charge(percent=40.0, charging=False)


# ---------------------------------------------------------------------------------------------------------- power


@pytest.mark.parametrize(
    ("name", "watts"), [("jetson-nano", 1.75), ("orin-nano", 5.08 * 1.12), ("laptop", 7.25)], ids=str
)
def test_what_the_board_draws(board: Make, name: str, watts: float) -> None:
    assert BoardPower(Files(board(name).root)).read() == Power(watts=pytest.approx(watts))


def test_without_a_rail_for_the_whole_board_the_rails_are_added(board: Make) -> None:
    chip = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
    made = board("orin-nano", {f"{chip}/in1_label": "NC\n"})
    assert BoardPower(Files(made.root)).read() == Power(watts=pytest.approx(5.072 * (0.304 + 0.288)))


def test_a_sum_with_a_rail_that_cannot_be_read_is_none(board: Make) -> None:
    chip = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
    reading = BoardPower(
        Files(board("orin-nano", {f"{chip}/in1_label": "NC\n", f"{chip}/curr3_input": ""}).root)
    ).read()
    assert isinstance(reading, Unavailable)
    assert "curr3_input" in reading.reason


def test_an_ina219_with_the_kernels_driver(board: Make) -> None:
    chip = "sys/class/hwmon/hwmon2"
    made = board("pi4", {f"{chip}/name": "ina219\n", f"{chip}/power1_input": "4320000\n"})
    assert BoardPower(Files(made.root)).read() == Power(watts=4.32)


def test_a_battery_that_counts_discharge_as_negative_current(board: Make) -> None:
    made = board("pisugar", {f"{BAT}/current_now": "-600000\n"})
    assert BoardPower(Files(made.root)).read() == Power(watts=pytest.approx(0.6 * 4.012))


def test_a_mouse_does_not_tell_what_the_board_draws(board: Make) -> None:
    mouse = "sys/class/power_supply/hidpp_battery_0"
    files = {f"{mouse}/type": "Battery", f"{mouse}/scope": "Device", f"{mouse}/status": "Discharging"}
    made = board(None, {**files, f"{mouse}/power_now": "1000"})
    assert BoardPower(Files(made.root)).read() == Unavailable("no chip that measures the board's power")


def test_absurd_power_is_none(board: Make) -> None:
    made = board("jetson-nano", {"sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": "99999999999\n"})
    assert isinstance(BoardPower(Files(made.root)).read(), Unavailable)


# ---------------------------------------------------------------------------------------------- processor and memory


def stat(user: int, idle: int, iowait: int = 0) -> str:
    return f"cpu  {user} 0 0 {idle} {iowait} 0 0 0 0 0\ncpu0 {user} 0 0 {idle} {iowait} 0 0 0 0 0\nintr 1 2\n"


def test_load_is_the_share_of_jiffies_that_were_not_idle_since_the_last_reading(board: Make) -> None:
    made = board(None, {"proc/stat": stat(1000, 9000)})
    sensor = CpuLoad(Files(made.root))
    made.write("proc/stat", stat(1030, 9060, 10))
    assert sensor.read() == Load(percent=30.0)
    made.write("proc/stat", stat(1130, 9060, 10))
    assert sensor.read() == Load(percent=100.0)


def test_too_short_an_interval_lengthens_and_the_last_value_stands(board: Make) -> None:
    made = board(None, {"proc/stat": stat(0, 0)})
    sensor = CpuLoad(Files(made.root))
    assert isinstance(sensor.read(), Unavailable)
    made.write("proc/stat", stat(50, 50))
    assert sensor.read() == Load(percent=50.0)
    made.write("proc/stat", stat(51, 50))
    assert sensor.read() == Load(percent=50.0)
    made.write("proc/stat", stat(60, 50))
    assert sensor.read() == Load(percent=100.0)


def test_a_counter_that_steps_back_counts_as_not_moved(board: Make) -> None:
    made = board(None, {"proc/stat": stat(0, 1000, 500)})
    sensor = CpuLoad(Files(made.root))
    made.write("proc/stat", stat(20, 1080, 400))
    assert sensor.read() == Load(percent=20.0)


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu 1 2 3\n", "cpu a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8 9\n"])
def test_counters_of_another_form_are_a_reason(board: Make, text: str) -> None:
    assert isinstance(CpuLoad(Files(board(None, {"proc/stat": text}).root)).read(), Unavailable)


def test_counters_that_come_back_need_an_interval_first(board: Make) -> None:
    made = board(None, {"proc/stat": stat(0, 0)})
    sensor = CpuLoad(Files(made.root))
    made.write("proc/stat", "")
    assert isinstance(sensor.read(), Unavailable)
    made.write("proc/stat", stat(100, 0))
    assert isinstance(sensor.read(), Unavailable)
    made.write("proc/stat", stat(200, 100))
    assert sensor.read() == Load(percent=50.0)


MEMINFO = "MemTotal:        3884632 kB\nMemFree:          120000 kB\nMemAvailable:    2097152 kB\n"
GROUP = "sys/fs/cgroup"


def test_memory_is_what_the_kernel_calls_available(board: Make) -> None:
    assert MainMemory(Files(board(None, {"proc/meminfo": MEMINFO}).root)).read() == Memory(available_mb=2048)


@pytest.mark.parametrize(
    "text", ["", "MemTotal: 1 kB\n", "MemAvailable: lots kB\n", "MemAvailable: " + "9" * 30 + " kB\n"]
)
def test_memory_of_another_form_is_a_reason(board: Make, text: str) -> None:
    assert isinstance(MainMemory(Files(board(None, {"proc/meminfo": text}).root)).read(), Unavailable)


def test_in_a_container_its_limit_counts_less_what_it_uses_but_for_stale_file_pages(board: Make) -> None:
    group = {
        f"{GROUP}/memory.max": f"{512 * 2**20}\n",
        f"{GROUP}/memory.current": f"{300 * 2**20}\n",
        f"{GROUP}/memory.stat": f"anon 1\ninactive_file {100 * 2**20}\nactive_file 7\n",
    }
    made = board(None, {"proc/meminfo": MEMINFO, **group})
    assert MainMemory(Files(made.root)).read() == Memory(available_mb=312)
    made.write(f"{GROUP}/memory.current", f"{900 * 2**20}\n")
    assert MainMemory(Files(made.root)).read() == Memory(available_mb=0)
    made.write(f"{GROUP}/memory.max", "max\n")
    assert MainMemory(Files(made.root)).read() == Memory(available_mb=2048)
