"""What calls did since somebody last asked: counts and latencies of the variant that answers."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass

MAX_TIMES = 4096  # of one window: at more than that a second, a sample of them tells the percentiles as well
MAX_SAMPLE = 20
SLOW = 1.6  # times the usual median: what may be the begin of contention, and is told at once,
NEAR = 0.5  # of the limit: where it matters


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One window; the times are of the calls of `variant` alone, None where it had none.

    Attributes:
        sample_ms: Some of them, from all over the window.
        slow_ms: The slowest of those that were late, or took much longer than usual and are near the limit, or
            computed what a server had been asked; `waited_ms` before it began, where that is known.
        sent: Calls that a server was asked in, `replied` those that it answered in time.
        remote_p50_ms: Of the server's answers, late ones too.
    """

    variant: str
    calls: int
    late: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    sample_ms: tuple[float, ...] = ()
    slow_ms: float | None = None
    waited_ms: float | None = None
    sent: int = 0
    replied: int = 0
    remote_p50_ms: float | None = None


class Tally:
    """Counts calls; `ran` costs less than a microsecond.

    Args:
        late: Told of the first late or slow call after each `take`, in the thread of the call: must be quick.

    Attributes:
        limit_ms: A call that takes longer is late; None where any time will do.
        waited_ms: How long the call waited that has just been computed, where that is known; asked of slow ones only.
    """

    def __init__(self, late: Callable[[], None] = lambda: None) -> None:
        self._told = late
        self._lock = threading.Lock()
        self._variant = ""
        self._times: list[float] = []
        self._calls = self._late = self._failed = 0
        self._usual: tuple[str, float] | None = None  # a variant, and what its calls lately took
        self._slow_ms: float | None = None
        self._slow_waited_ms: float | None = None
        self._last_ms = 0.0
        self._remote_ms: list[float] = []
        self._sent = self._replied = 0
        self.waited_ms: Callable[[], float | None] = lambda: None
        self.limit_ms: float | None = None

    def ran(self, variant: str, ms: float) -> None:
        """A call ended."""
        is_first = False
        with self._lock:
            if variant != self._variant:
                self._variant = variant
                self._times = []
            self._calls += 1
            self._last_ms = ms
            if len(self._times) < MAX_TIMES:
                self._times.append(ms)
            limit, usual = self.limit_ms, self._usual
            is_late = limit is not None and ms > limit
            self._late += is_late
            if is_late or (
                limit is not None
                and usual is not None
                and ms > NEAR * limit
                and ms > SLOW * usual[1]
                and usual[0] == variant
            ):
                is_first = self._slow(ms, self.waited_ms())
        if is_first:
            self._told()

    def replied(self) -> None:
        """A server answered a call in time."""
        with self._lock:
            self._calls += 1
            self._sent += 1
            self._replied += 1

    def stood_in(self, whole_ms: float, here_ms: float) -> None:
        """A server had been asked and was late or failed; what stood by took `here_ms` of the whole, and has `ran`."""
        with self._lock:
            self._sent += 1
            ran_ms = min(here_ms, self._last_ms)  # without the wait for its turn
            limit = self.limit_ms
            self._late += limit is not None and ran_ms <= limit < whole_ms  # else it was counted as it ran
            is_first = self._slow(ran_ms, None)
        if is_first:
            self._told()

    def remote_took(self, ms: float) -> None:
        """An answer of a server came, in time or not."""
        with self._lock:
            if len(self._remote_ms) < MAX_TIMES:
                self._remote_ms.append(ms)

    @property
    def usual_ms(self) -> float | None:
        """What calls lately took here; None where that is not known."""
        return None if self._usual is None else self._usual[1]

    def _slow(self, ms: float, waited_ms: float | None) -> bool:
        """Note a slow one; whether it is the first since the last `take`."""
        is_first = self._slow_ms is None
        if self._slow_ms is None or ms >= self._slow_ms:
            self._slow_ms, self._slow_waited_ms = ms, waited_ms
        return is_first

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
            waited_ms = None if slow_ms is None else self._slow_waited_ms
            asked = self._sent, self._replied
            remote_ms, self._remote_ms = self._remote_ms, []
            self._times, self._slow_ms, self._slow_waited_ms = [], None, None
            self._calls = self._late = self._failed = self._sent = self._replied = 0
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
            waited_ms=waited_ms,
            sent=asked[0],
            replied=asked[1],
            remote_p50_ms=statistics.median(remote_ms) if remote_ms else None,
        )
