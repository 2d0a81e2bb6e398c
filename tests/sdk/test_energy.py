"""Energy of an inference: counters and gauges of recorded boards, the idle power subtracted, and no guess elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from unprivileged import reachable, unprivileged

from edge_sdk import energy
from edge_sdk.energy import Energy
from edge_sdk.runtime import Unavailable

pytestmark = pytest.mark.device

RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "900\n",
}
ORIN = {
    "sys/bus/i2c/devices/1-0040/name": "ina3221\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/name": "ina3221\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_input": "5000\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input": "1000\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_label": "VDD_SOC\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_input": "5000\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr2_input": "300\n",
}
NANO = {
    "sys/bus/i2c/devices/6-0040/name": "ina3221x\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": "1750\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_1": "POM_5V_GPU\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power1_input": "250\n",
}
HAT = {
    "sys/class/hwmon/hwmon0/name": "ina219\n",
    "sys/class/hwmon/hwmon0/power1_input": "3500000\n",
}
BATTERY = {
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/voltage_now": "4000000\n",
    "sys/class/power_supply/BAT0/current_now": "-500000\n",
}
Tree = Callable[[Mapping[str, str]], Path]


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return partial(write, tmp_path)


def measured(root: Path, work: Callable[[], object], *, idle_s: float = 0.02, busy_s: float = 0.05) -> Energy:
    meter = energy.find(root)
    assert not isinstance(meter, Unavailable), meter
    told = energy.measure(meter, work, idle_s=idle_s, busy_s=busy_s)
    assert isinstance(told, Energy)
    return told


def test_a_counter_gives_the_joules_of_each_inference_also_where_it_begins_anew(tree: Tree) -> None:
    root = tree(RAPL | {"sys/class/powercap/intel-rapl:0/max_energy_range_uj": "1500\n"})
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    calls = []

    def work() -> None:
        calls.append(1)
        counter.write_text(f"{(1000 + 400 * len(calls)) % 1500}\n")

    told = measured(root, work, busy_s=0.0)
    assert (told.inferences, told.mj, told.idle_w) == (1, 0.4, 0.0)
    assert len(calls) == 2, "one warms up what slept while the machine was idle"
    assert told.sensor == "rapl (processor)"


def test_the_power_of_the_idle_machine_is_subtracted(tree: Tree) -> None:
    root = tree(ORIN)
    amps = root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"
    busy = root / "busy"

    def work() -> None:
        busy.write_text("2000\n")
        busy.replace(amps)  # as the kernel does: a reader never finds half a number

    told = measured(root, work)
    assert told.sensor == "ina3221 VDD_IN (board)"
    assert (told.idle_w, told.active_w) == (5.0, 10.0)
    assert told.mj > 0
    assert told.inferences >= 1


def test_an_inference_that_takes_no_more_than_idling_takes_nothing(tree: Tree) -> None:
    told = measured(tree(NANO), lambda: None)
    assert told.sensor == "ina3221 POM_5V_IN (board)"
    assert (told.idle_w, told.active_w, told.mj) == (1.75, 1.75, 0.0)


@pytest.mark.parametrize(
    ("files", "sensor", "watts"),
    [(HAT, "ina219 (what it is wired to)", 3.5), (BATTERY, "battery BAT0 (device)", 2.0)],
)
def test_other_gauges_are_read_in_their_own_units(
    tree: Tree, files: Mapping[str, str], sensor: str, watts: float
) -> None:
    told = measured(tree(files), lambda: None)
    assert (told.sensor, told.idle_w) == (sensor, pytest.approx(watts))


def test_a_sensor_that_says_nothing_of_use_is_named_with_the_reason(tree: Tree, tmp_path: Path) -> None:
    nothing = energy.find(tmp_path)
    assert isinstance(nothing, Unavailable)
    assert nothing.reason == "no sensor of power is known here"
    charging = energy.find(tree(BATTERY | {"sys/class/power_supply/BAT0/status": "Charging\n"}))
    assert isinstance(charging, Unavailable)
    assert charging.reason == "it is not being discharged"
    (tmp_path / "sys/class/power_supply/BAT0/current_now").unlink()
    silent = energy.find(tmp_path)
    assert isinstance(silent, Unavailable)
    assert silent.reason == "it tells no power"


def test_a_counter_that_only_root_may_read_is_said_to_be() -> None:
    with reachable() as root:
        write(root, RAPL)
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
        with unprivileged():
            told = energy.find(root)
    assert isinstance(told, Unavailable)
    assert (told.reason, told.hint) == ("only root may read it", "sudo chmod a+r /sys/class/powercap/*/energy_uj")


def test_a_sensor_that_vanishes_meanwhile_gives_no_figure_and_leaves_no_thread(tree: Tree) -> None:
    root = tree(HAT)
    meter = energy.find(root)
    assert not isinstance(meter, Unavailable)
    gone = root / "sys/class/hwmon/hwmon0/power1_input"
    told = energy.measure(meter, lambda: gone.unlink(missing_ok=True), idle_s=0.01, busy_s=0.0)
    assert told == Unavailable(name="ina219", reason="the sensor stopped to answer")


def test_the_sensor_stops_counting_when_an_inference_fails(tree: Tree) -> None:
    meter = energy.find(tree(HAT))
    assert not isinstance(meter, Unavailable)

    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        energy.measure(meter, fails, idle_s=0.01, busy_s=0.01)
