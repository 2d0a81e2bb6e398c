"""A sensor whose value stands still while the world moves is not believed; one that is merely steady is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_daemon.remarks import Remarks
from edge_daemon.sensors.battery import STUCK_S, Battery
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.power import BoardPower
from edge_daemon.sensors.reading import Charge, Heat, Power, Unavailable
from edge_daemon.sensors.stuck import MOVED_PCT, PATIENCE_S, SUSPICIOUS_S, ZERO_S, Pace, Watch
from edge_daemon.sensors.suite import SensorSuite
from edge_daemon.sensors.survey import Fed, conditions, survey
from edge_daemon.sensors.temperature import Temperature
from edge_sdk.mqtt import Throttle

pytestmark = pytest.mark.device

Make = Callable[..., Any]
ZONE = "sys/class/thermal/thermal_zone"


NOTHING = Unavailable("nobody feeds it")
NOBODY = Fed(trips=NOTHING, up=NOTHING, down=NOTHING, busy={})


class World:
    """Time, and the load that comes with it."""

    def __init__(self) -> None:
        self.now_s = 5000.0
        self.pace = Pace(lambda: self.now_s)

    def passes(self, seconds: float, load_pct: float) -> None:
        """A second at a time."""
        for _ in range(round(seconds)):
            self.now_s += 1
            self.pace.feed(load_pct)

    def watched(self, watch: Watch, value: float, *, seconds: float, load_pct: float) -> str | None:
        """What the watch says in the end of a value that stays."""
        doubt = None
        for _ in range(round(seconds)):
            self.passes(1, load_pct)
            doubt = watch.doubt(value)
        return doubt


def test_a_value_that_stands_still_while_the_load_moves_is_doubted_after_ten_minutes() -> None:
    world = World()
    watch = Watch(world.pace)
    assert world.watched(watch, 62.4, seconds=PATIENCE_S / 2, load_pct=5) is None
    assert world.watched(watch, 62.4, seconds=PATIENCE_S / 2 - 5, load_pct=90) is None
    doubt = world.watched(watch, 62.4, seconds=10, load_pct=90)
    assert doubt is not None
    assert doubt.startswith("stuck at 62.4 for 10 min, while the load went from 5 to 90 %")


def test_a_steady_value_under_a_steady_load_is_believed_for_ever() -> None:
    world = World()
    for value in (85.0, 62.4):
        watch = Watch(world.pace, zero_is_odd=True)
        assert world.watched(watch, value, seconds=86_400 / 4, load_pct=100) is None


def test_a_short_burst_is_no_load_that_moves() -> None:
    world = World()
    watch = Watch(world.pace)
    for _ in range(200):
        assert world.watched(watch, 50.0, seconds=9, load_pct=2) is None
        assert world.watched(watch, 50.0, seconds=1, load_pct=100) is None
    assert MOVED_PCT > 10  # what one second in ten moves the average by


def test_85_degrees_are_doubted_sooner_and_0_whatever_the_load() -> None:
    world = World()
    watch = Watch(world.pace, zero_is_odd=True)
    assert world.watched(watch, 85.0, seconds=SUSPICIOUS_S / 2, load_pct=10) is None
    assert world.watched(watch, 85.0, seconds=SUSPICIOUS_S / 2 + 2, load_pct=95) is not None
    assert world.watched(watch, 0.0, seconds=ZERO_S - 1, load_pct=95) is None
    assert world.watched(watch, 0.0, seconds=3, load_pct=95) == "stuck at 0 for 1 min"
    of_power = Watch(world.pace)
    assert world.watched(of_power, 0.0, seconds=PATIENCE_S, load_pct=95) is None


def test_a_value_that_moves_is_believed_at_once_and_doubted_only_after_the_whole_time() -> None:
    world = World()
    watch = Watch(world.pace)
    world.watched(watch, 50.0, seconds=PATIENCE_S / 2, load_pct=0)
    assert world.watched(watch, 50.0, seconds=PATIENCE_S, load_pct=100) is not None
    assert watch.doubt(50.5) is None
    assert world.watched(watch, 50.5, seconds=PATIENCE_S - 10, load_pct=0) is None


def test_a_clock_that_jumps_and_nan_like_loads_break_nothing() -> None:
    world = World()
    watch = Watch(world.pace)
    watch.doubt(50.0)
    world.now_s += 86_400  # suspended for a day
    assert watch.doubt(50.0) is None
    world.now_s -= 2 * 86_400  # no monotonic clock does; still no crash
    world.pace.feed(10.0)
    assert watch.doubt(50.0) is None


def test_a_zone_that_is_stuck_is_left_out_and_the_others_go_on(board: Make) -> None:
    made, world = board("orin-nano", {f"{ZONE}0/temp": "85000\n"}), World()
    sensor = Temperature(Files(made.root), (), world.pace)
    readings = []
    for second in range(0, 300, 5):
        world.passes(5, 5 if second < 150 else 95)
        made.write(f"{ZONE}1/temp", f"{48_500 + 40 * second}\n")
        made.write(f"{ZONE}5/temp", f"{47_093 + 40 * second}\n")
        readings.append(sensor.read())
    first, last = readings[0], readings[-1]
    assert isinstance(first, Heat)
    assert isinstance(last, Heat)
    assert (first.temp_c, first.where, first.stuck) == (85.0, "cpu-thermal", ())
    assert last.where == "gpu-thermal"
    assert last.temp_c == pytest.approx(48.5 + 0.04 * 295)
    ((place, why),) = last.stuck
    assert place == "cpu-thermal"
    assert why.startswith("stuck at 85 for")
    told = conditions(survey({"temperature": last}, NOBODY, None))
    assert (told.temp_c, told.missing["cpu-thermal"]) == (last.temp_c, why)


@pytest.mark.parametrize(("text", "value"), [("85000\n", "85"), ("0\n", "0")])
def test_a_board_whose_only_zone_is_stuck_has_no_temperature_and_says_why(board: Make, text: str, value: str) -> None:
    made, world = board("pi4", {f"{ZONE}0/temp": text}), World()
    sensor = Temperature(Files(made.root), (), world.pace)
    reading = sensor.read()
    changes = 0
    for second in range(1000):
        world.passes(1, 100 if second // 100 % 2 else 0)
        before, reading = reading, sensor.read()
        changes += type(before) is not type(reading)
    assert isinstance(reading, Unavailable)
    assert reading.reason.startswith(f"cpu-thermal is stuck at {value} for")
    assert changes == 1  # it does not come and go


@pytest.mark.parametrize(("text", "value"), [("85000\n", "85"), ("0\n", "0")])
def test_the_hub_is_told_once_of_a_sensor_that_is_stuck_for_ever(board: Make, text: str, value: str) -> None:
    made, now_s, jiffies, remarks = board("pi4", {f"{ZONE}0/temp": text}), 1000.0, [0, 0], Remarks()
    events = []
    with SensorSuite(made.root, clock=lambda: now_s) as suite:
        for second in range(400):
            now_s += 1
            jiffies[second // 100 % 2] += 100  # a hundred seconds busy, a hundred idle
            made.write("proc/stat", f"cpu  {jiffies[0]} 0 0 {jiffies[1]} 0 0 0 0\n")
            conditions = suite.read()
            events += remarks.of(conditions, now_s, 1.7e9 + 86_400 * (second % 3))  # and the wall clock steps
    assert conditions.temp_c is None
    assert conditions.throttle is Throttle.NONE
    (told,) = [event.text for event in events if "temp_c" in (event.text or "")]
    assert told.startswith(f"temp_c is gone: cpu-thermal is stuck at {value} for")


def test_a_power_chip_that_is_stuck_is_a_reason(board: Make) -> None:
    made, world = board("jetson-nano"), World()
    sensor = BoardPower(Files(made.root), lambda: world.now_s, world.pace)
    assert sensor.read() == Power(watts=1.75)
    for second in range(700):
        world.passes(1, 0 if second < 350 else 100)
        reading = sensor.read()
    assert isinstance(reading, Unavailable)
    assert reading.reason.startswith("INA3221 is stuck at 1.75 for 11 min")


def test_a_battery_that_gives_for_hours_and_stays_as_full_has_a_stuck_gauge(board: Make) -> None:
    made, now_s = board("pisugar"), 0.0
    sensor = Battery(Files(made.root), clock=lambda: now_s)
    assert isinstance(sensor.read(), Charge)
    now_s = STUCK_S - 1
    assert isinstance(sensor.read(), Charge)
    now_s = STUCK_S + 1
    assert sensor.read() == Unavailable("stuck at 87 % for 6 h, without mains")
    made.write("sys/class/power_supply/BAT0/capacity", "86\n")
    assert sensor.read() == Charge(percent=86.0, charging=False)
    now_s *= 4
    made.write("sys/class/power_supply/BAT0/status", "Charging\n")  # full for weeks on mains is no fault
    assert sensor.read() == Charge(percent=86.0, charging=True)
