"""What each variant draws over what is promised of it, told apart from what is drawn whatever runs.

A meter shows the sum: power = base + factor * promised watts * share of the second that was computed. A Kalman filter
follows base and factor together: the base walks, a factor hardly does, and requests that come and go tell them apart.
Of a variant that ran before, its factor and how sure that is are kept; how it and the base go together is not.

Some meters show the mean of many seconds (a battery's gauge), or hold what they read. They would tell a burst's power
of the time after it, so factors are learned only from one that shows a change of load in the second that it comes.
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
_CHANGE_W: Final = 0.1  # of what computes here; less says nothing of the meter
_KEPT: Final = 0.95  # of what older changes said, with each new one
_SHOWN: Final = (-1.0, 3.0)  # of a change; what is beyond came from elsewhere
_PROMPT: Final = 0.4  # of changes that are shown at once: a mean of two seconds shows half, one of five a fifth


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


class Meter(msgspec.Struct, frozen=True):
    """How promptly the board's meter follows.

    Attributes:
        last_w: What it showed in the last second; None where nothing is to be compared with that.
        ours_w: What was expected to be drawn by what computed then.
        changed: Sum of squared changes of that, the older the less.
        shown: Sum of their products with changes of what the meter showed.
    """

    last_w: float | None = None
    ours_w: float = 0.0
    changed: float = 0.0
    shown: float = 0.0

    @property
    def is_prompt(self) -> bool:
        """It was seen to show changes in the second in which they came."""
        return self.changed > 0 and self.shown > _PROMPT * self.changed


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


def paused(meter: Meter) -> Meter:
    """After a second that says nothing of it."""
    return meter if meter.last_w is None else Meter(None, 0.0, meter.changed, meter.shown)


def followed(meter: Meter, power_w: float, ours_w: float) -> Meter:
    """After a second in which nothing was loaded.

    Args:
        meter: Before it.
        power_w: What it shows now.
        ours_w: What is expected to be drawn by what computed.
    """
    changed, shown = meter.changed, meter.shown
    if meter.last_w is not None:
        change = ours_w - meter.ours_w
        if abs(change) > _CHANGE_W:
            square = change * change
            changed = _KEPT * changed + square
            shown = _KEPT * shown + clamped((power_w - meter.last_w) / change, *_SHOWN) * square
    return Meter(power_w, ours_w, changed, shown)


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
