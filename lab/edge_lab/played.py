"""A played board: the files a daemon's sensors read, with conditions somebody makes up.

Battery and temperature are invented and written over time; processor, load and memory are links to the machine's own
files, so they stay real. Each file is replaced whole: a sensor never reads half a number. The daemon is told with
`[sensors] played = true`, so that every message it sends says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_REAL = ("proc/stat", "proc/meminfo", "proc/loadavg", "proc/cpuinfo", "proc/device-tree", "sys/devices/system/cpu")
_ZONE = "sys/class/thermal/thermal_zone0"
_BATTERY = "sys/class/power_supply/BAT0"
_MAINS = "sys/class/power_supply/AC0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedConditions:
    """What is made up.

    Attributes:
        temp_c: Of the one thermal zone.
        battery_pct: Charge.
        charging: Mains is there.
        rtt_ms: What the played network adds to a round trip to the broker.
    """

    temp_c: float
    battery_pct: float
    charging: bool
    rtt_ms: float

    def towards(self, other: PlayedConditions, share: float) -> PlayedConditions:
        """Between these (`share` 0) and the others (1); the charger is plugged or pulled at once."""

        def between(a: float, b: float) -> float:
            return a + (b - a) * min(1.0, max(0.0, share))

        return PlayedConditions(
            temp_c=between(self.temp_c, other.temp_c),
            battery_pct=between(self.battery_pct, other.battery_pct),
            charging=other.charging,
            rtt_ms=between(self.rtt_ms, other.rtt_ms),
        )


class PlayedBoard:
    """The tree below `root`, written anew with each change.

    Args:
        root: An empty directory of the caller's.
        conditions: Shown at first.
        limit_c: Where the played zone says that the kernel would slow the processor down; what a daemon keeps below,
            unless the board's profile names a limit.
    """

    def __init__(self, root: Path, conditions: PlayedConditions, *, limit_c: float) -> None:
        self.root = root
        self._shown: dict[str, str] = {}
        for name in _REAL:
            real = Path("/") / name
            if real.exists():
                link = root / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real)
        self._write(f"{_ZONE}/type", "cpu-thermal")
        self._write(f"{_ZONE}/trip_point_0_type", "passive")
        self._write(f"{_ZONE}/trip_point_0_temp", str(round(limit_c * 1000)))
        self._write(f"{_BATTERY}/type", "Battery")
        self._write(f"{_BATTERY}/present", "1")
        self._write(f"{_BATTERY}/scope", "System")
        self._write(f"{_MAINS}/type", "Mains")
        self.show(conditions)

    def show(self, conditions: PlayedConditions) -> None:
        """Write these conditions; files that would not change are left alone."""
        self._write(f"{_ZONE}/temp", str(round(conditions.temp_c * 1000)))
        self._write(f"{_BATTERY}/capacity", str(round(conditions.battery_pct)))
        self._write(f"{_BATTERY}/status", "Charging" if conditions.charging else "Discharging")
        self._write(f"{_MAINS}/online", "1" if conditions.charging else "0")

    def _write(self, name: str, text: str) -> None:
        if self._shown.get(name) == text:
            return
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # No fsync: a reader must see one value or the other, and nobody reads it after a power cut.
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(f"{text}\n", encoding="ascii")
        fresh.replace(path)
        self._shown[name] = text
