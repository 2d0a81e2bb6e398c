"""Batteries the kernel does not know of: behind PiSugar's server, and behind chips on I2C. And RAPL's counters."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_daemon.sensors.battery import Battery, outflow_w
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.i2c import I2cGauge, open_bus
from edge_daemon.sensors.pisugar import PiSugar
from edge_daemon.sensors.power import BoardPower
from edge_daemon.sensors.reading import Charge, Power, Unavailable

pytestmark = pytest.mark.device

Make = Callable[..., Any]
Serve = Callable[[bytes], Path]
Answering = Callable[[Path, Callable[[socket.socket], None]], None]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no silent server."""
    monkeypatch.setattr("edge_daemon.sensors.pisugar._DEADLINE_S", 10.0)


@pytest.fixture
def pisugar(short_path: Path, answering: Answering) -> Serve:
    """A server that answers whatever is asked with these bytes; its socket is below the root that is given back."""

    def serve(answer: bytes) -> Path:
        def reply(connection: socket.socket) -> None:
            asked = b""
            while asked.count(b"\n") < 3:
                more = connection.recv(1000)
                if not more:
                    break
                asked += more
            connection.sendall(answer)

        answering(short_path / "tmp/pisugar-server.sock", reply)
        return short_path

    return serve


def test_pisugars_server_tells_charge_and_mains_between_pressed_buttons(pisugar: Serve) -> None:
    root = pisugar(b"battery: 87.25\nsingle\nbattery_power_plugged: true\ndouble\nbattery_charging: false\n")
    reading = Battery(Files(root), [PiSugar(Files(root), has_network=False)], full_wh=18.5).read()
    assert reading == Charge(percent=87.25, charging=True)
    assert isinstance(reading, Charge)
    assert reading.full_wh == 18.5
    assert "tmp/pisugar-server.sock" in reading.source


def test_an_old_pisugar_that_does_not_know_its_plug_tells_by_charging(pisugar: Serve) -> None:
    root = pisugar(b"battery: 40\nInvalid request.\nbattery_charging: false\n")
    assert PiSugar(Files(root), has_network=False).read() == Charge(percent=40.0, charging=False)


@pytest.mark.parametrize(
    "answer", [b"", b"battery: \n", b"battery: nan\n", b"battery: 140\n", b"\xff\xfe\n", b"x" * 10_000, b"battery"]
)
def test_what_pisugars_server_says_wrong_is_a_reason(pisugar: Serve, answer: bytes) -> None:
    assert isinstance(PiSugar(Files(pisugar(answer)), has_network=False).read(), Unavailable)


def test_without_a_server_it_is_asked_seldom(tmp_path: Path) -> None:
    sensor = PiSugar(Files(tmp_path), has_network=False)
    first = sensor.read()
    assert isinstance(first, Unavailable)
    assert sensor.read() is first


def test_the_kernels_battery_comes_before_pisugars(board: Make) -> None:
    class Never:
        def read(self) -> Charge:
            raise AssertionError

    assert Battery(Files(board("pisugar").root), [Never()]).read() == Charge(percent=87.0, charging=False)


# ------------------------------------------------------------------------------------------------------------ I2C


class Chip:
    """Registers as the chips have them: the upper byte first on the wire, the lower byte first in an SMBus word."""

    def __init__(self, **registers: int) -> None:
        self.registers = {int(name[1:], 16): value for name, value in registers.items()}
        self.closed = 0

    def read_word_data(self, address: int, register: int) -> int:
        if register not in self.registers:
            raise OSError(121, "Remote I/O error")
        value = self.registers[register]
        return (value & 0xFF) << 8 | value >> 8

    def close(self) -> None:
        self.closed += 1


def gauge(spec: str, chip: Chip) -> I2cGauge:
    return I2cGauge(spec, lambda _number: chip)


@pytest.mark.parametrize(
    ("spec", "bus_v", "shunt", "charge"),
    [
        ("ina219@1:0x43", 3.6, 0, Charge(percent=50.0, charging=None)),
        ("ina219@1", 4.2, 1000, Charge(percent=100.0, charging=True)),
        ("ina219@1:0x42", 7.2, 0x10000 - 1000, Charge(percent=50.0, charging=False)),
        ("ina219@1:0x43", 4.3, 0, Charge(percent=100.0, charging=None)),
        ("ina219@1:0x43", 2.9, 0, Charge(percent=0.0, charging=None)),
    ],
)
def test_an_ina219_tells_by_its_voltage(spec: str, bus_v: float, shunt: int, charge: Charge) -> None:
    chip = Chip(r01=shunt, r02=round(bus_v / 0.004) << 3)
    reading = gauge(spec, chip).read()
    assert isinstance(reading, Charge)
    assert reading.percent == pytest.approx(charge.percent, abs=0.4)
    assert reading.charging is charge.charging
    assert chip.closed == 1


def test_a_max17040_counts_by_itself() -> None:
    chip = Chip(r02=round(3.9 / 1.25e-3) << 4, r04=round(63.5 * 256))
    assert gauge("max17040@1", chip).read() == Charge(percent=63.5, charging=None)


@pytest.mark.parametrize("chip", [Chip(), Chip(r01=0, r02=0, r04=0), Chip(r01=0, r02=0xFFFF, r04=0xFFFF)])
@pytest.mark.parametrize("spec", ["ina219@1", "max17040@1"])
def test_a_chip_that_is_gone_or_is_another_is_a_reason_and_is_left_alone_for_a_while(spec: str, chip: Chip) -> None:
    sensor = gauge(spec, chip)
    first = sensor.read()
    assert isinstance(first, Unavailable)
    assert sensor.read() is first
    assert chip.closed > 0


def test_a_cell_that_sags_for_a_moment_does_not_empty_the_battery() -> None:
    chip = Chip(r01=0, r02=round(3.9 / 0.004) << 3)
    sensor = gauge("ina219@1", chip)
    sensor.read()
    chip.registers[0x02] = round(3.3 / 0.004) << 3
    reading = sensor.read()
    assert isinstance(reading, Charge)
    assert reading.percent == pytest.approx(70, abs=0.5)


def test_the_bus_is_opened_by_whichever_module_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = open_bus(77)
    assert isinstance(missing, Unavailable)  # no module, or no such bus
    (tmp_path / "smbus2.py").write_text("class SMBus:\n    def __init__(self, number):\n        self.number = number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bus: Any = open_bus(3)
    assert bus.number == 3


@pytest.mark.parametrize("spec", ["", "ina219", "bme280@1", "ina219@1:43", "ina219@1:0x43\n", "ina219@x"])
def test_what_is_no_gauge_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="no gauge"):
        I2cGauge(spec)


# -------------------------------------------------------------------------------------------------- flow and RAPL


def test_what_flows_out_of_a_battery_has_the_sign_of_its_status(board: Make) -> None:
    made = board("laptop")
    assert outflow_w(Files(made.root)) == 7.25
    made.write("sys/class/power_supply/BAT1/status", "Charging\n")
    assert outflow_w(Files(made.root)) == -7.25
    made.write("sys/class/power_supply/BAT1/power_now", "nan\n")
    assert outflow_w(Files(made.root)) is None
    assert outflow_w(Files(board("pi4").root.parent)) is None


def test_rapl_counts_energy_of_the_processor_and_says_that_it_is_no_more(board: Make) -> None:
    counter = "sys/class/powercap/intel-rapl:0/energy_uj"
    made, now_s = board("x86"), 10.0
    sensor = BoardPower(Files(made.root), lambda: now_s)
    assert isinstance(sensor.read(), Unavailable)
    now_s = 12.0
    made.write(counter, "31000000\n")
    reading = sensor.read()
    assert reading == Power(watts=15.0)
    assert isinstance(reading, Power)
    assert reading.scope == "processor"
    now_s = 13.0
    made.write(counter, "4671150\n")  # it began anew at its limit
    made.write("sys/class/powercap/intel-rapl:0/max_energy_range_uj", "32000000\n")
    assert sensor.read() == Power(watts=pytest.approx(5.67115))
    made.write(counter, "")
    assert isinstance(sensor.read(), Unavailable)


def test_the_platforms_counter_is_the_boards(board: Make) -> None:
    made, now_s = board("x86", {"sys/class/powercap/intel-rapl:1/name": "psys\n"}), 10.0
    made.write("sys/class/powercap/intel-rapl:1/energy_uj", "0\n")
    sensor = BoardPower(Files(made.root), lambda: now_s)
    sensor.read()
    now_s = 11.0
    made.write("sys/class/powercap/intel-rapl:1/energy_uj", "22000000\n")
    reading = sensor.read()
    assert isinstance(reading, Power)
    assert (reading.watts, reading.scope) == (22.0, "board")
