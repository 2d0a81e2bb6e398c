"""Several wishes of one thing: of each limit the strictest counts, so that all of them hold.

| limit | the strictest is |
|---|---|
| `max_latency_ms`, `deadline_ms`, `max_temp_c`, `max_power_w` | the smallest |
| `min_accuracy` | the largest |
| `battery_until` | the latest that is not over |

A mode is no limit and is not combined here. Where limits contradict each other, the policy says which one yields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from msgspec import structs

from edge_sdk.preference import Preference
from edge_sdk.until import moment

_STRICTER: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "max_latency_ms": float.__lt__,
    "deadline_ms": float.__lt__,
    "min_accuracy": float.__gt__,
    "max_temp_c": float.__lt__,
    "max_power_w": float.__lt__,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLimits:
    """What all models of a board together ask of it.

    Attributes:
        temp_c: The lowest `max_temp_c`; None where nobody asks.
        max_power_w: The lowest.
        until_s: The latest `battery_until`, on the monotonic clock.
    """

    temp_c: float | None = None
    max_power_w: float | None = None
    until_s: float | None = None


def tightened(
    base: Preference, by: Preference, at: float, zone: tzinfo | None = None
) -> tuple[Preference, tuple[str, ...]]:
    """`base` with the limits of `by` where these are stricter, and the names of those that were.

    Args:
        base: Whose mode stays.
        by: Whose mode does not count.
        at: Now, by the wall clock; for `battery_until`.
        zone: Of times of day.
    """
    changed: dict[str, float | str] = {}
    for name, is_stricter in _STRICTER.items():
        old, new = getattr(base, name), getattr(by, name)
        if new is not None and (old is None or is_stricter(float(new), float(old))):
            changed[name] = new
    if by.battery_until is not None and _ends(by, at, zone) > _ends(base, at, zone):
        changed["battery_until"] = by.battery_until
    return (structs.replace(base, **changed) if changed else base), tuple(changed)


def shared(preferences: Iterable[Preference], *, now_s: float, at: float, zone: tzinfo | None = None) -> BoardLimits:
    """What the preferences in force of all models ask of the board they share.

    Args:
        preferences: Of each model, as in force.
        now_s: Monotonic.
        at: The same moment by the wall clock.
        zone: Of times of day.
    """
    temps, powers, ends = [], [], []
    for each in preferences:
        temps.append(math.inf if each.max_temp_c is None else each.max_temp_c)
        powers.append(math.inf if each.max_power_w is None else each.max_power_w)
        ends.append(_ends(each, at, zone))
    temp_c, power_w, end = min(temps, default=math.inf), min(powers, default=math.inf), max(ends, default=-math.inf)
    return BoardLimits(
        temp_c=temp_c if temp_c < math.inf else None,
        max_power_w=power_w if power_w < math.inf else None,
        until_s=now_s + (end - at) if end > -math.inf else None,
    )


def _ends(preference: Preference, at: float, zone: tzinfo | None) -> float:
    """When the battery may be empty; minus infinity where nobody asks, or no more."""
    text = preference.battery_until
    then = None if text is None else moment(text, at, zone)
    return -math.inf if then is None else then
