"""What the board draws, where a chip measures it.

Looked for in this order: the INA3221 of a Jetson (JetPack 5 and later as hwmon, JetPack 4 as iio), any INA2xx that
measures power, a battery that discharges, and the energy counters of an x86 (RAPL; readable by root): those of the
platform where there are some, else those of the processor packages, which is said. A rail that feeds the whole board
counts alone; else rails are added.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Power, Unavailable
from edge_daemon.sensors.stuck import Pace, Watch

_I2C = "sys/bus/i2c/devices"
_CHIPS = "sys/class/hwmon"
_SUPPLIES = "sys/class/power_supply"
_WHOLE_BOARD = frozenset({"POM_5V_IN", "VDD_IN"})
_MAX_CHANNELS = 8
_SUM_CHANNEL = 7  # the INA3221's sum of the others
_MAX_WATTS = 10_000.0
_POWERCAP = "sys/class/powercap"
_RAPL = re.compile(r"\Aintel-rapl:\d{1,3}\Z")  # AMD's driver has the same names; `intel-rapl:0:0` is a part of one
_RAPL_SHORTEST_S = 0.05
_RESCAN_READS = 30

_Way = Callable[[], "float | Unavailable | None"]


class BoardPower:
    """Electric power of the board.

    Args:
        files: Where to look.
        clock: Monotonic.
        pace: The load against which a value that stands still is held; None believes everything.
    """

    name = "power"

    def __init__(self, files: Files, clock: Callable[[], float] = time.monotonic, pace: Pace | None = None) -> None:
        self._files = files
        self._rapl = _Rapl(files, clock)
        self._watch = None if pace is None else Watch(pace)
        self._ways: tuple[tuple[str, _Way], ...] = (
            ("INA3221", self._rails_watts),
            ("INA2xx", self._chip_watts),
            ("the battery's discharge", self._battery_watts),
        )
        self._absent: set[str] = set()
        self._reads_left = 0

    def read(self) -> Power | Unavailable:
        """What is drawn now."""
        self._reads_left -= 1
        if self._reads_left < 0:  # what was not there is looked for again now and then
            self._absent.clear()
            self._reads_left = _RESCAN_READS
        for source, way in self._ways:
            if source in self._absent:
                continue
            watts = way()
            if watts is None:
                if source != "the battery's discharge":  # a plug is pulled at any time
                    self._absent.add(source)
            elif isinstance(watts, Unavailable):
                return watts
            else:
                return self._told(Power(watts=watts, source=source))
        counted = self._rapl.read()
        if counted is None:
            return Unavailable("no chip that measures the board's power")
        return counted if isinstance(counted, Unavailable) else self._told(counted)

    def _told(self, power: Power) -> Power | Unavailable:
        if not 0 <= power.watts <= _MAX_WATTS:
            return Unavailable(f"{power.watts:.3g} W is out of range")
        doubt = None if self._watch is None else self._watch.doubt(power.watts)
        return power if doubt is None else Unavailable(f"{power.source} is {doubt}")

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


class _Rapl:
    """Energy counters of processor packages, or of the whole platform, as power since the last reading."""

    def __init__(self, files: Files, clock: Callable[[], float]) -> None:
        self._files = files
        self._clock = clock
        self._domains: tuple[str, ...] = ()
        self._is_platform = False
        self._reads_left = 0
        self._before: tuple[float, dict[str, float]] | None = None
        self._last: Power | None = None

    def read(self) -> Power | Unavailable | None:
        """The mean power since the last reading; None where there is no counter."""
        self._reads_left -= 1
        if self._reads_left < 0:
            self._scan()
            self._reads_left = _RESCAN_READS
        if not self._domains:
            return None
        now_s, now = self._clock(), {}
        for domain in self._domains:
            energy = self._files.number(f"{domain}/energy_uj", low=0)
            if isinstance(energy, Unavailable):
                self._before = None
                return energy
            now[domain] = energy
        before = self._before
        if before is None or before[1].keys() != now.keys():
            self._before = now_s, now
            return Unavailable("measured over an interval, and none has passed yet")
        took_s = now_s - before[0]
        if took_s < _RAPL_SHORTEST_S:
            return self._last or Unavailable("measured over an interval, and none has passed yet")
        self._before = now_s, now
        micro_joules = sum(self._since(domain, before[1][domain], now[domain]) for domain in self._domains)
        self._last = Power(
            watts=micro_joules / 1e6 / took_s,
            scope="board" if self._is_platform else "processor",
            source=f"RAPL {'platform' if self._is_platform else 'packages'} ({self._domains[0]})",
        )
        return self._last

    def _since(self, domain: str, before: float, now: float) -> float:
        """Microjoules; the counter begins anew at its limit."""
        if now >= before:
            return now - before
        limit = self._files.number(f"{domain}/max_energy_range_uj", low=1)
        return max(0.0, now - before + limit) if isinstance(limit, float) else 0.0

    def _scan(self) -> None:
        named = [
            (f"{_POWERCAP}/{name}", self._files.text(f"{_POWERCAP}/{name}/name"))
            for name in self._files.names(_POWERCAP)
            if _RAPL.match(name)
        ]
        platform = tuple(folder for folder, kind in named if kind == "psys")
        packages = tuple(folder for folder, kind in named if isinstance(kind, str) and kind.startswith("package"))
        self._is_platform = bool(platform)
        self._domains = platform[:1] or packages
