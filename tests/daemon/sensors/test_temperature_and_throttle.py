"""The hottest place that counts, and the one throttle signal, on recorded boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.firmware import ASK_BITS, ASK_CLOCK, clock_of, signal_of, vcgencmd
from edge_daemon.sensors.reading import Heat, Signals, Unavailable
from edge_daemon.sensors.temperature import Temperature
from edge_daemon.sensors.throttle import Throttling, fold
from edge_sdk.mqtt import Throttle

pytestmark = pytest.mark.device

Make = Callable[..., Any]
ZONE = "sys/class/thermal/thermal_zone"


def heat(root: Path, *zones: str) -> Heat:
    reading = Temperature(Files(root), zones).read()
    assert isinstance(reading, Heat), reading
    return reading


@pytest.mark.parametrize(
    ("name", "zones", "where", "temp_c"),
    [
        ("pi4", (), "cpu-thermal", 61.824),
        ("pi4", ("cpu_thermal",), "cpu-thermal", 61.824),  # the profile may spell it as another kernel does
        ("pi5", ("cpu-thermal",), "cpu-thermal", 62.4),
        ("jetson-nano", (), "CPU-therm", 40.5),  # not AO (45), not the constant 100 of PMIC-Die
        ("jetson-nano", ("AO-therm", "CPU-therm"), "AO-therm", 45.0),
        ("jetson-nano", ("PMIC-Die",), "CPU-therm", 40.5),  # known to lie: not even when asked for
        ("orin-nano", ("cpu-thermal", "tj-thermal"), "cpu-thermal", 49.312),  # tj reads empty there; not the NVMe's 72
        ("orin-nano", (), "cpu-thermal", 49.312),
        ("coral-dev", ("cpu-thermal",), "cpu-thermal", 63.0),
        ("laptop", (), "x86_pkg_temp", 54.0),
        ("laptop", ("no-such-zone",), "x86_pkg_temp", 54.0),
    ],
)
def test_the_hottest_zone_that_counts(
    board: Make, name: str, zones: tuple[str, ...], where: str, temp_c: float
) -> None:
    reading = heat(board(name).root, *zones)
    assert (reading.where, reading.temp_c) == (where, temp_c)


def test_without_zones_the_processors_chip_is_read_and_its_critical_limit(board: Make) -> None:
    chip = "sys/class/hwmon/hwmon2"
    files = {f"{chip}/name": "k10temp\n", f"{chip}/temp1_input": "55250\n", f"{chip}/temp1_crit": "95000\n"}
    reading = heat(board(None, {**files, "sys/class/hwmon/hwmon0/name": "nvme\n"}).root)
    assert (reading.where, reading.temp_c, reading.to_critical_c) == ("k10temp", 55.25, 39.75)


def test_where_nothing_looks_like_a_processor_any_zone_counts_but_those_known_to_lie(board: Make) -> None:
    files = {f"{ZONE}0/type": "acpitz\n", f"{ZONE}0/temp": "41000\n", f"{ZONE}1/type": "PMIC-Die\n"}
    assert heat(board(None, {**files, f"{ZONE}1/temp": "100000\n"}).root).temp_c == 41.0


def test_trip_points_are_read_not_assumed_and_placeholders_are_none(board: Make) -> None:
    coral = heat(board("coral-dev").root)
    assert (coral.passive_c, coral.to_passive_c, coral.to_critical_c) == (75.0, 12.0, 27.0)


def test_a_passive_trip_point_of_zero_is_a_placeholder(board: Make) -> None:
    assert heat(board("laptop").root).passive_c is None


@pytest.mark.parametrize("bogus", ["", "-256000\n", "-127000\n", "200000\n", "nan\n", "cold\n", "N/A\n"])
def test_a_zone_that_says_nonsense_is_left_out(board: Make, bogus: str) -> None:
    assert heat(board("jetson-nano", {f"{ZONE}1/temp": bogus}).root).where == "GPU-therm"


def test_where_all_zones_say_nonsense_the_reason_names_the_file(board: Make) -> None:
    reading = Temperature(Files(board("pi5", {f"{ZONE}0/temp": "", "sys/class/hwmon/hwmon0/name": "x\n"}).root)).read()
    assert reading == Unavailable("sys/class/thermal/thermal_zone0/temp: is empty")
    assert isinstance(Temperature(Files(board().root / "nowhere")).read(), Unavailable)


def test_a_zone_that_wakes_up_is_found_at_the_next_reading(board: Make) -> None:
    made = board("pi4", {f"{ZONE}0/temp": "", "sys/class/hwmon/hwmon0/name": "x\n"})
    sensor = Temperature(Files(made.root))
    assert isinstance(sensor.read(), Unavailable)
    made.write(f"{ZONE}0/temp", "50000\n")
    reading = sensor.read()
    assert isinstance(reading, Heat)
    assert reading.temp_c == 50.0


def test_zones_that_are_renumbered_while_we_watch_are_followed_by_type(board: Make) -> None:
    made = board(None, {f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "50000", f"{ZONE}1/type": "PMIC-Die"})
    made.write(f"{ZONE}1/temp", "100000")
    sensor = Temperature(Files(made.root))
    first = sensor.read()
    made.write(f"{ZONE}0/type", "PMIC-Die")
    made.write(f"{ZONE}0/temp", "100000")
    made.write(f"{ZONE}1/type", "cpu-thermal")
    made.write(f"{ZONE}1/temp", "51000")
    second = sensor.read()
    assert [r.temp_c for r in (first, second) if isinstance(r, Heat)] == [50.0, 51.0]


def test_a_zone_that_vanishes_between_listing_and_reading_leaves_the_others(board: Make) -> None:
    class Vanishing(Files):
        def names(self, folder: str) -> tuple[str, ...]:
            names = super().names(folder)
            if folder == "sys/class/thermal":
                for file in ("type", "temp"):
                    (Path(self.root) / f"{ZONE}1/{file}").unlink(missing_ok=True)
            return names

    reading = Temperature(Vanishing(board("jetson-nano").root)).read()
    assert isinstance(reading, Heat)
    assert reading.where == "GPU-therm"


def test_a_zone_that_vanishes_after_it_was_found_leaves_the_others(board: Make) -> None:
    made = board("orin-nano")
    sensor = Temperature(Files(made.root))
    sensor.read()
    made.remove(f"{ZONE}0/temp")
    reading = sensor.read()
    assert isinstance(reading, Heat)
    assert reading.where == "gpu-thermal"


# ----------------------------------------------------------------------------------------------------- throttling


def signals(root: Path) -> Signals:
    reading = Throttling(Files(root)).read()
    assert isinstance(reading, Signals), reading
    return reading


@pytest.mark.parametrize("name", ["pi4", "pi5", "orin-nano", "coral-dev"])
def test_a_board_at_ease_says_none_and_a_fan_is_no_throttling(board: Make, name: str) -> None:
    assert signals(board(name).root) == Signals(worst=Throttle.NONE)


@pytest.mark.parametrize(
    ("name", "path", "text", "worst"),
    [
        ("pi4", "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n", Throttle.POWER),
        ("pi5", "sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1\n", Throttle.POWER),
        ("orin-nano", "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_crit_alarm", "1\n", Throttle.POWER),
        ("coral-dev", "sys/class/thermal/cooling_device0/cur_state", "1\n", Throttle.THERMAL),
        ("coral-dev", "sys/class/apex/apex_0/temp", "84800\n", Throttle.THERMAL),
        ("coral-dev", "sys/class/apex/apex_0/temp", "84550\n", Throttle.NONE),
    ],
)
def test_alarms_cooling_devices_and_trip_points(board: Make, name: str, path: str, text: str, worst: Throttle) -> None:
    assert signals(board(name, {path: text}).root).worst is worst


def test_a_counter_of_over_current_events_is_a_signal_while_it_goes_up(board: Make) -> None:
    made = board("orin-nano")
    sensor = Throttling(Files(made.root))
    seen = []
    for count in ("37\n", "37\n", "39\n", "39\n", "0\n", "", "5\n"):  # it begins anew; it is silent for a moment
        made.write("sys/class/hwmon/hwmon3/oc3_event_cnt", count)
        reading = sensor.read()
        assert isinstance(reading, Signals)
        seen.append(reading.worst)
    none, power = Throttle.NONE, Throttle.POWER
    assert seen == [none, none, power, none, none, none, none]


def test_a_board_that_tells_nothing_says_so(board: Make) -> None:
    assert isinstance(Throttling(Files(board("pisugar").root)).read(), Unavailable)


def test_an_edge_tpu_that_is_unplugged_is_no_error(board: Make) -> None:
    made = board("coral-dev")
    sensor = Throttling(Files(made.root))
    sensor.read()
    for file in ("temp", "trip_point0_temp", "trip_point1_temp"):
        made.remove(f"sys/class/apex/apex_0/{file}")
    assert sensor.read() == Signals(worst=Throttle.NONE)


def test_a_frequency_limit_that_falls_is_throttling_and_one_that_was_there_is_a_setting(board: Make) -> None:
    path = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    made = board("pi4", {path: "1500000\n"})
    sensor = Throttling(Files(made.root))
    cool, warm = Heat(temp_c=45.0, where="cpu"), Heat(temp_c=75.0, where="cpu")
    first = sensor.read()
    assert isinstance(first, Signals)
    assert [fold(first, cool), fold(first, warm), fold(first, None)] == [Throttle.NONE, Throttle.SOFT, Throttle.SOFT]
    made.write(path, "1000000\n")
    second = sensor.read()
    assert isinstance(second, Signals)
    assert fold(second, cool) is Throttle.SOFT


@pytest.mark.parametrize(
    ("heat", "signal"),
    [
        (Heat(temp_c=70.0, where="cpu"), Throttle.NONE),
        (Heat(temp_c=70.0, where="cpu", to_passive_c=5.0), Throttle.NONE),
        (Heat(temp_c=73.5, where="cpu", to_passive_c=1.5), Throttle.SOFT),
        (Heat(temp_c=75.0, where="cpu", to_passive_c=0.0, to_critical_c=15.0), Throttle.THERMAL),
        (Heat(temp_c=86.0, where="cpu", to_passive_c=-11.0, to_critical_c=4.0), Throttle.CRITICAL),
    ],
)
def test_heat_near_a_trip_point_is_a_signal_by_itself(heat: Heat, signal: Throttle) -> None:
    assert fold(None, heat) is signal


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("throttled=0x0", Throttle.NONE),
        ("throttled=0x50000", Throttle.NONE),  # has happened, is over
        ("throttled=0x50005", Throttle.POWER),
        ("throttled=0x20002", Throttle.THERMAL),
        ("throttled=0x4", Throttle.THERMAL),
        ("throttled=0x80008", Throttle.SOFT),
        ("throttled=0xe000f", Throttle.POWER),
    ],
)
def test_firmware_bits_of_a_raspberry_pi(text: str, signal: Throttle) -> None:
    assert signal_of(text) is signal


@pytest.mark.parametrize(
    "text", ["", "50005", "throttled=50005", "throttled=0x", "VCHI initialization failed", "throttled=0x5\n0"]
)
def test_an_answer_of_another_form_is_none(text: str) -> None:
    assert isinstance(signal_of(text), Unavailable)


@pytest.mark.parametrize(
    ("text", "hertz"),
    [("frequency(48)=600000000", 6e8), ("frequency(45)=0", None), ("frequency(48)=-1", None), ("600000000", None)],
)
def test_the_firmware_tells_the_true_clock(text: str, hertz: float | None) -> None:
    found = clock_of(text)
    assert (None if isinstance(found, Unavailable) else found) == hertz


def test_the_firmware_is_asked_every_fifth_time_and_a_failing_one_seldom(board: Make) -> None:
    asked: list[str] = []

    def ask(question: str) -> str | Unavailable:
        asked.append(question)
        return "throttled=0x4" if question == ASK_BITS else "frequency(48)=1000000000"

    sensor = Throttling(Files(board("pi4").root), ask)
    readings = [sensor.read() for _ in range(10)]
    assert asked == [ASK_BITS, ASK_CLOCK] * 2
    assert readings == [Signals(worst=Throttle.THERMAL, clock_hz=1e9)] * 10

    def fail(question: str) -> str | Unavailable:
        asked.append(question)
        return Unavailable("vcgencmd: no device")

    asked.clear()
    failing = Throttling(Files(board("pi4").root), fail)
    assert [failing.read() for _ in range(60)] == [Signals(worst=Throttle.NONE)] * 60
    assert len(asked) == 1


def test_the_real_program_is_run_and_a_board_without_it_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vcgencmd() is None
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    program.chmod(0o755)
    run = vcgencmd()
    assert run is not None
    text = run(ASK_BITS)
    assert isinstance(text, str)
    assert signal_of(text) is Throttle.POWER


def test_a_program_that_hangs_is_ended_and_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("edge_daemon.sensors.firmware._FIRMWARE_DEADLINE_S", 0.1)
    run = vcgencmd()
    assert run is not None
    answer = run(ASK_BITS)
    assert isinstance(answer, Unavailable)
    assert "timed out" in answer.reason
