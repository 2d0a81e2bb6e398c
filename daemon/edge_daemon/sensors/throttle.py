"""Whether something slows the board down, folded into one signal.

| source | signal |
|---|---|
| firmware bits of a Raspberry Pi, now: under-voltage | `power` |
| frequency capped, throttled | `thermal` |
| soft temperature limit | `soft` |
| under-voltage alarm (`rpi_volt`), current alarm (INA2xx) | `power` |
| a counter of over-current events (`soctherm_oc` of an Orin) has gone up | `power` |
| a cooling device on a processor or GPU clock is active | `thermal` |
| an Edge TPU on PCIe is at its first trip point | `thermal` |
| a passive trip point is reached, or nearly | `thermal`, `soft` |
| a critical trip point is near | `critical` |
| a frequency limit lies below what the processor can do | `soft`, see `fold` |

The worst wins. Bits that say what *has* happened are not looked at: the kernel's own driver clears them at each poll.
The file `get_throttled` below `soc:firmware` is not read: it is deprecated, and reading it makes the kernel warn.
"""

from __future__ import annotations

import re

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.firmware import Firmware, Runner
from edge_daemon.sensors.reading import Heat, Signals, Unavailable, worst
from edge_sdk.mqtt import Throttle

_CHIPS = "sys/class/hwmon"
_I2C = "sys/bus/i2c/devices"
_COOLING = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"
_APEX = "sys/class/apex"
_CLOCKS = ("thermal-cpufreq", "cpufreq", "Processor", "thermal-devfreq", "devfreq")
_UNDER_VOLTAGE = re.compile(r"\Ain\d{1,2}_lcrit_alarm\Z")
_OVER_CURRENT = re.compile(r"\Acurr\d{1,2}(_crit)?_alarm\Z")
_EVENTS = re.compile(r"\Aoc\d_event_cnt\Z")
_CPU = re.compile(r"\Acpu\d{1,4}\Z")
_RESCAN_READS = 30

# So near to a passive trip point counts as soft already: sensors are read once a second, and a bare board heats by
# half a degree in that time.
_PASSIVE_MARGIN_C = 2.0
_CRITICAL_MARGIN_C = 5.0
# The lowest published temperature at which a board throttles (Raspberry Pi 3B+: soft limit 60 degrees).
_WARM_C = 60.0


def fold(signals: Signals | None, heat: Heat | None) -> Throttle:
    """The one signal.

    A frequency limit that was there from the start on a cool board is a setting of the operator's (`nvpmodel`,
    `cpupower`), not throttling: it counts when it fell while the daemon watched, or when the board is warm, or when
    nobody knows how warm it is.
    """
    found = [Throttle.NONE]
    if heat is not None:
        if heat.to_passive_c is not None and heat.to_passive_c <= _PASSIVE_MARGIN_C:
            found.append(Throttle.THERMAL if heat.to_passive_c <= 0 else Throttle.SOFT)
        if heat.to_critical_c is not None and heat.to_critical_c <= _CRITICAL_MARGIN_C:
            found.append(Throttle.CRITICAL)
    if signals is not None:
        found.append(signals.worst)
        warm = heat is None or heat.temp_c >= _WARM_C
        if signals.capped and (signals.fell or warm):
            found.append(Throttle.SOFT)
    return worst(*found)


class Throttling:
    """Alarms, cooling devices, frequency limits and firmware bits.

    Args:
        files: Where to look.
        firmware: Asks the firmware of a Raspberry Pi.
    """

    name = "throttle"

    def __init__(self, files: Files, firmware: Runner | None = None) -> None:
        self._files = files
        self._firmware = None if firmware is None else Firmware(firmware)
        self._alarms: tuple[str, ...] = ()
        self._events: tuple[str, ...] = ()
        self._counted: dict[str, float] = {}
        self._cooling: tuple[str, ...] = ()
        self._clocks: tuple[str, ...] = ()
        self._highest: dict[str, float] = {}
        self._reads_left = 0

    def read(self) -> Signals | Unavailable:
        """The signals now."""
        self._reads_left -= 1
        if self._reads_left < 0:
            self._scan()
            self._reads_left = _RESCAN_READS
        found = [*self._ring(), *self._count(), *self._cool(), *self._edge_tpus()]
        firmware = None if self._firmware is None else self._firmware.read()
        if firmware is not None:
            found.append(firmware)
        capped, fell, known = self._limits()
        if not found and not known:
            return Unavailable("no alarm, cooling device, frequency limit or firmware to ask")
        told = {
            "the firmware": firmware,
            "alarms": self._alarms or self._events,
            "cooling devices": self._cooling,
            "limits": known,
        }
        return Signals(
            worst=worst(*found),
            capped=capped,
            fell=fell,
            clock_hz=None if self._firmware is None else self._firmware.clock_hz,
            source=", ".join(name for name, is_there in told.items() if is_there) or "the Edge TPU's trip point",
        )

    def _scan(self) -> None:
        chips = {name: f"{_CHIPS}/{name}" for name in self._files.names(_CHIPS)}
        for device in self._files.names(_I2C):
            for name in self._files.names(f"{_I2C}/{device}/hwmon"):
                chips.setdefault(name, f"{_I2C}/{device}/hwmon/{name}")
        self._alarms = tuple(path for chip in chips.values() for path in self._alarm_paths(chip))
        counting = [chip for chip in chips.values() if self._files.text(f"{chip}/name") == "soctherm_oc"]
        self._events = tuple(
            f"{chip}/{name}" for chip in counting for name in self._files.names(chip) if _EVENTS.match(name)
        )
        self._cooling = tuple(
            f"{_COOLING}/{name}"
            for name in self._files.names(_COOLING)
            if name.startswith("cooling_device") and self._is_clock(f"{_COOLING}/{name}")
        )
        policies = tuple(f"{_CPUS}/cpufreq/{name}" for name in self._files.names(f"{_CPUS}/cpufreq"))
        cpus = tuple(f"{_CPUS}/{name}/cpufreq" for name in self._files.names(_CPUS) if _CPU.match(name))
        self._clocks = tuple(clock for clock in policies or cpus if self._files.exists(f"{clock}/scaling_max_freq"))

    def _alarm_paths(self, chip: str) -> list[str]:
        kind = self._files.text(f"{chip}/name")
        if kind == "rpi_volt":
            wanted = _UNDER_VOLTAGE
        elif isinstance(kind, str) and kind.startswith("ina"):
            wanted = _OVER_CURRENT
        else:
            return []
        return [f"{chip}/{name}" for name in self._files.names(chip) if wanted.match(name)]

    def _is_clock(self, device: str) -> bool:
        kind = self._files.text(f"{device}/type")
        return isinstance(kind, str) and kind.startswith(_CLOCKS)

    def _ring(self) -> list[Throttle]:
        values = [self._files.number(path, low=0, high=1) for path in self._alarms]
        if any(isinstance(value, Unavailable) for value in values):
            self._reads_left = 0  # renumbered or gone
        return [Throttle.POWER if value else Throttle.NONE for value in values if isinstance(value, float)]

    def _count(self) -> list[Throttle]:
        """Events since the last reading: under-voltage and over-current, counted by the module since it was booted."""
        now = {path: self._files.number(path, low=0) for path in self._events}
        known = {path: count for path, count in now.items() if isinstance(count, float)}
        found = [
            Throttle.POWER if count > self._counted.get(path, count) else Throttle.NONE for path, count in known.items()
        ]
        self._counted = known
        return found

    def _cool(self) -> list[Throttle]:
        found = []
        for device in self._cooling:
            state = self._files.number(f"{device}/cur_state", low=0)
            if not isinstance(state, float):
                self._reads_left = 0  # renumbered or gone
            elif state == 0:
                found.append(Throttle.NONE)
            elif self._is_clock(device):
                found.append(Throttle.THERMAL)
        return found

    def _edge_tpus(self) -> list[Throttle]:
        found = []
        for name in self._files.names(_APEX):
            temp = self._files.number(f"{_APEX}/{name}/temp", low=-40_000, high=150_000)
            trip = self._files.number(f"{_APEX}/{name}/trip_point0_temp", low=1)
            if isinstance(temp, float) and isinstance(trip, float):
                found.append(Throttle.THERMAL if temp >= trip else Throttle.NONE)
        return found

    def _limits(self) -> tuple[bool, bool, bool]:
        """Some limit is below the processor's best; it fell since it was first seen; there are limits at all."""
        capped = fell = known = False
        for clock in self._clocks:
            limit = self._files.number(f"{clock}/scaling_max_freq", low=1)
            best = self._files.number(f"{clock}/cpuinfo_max_freq", low=1)
            if isinstance(limit, float) and isinstance(best, float):
                known = True
                highest = self._highest[clock] = max(limit, self._highest.get(clock, 0.0))
                capped = capped or limit < best
                fell = fell or limit < min(highest, best)
        return capped, fell, known
