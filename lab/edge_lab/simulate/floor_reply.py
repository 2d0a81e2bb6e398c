"""What to do for the next request when a reply has come: the queue of the moment, looked ahead by a few requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_lab.simulate.world import SPIKE, Floats, World

AHEAD: Final = 4  # requests that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a choice costs beside the answers.

    Attributes:
        joule: Points per joule: its price and what its heat costs.
        loaded: The value of each variant being loaded afterwards, `[variants]`.
        load: Points of a load.
    """

    joule: float
    loaded: Floats
    load: float


class Ahead:
    """Looks at pairs: one variant for the next request, one for those that follow."""

    def __init__(self, world: World, latency_ms: Floats, power_w: Floats, quality: Floats) -> None:
        count = len(latency_ms)
        self._first, self._then = (
            pair.ravel() for pair in np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
        )
        self._own_s, self._watts, self._quality = latency_ms / 1000, power_w, quality
        self._limit_s = world.setting.tasks[0].limit_ms / 1000
        hidden = world.scenario.hidden
        points = np.linspace(math.log(0.3), math.log(12), 600)
        self._points, self._in_time = points, _in_time(points, hidden.jitter_sigma, hidden.spike_rate)
        self._mean = 1 + hidden.spike_rate * (sum(SPIKE) / 2 - 1)

    def choose(
        self,
        now_s: float,
        arrive_s: list[float],
        belief: list[tuple[float, float]],
        *,
        usual: float,
        loaded: int,
        costs: Costs,
    ) -> int:
        """The variant for the next request.

        Args:
            now_s: The processor is free.
            arrive_s: Of the next requests, as far as known or expected.
            belief: Weights of how slow everything may be.
            usual: How slow it was a second ago, by which the app skips.
            loaded: The variant that is.
            costs: Of a choice.
        """
        score = costs.loaded[self._then] - costs.load * (1.0 * (self._first != loaded) + (self._then != self._first))
        for weight, slow in belief:
            if weight >= 0.02:  # noqa: PLR2004 - what is less likely does not decide
                score = score + weight * self._brings(now_s, arrive_s, slow, usual, costs.joule)
        return int(self._first[score.argmax()])

    def _brings(self, now_s: float, arrive_s: list[float], slow: float, usual: float, joule: float) -> Floats:
        free_s = np.full(len(self._first), now_s)
        brought = np.zeros(len(self._first))
        which = self._first
        for arrived_s in arrive_s:
            own_s = self._own_s[which]
            begin_s = np.maximum(free_s, arrived_s)
            slack_s = arrived_s + self._limit_s - begin_s
            served = (begin_s <= arrived_s) | (own_s * usual <= slack_s)
            took_s = own_s * slow
            chance = np.interp(np.log(np.maximum(slack_s / took_s, 1e-3)), self._points, self._in_time)
            burned_j = self._watts[which] * took_s * self._mean
            brought += np.where(served, self._quality[which] * chance - joule * burned_j, 0.0)
            free_s = np.where(served, begin_s + took_s * self._mean, free_s)
            which = self._then
        return brought


def _in_time(points: Floats, sigma: float, spikes: float) -> Floats:
    """Probability that the jitter is below `exp(points)`."""
    scale = max(sigma, 1e-3) * math.sqrt(2)
    usual = np.array([0.5 * (1 + math.erf(point / scale)) for point in points])
    low, high = SPIKE
    factors = low + (high - low) * (np.arange(20) + 0.5) / 20
    slow = np.mean([[0.5 * (1 + math.erf((point - math.log(f)) / scale)) for point in points] for f in factors], axis=0)
    chance: Floats = (1 - spikes) * usual + spikes * slow
    return chance
