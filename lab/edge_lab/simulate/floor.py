"""The causal floor: a policy that is told everything about a run but its future.

It knows the true latencies, powers and thermal resistance, the exact temperatures and energy, the contention and the
network of the last second, and how requests, contention and network go on in general. What it is behind the oracle
is the price of not knowing what comes; what another policy is behind it, that policy could have learned.

It decides by a stochastic dynamic program (`floor_value`) over a chain of contexts (`floor_chain`), by a price of a
joule (`floor_price`), and again when a reply within a second tells (`floor_reply`). Strong, not proven the strongest.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_daemon.policies.contract import Event, Replied, Second, Verdict, Why
from edge_lab.simulate.floor_known import Known
from edge_lab.simulate.floor_price import Price
from edge_lab.simulate.floor_reply import AHEAD, Ahead, Costs
from edge_lab.simulate.floor_value import HeatValue, Singles
from edge_lab.simulate.oracle_heat import modes_of
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.world import SUBSTEPS, Floats, World

_TIE: Final = 0.2  # points that a load must bring
_WARM_UP: Final = 500  # sweeps before the first second: twice as long as heat stays
_ENDING_S: Final = 300  # before the end of the run, from when on the end counts
_REPRICE_S: Final = 5
_OVER: Final = 400.0  # points a second per degree above the limit
_NEAR_C: Final = 0.05  # below the limit
_SURE: Final = 0.95  # of the belief in what was so before
_HEDGE: Final = 1.5  # of its usual time before the limit a hedge begins
_MANY: Final = 12  # contexts, from which on the grid is coarse
_SHAPES: Final = ((16, 40), (8, 16))  # points of the fast and slow mode, of few and of many contexts


def causal_floor(world: World) -> Run:
    """Play the policy that knows everything but the future."""
    return play(world, "floor", lambda _setting: Floor(world))


class Floor:
    """That policy; it looks into the world, but never beyond the event it is told of. It keeps its state itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known = Known(world)
        moves = self._known.moves
        self._modes = modes_of(world)
        self._even: Floats = self._modes.gain.sum(axis=0) / SUBSTEPS
        coarse = len(moves.chain) > _MANY
        room_c = self._modes.limit_c - float(self._balance(float(world.ambient_c[0])).sum())
        self._value = HeatValue(moves, self._modes, max(room_c, 5.0), _SHAPES[coarse])
        self._sweep_every = 2 if coarse else 1
        self._prices = Price(world, moves)
        self._price = self._drawn_j = 0.0
        self._ending: list[Singles] = []
        local = self._known.local
        self._reply = Ahead(
            world,
            latency_ms=np.array([world.truth.latency_ms[action.id] for action in local]),
            power_w=np.array([world.truth.power_w[action.id] for action in local]),
            quality=np.array([action.quality for action in local]),
        )
        self._chosen: int | None = None
        self._loaded = self._second = 0
        self._at_c = self._modes.start_c

    def initial(self) -> None:
        """Nothing: its state is its own."""

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
        names = [*self._known.local, *self._known.remote]
        return None, (Verdict(task=0, action=names[chosen].id, why=Why(code="gain")),)

    # ------------------------------------------------------------------------------------------- the second

    def _each_second(self, event: Second) -> int:
        world, second, known = self._world, int(event.now_s), self._known
        self._second = second
        if second:
            self._follow(event, second)
        balance_c = self._balance(float(world.ambient_c[second]))
        self._room_c = self._modes.limit_c - float(balance_c.sum())
        self._above_c: Floats = self._at_c - balance_c
        last = max(second * SUBSTEPS - 1, 0)
        self._slow, self._others_w = float(world.slowdown[last]), float(world.extra_w[last])
        self._rate = known.rate(second)
        self._context = known.context(second, self._rate, self._slow, self._others_w)
        self._belief, self._failed = known.prior(self._slow), False
        if second % _REPRICE_S == 0:
            self._price = self._prices.at(second, self._drawn_j, self._context)
        self._ahead = self._swept(second)
        self._base = self._decide(1.0, 0.0)
        self._costs = self._costs_now()
        return self._base

    def _balance(self, ambient_c: float) -> Floats:
        """Both modes of the idle board in this air."""
        modes = self._modes
        balance: Floats = (self._world.setting.board.idle_w * self._even + ambient_c * modes.air_c) / (1 - modes.keep)
        return balance

    def _follow(self, event: Second, second: int) -> None:
        """Exact energy and temperature, without the sensors' noise; the board's follows from the die's."""
        world, modes = self._world, self._modes
        drawn_j = (event.power_w or 0.0) / float(world.power_noise[second])
        self._drawn_j += drawn_j
        self._at_c = modes.keep * self._at_c + drawn_j * self._even + float(world.ambient_c[second - 1]) * modes.air_c
        die_c = (event.temp_c or 0.0) - float(world.temp_noise_c[second])
        self._at_c = self._at_c + np.array([die_c - self._at_c.sum(), 0.0])

    def _decide(self, part: float, done_j: float) -> int:
        """The best action for the last `part` of a second in which `done_j` are already spent."""
        quality, joules = self._known.expected(self._second, self._rate, self._belief, failed=self._failed)
        modes, loaded_by, moves = self._modes, self._known.loaded_by, self._known.moves
        loads = (loaded_by != self._loaded) & (self._chosen is not None)
        load_j = loads * moves.switch_j
        heat_j = part * joules + done_j + self._others_w
        to = modes.keep * self._above_c + heat_j[:, None] * self._even + load_j[:, None] * modes.gain[0]
        rest = self._value.at(self._ahead, self._context, loaded_by, to)
        over = np.maximum(0, to.sum(axis=1) - self._room_c + _NEAR_C) * _OVER
        score = part * (quality - self._price * joules) - self._price * load_j - _TIE * loads + rest - over
        chosen = int(score.argmax())
        self._chosen, self._loaded, self._planned_j = chosen, int(loaded_by[chosen]), float(joules[chosen])
        return chosen

    def _costs_now(self) -> Costs:
        variants = np.arange(len(self._known.local))
        here = self._value.at(self._ahead, self._context, variants, np.tile(self._above_c, (len(variants), 1)))
        warmer = self._value.at(self._ahead, self._context, variants[:1], self._above_c[None] + 2 * self._even)
        joule = self._price + max(0.0, float(here[0] - warmer[0])) / 2
        return Costs(joule=joule, loaded=here, load=joule * self._known.moves.switch_j + _TIE)

    def _swept(self, second: int) -> Singles:
        """The value a second on; near the end that of what is left, else of a run that goes on."""
        value, left = self._value, self._world.seconds - second
        if left <= _ENDING_S:
            if not self._ending:
                value.forget()
                for _ in range(left):
                    value.sweep(self._price, self._room_c, _TIE)
                    self._ending.append(value.ahead)
            return self._ending[left - 1]
        for _ in range(_WARM_UP if second == 0 else second % self._sweep_every == 0):
            value.sweep(self._price, self._room_c, _TIE)
        return value.ahead

    # -------------------------------------------------------------------------------------------- the reply

    def _each_reply(self, event: Replied) -> int | None:
        if int(event.now_s) != self._second or self._chosen is None:
            return None
        base_ms = self._world.truth.latency_ms[event.action]
        self._belief = self._known.learned(self._belief, event.latency_ms / base_ms)
        if self._chosen < len(self._known.local):
            return self._look_ahead(event)
        # A hedge computed. Had its request come in this second?
        limit_s = self._world.setting.tasks[0].limit_ms / 1000
        sent_s = event.now_s - event.latency_ms / 1000 - limit_s + _HEDGE * base_ms * self._slow / 1000
        news = not self._failed and sent_s >= self._second
        self._failed = self._failed or news
        part = self._left(event.now_s)
        if part == 0 or (self._belief[0][0] > _SURE and not news):
            return None
        return self._decide(part, (1 - part) * self._planned_j)

    def _look_ahead(self, event: Replied) -> int | None:
        """A variant for the next request, where that waits or something has changed."""
        arrive, now_s = self._world.arrive_s, event.now_s
        came_s = now_s - (event.latency_ms + event.waited_ms) / 1000
        following = int(np.searchsorted(arrive, came_s - 1e-6)) + 1
        coming = [at_s for at_s in arrive[following : following + AHEAD].tolist() if at_s <= now_s]
        if not coming and self._belief[0][0] > _SURE and self._chosen == self._base:
            return None
        last_s = coming[-1] if coming else came_s
        while len(coming) < AHEAD:
            last_s += 1 / max(self._known.per_s(self._rate), 1e-6)
            coming.append(max(last_s, now_s))
        chosen = self._reply.choose(
            now_s, coming, self._belief, usual=self._slow, loaded=self._loaded, costs=self._costs
        )
        self._chosen = self._loaded = chosen
        return chosen

    def _left(self, now_s: float) -> float:
        """The share of a second's requests that still come in this one, if they go on as they came."""
        arrive = self._world.arrive_s
        seen = int(np.searchsorted(arrive, now_s))
        if seen == 0:
            return 0.0
        per_s = max(self._known.per_s(self._rate), 1e-6)
        left = int((self._second + 1 - float(arrive[seen - 1])) * per_s - 1e-9)
        return min(max(left, 0) / per_s, 1.0)
