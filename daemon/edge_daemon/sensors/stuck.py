"""Tells a sensor that is stuck from one that is steady.

A value that does not move can be true: a board in a cool room, a battery that is hardly used. What gives a stuck one
away is that the world around it moves. So a watch keeps how long a value has stood still, to the last digit, and how
far the processor's load went meanwhile, averaged over some seconds; a temperature or a power that stays while the load
changes a lot is not believed. Two values are what broken sensors say (0, and the 85 degrees with which 1-wire chips
wake up): they are doubted sooner.

What stands still with the load is believed, on the safe side: a board that is really at 85 degrees and is held there
by its firmware under a steady load reads just so. A value that moves again is believed again at once, and must stand
still for the whole time again before it is doubted: a sensor cannot come and go faster than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# A processor's die follows its load within seconds, and its sensors resolve a degree or better: ten minutes at one
# value under changing load was met on none of the recordings. Two minutes do for what broken sensors say.
PATIENCE_S = 600.0
SUSPICIOUS_S = 120.0
# A die at exactly 0.000 degrees for a minute: no processor that runs is.
ZERO_S = 60.0
SUSPICIOUS = (85.0, 127.0, -1.0)
# Points of load, averaged, between the idlest and the busiest seconds. A Raspberry Pi 4 heats by about 20 degrees over
# 100 points: what this many points would move is far beyond any sensor's resolution.
MOVED_PCT = 30.0
_SMOOTHING_S = 10.0


@dataclass(slots=True)
class _Still:
    """How long a value has stood still, and what the load was meanwhile."""

    value: float
    since_s: float
    lowest_pct: float | None = None
    highest_pct: float | None = None

    @property
    def moved_pct(self) -> float:
        if self.lowest_pct is None or self.highest_pct is None:
            return 0.0
        return self.highest_pct - self.lowest_pct


class Pace:
    """The processor's load, averaged, as all watches look at it.

    Attributes:
        load_pct: The average; None until something is known.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at_s = clock()
        self.load_pct: float | None = None

    def feed(self, load_pct: float) -> None:
        """The load since the last time."""
        now_s = self._clock()
        share = min(1.0, max(0.0, now_s - self._at_s) / _SMOOTHING_S)
        self._at_s = now_s
        self.load_pct = load_pct if self.load_pct is None else self.load_pct + share * (load_pct - self.load_pct)

    @property
    def now_s(self) -> float:
        """By its clock."""
        return self._clock()


class Watch:
    """Watches the value of one sensor.

    Args:
        pace: The load it is held against.
        zero_is_odd: A value of exactly 0 is doubted whatever the load, as that of a running processor's temperature.
    """

    def __init__(self, pace: Pace, *, zero_is_odd: bool = False) -> None:
        self._pace = pace
        self._zero_is_odd = zero_is_odd
        self._still: _Still | None = None

    def doubt(self, value: float) -> str | None:
        """Why this value is not believed, or None if it is."""
        now_s, load_pct = self._pace.now_s, self._pace.load_pct
        still = self._still
        if still is None or still.value != value:
            self._still = _Still(value=value, since_s=now_s, lowest_pct=load_pct, highest_pct=load_pct)
            return None
        if load_pct is not None:
            still.lowest_pct = load_pct if still.lowest_pct is None else min(still.lowest_pct, load_pct)
            still.highest_pct = load_pct if still.highest_pct is None else max(still.highest_pct, load_pct)
        stood_s = now_s - still.since_s
        if value == 0 and self._zero_is_odd:
            return f"stuck at 0 for {_time(stood_s)}" if stood_s >= ZERO_S else None
        patience_s = SUSPICIOUS_S if value in SUSPICIOUS else PATIENCE_S
        if stood_s < patience_s or still.moved_pct < MOVED_PCT:
            return None
        return (
            f"stuck at {value:g} for {_time(stood_s)}, while the load went from {still.lowest_pct:.0f} to"
            f" {still.highest_pct:.0f} %"
        )


def _time(seconds: float) -> str:
    """Rounded down, so that a reason does not change with every reading."""
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"  # noqa: PLR2004 - minutes of an hour
