"""Whether a server's answer comes in time: learned from every look at the network, not only from what was sent.

The last look at the network predicts how long an answer would take. Which fifth of the limit that is, now and the time
before, is the bin. Each following look tells whether an answer *would* have been in time, so the chances of the bins
are learned while nothing is sent, too; what was sent counts the same.
"""

from __future__ import annotations

import math

import msgspec

from edge_daemon.policies.contract import Action
from edge_daemon.policies.tuning import Tuning
from edge_daemon.policies.values import clamped, put

BINS = 6  # five fifths of the limit, and what could not be in time
_SQRT2 = math.sqrt(2.0)
_NEVER = math.inf
LONGEST_S = 86_400.0


class Link(msgspec.Struct, frozen=True):
    """What is known of the way to one server.

    Attributes:
        last, before: Bins of the last two looks; -1 before the first.
        sending_s: What one request takes to send; `LONGEST_S` without a network.
        chances, weights: Of each pair of bins, `last + BINS * before`.
    """

    last: int
    before: int
    sending_s: float
    chances: tuple[float, ...]
    weights: tuple[float, ...]

    def fits(self) -> bool:
        """Nothing of it is out of bounds: it may come from a damaged disk."""
        return (
            -1 <= self.last < BINS
            and -1 <= self.before < BINS
            and 0 <= self.sending_s <= LONGEST_S
            and len(self.chances) == len(self.weights) == BINS * BINS
            and all(0 <= chance <= 1 for chance in self.chances)
            and all(0 <= weight < math.inf for weight in self.weights)
        )

    def chance(self) -> float:
        """That the next answer is in time; 0 before anything was seen."""
        return self.chances[self.last + BINS * self.before] if self.last >= 0 else 0.0


def first(tuning: Tuning) -> Link:
    """What is believed before anything was seen."""
    return Link(-1, -1, LONGEST_S, tuning.link_prior * BINS, (tuning.link_weight,) * (BINS * BINS))


def looked(  # noqa: PLR0917 - by position, called each second
    tuning: Tuning, link: Link, action: Action, limit_ms: float, rtt_ms: float | None, up_mbps: float | None
) -> Link:
    """After another look at the network."""
    if rtt_ms is None or up_mbps is None or not (0 <= rtt_ms < _NEVER and 0 < up_mbps < _NEVER):
        predicted, sending_ms = _NEVER, _NEVER
    else:
        sending_ms = action.payload_kb * 8 / up_mbps
        predicted = rtt_ms + sending_ms + action.latency_ms
    in_time = predicted < limit_ms and predicted < LONGEST_S * 1000
    now = int((BINS - 1) * (predicted / limit_ms)) if in_time else BINS - 1
    chances, weights = link.chances, link.weights
    if link.last >= 0:
        room_ms = limit_ms - sending_ms - action.latency_ms
        came = 0.0
        if room_ms > 0 and rtt_ms:
            came = 0.5 + 0.5 * math.erf(math.log(room_ms / rtt_ms) / tuning.link_jitter / _SQRT2)
        elif room_ms > 0:
            came = 1.0
        at = link.last + BINS * link.before
        weight = weights[at] + 1
        gain = 1 / weight
        chance = chances[at] + (gain if gain > tuning.link_gain else tuning.link_gain) * (came - chances[at])
        chances, weights = put(chances, at, chance), put(weights, at, weight)
    before = now if link.last < 0 else link.last
    return Link(now, before, clamped(sending_ms / 1000, 0.0, LONGEST_S), chances, weights)
