"""How busy the processor is, and how much memory is left.

In a container the memory that counts is the container's: its control group (version 2) shows as the root of
`/sys/fs/cgroup`, where the machine's own root has no `memory.max`.
"""

from __future__ import annotations

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Load, Memory, Unavailable
from edge_daemon.sensors.stuck import Pace

_FIELDS = 8  # user nice system idle iowait irq softirq steal; guest time is within user (proc(5))
_IDLE = (3, 4)
_FEW_JIFFIES = 5  # an interval of less says nothing
_KIB_PER_MIB = 1024
_BYTES_PER_MIB = 1024 * 1024
_MAX_MIB = 2**40
_GROUP = "sys/fs/cgroup"
_STAT = "proc/stat"
_MEMORY = "proc/meminfo"


class CpuLoad:
    """CPU in use, as the share of jiffies that were not idle since the last reading.

    Args:
        files: Where to look.
        pace: Told of every load.
    """

    name = "load"

    def __init__(self, files: Files, pace: Pace | None = None) -> None:
        self._files = files
        self._pace = pace
        self._before = self._jiffies()
        self._last: Load | Unavailable = Unavailable("measured over an interval, and none has passed yet")

    def read(self) -> Load | Unavailable:
        """The load since the last reading; the last one again when hardly any time has passed."""
        now = self._jiffies()
        before, self._before = self._before, now
        if isinstance(now, Unavailable):
            return now
        if isinstance(before, Unavailable):
            return Unavailable("measured over an interval, and none has passed yet")
        total, busy = _moved(before["cpu"], now["cpu"])
        if total < _FEW_JIFFIES:
            self._before = before  # lengthen the interval
            return self._last
        cores = [_moved(before[name], now[name]) for name in now if name != "cpu" and name in before]
        self._last = Load(
            percent=100.0 * busy / total,
            busiest_pct=max((100.0 * used / passed for passed, used in cores if passed >= _FEW_JIFFIES), default=None),
            source=_STAT,
        )
        if self._pace is not None:
            self._pace.feed(self._last.percent)
        return self._last

    def _jiffies(self) -> dict[str, tuple[int, ...]] | Unavailable:
        """The counters of all processors (`cpu`) and of each (`cpu0`...), as far as the first 4096 bytes go."""
        text = self._files.text(_STAT)
        if isinstance(text, Unavailable):
            return text
        found: dict[str, tuple[int, ...]] = {}
        for line in text.split("\n"):
            words = line.split()
            if not words or not words[0].startswith("cpu"):
                break
            counters = words[1 : _FIELDS + 1]
            if len(counters) == _FIELDS and all(word.isdecimal() for word in counters):
                found[words[0]] = tuple(map(int, counters))
        return found if "cpu" in found else Unavailable(f"{_STAT}: does not begin with the counters of all processors")


def _moved(before: tuple[int, ...], now: tuple[int, ...]) -> tuple[int, int]:
    """Jiffies that passed, and those that were not idle.

    Counters of idle and iowait may step back (proc(5)); such a field counts as not moved.
    """
    moved = [max(new - old, 0) for new, old in zip(now, before, strict=True)]
    total = sum(moved)
    return total, total - sum(moved[i] for i in _IDLE)


class MainMemory:
    """Memory available to a new process, as the kernel estimates it, and no more than the container may have."""

    name = "memory"

    def __init__(self, files: Files) -> None:
        self._files = files

    def read(self) -> Memory | Unavailable:
        """What is available now."""
        text = self._files.text(_MEMORY)
        if isinstance(text, Unavailable):
            return text
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key == "MemAvailable":
                words = value.split()
                if words and words[0].isdecimal() and int(words[0]) // _KIB_PER_MIB <= _MAX_MIB:
                    free_mb, group_mb = int(words[0]) // _KIB_PER_MIB, self._left_to_group_mb()
                    source = _MEMORY if free_mb <= group_mb else f"{_GROUP}/memory.max"
                    return Memory(available_mb=min(free_mb, group_mb), source=source)
        return Unavailable(f"{_MEMORY}: no MemAvailable")

    def _left_to_group_mb(self) -> int:
        """Of the control group's limit; file pages not used lately count as free, for the kernel drops them first."""
        limit = self._files.number(f"{_GROUP}/memory.max", low=0)  # the word `max` is no number: no limit
        used = self._files.number(f"{_GROUP}/memory.current", low=0)
        if isinstance(limit, Unavailable) or isinstance(used, Unavailable):
            return _MAX_MIB
        text = self._files.text(f"{_GROUP}/memory.stat")
        lines = () if isinstance(text, Unavailable) else (line.split() for line in text.splitlines())
        stale = next((w[1] for w in lines if len(w) == 2 and w[0] == "inactive_file" and w[1].isdecimal()), "0")  # noqa: PLR2004 - a name and a number
        return int(max(0.0, limit - used + min(float(stale), used))) // _BYTES_PER_MIB
