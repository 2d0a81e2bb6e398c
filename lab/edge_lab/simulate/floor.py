"""The causal floor: a policy that is told everything about a run but its future.

It knows the true latencies, powers and thermal resistance, the exact temperatures and energy, the contention and the
network of the last second, and how requests, contention and network go on in general. What it is behind the oracle
is the price of not knowing what comes; what a policy is behind it, the policy could have learned.

It decides by a stochastic dynamic program (`floor_chain`, `floor_value`), the battery by a price of a joule at which
the rest of the energy lasts if what comes is as expected, and it decides again when a reply within a second tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_daemon.policies.contract import Action, Event, Replied, Second, Setting, Verdict, Why
from edge_lab.simulate.floor_chain import contention_of, link_of, local_of, rates_of
from edge_lab.simulate.floor_reply import AHEAD, Ahead, Costs
from edge_lab.simulate.floor_value import HeatValue, Moves
from edge_lab.simulate.oracle_heat import modes_of
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.world import SPIKE, SUBSTEPS, Floats, World

_TIE: Final = 0.2
_WARM_UP: Final = 500  # sweeps before the first second
_ENDING_S: Final = 300  # before the end of the run, from when on the end counts
_RESERVE: Final = 0.001  # of the battery, less in the last five minutes
_REPRICE_S: Final = 5
_OVER: Final = 400.0
_SURE: Final = 0.95  # of the belief in what was so before
# Gaussian quadrature of what may come: deviations and their weights.
_NODES: Final = ((-2.0, 0.054), (-1.0, 0.244), (0.0, 0.404), (1.0, 0.244), (2.0, 0.054))
_NEAR_C: Final = 0.05  # below the limit


def causal_floor(world: World) -> Run:
    """Play the policy that knows everything but the future."""
    return play(world, "floor", lambda _setting: Floor(world))


class Floor:
    """That policy; it looks into the world, but never ahead of the event it is told of."""

    def __init__(self, world: World) -> None:
        self._world = world
        actions = world.setting.tasks[0].actions
        local = [action for action in actions if not action.remote]
        self._local = local
        self._limit_s = world.setting.tasks[0].limit_ms / 1000
        remote = [action for action in actions if action.remote and action.hedge is not None]
        self._actions = [*local, *remote]
        names = [action.id for action in local]
        self._loaded_by = np.array([*range(len(local)), *(names.index(action.hedge or "") for action in remote)])
        self._rates, self._contention = rates_of(world), contention_of(world)
        self._table = local_of(world, local, self._rates.per_s)
        self._links = [link_of(world, action, self._rates.per_s) for action in remote]
        self._remote = remote
        self._modes = modes_of(world)
        self._even = self._modes.gain.sum(axis=0) / SUBSTEPS
        self._networks = len(self._links[0].move) if self._links else 1
        self._moves = self._chain()
        chain = self._moves.chain
        self._share = np.linalg.matrix_power(chain, 1 << 20)[0]
        self._fundamental = np.linalg.inv(np.eye(len(chain)) - chain + self._share)
        # What staying alive is worth per joule.
        alive = self._share @ self._moves.quality.max(axis=1)
        self._dearest = float(alive / (world.setting.board.idle_w + self._share @ self._moves.joules.min(axis=1)))
        self._reply = Ahead(
            world,
            np.array([world.truth.latency_ms[action.id] for action in local]),
            np.array([world.truth.power_w[action.id] for action in local]),
            np.array([action.quality for action in local]),
        )
        idle_c = (world.setting.board.idle_w * self._even)
        self._idle_c = lambda ambient_c: (idle_c + ambient_c * self._modes.air_c) / (1 - self._modes.keep)
        room_c = self._modes.limit_c - float(self._idle_c(world.scenario.ambient.start_c).sum())
        contexts = len(self._moves.chain)
        shape = (12, 24) if contexts <= 12 else (8, 16)
        self._value = HeatValue(self._moves, self._modes, max(room_c, 5.0), shape)
        self._sweep_every = 1 if contexts <= 12 else 2
        self._price = 0.0
        self._at_c = self._modes.start_c
        self._drawn_j = 0.0
        self._chosen: int | None = None
        self._loaded = 0
        self._second = 0
        self._belief: list[tuple[float, float]] = []
        self._ending: list[NDArray[np.float32]] = []
        self._context = (0, 0, 0)
        self._failed = False
        for _ in range(0):
            pass

    def initial(self) -> None:
        """Its state is its own."""

    def dump(self, state: None) -> bytes:
        """Nothing learned."""
        del state
        return b""

    def load(self, payload: bytes) -> None:
        """Nothing to be learned."""
        del payload

    def step(self, state: None, event: Event) -> tuple[None, tuple[Verdict, ...]]:
        """Decide each second, and again after a reply that tells."""
        del state
        chosen = self._each_second(event) if isinstance(event, Second) else self._each_reply(event)
        if chosen is None:
            return None, ()
        return None, (Verdict(task=0, action=self._actions[chosen].id, why=Why(code="gain")),)

    # ------------------------------------------------------------------------------------------- the second

    def _each_second(self, event: Second) -> int:
        world, second = self._world, int(event.now_s)
        self._second = second
        ambient_c = float(world.ambient_c[second])
        if second:
            total_j = (event.power_w or 0.0) / float(world.power_noise[second])
            self._drawn_j += total_j
            before_c = float(world.ambient_c[second - 1])
            self._at_c = self._modes.keep * self._at_c + total_j * self._even + before_c * self._modes.air_c
            die_c = (event.temp_c or 0.0) - float(world.temp_noise_c[second])
            self._at_c = self._at_c + np.array([die_c - self._at_c.sum(), 0.0])
        self._balance_c = self._idle_c(ambient_c)
        self._room_c = self._modes.limit_c - float(self._balance_c.sum())
        self._sense(second)
        if second % _REPRICE_S == 0:
            self._price = self._reprice(second)
        self._sweep(second)
        above_c = self._at_c - self._balance_c
        self._base = self._decide(1.0, above_c)
        variants, context = np.arange(len(self._local)), self._context_number()
        here = self._value.at(self._ahead, context, variants, np.tile(above_c, (len(variants), 1)))
        warmer = self._value.at(self._ahead, context, variants[:1], above_c[None] + 2 * self._even)
        joule = self._price + max(0.0, float(here[0] - warmer[0])) / 2
        self._costs = Costs(
            joule=joule, loaded=here, load=self._price * self._moves.switch_j + _TIE + (joule - self._price) * self._moves.switch_j
        )
        return self._base

    def _sense(self, second: int) -> None:
        world = self._world
        last = max(second * SUBSTEPS - 1, 0)
        self._slow, self._others_w = float(world.slowdown[last]), float(world.extra_w[last])
        end = int(world.first[second])
        gap_s = second - world.arrive_s[end - 1] if end else 1.0
        gaps = [gap_s]
        if end > 1:
            gaps.append(float(world.arrive_s[end - 1] - world.arrive_s[end - 2]))
        rate = 1 / max(gaps[-1] if gap_s <= gaps[-1] else gap_s, 1e-6)
        rates = self._rates.per_s
        place = int(np.abs(np.log((rates + 0.05) / (rate + 0.05))).argmin())
        contention = self._contention
        if self._slow <= 1:
            state = 0
        else:
            off = np.abs(contention.slow - self._slow) + np.abs(contention.watts - self._others_w)
            state = int(off[1:].argmin()) + 1 if len(off) > 1 else 0
        network = 0
        if self._links:
            network = int(self._links[0].state[second])
        self._context = (place, state, network)
        self._failed = False
        self._belief = self._prior()

    def _prior(self) -> list[tuple[float, float]]:
        """How slow everything may be in this second: weight and slowness."""
        contention = self._contention
        if len(contention.slow) == 1:
            return [(1.0, self._slow)]
        if self._slow <= 1:
            begins = 1 - float(contention.move[0, 0])
            factors = np.linspace(float(contention.slow[1:].min()) - 0.3, float(contention.slow[1:].max()) + 0.3, 13)
            return [(1 - begins / 2, 1.0), *((begins / 2 / 13, float(factor)) for factor in factors)]
        ends = float(contention.move[1:, 0].mean())
        return [(1 - ends / 2, self._slow), (ends / 2, 1.0)]

    def _context_number(self) -> int:
        rate, state, network = self._context
        return (rate * len(self._contention.slow) + state) * self._networks + network

    def _expected(self, belief: list[tuple[float, float]]) -> tuple[Floats, Floats]:
        """Quality and joules per second of each action."""
        rate = self._context[0]
        quality = joules = np.zeros(len(self._local))
        for weight, slow in belief:
            one = self._table.at(rate, slow)
            quality, joules = quality + weight * one[0], joules + weight * one[1]
        if not self._links:
            return quality, joules
        mean_slow = sum(weight * slow for weight, slow in belief)
        remote = []
        for place, link in enumerate(self._links):
            replied, hedged = float(link.replied[rate, self._second]), float(link.hedged[rate, self._second])
            if self._failed:
                replied, hedged = float(link.failing[rate, self._second]), 1.0
            sent_j = float(link.sent_j[rate, self._second])
            remote.append(self._remote_worth(place, rate, replied, hedged, sent_j, mean_slow))
        return np.r_[quality, [one[0] for one in remote]], np.r_[joules, [one[1] for one in remote]]

    def _remote_worth(
        self, place: int, rate: int, replied: float, hedged: float, sent_j: float, slow: float
    ) -> tuple[float, float]:
        action, world = self._remote[place], self._world
        hedge = self._local[self._loaded_by[len(self._local) + place]]
        per_s = float(self._rates.per_s[rate])
        good = 1 - world.scenario.hidden.spike_rate
        quality = replied * action.quality + (1 - replied) * hedge.quality * good
        own_j = world.truth.power_w[hedge.id] * world.truth.latency_ms[hedge.id] / 1000 * slow
        return per_s * quality, per_s * (sent_j + hedged * own_j)

    def _decide(self, part: float, above_c: Floats, done_j: float = 0.0) -> int:
        """The best action for this part of a second."""
        quality, joules = self._expected(self._belief)
        loads = (self._loaded_by != self._loaded) & (self._chosen is not None)
        load_j = loads * self._moves.switch_j
        modes = self._modes
        heat_j = part * joules + done_j + self._others_w
        to = modes.keep * above_c + heat_j[:, None] * self._even + load_j[:, None] * modes.gain[0]
        rest = self._value.at(self._ahead, self._context_number(), self._loaded_by, to)
        over = np.maximum(0, to.sum(axis=1) - self._room_c + _NEAR_C) * _OVER
        score = part * (quality - self._price * joules) - self._price * load_j - _TIE * loads + rest - over
        chosen = int(score.argmax())
        self._chosen, self._loaded = chosen, int(self._loaded_by[chosen])
        self._planned_j = float(joules[chosen])
        return chosen

    # -------------------------------------------------------------------------------------------- the reply

    def _each_reply(self, event: Replied) -> int | None:
        if int(event.now_s) != self._second or self._chosen is None:
            return None
        left = self._left(event.now_s)
        base_ms = self._world.truth.latency_ms.get(event.action, 0.0)
        if not base_ms:
            return None
        ratio = event.latency_ms / base_ms
        self._belief = self._learned(ratio)
        hedge = self._chosen >= len(self._local)
        # A hedge begins 1.5 times its usual time before the limit: was the request one of this second?
        sent_s = event.now_s - event.latency_ms / 1000 - self._limit_s + 1.5 * base_ms * self._slow / 1000
        news = hedge and not self._failed and sent_s >= self._second
        self._failed = self._failed or news
        if not hedge:
            return self._look_ahead(event)
        if left == 0 or (self._belief[0][0] > 0.95 and not news):
            return None
        rate = float(self._rates.per_s[self._context[0]])
        part = min(left / max(rate, 1e-9), 1.0)
        return self._decide(part, self._at_c - self._balance_c, (1 - part) * self._planned_j)

    def _look_ahead(self, event: Replied) -> int | None:
        """A variant for the next request, where it waits or something has changed."""
        arrive, now_s = self._world.arrive_s, event.now_s
        served_s = now_s - (event.latency_ms + event.waited_ms) / 1000
        following = int(np.searchsorted(arrive, served_s - 1e-6)) + 1
        known = arrive[following : following + AHEAD]
        coming = known[known <= now_s].tolist()
        if not coming and self._belief[0][0] > _SURE and self._chosen == self._base:
            return None
        last_s = coming[-1] if coming else float(arrive[min(following, len(arrive)) - 1])
        gap_s = 1 / max(float(self._rates.per_s[self._context[0]]), 1e-6)
        while len(coming) < AHEAD:
            last_s += gap_s
            coming.append(max(last_s, now_s))
        chosen = self._reply.choose(now_s, coming, self._belief, self._slow, self._loaded, self._costs)
        self._chosen, self._loaded = chosen, chosen
        return chosen

    def _left(self, now_s: float) -> int:
        """Requests that are still to come in this second, if they go on as they came."""
        arrive = self._world.arrive_s
        seen = int(np.searchsorted(arrive, now_s))
        if seen == 0:
            return 0
        gap_s = 1 / max(float(self._rates.per_s[self._context[0]]), 1e-6)
        return max(math.floor((self._second + 1 - float(arrive[seen - 1])) / gap_s - 1e-9), 0)

    def _learned(self, ratio: float) -> list[tuple[float, float]]:
        hidden = self._world.scenario.hidden
        sigma, spikes = max(hidden.jitter_sigma, 0.02), hidden.spike_rate
        low, high = SPIKE
        weights = []
        for weight, slow in self._belief:
            off = math.log(ratio / slow) / sigma
            usual = math.exp(-off * off / 2) / (sigma * math.sqrt(2 * math.pi) * ratio)
            spike = 1 / ((high - low) * slow) if low * 0.95 < ratio / slow < high * 1.05 else 1e-9
            weights.append(weight * ((1 - spikes) * usual + spikes * spike))
        whole = sum(weights)
        return [(weight / whole, slow) for weight, (_, slow) in zip(weights, self._belief, strict=True)]

    # ----------------------------------------------------------------------------------------------- values

    def _chain(self) -> Moves:
        rates, contention = self._rates, self._contention
        network = self._links[0].move if self._links else np.ones((1, 1))
        quality, joules, others = [], [], []
        for rate in range(len(rates.per_s)):
            self._context = (rate, 0, 0)
            for state, slow in enumerate(contention.slow):
                self._slow = float(slow)
                here_quality, here_joules = np.zeros(len(self._local)), np.zeros(len(self._local))
                for weight, level in self._prior():
                    one = self._table.at(rate, level)
                    here_quality, here_joules = here_quality + weight * one[0], here_joules + weight * one[1]
                for link_state in range(len(network)):
                    asked = [
                        self._remote_worth(place, rate, *(float(v) for v in link.of_state[:, rate, link_state]), float(slow))
                        for place, link in enumerate(self._links)
                    ]
                    quality.append([*here_quality, *(one[0] for one in asked)])
                    joules.append([*here_joules, *(one[1] for one in asked)])
                    others.append(contention.watts[state])
        return Moves(
            loaded=self._loaded_by,
            chain=np.kron(np.kron(rates.move, contention.move), network),
            quality=np.array(quality),
            joules=np.array(joules),
            others_w=np.array(others),
            switch_j=self._world.switch_j,
        )

    def _sweep(self, second: int) -> None:
        value, world = self._value, self._world
        left = world.seconds - second
        if second == 0:
            for _ in range(_WARM_UP):
                value.sweep(self._price, self._room_c, _TIE)
        if left <= _ENDING_S:
            if not self._ending:
                value.value[:] = 0
                for _ in range(left):
                    value.look()
                    self._ending.append(value.ahead)
                    value.sweep(self._price, self._room_c, _TIE)
            self._ahead = self._ending[left - 1]
            return
        if second % self._sweep_every == 0:
            value.sweep(self._price, self._room_c, _TIE)
        self._ahead = value.ahead

    def _reprice(self, second: int) -> float:
        """The price at which the energy left is expected to last."""
        world, setting = self._world, self._world.setting
        until_s = setting.until_s or float(world.seconds)
        left_s = until_s - second
        budgets = []
        if setting.battery_j is not None and left_s > 0:
            reserve_j = _RESERVE * setting.battery_j * math.sqrt(min(left_s / 300, 1.0))
            drained_j = float(world.battery_w[:second].sum()) + float(world.battery_w.mean()) * left_s
            budgets.append(((setting.battery_j - self._drawn_j - drained_j - reserve_j), left_s))
        if setting.max_power_w is not None:
            budgets.append((setting.max_power_w * world.seconds - self._drawn_j, world.seconds - float(second)))
        price = 0.0
        for budget_j, time_s in budgets:
            price = max(price, self._price_of(budget_j, time_s))
        return price

    def _price_of(self, budget_j: float, left_s: float) -> float:
        """The mean of the prices at which it would last, over what may come: a price is a martingale."""
        moves, spent_s = self._moves, self._occupied(left_s)
        budget_j -= self._world.setting.board.idle_w * left_s + float(spent_s @ moves.others_w)
        rows = np.arange(len(spent_s))

        def chosen(price: float) -> Floats:
            drawn: Floats = moves.joules[rows, (moves.quality - price * moves.joules).argmax(axis=1)]
            return drawn

        def lasting(budget: float) -> float:
            if float(spent_s @ chosen(0.0)) <= budget:
                return 0.0
            low, high = 0.0, self._dearest
            for _ in range(12):
                price = (low + high) / 2
                low, high = (price, high) if float(spent_s @ chosen(price)) > budget else (low, price)
            return high

        usual = chosen(lasting(budget_j)) + moves.others_w
        spread_j = math.sqrt(max(self._variance(usual), 0.0) * left_s * left_s / (left_s + 60))
        return sum(weight * lasting(budget_j + node * spread_j) for node, weight in _NODES)

    def _variance(self, drawn_w: Floats) -> float:
        """By how much the energy of a second adds to the variance of that of many, along the chain."""
        share, fundamental = self._share, self._fundamental
        off = drawn_w - share @ drawn_w
        return float((share * off) @ (2 * fundamental @ off - off))

    def _occupied(self, left_s: float) -> Floats:
        """Expected seconds in each context, from now on."""
        chain = self._moves.chain
        now = np.zeros(len(chain))
        now[self._context_number()] = 1.0
        power, summed, count = chain, np.eye(len(chain)), 1
        # Twice as long each time: I + P + ... + P^(2n-1) = (I + ... + P^(n-1)) (I + P^n).
        if not hasattr(self, "_doubled"):
            self._doubled = []
            while count < self._world.seconds:
                self._doubled.append((count, summed, power))
                summed, power, count = summed + summed @ power, power @ power, count * 2
        spent = np.zeros(len(chain))
        rest = int(left_s)
        for many, of_many, after in reversed(self._doubled):
            if rest >= many:
                spent += now @ of_many
                now = now @ after
                rest -= many
        return spent
