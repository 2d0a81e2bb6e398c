"""What time it is, passed in so that tests choose it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that never steps back, one that people read."""

    def monotonic(self) -> float:
        """Seconds since some moment; what intervals are measured with."""
        ...

    def wall(self) -> float:
        """Seconds since 1970; it may step, so it only labels and expires."""
        ...


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def wall(self) -> float:
        """See `Clock`. A board without a battery-backed clock may begin in 1970; a negative time never leaves."""
        return max(0.0, time.time())


class Steps:
    """Notices when the wall clock was set: it went on by more, or less, than the other one.

    Args:
        clock: The one watched.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = clock.monotonic(), clock.wall()

    def since(self) -> float:
        """By how many seconds it was set since the last call; positive is forward. A few milliseconds mean nothing."""
        monotonic, wall = self._clock.monotonic(), self._clock.wall()
        stepped_s = (wall - self._seen[1]) - (monotonic - self._seen[0])
        self._seen = monotonic, wall
        return stepped_s
