"""What calls did since somebody last asked: counts and latencies of the variant that answers."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass

MAX_TIMES = 4096  # of one window: at more than that a second, a sample of them tells the percentiles as well
MAX_SAMPLE = 20
SLOW = 1.6  # times the usual median: what may be the begin of contention, and is told at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One window; the times are of the calls of `variant` alone, None where it had none.

    Attributes:
        sample_ms: Some of them, from all over the window.
        slow_ms: The slowest of those that were late or took much longer than usual.
    """

    variant: str
    calls: int
    late: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    sample_ms: tuple[float, ...] = ()
    slow_ms: float | None = None


class Tally:
    """Counts calls; `ran` costs less than a microsecond.

    Args:
        late: Told of the first late or slow call after each `take`, in the thread of the call: must be quick.
    """

    def __init__(self, late: Callable[[], None] = lambda: None) -> None:
        self._told = late
        self._lock = threading.Lock()
        self._variant = ""
        self._times: list[float] = []
        self._calls = self._late = self._failed = 0
        self._usual: tuple[str, float] | None = None  # a variant, and what its calls lately took
        self._slow_ms: float | None = None
        self.limit_ms: float | None = None

    def ran(self, variant: str, ms: float) -> None:
        """A call ended."""
        is_first = False
        with self._lock:
            if variant != self._variant:
                self._variant = variant
                self._times = []
            self._calls += 1
            if len(self._times) < MAX_TIMES:
                self._times.append(ms)
            limit, usual = self.limit_ms, self._usual
            is_late = limit is not None and ms > limit
            self._late += is_late
            if is_late or (usual is not None and ms > SLOW * usual[1] and usual[0] == variant):
                is_first = self._slow_ms is None
                self._slow_ms = ms if self._slow_ms is None else max(ms, self._slow_ms)
        if is_first:
            self._told()

    def failed(self) -> None:
        """A call ended with an error of the runtime."""
        with self._lock:
            self._failed += 1

    def take(self, active: str) -> Taken:
        """What was counted since the last time."""
        with self._lock:
            came = self._times if self._variant == active else []
            counted = self._calls, self._late, self._failed
            slow_ms = self._slow_ms if self._variant == active else None
            self._times, self._slow_ms = [], None
            self._calls = self._late = self._failed = 0
            times = sorted(came)
            if times:
                self._usual = active, statistics.median(times)
        return Taken(
            variant=active,
            calls=counted[0],
            late=counted[1],
            failed=counted[2],
            p50_ms=statistics.median(times) if times else None,
            p95_ms=times[min(len(times) - 1, int(0.95 * len(times)))] if times else None,
            sample_ms=tuple(came[:: -(-len(came) // MAX_SAMPLE) or 1]),
            slow_ms=slow_ms,
        )
