"""How a batch is shared out among replicas of unequal speed: pure functions of what was measured.

Guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers C-36(12), 1987), weighted by speed: a
replica that is free takes half of its fair part of what is left, so pieces are large at first, which saves handing
over, and small at the end, so that all finish together. A slow replica leaves the last samples to a faster one that
would be done with them sooner, although it is busy now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Handing over a piece costs some 30 us between threads; one that takes three times as long is not worth cutting.
LEAST_S = 100e-6
# Other callers wait no longer than this for a piece to end, where a sample itself does not take longer.
LONGEST_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A replica that may take what is left.

    Attributes:
        free_in_s: When it will have done what it computes now.
        sample_s: How long it takes for a sample.
    """

    free_in_s: float
    sample_s: float


def piece(left: int, sample_s: float, others: Sequence[Lane]) -> int:
    """How many samples a free replica takes.

    Args:
        left: Samples nobody has taken; at least 1.
        sample_s: How long this replica takes for one.
        others: That may take the rest.
    """
    mine = 1 / max(sample_s, 1e-9)
    fair = left * mine / (mine + sum(1 / max(lane.sample_s, 1e-9) for lane in others))
    size = max(fair / 2, LEAST_S * mine) if others else left
    return max(1, min(left, math.ceil(size), int(LONGEST_S * mine)))


def finish_s(left: int, lanes: Sequence[Lane]) -> float:
    """When these replicas would be done with so many samples, not sooner; infinite where there are none."""
    if not lanes or left <= 0:
        return math.inf if left > 0 else 0.0
    rate = spent = 0.0
    level_s = math.inf
    for lane in sorted(lanes, key=lambda each: each.free_in_s):
        # All that are free before this moment work until everything is done.
        if lane.free_in_s >= level_s:
            break
        rate += 1 / max(lane.sample_s, 1e-9)
        spent += lane.free_in_s / max(lane.sample_s, 1e-9)
        level_s = (left + spent) / rate
    return max(level_s, min(lane.free_in_s + lane.sample_s for lane in lanes))
