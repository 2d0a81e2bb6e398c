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
