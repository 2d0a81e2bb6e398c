"""All that the floor knows of a run: its parameters, put together as what each action brings in each context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from edge_lab.simulate.floor_chain import contention_of, local_of, rates_of
from edge_lab.simulate.floor_link import link_of
from edge_lab.simulate.floor_value import Moves
from edge_lab.simulate.world import BURST_SLOWDOWN, SPIKE, Floats, World

Belief = list[tuple[float, float]]  # weights, and how slow everything may be; the first is: as a second ago

_SLOWNESSES: Final = 13  # of a burst that may begin
_NARROWEST: Final = 0.02  # jitter below this is taken for this
_UNHEARD_OF: Final = 1e-9


class Known:
    """What is known.

    Attributes:
        local: The actions here; `remote` those that ask a server with a hedge. An action's number is its place in both.
        loaded_by: The variant that is loaded with each action.
        moves: The chain of contexts.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        actions = world.setting.tasks[0].actions
        self.local = [action for action in actions if not action.remote]
        self.remote = [action for action in actions if action.remote and action.hedge is not None]
        names = [action.id for action in self.local]
        self.loaded_by = np.array([*range(len(names)), *(names.index(action.hedge or "") for action in self.remote)])
        self._rates, self._contention = rates_of(world), contention_of(world)
        self._table = local_of(world, self.local, self._rates.per_s)
        self._links = [link_of(world, action, self._rates.per_s) for action in self.remote]
        self._network = self._links[0].move if self._links else np.ones((1, 1))
        self.moves = self._chain()

    # -------------------------------------------------------------------------------------------- contexts

    def per_s(self, rate: int) -> float:
        """Requests a second at this rate."""
        return float(self._rates.per_s[rate])

    def rate(self, second: int) -> int:
        """By the distance of the last requests, and the time since."""
        arrive, end = self._world.arrive_s, int(self._world.first[second])
        since_s = second - float(arrive[end - 1]) if end else 1.0
        gap_s = float(arrive[end - 1] - arrive[end - 2]) if end > 1 else since_s
        found = 1 / max(gap_s, since_s, 1e-6)
        return int(np.abs(np.log((self._rates.per_s + 0.05) / (found + 0.05))).argmin())

    def context(self, second: int, rate: int, slow: float, others_w: float) -> int:
        """The nearest context of the chain."""
        state, contention = 0, self._contention
        if slow > 1 and len(contention.slow) > 1:
            state = int((np.abs(contention.slow - slow) + np.abs(contention.watts - others_w))[1:].argmin()) + 1
        network = int(self._links[0].state[second]) if self._links else 0
        return (rate * len(contention.slow) + state) * len(self._network) + network

    # --------------------------------------------------------------------------------------------- beliefs

    def prior(self, slow: float) -> Belief:
        """How slow everything may be in a second, by how slow it was at the end of the last."""
        contention = self._contention
        if len(contention.slow) == 1:
            return [(1.0, slow)]
        if slow <= 1:
            begins = (1 - float(contention.move[0, 0])) / 2
            factors = np.linspace(*BURST_SLOWDOWN, _SLOWNESSES).tolist()
            return [(1 - begins, 1.0), *((begins / _SLOWNESSES, factor) for factor in factors)]
        ends = float(contention.move[1:, 0].mean()) / 2
        return [(1 - ends, slow), (ends, 1.0)]

    def learned(self, belief: Belief, ratio: float) -> Belief:
        """The belief after an inference took `ratio` of its time: contention, a spike, or jitter?"""
        hidden = self._world.scenario.hidden
        sigma, spikes = max(hidden.jitter_sigma, _NARROWEST), hidden.spike_rate
        low, high = SPIKE
        weights = []
        for weight, slow in belief:
            off = math.log(ratio / slow) / sigma
            usual = math.exp(-off * off / 2) / (sigma * math.sqrt(2 * math.pi) * ratio)
            spike = 1 / ((high - low) * slow) if low - sigma < ratio / slow < high + sigma else _UNHEARD_OF
            weights.append(weight * ((1 - spikes) * usual + spikes * spike))
        whole = max(sum(weights), 1e-300)
        return [(weight / whole, slow) for weight, (_, slow) in zip(weights, belief, strict=True)]

    # ---------------------------------------------------------------------------------------- expectations

    def expected(self, second: int, rate: int, belief: Belief, *, failed: bool) -> tuple[Floats, Floats]:
        """Quality and joules per second of each action; `failed`: the server has just not answered in time."""
        quality, joules = self._here(rate, belief)
        slow = sum(weight * one for weight, one in belief)
        asked = []
        for place, link in enumerate(self._links):
            replied, hedged = float(link.replied[rate, second]), float(link.hedged[rate, second])
            if failed:
                replied, hedged = float(link.failing[rate, second]), 1.0
            asked.append(self._asked(place, rate, (replied, hedged, float(link.sent_j[rate, second])), slow))
        return np.r_[quality, [one[0] for one in asked]], np.r_[joules, [one[1] for one in asked]]

    def _here(self, rate: int, belief: Belief) -> tuple[Floats, Floats]:
        quality = joules = np.zeros(len(self.local))
        for weight, slow in belief:
            one = self._table.at(rate, slow)
            quality, joules = quality + weight * one[0], joules + weight * one[1]
        return quality, joules

    def _asked(self, place: int, rate: int, shares: Sequence[float], slow: float) -> tuple[float, float]:
        replied, hedged, sent_j = shares
        action, world = self.remote[place], self._world
        hedge = self.local[self.loaded_by[len(self.local) + place]]
        good = 1 - world.scenario.hidden.spike_rate
        quality = replied * action.quality + (1 - replied) * hedge.quality * good
        own_j = world.truth.power_w[hedge.id] * world.truth.latency_ms[hedge.id] / 1000 * slow
        return self.per_s(rate) * quality, self.per_s(rate) * (sent_j + hedged * own_j)

    def _chain(self) -> Moves:
        rates, contention, network = self._rates, self._contention, self._network
        quality, joules = [], []
        for rate in range(len(rates.per_s)):
            for slow in contention.slow.tolist():
                here = self._here(rate, self.prior(slow))
                for state in range(len(network)):
                    asked = [
                        self._asked(place, rate, link.of_state[:, rate, state].tolist(), slow)
                        for place, link in enumerate(self._links)
                    ]
                    quality.append([*here[0], *(one[0] for one in asked)])
                    joules.append([*here[1], *(one[1] for one in asked)])
        return Moves(
            loaded=self.loaded_by,
            chain=np.kron(np.kron(rates.move, contention.move), network),
            quality=np.array(quality),
            joules=np.array(joules),
            others_w=np.tile(np.repeat(contention.watts, len(network)), len(rates.per_s)),
            switch_j=self._world.switch_j,
        )
