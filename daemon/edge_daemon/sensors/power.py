"""What the board draws, where a chip measures it.

Looked for in this order: the INA3221 of a Jetson (JetPack 5 and later as hwmon, JetPack 4 as iio), any INA2xx that
measures power, and a battery that discharges. A rail that feeds the whole board counts alone; else rails are added.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Power, Unavailable

_I2C = "sys/bus/i2c/devices"
_CHIPS = "sys/class/hwmon"
_SUPPLIES = "sys/class/power_supply"
_WHOLE_BOARD = frozenset({"POM_5V_IN", "VDD_IN"})
_MAX_CHANNELS = 8
_SUM_CHANNEL = 7  # the INA3221's sum of the others
_MAX_WATTS = 10_000.0


class BoardPower:
    """Electric power of the board."""

    name = "power"

    def __init__(self, files: Files) -> None:
        self._files = files

    def read(self) -> Power | Unavailable:
        """What is drawn now."""
        watts = self._rails_watts()
        if watts is None:
            watts = self._chip_watts()
        if watts is None:
            watts = self._battery_watts()
        if watts is None:
            return Unavailable("no chip that measures the board's power")
        if isinstance(watts, Unavailable):
            return watts
        return Power(watts=watts) if 0 <= watts <= _MAX_WATTS else Unavailable(f"{watts:.3g} W is out of range")

    def _rails_watts(self) -> float | Unavailable | None:
        """Of the rail that feeds all, else the sum; a rail that can't be read makes a sum worthless."""
        total: float | None = None
        broken: Unavailable | None = None
        for label, watts in self._rails():
            if isinstance(watts, Unavailable):
                broken = broken or watts
            elif label in _WHOLE_BOARD:
                return watts
            else:
                total = (total or 0.0) + watts
        return broken or total

    def _rails(self) -> Iterator[tuple[str, float | Unavailable]]:
        for device in self._files.names(_I2C):
            name = self._files.text(f"{_I2C}/{device}/name")
            if isinstance(name, Unavailable) or "ina3221" not in name:
                continue
            for chip in self._files.names(f"{_I2C}/{device}/hwmon"):
                yield from self._hwmon_rails(f"{_I2C}/{device}/hwmon/{chip}")
            for node in self._files.names(f"{_I2C}/{device}"):
                if node.startswith("iio:device"):
                    yield from self._iio_rails(f"{_I2C}/{device}/{node}")

    def _hwmon_rails(self, chip: str) -> Iterator[tuple[str, float | Unavailable]]:
        for channel in range(1, _MAX_CHANNELS):
            label = self._files.text(f"{chip}/in{channel}_label")
            if isinstance(label, Unavailable) or label == "NC" or channel == _SUM_CHANNEL:
                continue
            milli_volts = self._files.number(f"{chip}/in{channel}_input", low=0)
            milli_amperes = self._files.number(f"{chip}/curr{channel}_input", low=0)
            if isinstance(milli_volts, Unavailable):
                yield label, milli_volts
            elif isinstance(milli_amperes, Unavailable):
                yield label, milli_amperes
            else:
                yield label, milli_volts * milli_amperes / 1e6

    def _iio_rails(self, node: str) -> Iterator[tuple[str, float | Unavailable]]:
        for channel in range(_MAX_CHANNELS):
            label = self._files.text(f"{node}/rail_name_{channel}")
            if isinstance(label, Unavailable) or label == "NC":
                continue
            milli_watts = self._files.number(f"{node}/in_power{channel}_input", low=0)
            yield label, milli_watts if isinstance(milli_watts, Unavailable) else milli_watts / 1e3

    def _chip_watts(self) -> float | None:
        for chip in self._files.names(_CHIPS):
            name = self._files.text(f"{_CHIPS}/{chip}/name")
            if isinstance(name, str) and name.startswith("ina2"):
                micro_watts = self._files.number(f"{_CHIPS}/{chip}/power1_input", low=0)
                if isinstance(micro_watts, float):
                    return micro_watts / 1e6
        return None

    def _battery_watts(self) -> float | None:
        """What discharging batteries give; charging ones say nothing about the board."""
        found = []
        for name in self._files.names(_SUPPLIES):
            folder = f"{_SUPPLIES}/{name}"
            if (
                self._files.text(f"{folder}/status") != "Discharging"
                or self._files.text(f"{folder}/scope") == "Device"  # of a mouse or a pen
            ):
                continue
            micro_watts = self._files.number(f"{folder}/power_now")
            if isinstance(micro_watts, Unavailable):
                amperes = self._files.number(f"{folder}/current_now")
                volts = self._files.number(f"{folder}/voltage_now", low=0)
                if isinstance(amperes, Unavailable) or isinstance(volts, Unavailable):
                    continue
                micro_watts = amperes * volts / 1e6
            found.append(abs(micro_watts) / 1e6)  # some drivers count discharge as negative
        return sum(found) if found else None
