"""How long an inference takes now: what was promised, corrected by what is seen.

In logarithms, a latency is what the variant was promised to take, plus a factor of the variant's own (`bias`), plus
what slows everything just now (`slow`, shared by all variants of all tasks, as in ALERT, USENIX ATC'20), plus noise.
One slow inference may be a spike or the begin of contention: it is only suspected, and how often that turned out
true is learned, too. So many in a row settle it as spikes alone would make less often than contention begins: two, at
most six. A fast one settles the opposite at once, since nothing computes faster than it can. For the same reason one
that makes the moment calmer than it ever was says something else of a variant that was seldom seen: its factor was
learned from a spike. What counts as slow is relative to how much latencies scatter here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edge_daemon.policies.tuning import Tuning
from edge_daemon.policies.values import clamped

_SLOW_MIN, _SLOW_MAX = -3.0, 5.0
BIAS_MAX = 5.0
_TAIL_MAX = 1.5
_EARLY = 2  # observations before a variant's own factor is known well enough to blame the moment
_FEW = 40  # observations before it is known so well that it is the board that computes faster than ever
_SCATTER_MAX = 1.0
_RATE_LEAST = 0.002
_RATE_MOST = 0.7
_CONFIRMS = 0.6
_SUSPECT_MAX = 3.0
_ALIKE = 0.3  # two surprises that differ by less are of the same cause
_ABSOLUTE = 1.25  # standard deviation over mean absolute deviation of a normal, sqrt(pi / 2)


class Calibration(msgspec.Struct, frozen=True):
    """What is known of the moment, shared by all.

    Attributes:
        slow: Log of the slowdown.
        suspect: Log by which the last inferences were too slow, while it is not settled why; else 0.
        streak: How many were, in a row.
        suspects, confirmed: How often something was suspected, and was true.
        spread: Standard deviation of the log of latencies that are no spikes.
        scatter: Mean absolute surprise, spikes and all.
        tail_rate, tail_size: How many are spikes, and the log of how long these are.
        onsets: How often contention begins, per inference.
        calm: The least that `slow` was.
    """

    slow: float
    suspect: float
    streak: int
    suspects: float
    confirmed: float
    spread: float
    scatter: float
    tail_rate: float
    tail_size: float
    onsets: float
    calm: float = 0.0


def first(tuning: Tuning) -> Calibration:
    """What is believed before anything was seen."""
    return Calibration(
        slow=tuning.slow_start,
        suspect=0.0,
        streak=0,
        suspects=tuning.suspect_seen,
        confirmed=tuning.suspect_true,
        spread=tuning.spread_start,
        scatter=tuning.scatter_start,
        tail_rate=tuning.tail_start,
        tail_size=tuning.tail_size,
        onsets=tuning.onset_start,
        calm=tuning.slow_start,
    )


def learn(  # noqa: PLR0917 - by position, called each second
    tuning: Tuning,
    known: Calibration,
    took: Sequence[float],
    bias: float,
    seen: int,
    others: int,
    stands_for: int = 1,
) -> tuple[Calibration, float, bool]:
    """After some inferences of one variant.

    Args:
        tuning: The numbers.
        known: Before them.
        took: Of each, the log of its latency at full clock over what was promised, in their order.
        bias: Of the variant, the log of its own factor.
        seen: How many of its inferences were learned from before.
        others: How many of other variants were.
        stands_for: As many that took as long are told by each.

    Returns:
        What is known now, the variant's bias, and whether something changed at once that asks for a decision.
    """
    at, count, changed = 0, len(took), False
    while at < count:
        was, before = at, known
        known, bias, at = _usual(tuning, known, took, at, bias, seen, stands_for)
        changed = changed or bool(before.streak and at > was)
        if at == count:
            break
        surprise, changed = took[at] - bias - known.slow, True
        if seen + at < _EARLY:  # nothing is known of this variant yet: it is its own, or the board's as a whole
            share = tuning.first_share if others else tuning.very_first_share
            surprise = clamped(surprise, -BIAS_MAX, BIAS_MAX)
            slow = known.slow + (0.0 if others else (1 - share) * surprise)
            known = msgspec.structs.replace(known, slow=clamped(slow, _SLOW_MIN, _SLOW_MAX))
            bias = clamped(bias + share * surprise, -BIAS_MAX, BIAS_MAX)
        elif seen + at < _FEW and known.slow + surprise < known.calm - tuning.jump:
            bias = clamped(bias + surprise, -BIAS_MAX, BIAS_MAX)
        else:
            known = _jumped(tuning, known, surprise)
        at += 1
    return known, bias, changed


def _usual(  # noqa: PLR0917 - by position, called each second
    tuning: Tuning, known: Calibration, took: Sequence[float], begin: int, bias: float, seen: int, stands_for: int
) -> tuple[Calibration, float, int]:
    """After those from `begin` on that are no surprise, and where the next surprise is."""
    slow, spread, scatter = known.slow, known.spread, known.scatter
    rate, size = known.tail_rate, known.tail_size
    jump, scatters, slow_gain, spread_gain = tuning.jump, tuning.jump_scatters, tuning.slow_gain, tuning.spread_gain
    rarer = clamped(stands_for * tuning.tail_gain, 0.0, 1.0)
    rougher = clamped(stands_for * tuning.scatter_gain, 0.0, 1.0)
    bias_least, bias_gain, spread_most = tuning.bias_least, tuning.bias_gain, tuning.spread_most
    at = begin
    for log in took[begin:] if begin else took:
        surprise = log - bias - slow
        away = abs(surprise)
        if away > jump and away > scatters * scatter:
            break
        gain = bias_gain / (seen + at + 1)
        bias += (gain if gain > bias_least else bias_least) * surprise
        slow += slow_gain * surprise
        off = _ABSOLUTE * away
        spread += spread_gain * ((off if off < spread_most else spread_most) - spread)
        scatter += rougher * (away - scatter)
        if at == begin and known.streak:  # what was suspected was a spike
            rate += tuning.tail_gain * (1 - rate) * known.streak
            size += tuning.tail_size_gain * (min(_TAIL_MAX, known.suspect) - size)
        else:
            rate -= rarer * rate
        at += 1
    if at == begin:
        return known, bias, at
    learned = Calibration(
        clamped(slow, _SLOW_MIN, _SLOW_MAX),
        0.0,
        0,
        known.suspects,
        known.confirmed,
        tuning.spread_least if spread < tuning.spread_least else spread,
        scatter,
        clamped(rate, 0.0, 1.0),
        size,
        known.onsets * (1 - clamped(stands_for * tuning.onset_gain, 0.0, 1.0)) ** (at - begin),
        slow if slow < known.calm else known.calm,
    )
    return learned, clamped(bias, -BIAS_MAX, BIAS_MAX), at


def _jumped(tuning: Tuning, known: Calibration, surprise: float) -> Calibration:
    """After a large surprise of a variant that is known well."""
    slow, suspect, streak, onsets = known.slow, 0.0, 0, known.onsets
    suspects, confirmed = known.suspects, known.confirmed
    if surprise < 0:
        slow = max(slow + surprise, _SLOW_MIN)
    else:
        follows = known.streak > 0 and surprise > _CONFIRMS * known.suspect
        alike = follows and abs(surprise - known.suspect) < _ALIKE
        streak = known.streak + 1 if follows else 1
        suspect = surprise
        if follows:
            suspect = known.suspect + (surprise - known.suspect) / streak if alike else min(surprise, known.suspect)
        if streak == 1:
            suspects += 1
        if streak >= _settling(tuning, known):
            slow = min(slow + suspect, _SLOW_MAX)
            suspect, streak = 0.0, 0
            confirmed += 1
            onsets += tuning.onset_gain * (1 - onsets)
    scatter = known.scatter + tuning.scatter_gain * (min(abs(surprise), _SCATTER_MAX) - known.scatter)
    return Calibration(
        slow,
        min(suspect, _SUSPECT_MAX),
        streak,
        suspects,
        confirmed,
        known.spread,
        scatter,
        known.tail_rate,
        known.tail_size,
        onsets,
        known.calm,
    )


def _settling(tuning: Tuning, known: Calibration) -> int:
    """How many slow ones in a row are contention: spikes alone make so many less often than contention begins."""
    onsets = max(known.onsets, tuning.onset_least)
    spikes = min(max(known.tail_rate, _RATE_LEAST), _RATE_MOST)
    return min(max(math.ceil(math.log(onsets) / math.log(spikes)), 2), tuning.streak_most)
