"""How long an inference takes now: what was promised, corrected by what is seen.

In logarithms, a latency is what the variant was promised to take, plus a factor of the variant's own (`bias`), plus
what slows everything just now (`slow`, shared by all variants of all tasks, as in ALERT, USENIX ATC'20), plus noise.
One slow inference may be a spike or the begin of contention: it is only suspected, and how often that turned out
true is learned, too. A second one settles it. A fast one settles the opposite at once, since nothing computes faster
than it can.
"""

from __future__ import annotations

import math

import msgspec

from edge_daemon.policies.tuning import Tuning

_SQRT2 = math.sqrt(2.0)
_SLOW_MIN, _SLOW_MAX = -3.0, 5.0
BIAS_MAX = 5.0
_TAIL_MAX = 1.5
_EARLY = 2  # observations before a variant's own factor is known well enough to blame the moment
_FIRST_SHARE = 0.7
_CONFIRMS = 0.6
_SUSPECT_MAX = 3.0
_ALIKE = 0.3  # two surprises that differ by less are of the same cause
_ABSOLUTE = 1.25  # standard deviation over mean absolute deviation of a normal, sqrt(pi / 2)


class Calibration(msgspec.Struct, frozen=True):
    """What is known of the moment, shared by all.

    Attributes:
        slow: Log of the slowdown.
        suspect: Log by which the last inference was too slow, while it is not settled why; else 0.
        suspects, confirmed: How often something was suspected, and was true.
        spread: Standard deviation of the log of latencies.
        tail_rate, tail_size: How many are spikes, and the log of how long these are.
    """

    slow: float
    suspect: float
    suspects: float
    confirmed: float
    spread: float
    tail_rate: float
    tail_size: float
    hazard: float


def first(tuning: Tuning) -> Calibration:
    """What is believed before anything was seen."""
    return Calibration(
        slow=tuning.slow_start,
        suspect=0.0,
        suspects=tuning.suspect_seen,
        confirmed=tuning.suspect_true,
        spread=tuning.spread_start,
        tail_rate=tuning.tail_start,
        tail_size=tuning.tail_size,
        hazard=tuning.hazard_start,
    )


def learn(  # noqa: PLR0917 - by position, called for each inference
    tuning: Tuning, known: Calibration, surprise: float, bias: float, seen: int, stands_for: int = 1
) -> tuple[Calibration, float, bool]:
    """After one inference.

    Args:
        tuning: The numbers.
        known: Before it.
        surprise: Log of its latency over what was expected.
        bias: Of the variant, the log of its own factor.
        seen: How many of its inferences were learned from, this one aside.
        stands_for: As many that took as long are told by this one.

    Returns:
        What is known now, the variant's bias, and whether something changed at once that asks for a decision.
    """
    own = max(tuning.bias_least, tuning.bias_gain / (seen + 1))
    if abs(surprise) > tuning.jump:
        if seen < _EARLY:  # nothing is known of this variant yet: the surprise is its own
            bias += _FIRST_SHARE * min(max(surprise, -BIAS_MAX), BIAS_MAX)
            return known, min(max(bias, -BIAS_MAX), BIAS_MAX), True
        return _jumped(tuning, known, surprise), bias, True
    spread, rate, size = known.spread, known.tail_rate, known.tail_size
    deviation = min(_ABSOLUTE * abs(surprise), tuning.spread_most)
    spread = max(spread + tuning.spread_gain * (deviation - spread), tuning.spread_least)
    if known.suspect:  # what was suspected was a spike
        rate += tuning.tail_gain * (1 - rate)
        size += tuning.tail_size_gain * (min(_TAIL_MAX, known.suspect) - size)
    else:
        rate -= min(stands_for * tuning.tail_gain, 1.0) * rate
    bias = min(max(bias + own * surprise, -BIAS_MAX), BIAS_MAX)
    slow = min(max(known.slow + tuning.slow_gain * surprise, _SLOW_MIN), _SLOW_MAX)
    hazard = known.hazard * (1 - min(stands_for * tuning.hazard_gain, 1.0))
    learned = Calibration(slow, 0.0, known.suspects, known.confirmed, spread, rate, size, hazard)
    return learned, bias, bool(known.suspect)


def _jumped(tuning: Tuning, known: Calibration, surprise: float) -> Calibration:
    """After a large surprise of a variant that is known well."""
    slow, suspect, suspects, confirmed = known.slow, 0.0, known.suspects, known.confirmed
    hazard = known.hazard
    if surprise < 0:
        slow = max(slow + surprise, _SLOW_MIN)
    elif known.suspect and surprise > _CONFIRMS * known.suspect:
        alike = abs(surprise - known.suspect) < _ALIKE
        slow = min(slow + (0.5 * (surprise + known.suspect) if alike else min(surprise, known.suspect)), _SLOW_MAX)
        confirmed += 1
        hazard += tuning.hazard_gain * (1 - hazard)
    else:
        suspect = min(surprise, _SUSPECT_MAX)
        suspects += 1
    return Calibration(slow, suspect, suspects, confirmed, known.spread, known.tail_rate, known.tail_size, hazard)
