"""Battery gauges on the I2C bus, for hats whose chips have no driver loaded: INA219 and MAX17040.

Read through `smbus2` or `smbus`, whichever is installed. Nobody is probed: an address that holds another chip on
another board could mean anything there, so a gauge is named by who owns the board (`[sensors] gauges`).

| gauge | charge |
|---|---|
| INA219 at 0x43 (one cell) | bus voltage, 3.0 V empty to 4.2 V full |
| INA219 at 0x42 (two cells) | 6.0 V empty to 8.4 V full |
| MAX17040 at 0x36 | counted by the chip |

Sources: published programs for Waveshare's UPS HATs and UPS-Lite; the chips' datasheets (registers).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, Protocol

from edge_daemon.sensors.reading import Charge, Unavailable

GAUGE = r"\A(ina219|max17040)@\d{1,3}(:0x[0-9a-fA-F]{2})?\Z"
_PARTS = re.compile(r"\A(ina219|max17040)@(\d{1,3})(?::(0x[0-9a-fA-F]{2}))?\Z", re.ASCII)
_ADDRESSES = {"ina219": 0x43, "max17040": 0x36}
_MODULES = ("smbus2", "smbus")

# INA219 datasheet (TI SBOS448): 0x01 shunt voltage, signed, 10 uV; 0x02 bus voltage, bits 3 to 15, 4 mV.
_SHUNT, _BUS = 0x01, 0x02
_BUS_STEP_V = 0.004
_SHUNT_STEP_V = 10e-6
# Less than this on the shunt (20 mA through 0.1 ohm) says neither that it is charged nor that it gives.
_SHUNT_QUIET_V = 0.002
_TWO_CELLS = 0x42
_CELL_EMPTY_V, _CELL_FULL_V = 3.0, 4.2
_CELL_LOWEST_V, _CELL_HIGHEST_V = 2.0, 4.6  # beyond, no battery is there
# A cell's voltage sags as the board works and recovers: a tenth a second, so that the charge does not flicker.
_SMOOTHING = 0.1

# MAX17040 datasheet (Maxim): 0x02 voltage, bits 4 to 15, 1.25 mV; 0x04 charge, 1/256 percent.
_VCELL, _SOC = 0x02, 0x04
_VCELL_STEP_V = 1.25e-3
_FULL = 100.0
_HIGHEST_SOC = 105.0  # the chip may count a little beyond what is full

_REST_READS = 30  # after it failed


class Bus(Protocol):
    """What `smbus` and `smbus2` have in common."""

    def read_word_data(self, address: int, register: int) -> int:
        """16 bits, the first byte on the wire the lower one."""
        ...

    def close(self) -> None:
        """Let the bus go."""
        ...


def open_bus(number: int) -> Bus | Unavailable:
    """The bus `/dev/i2c-NUMBER`."""
    for name in _MODULES:
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        try:
            bus: Bus = module.SMBus(number)
        except OSError as cause:
            return Unavailable(f"/dev/i2c-{number}: {cause.strerror}")
        return bus
    return Unavailable("to read a gauge on I2C takes smbus2: pip install smbus2")


class I2cGauge:
    """One chip.

    Args:
        spec: `CHIP@BUS` or `CHIP@BUS:ADDRESS`, such as `ina219@1:0x43`.
        opener: Opens a bus.

    Raises:
        ValueError: The spec is none.
    """

    def __init__(self, spec: str, opener: Callable[[int], Bus | Unavailable] = open_bus) -> None:
        match = _PARTS.match(spec)
        if match is None:
            raise ValueError(f"{spec!r} is no gauge")
        self._chip = match[1]
        self._number = int(match[2])
        self._address = int(match[3], 16) if match[3] else _ADDRESSES[self._chip]
        self._opener = opener
        self._rest = 0
        self._percent: float | None = None
        self._said: Charge | Unavailable = Unavailable("has not been read yet")

    def read(self) -> Charge | Unavailable:
        """Charge now; a chip that does not answer is left alone for half a minute."""
        self._rest -= 1
        if self._rest < 0:
            self._said = self._look()
            self._rest = _REST_READS - 1 if isinstance(self._said, Unavailable) else 0
        return self._said

    def _look(self) -> Charge | Unavailable:
        bus = self._opener(self._number)
        if isinstance(bus, Unavailable):
            return bus
        try:
            return self._ina219(bus) if self._chip == "ina219" else self._max17040(bus)
        except OSError as cause:
            return Unavailable(f"{self._where()} does not answer: {cause.strerror or cause}")
        finally:
            bus.close()

    def _ina219(self, bus: Bus) -> Charge | Unavailable:
        cells = 2 if self._address == _TWO_CELLS else 1
        cell_v = (_swapped(bus.read_word_data(self._address, _BUS)) >> 3) * _BUS_STEP_V / cells
        if not _CELL_LOWEST_V <= cell_v <= _CELL_HIGHEST_V:
            return Unavailable(f"{self._where()} sees {cell_v * cells:.2f} V, which is no battery")
        shunt = _swapped(bus.read_word_data(self._address, _SHUNT))
        shunt_v = (shunt - 0x10000 if shunt & 0x8000 else shunt) * _SHUNT_STEP_V
        share = (cell_v - _CELL_EMPTY_V) / (_CELL_FULL_V - _CELL_EMPTY_V)
        percent = min(_FULL, max(0.0, share * _FULL))
        old = self._percent
        self._percent = percent if old is None else old + _SMOOTHING * (percent - old)
        charging = None if abs(shunt_v) < _SHUNT_QUIET_V else shunt_v > 0
        return Charge(percent=self._percent, charging=charging, source=self._where())

    def _max17040(self, bus: Bus) -> Charge | Unavailable:
        volts = (_swapped(bus.read_word_data(self._address, _VCELL)) >> 4) * _VCELL_STEP_V
        if not _CELL_LOWEST_V <= volts <= _CELL_HIGHEST_V:
            return Unavailable(f"{self._where()} sees {volts:.2f} V, which is no battery")
        percent = _swapped(bus.read_word_data(self._address, _SOC)) / 256
        if percent > _HIGHEST_SOC:
            return Unavailable(f"{self._where()} says {percent:.0f} %")
        return Charge(percent=min(_FULL, percent), charging=None, source=self._where())

    def _where(self) -> str:
        return f"{self._chip} on I2C bus {self._number} at {self._address:#04x}"


def _swapped(word: int) -> int:
    """These chips send the upper byte first, SMBus words the lower one."""
    return (word & 0xFF) << 8 | word >> 8 & 0xFF
