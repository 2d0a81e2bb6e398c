"""How busy an accelerator without a counter is: the time that apps' calls took on it, added up.

No driver tells the load of an Edge TPU, and few that of an NPU, so their share of busy time is taken from what apps
report: the share of time in which they waited for it, else their calls times the median latency. Two apps that share
one can add up to more than there is; it counts as full then.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Final

from edge_daemon.sensors.reading import Load, Unavailable

WINDOW_S: Final = 5.0
_MOST_REPORTS: Final = 1000
_SOURCE: Final = "what apps report of their calls"
# What delegates compute on, as the conditions tell them apart.
KINDS: Final = {
    "edgetpu": "edgetpu",
    "gpu": "gpu",
    **dict.fromkeys(("vx", "ethos-u", "teflon", "nnapi", "armnn"), "npu"),
}


class Busy:
    """Time spent on each kind of accelerator.

    May be fed from one thread and read from another.

    Args:
        clock: Monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen_s: dict[str, float] = {}
        self._spent: dict[str, collections.deque[tuple[float, float]]] = {}

    def saw(self, app: str, accelerator: str, *, busy_pct: float | None = None, busy_ms: float | None = None) -> None:
        """What an app's calls took since its last report; what is no sane time is ignored.

        Args:
            app: Which.
            accelerator: As it was asked for, such as `edgetpu:usb:0`.
            busy_pct: Share of the time since then.
            busy_ms: Time, where the share is not known.
        """
        kind = KINDS.get(accelerator.partition(":")[0])
        now_s = self._clock()
        with self._lock:
            passed_s = min(WINDOW_S, now_s - self._seen_s.get(app, now_s))
            self._seen_s = {name: at_s for name, at_s in self._seen_s.items() if now_s - at_s <= WINDOW_S}
            self._seen_s[app] = now_s
            spent_s = passed_s * busy_pct / 100 if busy_pct is not None else (busy_ms or 0.0) / 1000
            if kind is None or not 0 <= spent_s <= 100 * WINDOW_S:  # NaN fails too
                return
            spent = self._spent.setdefault(kind, collections.deque(maxlen=_MOST_REPORTS))
            spent.append((now_s, spent_s))

    def read(self, kind: str) -> Load | Unavailable:
        """Its share of busy time over the last seconds.

        Args:
            kind: `edgetpu`, `gpu` or `npu`.
        """
        now_s = self._clock()
        with self._lock:
            spent = self._spent.get(kind)
            while spent and now_s - spent[0][0] > WINDOW_S:
                spent.popleft()
            if not spent:
                self._spent.pop(kind, None)
                return Unavailable("no app computes on one here")
            total_s = sum(seconds for _, seconds in spent)
        return Load(percent=min(100.0, total_s / WINDOW_S * 100), source=_SOURCE)
