"""A wall clock that does not jump: what it shows after a step counts once it has stood for a while.

Wishes speak of times of day, and wall clocks are set: by NTP after a start without network, by hand, by a broken server
for a minute. Followed at once, a step of a day and back would let a schedule begin and end and a battery's target come
and go, each with a switch. So a small step is followed at once, and a large one only when it has lasted `HOLD_S`: until
then time goes on as if nothing had happened. A clock that was never set is not defended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edge_sdk.until import CLOCK_SET_SINCE

NOISE_S: Final = 1.0  # the clocks are not read at the same instant, and slewing moves one of them: nothing to follow
SMALL_S: Final = 60.0  # wishes are written in minutes
HOLD_S: Final = 600.0  # as long as the policy believes a sensor that fell silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What the wall clock shows when the monotonic one shows 0, as believed.

    Attributes:
        offset_s: Wall minus monotonic.
        doubted_s: The offset that a step led to, if one did, and `since_s` when, on the monotonic clock.
    """

    offset_s: float
    doubted_s: float | None = None
    since_s: float = 0.0

    def wall(self, now_s: float) -> float:
        """The wall clock as believed, at `now_s` on the monotonic clock."""
        return now_s + self.offset_s


def followed(steady: Steady | None, now_s: float, at: float) -> Steady:
    """What is believed after both clocks were read.

    Args:
        steady: What was believed; None at the start, when the wall clock is believed whatever it shows.
        now_s: Monotonic.
        at: Wall.
    """
    offset_s = at - now_s
    if steady is not None and steady.doubted_s is None and abs(offset_s - steady.offset_s) <= NOISE_S:
        return steady
    if steady is None or steady.wall(now_s) < CLOCK_SET_SINCE or abs(offset_s - steady.offset_s) <= SMALL_S:
        return Steady(offset_s=offset_s)
    if steady.doubted_s is None or abs(offset_s - steady.doubted_s) > SMALL_S:
        return replace(steady, doubted_s=offset_s, since_s=now_s)
    return Steady(offset_s=offset_s) if now_s - steady.since_s >= HOLD_S else steady
