"""What one inference takes in energy, where the machine has a sensor for power that this user may read.

Known are Intel's and AMD's counters of energy (RAPL), the INA chips of Jetsons and of hats, and a battery that is being
discharged. A machine that idles takes power as well: that is measured just before, and subtracted. The figure is of all
that the sensor sees (a processor package, a whole board) and so holds only on a machine that does nothing else.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from edge_sdk.runtime import Unavailable

_SAMPLE_S = 0.05  # INA3221 drivers convert in 1 to 10 ms a channel; faster reading gives the same value again
_MOST_BYTES = 256
# Jetson carrier boards name the rail of the whole board so (facts of NVIDIA's device trees).
_WHOLE_BOARD = ("POM_5V_IN", "VDD_IN")
_RAPL = "sys/class/powercap/intel-rapl:[0-9]*"  # AMD's driver has the same names
_MOST_CHANNELS = 8
NOTHING = Unavailable(
    name="power", reason="no sensor of power is known here", hint="an INA219 or INA3221 on I2C would be one"
)


class Meter(Protocol):
    """A sensor of power or energy."""

    @property
    def name(self) -> str:
        """The sensor, such as `rapl package-0`."""

    @property
    def scope(self) -> str:
        """What it sees: a processor package, a board."""

    def begin(self) -> Ending:
        """Begin to count; what is given ends it, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was taken in some time."""

    joules: float
    seconds: float


Ending = Callable[[], Drawn | None]  # None where the sensor went meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one inference took.

    Attributes:
        sensor: Its name and scope.
        idle_w: What was taken just before, with nothing to do.
        active_w: What was taken meanwhile.
        mj: Of one inference, the idle power subtracted, in millijoules; 0 where no difference could be seen.
        inferences: How many it is the mean of.
    """

    sensor: str
    idle_w: float
    active_w: float
    mj: float
    inferences: int


def measure(meter: Meter, work: Callable[[], object], *, idle_s: float, busy_s: float) -> Energy | Unavailable:
    """The energy of one call of `work`.

    Args:
        meter: From `find`.
        work: One inference; it is warm.
        idle_s: How long to look at the idle machine before.
        busy_s: How long to call `work` for, at the least once.
    """
    done = 0

    def busy() -> None:
        nonlocal done
        end_s = time.perf_counter() + busy_s
        while not done or time.perf_counter() < end_s:
            work()
            done += 1

    idle = _counted(meter, lambda: time.sleep(idle_s))
    work()
    meanwhile = _counted(meter, busy)
    if idle is None or meanwhile is None:
        return Unavailable(name=meter.name, reason="the sensor stopped to answer")
    idle_w = idle.joules / idle.seconds
    more_j = meanwhile.joules - idle_w * meanwhile.seconds
    return Energy(
        sensor=f"{meter.name} ({meter.scope})",
        idle_w=round(idle_w, 4),
        active_w=round(meanwhile.joules / meanwhile.seconds, 4),
        mj=round(max(0.0, 1e3 * more_j / done), 4),
        inferences=done,
    )


def _counted(meter: Meter, work: Callable[[], None]) -> Drawn | None:
    end = meter.begin()
    try:
        work()
    finally:
        drawn = end()
    return drawn


def find(root: Path = Path("/")) -> Meter | Unavailable:
    """The best sensor that can be read, or why there is none; the whole board comes before the processor alone."""
    missing: Unavailable | None = None
    for each in found(root):
        if not isinstance(each, Unavailable):
            return each
        missing = missing or each
    return missing or NOTHING


def found(root: Path = Path("/")) -> Iterator[Meter | Unavailable]:
    """Every sensor of power below `root`, those that cannot be read with the reason."""
    yield from _inas(root)
    yield from _rapl(root)
    yield from _batteries(root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of microjoules that begins anew at its limit, as RAPL's do.

    Attributes:
        files: One for each processor package: its counter, and where it begins anew.
    """

    name: str
    scope: str
    files: tuple[tuple[Path, int], ...]

    def begin(self) -> Ending:
        """See `Meter.begin`; right for less than one round, minutes at the least."""
        before = [_number(path) for path, _ in self.files]
        begun_s = time.perf_counter()

        def end() -> Drawn | None:
            took_s = time.perf_counter() - begun_s
            total = 0.0
            for (path, limit), start in zip(self.files, before, strict=True):
                now = _number(path)
                if start is None or now is None:
                    return None
                total += now - start if now >= start else now - start + limit
            return Drawn(joules=total / 1e6, seconds=took_s)

        return end


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A sensor of the power at the moment, read over and over by a thread while it is counted.

    Attributes:
        watts: The power now; None where it cannot be read.
    """

    name: str
    scope: str
    watts: Callable[[], float | None]

    def begin(self) -> Ending:
        """See `Meter.begin`: the mean of what was read, times the time."""
        read: list[float | None] = []
        ended = threading.Event()

        def look() -> None:
            while True:
                read.append(self.watts())
                if ended.wait(_SAMPLE_S):
                    return

        begun_s = time.perf_counter()
        thread = threading.Thread(target=look, name="edge-power", daemon=True)
        thread.start()

        def end() -> Drawn | None:
            took_s = time.perf_counter() - begun_s
            ended.set()
            thread.join()
            read.append(self.watts())
            watts = [each for each in read if each is not None]
            if len(watts) < len(read):
                return None
            return Drawn(joules=sum(watts) / len(watts) * took_s, seconds=took_s)

        return end


def _rapl(root: Path) -> Iterator[Meter | Unavailable]:
    packages = [place for place in sorted(root.glob(_RAPL)) if place.name.count(":") == 1]
    packages = [place for place in packages if _text(place / "name").startswith("package")]
    if not packages:
        return
    if not all(os.access(place / "energy_uj", os.R_OK) for place in packages):
        yield Unavailable(
            name="rapl", reason="only root may read it", hint="sudo chmod a+r /sys/class/powercap/*/energy_uj"
        )
        return
    files = tuple((place / "energy_uj", int(_number(place / "max_energy_range_uj") or 0)) for place in packages)
    if all(_number(path) is not None for path, _ in files):
        yield Counter(name="rapl", scope="processor", files=files)


def _inas(root: Path) -> Iterator[Meter | Unavailable]:
    """INA chips by their drivers in the kernel: `hwmon`, or on JetPack 4 `iio`."""
    for place in sorted({*root.glob("sys/class/hwmon/hwmon*"), *root.glob("sys/bus/i2c/devices/*/hwmon/hwmon*")}):
        chip = _text(place / "name")
        if chip.startswith(("ina2", "ina3")):
            yield from _gauge(chip, [_hwmon(place, n) for n in range(1, _MOST_CHANNELS)])
            return
    for place in sorted(root.glob("sys/bus/i2c/devices/*/iio:device*")):
        if _text(place.parent / "name").startswith("ina3221"):
            yield from _gauge("ina3221", [_iio(place, n) for n in range(_MOST_CHANNELS)])
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rail:
    """One channel: the product of its files is the power in `unit_w`."""

    label: str
    files: tuple[Path, ...]
    unit_w: float

    def watts(self) -> float | None:
        power = self.unit_w
        for path in self.files:
            value = _number(path)
            if value is None:
                return None
            power *= value
        return power


def _gauge(chip: str, rails: list[_Rail | None]) -> Iterator[Meter]:
    known = [rail for rail in rails if rail is not None and rail.label != "NC" and rail.watts() is not None]
    whole = [rail for rail in known if rail.label in _WHOLE_BOARD]
    chosen = whole or known

    def watts() -> float | None:
        total = 0.0
        for rail in chosen:
            power = rail.watts()
            if power is None:
                return None
            total += power
        return total

    if chosen:
        labels = ", ".join(rail.label for rail in chosen)
        yield Gauge(name=f"{chip} {labels}".strip(), scope="board" if whole else "what it is wired to", watts=watts)


def _hwmon(place: Path, channel: int) -> _Rail | None:
    """`in*_input` in mV and `curr*_input` in mA, or `power*_input` in uW (the kernel's Documentation/hwmon)."""
    label = _text(place / f"in{channel}_label")
    power = place / f"power{channel}_input"
    if power.is_file():
        return _Rail(label=label, files=(power,), unit_w=1e-6)
    volts, amps = place / f"in{channel}_input", place / f"curr{channel}_input"
    return _Rail(label=label, files=(volts, amps), unit_w=1e-6) if volts.is_file() and amps.is_file() else None


def _iio(place: Path, channel: int) -> _Rail | None:
    power = place / f"in_power{channel}_input"  # mW
    label = _text(place / f"rail_name_{channel}")
    return _Rail(label=label, files=(power,), unit_w=1e-3) if power.is_file() else None


def _batteries(root: Path) -> Iterator[Meter | Unavailable]:
    """A battery tells the power of the whole device, but only while it is what the device lives on."""
    for place in sorted(root.glob("sys/class/power_supply/*")):
        if _text(place / "type") != "Battery":
            continue
        power, amps, volts = (place / name for name in ("power_now", "current_now", "voltage_now"))
        files, unit_w = ((power,), 1e-6) if power.is_file() else ((volts, amps), 1e-12)
        rail = _Rail(label=place.name, files=files, unit_w=unit_w)
        name = f"battery {place.name}"
        if rail.watts() is None:
            yield Unavailable(name=name, reason="it tells no power")
        elif _text(place / "status") != "Discharging":
            yield Unavailable(
                name=name, reason="it is not being discharged", hint="unplug the charger while you measure"
            )
        else:
            yield Gauge(name=name, scope="device", watts=partial(_drawn, rail))


def _drawn(rail: _Rail) -> float | None:
    watts = rail.watts()
    return None if watts is None else abs(watts)  # some drivers count what flows out of a battery as negative


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("ascii", "replace").strip().strip("\0")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(int(_text(path)))
    except ValueError:
        return None
