"""How an accelerator fares, as whoever watches it says: what a pool asks before it gives it work.

The sensors are somebody else's business; a pool takes any callable that answers with a `Condition`, or with None where
nothing is known at the moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

# One that grew too hot takes work again when it is this much below its limit, lest it be asked and left in turns.
COOL_C = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is known of one accelerator, CPU or host.

    Attributes:
        busy: The share of time it computes, 0 to 1, for whomever; None where nobody counts.
        temp_c: Its temperature; None where it has no sensor.
        limit_c: The temperature from which on it should get no new work.
        reason: What else a reader of the report wants to know, such as `throttled`.
    """

    busy: float | None = None
    temp_c: float | None = None
    limit_c: float | None = None
    reason: str = ""

    @property
    def excess_c(self) -> float | None:
        """Degrees above the limit, negative below it; None where either is not known."""
        if self.temp_c is None or self.limit_c is None:
            return None
        return self.temp_c - self.limit_c


Watch: TypeAlias = Callable[[], Condition | None]


def is_hot(excess_c: float, *, was: bool) -> bool:
    """Whether it should get no new work: from its limit on, and until it is `COOL_C` below."""
    return excess_c >= (-COOL_C if was else 0.0)
