"""What calls did since somebody last asked: counts and latencies of the variant that answers."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass

MAX_TIMES = 4096  # of one window: at more than that a second, a sample of them tells the percentiles as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One window; the percentiles are of the calls of `variant` alone, None where it had none."""

    variant: str
    calls: int
    late: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None


class Tally:
    """Counts calls; `ran` costs less than a microsecond.

    Args:
        late: Told of the first late call after each `take`, in the thread of the call: must be quick.
    """

    def __init__(self, late: Callable[[], None] = lambda: None) -> None:
        self._told = late
        self._lock = threading.Lock()
        self._variant = ""
        self._times: list[float] = []
        self._calls = self._late = self._failed = 0
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
            limit = self.limit_ms
            if limit is not None and ms > limit:
                is_first = self._late == 0
                self._late += 1
        if is_first:
            self._told()

    def failed(self) -> None:
        """A call ended with an error of the runtime."""
        with self._lock:
            self._failed += 1

    def take(self, active: str) -> Taken:
        """What was counted since the last time."""
        with self._lock:
            times = sorted(self._times) if self._variant == active else []
            counted = self._calls, self._late, self._failed
            self._times = []
            self._calls = self._late = self._failed = 0
        return Taken(
            variant=active,
            calls=counted[0],
            late=counted[1],
            failed=counted[2],
            p50_ms=statistics.median(times) if times else None,
            p95_ms=times[min(len(times) - 1, int(0.95 * len(times)))] if times else None,
        )
