"""What a board cannot be: each check says what is wrong, its key in the profile first, or nothing.

`edge_sdk.physics` asks them of whatever a board model is made from: a profile's file, a site's override of it, a
scenario of the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from edge_sdk.errors import ImpossibleProfileError
from edge_sdk.facts import Profile

ROOM_C = 25.0  # a limit must lie above the temperature of the idle board in such a room


def refuse_any(wrong: Iterator[str]) -> None:
    """Raise the first of them, if there is one.

    Raises:
        ImpossibleProfileError: There is.
    """
    for text in wrong:
        raise ImpossibleProfileError(text)


def wrong_numbers(
    numbers: Mapping[str, float | Iterable[float]], *, zero: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Those that are not finite, or not above 0; those named by `zero` may be 0."""
    for name, value in numbers.items():
        for number in (value,) if isinstance(value, (int, float)) else tuple(value):
            if not (math.isfinite(number) and (number > 0 or (number == 0 and name in zero))):
                least = "at least 0" if name in zero else "above 0"
                yield f"board.{name}: {number:g} is not {least}"


def wrong_ladder(
    clocks: Sequence[float], down_c: Sequence[float], up_c: Sequence[float], lowest_c: float | None
) -> Iterator[str]:
    """A throttle that does not fall step by step."""
    if not (clocks and clocks[0] == 1 and _falls(clocks) and clocks[-1] > 0):
        yield f"board.throttle.clocks: {_list(clocks)} do not descend from 1"
    if not len(down_c) == len(up_c) == len(clocks) - 1:
        yield f"board.throttle.down_c, up_c: one fewer than clocks are needed, not {len(down_c)} and {len(up_c)}"
    if not all(one <= next_ for one, next_ in pairwise(down_c)):
        yield f"board.throttle.down_c: {_list(down_c)} do not rise"
    if not all(up < down for up, down in zip(up_c, down_c, strict=False)):
        yield f"board.throttle.up_c: {_list(up_c)} do not lie below down_c, {_list(down_c)}: the clock would swing"
    if lowest_c is not None and not lowest_c >= max(down_c, default=lowest_c):
        yield f"board.throttle.lowest_c: {lowest_c:g} C lies below down_c, {_list(down_c)}"


def wrong_gauge(gauge: Sequence[tuple[float, float]]) -> Iterator[str]:
    """A curve of a battery that does not fall."""
    if gauge and not (_falls([volts for volts, _ in gauge]) and _falls([percent for _, percent in gauge])):
        yield "board.battery.gauge: volts and percent do not both descend"


def wrong_limits(max_temp_c: float, critical_c: float | None) -> Iterator[str]:
    """A limit that is no temperature of a board, or lies where it is off already."""
    if not max_temp_c > ROOM_C:
        yield f"thermal.max_temp_c: {max_temp_c:g} C is not above a room's {ROOM_C:g} C: no board can be kept below"
    if critical_c is not None and not max_temp_c < critical_c:
        yield f"thermal.max_temp_c: {max_temp_c:g} C is not below thermal.critical_c, {critical_c:g} C, where it is off"


def wrong_idle(max_temp_c: float, idle_c: float) -> Iterator[str]:
    """A limit that even the idle board exceeds."""
    if not idle_c < max_temp_c:
        yield (
            f"thermal.max_temp_c: {max_temp_c:g} C cannot be kept: the idle board settles at {idle_c:.1f} C in a room "
            f"of {ROOM_C:g} C (board.idle_w times board.r_c_per_w)"
        )


def wrong_profile(profile: Profile) -> Iterator[str]:
    """What contradicts itself in the sections that stood before there was a model."""
    thermal, power, board = profile.thermal, profile.power, profile.board
    off_c = thermal.critical_c.value if thermal.critical_c else math.inf
    yield from wrong_limits(thermal.max_temp_c.value, None if thermal.critical_c is None else off_c)
    steps = thermal.throttle_c.value if thermal.throttle_c else ()
    if not all(one <= next_ for one, next_ in pairwise(steps)):
        yield f"thermal.throttle_c: {_list(steps)} do not rise"
    if not max(steps, default=-math.inf) <= off_c:
        yield f"thermal.throttle_c: {_list(steps)} C lie above thermal.critical_c, {off_c:g} C, where it is off"
    throttle = board.throttle if board else None
    if throttle is not None and not max(throttle.down_c) <= off_c:
        yield f"board.throttle.down_c: {_list(throttle.down_c)} C lie above thermal.critical_c, {off_c:g} C"
    if power.idle_w and power.active_w and not power.idle_w.value < power.active_w.value:
        yield f"power.idle_w: {power.idle_w.value:g} W is not below power.active_w, {power.active_w.value:g} W"
    if board is not None:
        own = {"r_c_per_w": board.r_c_per_w, "c_j_per_c": board.c_j_per_c, "cpu_w": board.cpu_w}
        missing = [name for name, fact in own.items() if fact is None]
        if missing and (len(missing) < len(own) or board.idle_w is not None):
            yield f"board.{missing[0]}: missing, and it goes with {', '.join(('idle_w', *own))}"
        if not missing and board.idle_w is None and power.idle_w is None:
            yield "board.idle_w: missing, and power.idle_w is, too"


def _falls(numbers: Sequence[float]) -> bool:
    return all(one > next_ for one, next_ in pairwise(numbers))


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
