"""How busy an accelerator without a counter is: the time that apps' calls took on it, added up.

No driver tells the load of an Edge TPU, so its share of busy time is estimated from what apps report: calls times
their median latency, over the last seconds. Two apps that share one can add up to more than there is; it counts as
full then.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from edge_daemon.sensors.reading import Load, Unavailable

WINDOW_S = 5.0
_MOST_REPORTS = 1000
_SOURCE = "what apps report of their calls"


class Busy:
    """Time spent on each accelerator.

    May be fed from one thread and read from another.

    Args:
        clock: Monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: dict[str, collections.deque[tuple[float, float]]] = {}

    def feed(self, accelerator: str, busy_ms: float) -> None:
        """So much time was spent on it since the last report of that app; what is no sane time is ignored."""
        if not 0 <= busy_ms <= WINDOW_S * 100_000:  # NaN fails too; an app reports every second or so
            return
        with self._lock:
            spent = self._spent.setdefault(accelerator, collections.deque(maxlen=_MOST_REPORTS))
            spent.append((self._clock(), busy_ms))

    def read(self, accelerator: str) -> Load | Unavailable:
        """Its share of busy time over the last seconds."""
        now_s = self._clock()
        with self._lock:
            spent = self._spent.get(accelerator)
            if spent is None:
                return Unavailable("no app computes on one here")
            while spent and now_s - spent[0][0] > WINDOW_S:
                spent.popleft()
            total_ms = sum(busy_ms for _, busy_ms in spent)
        return Load(percent=min(100.0, total_ms / (WINDOW_S * 1000) * 100), source=_SOURCE)
