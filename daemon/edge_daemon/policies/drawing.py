"""What each variant draws over what is promised of it, told apart from what is drawn whatever runs.

A meter shows the sum: power = base + factor * promised watts * share of the second that was computed. A Kalman filter
follows base and factor together: the base walks, a factor hardly does, and requests that come and go tell them apart.
Of a variant that ran before, its factor and how sure that is are kept; how it and the base go together is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from edge_daemon.policies.tuning import Tuning
from edge_daemon.policies.values import clamped, put

FACTOR_LEAST: Final = 0.5
FACTOR_MOST: Final = 2.0
_LEAST_VAR: Final = 1e-6


class Drawn(msgspec.Struct, frozen=True):
    """What the actions of a task were seen to draw.

    Attributes:
        factors: Of each action, watts over those promised (and learned of all variants together).
        variances: Of the factors.
        shared: Covariance of the base, in watts, and the factor of what ran.
        ran: What computed here in the last second, an index; -1 before the first.
    """

    factors: tuple[float, ...]
    variances: tuple[float, ...]
    shared: float
    ran: int


class Running(msgspec.Struct, frozen=True):
    """What one task, by its number, computed in a second: action `at`, which drew `watts` if it keeps its promise."""

    task: int
    drawn: Drawn
    at: int
    watts: float


def first(tuning: Tuning, count: int) -> Drawn:
    """Of so many actions, before anything was seen."""
    return Drawn((1.0,) * count, (tuning.factor_var,) * count, 0.0, -1)


def began(drawn: Drawn, at: int) -> Drawn:
    """After a second in which an action came to run: loading it draws, too, so nothing is learned."""
    return Drawn(drawn.factors, drawn.variances, 0.0, at)


def metered(
    tuning: Tuning, off_w: float, base_w: float, base_var: float, running: Sequence[Running]
) -> tuple[float, float, list[tuple[int, Drawn]]]:
    """Base power, its variance, and what is known of each that ran, after a second in which nothing was loaded.

    Args:
        tuning: The numbers.
        off_w: Measured power less what was expected, `base_w` and all factors included.
        base_w: Of the base, as taken before.
        base_var: Its variance.
        running: What computed here, at most one of each task.
    """
    base_part, own_part = base_var, 0.0
    for each in running:
        drawn, watts = each.drawn, each.watts
        base_part += drawn.shared * watts
        own_part += watts * (drawn.shared + drawn.variances[each.at] * watts)
    total = base_part + own_part + tuning.meter_var
    gain, told = base_part / total, []
    for each in running:
        drawn, at = each.drawn, each.at
        factor, variance = drawn.factors[at], drawn.variances[at]
        part = drawn.shared + variance * each.watts
        factor = clamped(factor + part / total * off_w, FACTOR_LEAST, FACTOR_MOST)
        variance = clamped(variance - part / total * part, _LEAST_VAR, math.inf) + tuning.factor_walk
        factors, variances = put(drawn.factors, at, factor), put(drawn.variances, at, variance)
        told.append((each.task, Drawn(factors, variances, drawn.shared - gain * part, at)))
    return base_w + gain * off_w, clamped(base_var - gain * base_part, _LEAST_VAR, math.inf) + tuning.base_walk, told
