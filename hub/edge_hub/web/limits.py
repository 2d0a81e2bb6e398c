"""How often somebody may ask: token buckets by name, so that one script in a loop does not keep others waiting."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from edge_hub.errors import TooManyRequestsError

_MAX_KEPT = 10_000


class Limit:
    """Lets each name pass so often a second, and so many at once.

    Args:
        per_s: In the long run; 0 lets everything pass.
        burst: After a pause.
        clock: Seconds that never go back.
    """

    def __init__(self, *, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        # What is left, and when; the one longest unused is forgotten first, when it is full again most likely.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, weight: float = 1.0) -> None:
        """Count one.

        Args:
            name: Whose it is.
            weight: As how many it counts; never as more than pass after a pause.

        Raises:
            TooManyRequestsError: It is one too many.
        """
        left, weight = self._now_left(name), min(weight, self._burst)
        if left < weight and self._per_s:
            wait_s = (weight - left) / self._per_s
            counts = f" (this one counts as {weight:g})" if weight > 1 else ""
            raise TooManyRequestsError(
                f"more than {self._per_s:g} requests a second{counts}", wait_s=wait_s, hint=f"wait {wait_s:.1f} s"
            )
        self._left[name] = (left - weight, self._clock())
        self._left.move_to_end(name)
        if len(self._left) > _MAX_KEPT:
            self._left.popitem(last=False)

    def check(self, name: str) -> None:
        """Whether one more would pass, without counting it.

        Raises:
            TooManyRequestsError: It would not.
        """
        left = self._now_left(name)
        if left < 1 and self._per_s:
            wait_s = (1 - left) / self._per_s
            raise TooManyRequestsError("too many requests with a wrong token", wait_s=wait_s, hint="wait, then mend it")

    def _now_left(self, name: str) -> float:
        left, at = self._left.get(name, (self._burst, 0.0))
        return min(self._burst, left + (self._clock() - at) * self._per_s)
