"""Whether something slows the board down, folded into one signal.

| source | signal |
|---|---|
| firmware bits of a Raspberry Pi, now: under-voltage | `power` |
| frequency capped, throttled | `thermal` |
| soft temperature limit | `soft` |
| under-voltage alarm (`rpi_volt`), current alarm (INA2xx) | `power` |
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
import shutil
import subprocess
from collections.abc import Callable
from typing import TypeVar

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Heat, Signals, Unavailable
from edge_sdk.mqtt import Throttle

T = TypeVar("T")
Runner = Callable[[str], str | Unavailable]
ASK_BITS = "get_throttled"
ASK_CLOCK = "measure_clock arm"

_CHIPS = "sys/class/hwmon"
_I2C = "sys/bus/i2c/devices"
_COOLING = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"
_APEX = "sys/class/apex"
_CLOCKS = ("thermal-cpufreq", "cpufreq", "Processor", "thermal-devfreq", "devfreq")
_UNDER_VOLTAGE = re.compile(r"\Ain\d{1,2}_lcrit_alarm\Z")
_OVER_CURRENT = re.compile(r"\Acurr\d{1,2}(_crit)?_alarm\Z")
_CPU = re.compile(r"\Acpu\d{1,4}\Z")
_BITS = re.compile(r"\Athrottled=0x([0-9a-fA-F]{1,8})\Z")
_HERTZ = re.compile(r"\Afrequency\(\d{1,3}\)=(\d{1,12})\Z", re.ASCII)
_RESCAN_READS = 30
_FIRMWARE_READS = 5  # a process each time: about 10 ms of CPU on a Pi Zero
_FIRMWARE_REST_READS = 60  # after it failed
_FIRMWARE_DEADLINE_S = 1.0

# Bits of `vcgencmd get_throttled` (raspberrypi/documentation, os.adoc).
_FIRMWARE = (
    (1 << 0, Throttle.POWER),
    (1 << 1 | 1 << 2, Throttle.THERMAL),
    (1 << 3, Throttle.SOFT),
)
_ORDER = {throttle: rank for rank, throttle in enumerate(Throttle)}

# So near to a passive trip point counts as soft already: sensors are read once a second, and a bare board heats by
# half a degree in that time.
_PASSIVE_MARGIN_C = 2.0
_CRITICAL_MARGIN_C = 5.0
# The lowest published temperature at which a board throttles (Raspberry Pi 3B+: soft limit 60 degrees).
_WARM_C = 60.0


def worst(*signals: Throttle) -> Throttle:
    """The worst of some signals."""
    return max(signals, key=_ORDER.__getitem__, default=Throttle.NONE)


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


def vcgencmd() -> Runner | None:
    """Asks a Raspberry Pi's firmware, where the program is there; it takes group `video`."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None

    def run(question: str) -> str | Unavailable:
        try:
            done = subprocess.run(
                [program, *question.split()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_FIRMWARE_DEADLINE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as cause:
            return Unavailable(f"vcgencmd: {cause}")
        return done.stdout[:100].decode("ascii", "replace").strip()

    return run


def firmware_signal(text: str) -> Throttle | Unavailable:
    """What `throttled=0x50005` says of now."""
    match = _BITS.match(text)
    if match is None:
        return Unavailable(f"vcgencmd: {text[:40]!r} is no answer to get_throttled")
    bits = int(match[1], 16)
    return worst(*(signal for mask, signal in _FIRMWARE if bits & mask))


def firmware_clock_hz(text: str) -> float | Unavailable:
    """What `frequency(48)=600000000` says: the true clock, where the kernel only knows what it asked for."""
    match = _HERTZ.match(text)
    if match is None or not int(match[1]):
        return Unavailable(f"vcgencmd: {text[:40]!r} is no answer to {ASK_CLOCK}")
    return float(match[1])


class Throttling:
    """Alarms, cooling devices, frequency limits and firmware bits.

    Args:
        files: Where to look.
        firmware: Asks the firmware of a Raspberry Pi.
    """

    name = "throttle"

    def __init__(self, files: Files, firmware: Runner | None = None) -> None:
        self._files = files
        self._firmware = firmware
        self._firmware_rest = 0
        self._firmware_said: Throttle | None = None
        self._clock_hz: float | None = None
        self._alarms: tuple[str, ...] = ()
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
        found = [*self._ring(), *self._cool(), *self._edge_tpus()]
        firmware = self._ask_firmware()
        if firmware is not None:
            found.append(firmware)
        capped, fell, known = self._limits()
        if not found and not known:
            return Unavailable("no alarm, cooling device, frequency limit or firmware to ask")
        told = {"the firmware": firmware, "alarms": self._alarms, "cooling devices": self._cooling, "limits": known}
        return Signals(
            worst=worst(*found),
            capped=capped,
            fell=fell,
            clock_hz=self._clock_hz,
            source=", ".join(name for name, is_there in told.items() if is_there) or "the Edge TPU's trip point",
        )

    def _scan(self) -> None:
        chips = {name: f"{_CHIPS}/{name}" for name in self._files.names(_CHIPS)}
        for device in self._files.names(_I2C):
            for name in self._files.names(f"{_I2C}/{device}/hwmon"):
                chips.setdefault(name, f"{_I2C}/{device}/hwmon/{name}")
        self._alarms = tuple(path for chip in chips.values() for path in self._alarm_paths(chip))
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

    def _ask_firmware(self) -> Throttle | None:
        if self._firmware is None:
            return None
        self._firmware_rest -= 1
        if self._firmware_rest < 0:
            self._firmware_said = _answer(self._firmware(ASK_BITS), firmware_signal)
            held_down = self._firmware_said not in {None, Throttle.NONE}
            self._clock_hz = _answer(self._firmware(ASK_CLOCK), firmware_clock_hz) if held_down else None
            self._firmware_rest = (_FIRMWARE_REST_READS if self._firmware_said is None else _FIRMWARE_READS) - 1
        return self._firmware_said


def _answer(text: str | Unavailable, parse: Callable[[str], T | Unavailable]) -> T | None:
    said = text if isinstance(text, Unavailable) else parse(text)
    return None if isinstance(said, Unavailable) else said
