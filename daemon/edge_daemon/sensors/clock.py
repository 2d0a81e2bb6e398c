"""How fast the processor's clock is, as a share of the highest it can run.

What the policy wants to know is the clock that *work* meets. While cores idle, their governor lowers it, and a reading
of that moment says nothing of what a call would get: then the limit in force counts. Under load the clock itself
counts, for it shows what holds it down although no limit says so. A Raspberry Pi's firmware holds it down unseen by
the kernel (`scaling_cur_freq` is what was asked for); it is asked itself while it says that it does.

Only the fastest cores count, where work that matters runs.
"""

from __future__ import annotations

import re

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Clock, Load, Signals, Unavailable

_CPUS = "sys/devices/system/cpu"
_CPU = re.compile(r"\Acpu\d{1,4}\Z")
_MOST_GROUPS = 8  # of cores that share a clock
_RESCAN_READS = 30
_AS_FAST = 0.95  # cores this near to the fastest count as such
_HZ_PER_KHZ = 1000.0
# A core as busy as this over the last second ran when it was looked at.
_BUSY_PCT = 80.0
_FIXED = frozenset({"powersave", "userspace"})  # governors that do not raise the clock for work
_OWN_GOVERNOR = "intel_pstate"  # whose "powersave" does raise it


class CpuClock:
    """The clocks that the kernel sets.

    Args:
        files: Where to look.
    """

    name = "clock"

    def __init__(self, files: Files) -> None:
        self._files = files
        self._groups: tuple[tuple[str, float], ...] = ()
        self._held = False
        self._reads_left = 0

    def read(self) -> Clock | Unavailable:
        """The clock now."""
        self._reads_left -= 1
        if self._reads_left < 0:
            self._scan()
            self._reads_left = _RESCAN_READS
        if not self._groups:
            return Unavailable(f"no frequencies in {_CPUS}")
        fastest = max(best for _, best in self._groups)
        now: list[float] = []
        limits: list[float] = []
        why: Unavailable | None = None
        for folder, best in self._groups:
            if best < _AS_FAST * fastest:
                continue
            current = self._files.number(f"{folder}/scaling_cur_freq", low=1)
            limit = self._files.number(f"{folder}/scaling_max_freq", low=1)
            if isinstance(current, float):
                now.append(min(1.0, current / best))
            else:
                why = why or current
            limits.append(min(1.0, limit / best) if isinstance(limit, float) else 1.0)
        if not now:
            self._reads_left = 0  # gone, or renumbered: look again next time
            return why or Unavailable("no frequency can be read")
        return Clock(
            now=max(now),
            limit=max(limits),
            held=self._held,
            best_hz=fastest * _HZ_PER_KHZ,
            source=f"{self._groups[0][0]}/scaling_cur_freq",
        )

    def _scan(self) -> None:
        shared = [f"{_CPUS}/cpufreq/{name}" for name in self._files.names(f"{_CPUS}/cpufreq")]
        folders = shared or [f"{_CPUS}/{name}/cpufreq" for name in self._files.names(_CPUS) if _CPU.match(name)]
        found = []
        for folder in folders[:_MOST_GROUPS]:
            best = self._files.number(f"{folder}/cpuinfo_max_freq", low=1)
            if isinstance(best, float):
                found.append((folder, best))
        self._groups = tuple(found)
        governors = {self._files.text(f"{folder}/scaling_governor") for folder, _ in found}
        drivers = {self._files.text(f"{folder}/scaling_driver") for folder, _ in found}
        self._held = bool(governors) and governors <= _FIXED and _OWN_GOVERNOR not in drivers


def met_by_work(clock: Clock, load: Load | None, signals: Signals | None) -> float:
    """The share of the highest clock that work would run at now, 0 to 1."""
    if signals is not None and signals.clock_hz is not None:
        return min(1.0, signals.clock_hz / clock.best_hz)
    busiest = None if load is None else load.busiest_pct
    if clock.held or (busiest is not None and busiest >= _BUSY_PCT):
        return min(clock.now, clock.limit)
    return clock.limit
