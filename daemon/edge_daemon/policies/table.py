"""A task's actions as columns, and what each is worth now: points a request, and watts."""

from __future__ import annotations

import math
from math import erf, exp, log
from typing import Final

from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.contract import Task
from edge_daemon.policies.remembered import TaskState
from edge_daemon.policies.tuning import Tuning
from edge_daemon.policies.values import clamped
from edge_sdk.preference import POINTS_PER_DOUBLING, SPEED_FLOOR_POINTS, Mode

_SQRT2: Final = math.sqrt(2.0)
_LN2: Final = math.log(2.0)
_ALLOWED_CHANCE: Final = 0.5
_ALONE_CHANCE: Final = 0.9
LEAST_RATE: Final = 0.05  # requests a second for which a choice is weighed though none came
LOW_POINTS: Final = 10.0  # what it costs to fall below the quality asked for: more than any variant is better
_SOME_LOAD: Final = 0.2  # utilisation below which nobody waits for anybody
_ANY_LOAD: Final = 0.01  # the same of requests at random times, of which two may come at once
_AMPLE: Final = 4.0  # limit over latency at which no spike makes others late
_SURE: Final = 4.0  # standard deviations, beyond which an answer is in time
_OVERLOAD_POWER: Final = 1.3  # measured: docs/explanation/optimal.md
_SERVICE_SCALE: Final = 1.9
_REGULAR: Final = 0.15  # variance over mean of the requests a second, below which they come like frames

# Points that a halving of the latency is worth; under `speed` it is what counts, so long as the quality is not too low.
_POINTS_PER_HALVING: Final = {**POINTS_PER_DOUBLING, Mode.SPEED: 20.0}


def blocked(busy: float, ratio: float) -> float:
    """The share of requests that come at random times and would have to wait too long.

    A queue that is joined only if the wait is short enough, with random arrivals (M/M/1 with deterministic patience,
    Gnedenko and Kovalenko; the service's scale is corrected for its small spread).

    Args:
        busy: Utilisation.
        ratio: The limit over the latency of one.
    """
    if ratio <= 1:
        return 0.0  # late without waiting: counted already
    load = busy if abs(busy - 1) > 1e-3 else 1 + 1e-3  # noqa: PLR2004 - the formula is smooth through 1, its terms are not
    decay = math.exp(min(-_SERVICE_SCALE * (ratio - 1) * (1 - load), 50.0))
    return min(max((1 - load) * load * decay / (1 - load * load * decay), 0.0), 1.0)


# Of each task, what `Table.weigh` says.
Weighed = list[tuple[list[float], list[float], float]]


class Table:
    """A task's columns.

    Args:
        task: The task.
        tuning: The numbers.

    Attributes:
        ids: Of the actions.
        local, remote: Indexes of those that compute here, and of those that ask.
        smallest: The one here that is promised to be the fastest.
        link_of: Of each remote action, the number of its way to a server; those that send as much to one that takes as
            long share it. `ways` has an action of each.
    """

    def __init__(self, task: Task, tuning: Tuning) -> None:
        self.task, self._tuning = task, tuning
        actions = task.actions
        self.ids = tuple(action.id for action in actions)
        self.index = {id_: at for at, id_ in enumerate(self.ids)}
        self.local = tuple(at for at, action in enumerate(actions) if not action.remote)
        self.remote = tuple(at for at, action in enumerate(actions) if action.remote)
        ways = dict.fromkeys((actions[at].payload_kb, actions[at].latency_ms) for at in self.remote)
        numbers = {way: number for number, way in enumerate(ways)}
        self.link_of = {at: numbers[actions[at].payload_kb, actions[at].latency_ms] for at in self.remote}
        self.ways = tuple(
            next(actions[at] for at in self.remote if self.link_of[at] == number) for number in range(len(ways))
        )
        self.is_remote = tuple(action.remote for action in actions)
        self.quality = tuple(action.quality for action in actions)
        self.promised = tuple(math.log(max(action.latency_ms, 1e-6)) for action in actions)
        self.smallest = min(self.local, key=lambda at: (actions[at].latency_ms, self.ids[at]))
        self.computes = tuple(self.index[action.hedge] if action.hedge else at for at, action in enumerate(actions))
        self.limit = math.log(task.limit_ms)
        self._weight = task.weight
        self._limit_s = task.limit_ms / 1000
        self._tail_scale = 1 / (tuning.tail_spread * _SQRT2)
        self._zeros = [0.0] * len(actions)
        self._here = tuple((at, self.promised[at], self.quality[at], actions[at].power_w) for at in self.local)
        self._there = tuple(
            (at, self.link_of[at], self.computes[at], self.quality[at], actions[at].power_w) for at in self.remote
        )
        self._points = _POINTS_PER_HALVING[task.mode] / _LN2
        best = max(self.quality)
        slow = [task.mode is Mode.SPEED and quality < best - SPEED_FLOOR_POINTS for quality in self.quality]
        least = -math.inf if task.min_quality is None else task.min_quality
        self.low = tuple(out or quality < least for out, quality in zip(slow, self.quality, strict=True))
        self.has_low = any(self.low)

    def requests(self, state: TaskState) -> float:
        """A second, by the task's weight: as often counts what an action is worth."""
        return self._weight * (LEAST_RATE if state.rate < LEAST_RATE else state.rate)

    def median_ms(self, state: TaskState, at: int, known: Calibration, clock: float) -> float:
        """What an inference of an action is expected to take; 0 of one that asks a server."""
        return 0.0 if self.is_remote[at] else math.exp(self.promised[at] + state.bias[at] + known.slow) / clock

    def whole(self, state: TaskState, at: int) -> float:
        """What an action is worth if all its answers come in time."""
        if self.is_remote[at] or not self._points:
            return self.quality[at]
        fastest = self.promised[self.smallest] + state.bias[self.smallest]
        return self.quality[at] - self._points * (self.promised[at] + state.bias[at] - fastest)

    def weigh(
        self, state: TaskState, known: Calibration, log_clock: float, full_w: float
    ) -> tuple[list[float], list[float], float]:
        """What each action is worth now, and what it draws.

        Args:
            state: Of the task.
            known: Of the moment.
            log_clock: Log of current over full clock.
            full_w: What a promised watt draws now, whatever runs: the clock's power and the learned scale.

        Returns:
            Of each action points a request, and watts above the base; the least watts of those that compute here.
        """
        tuning, rate, bias, factors = self._tuning, state.rate, state.bias, state.drawn.factors
        irregular = clamped(state.rate_spread * state.rate_spread / rate, 0.0, 1.0) if rate > 0 else 0.0
        some_load = _SOME_LOAD if irregular <= _REGULAR else _ANY_LOAD
        tail, size, tail_scale = known.tail_rate, known.tail_size, self._tail_scale
        scale = 1 / (known.spread * _SQRT2)
        sure, sure_tail = _SURE * known.spread, size + _SURE * tuning.tail_spread
        sure = sure_tail if sure_tail > sure else sure
        suspect = known.suspect
        doubt = known.confirmed / known.suspects if suspect else 0.0
        late, overload, points = tuning.late_points, tuning.overload, self._points
        fastest = self.promised[self.smallest] + bias[self.smallest]
        worth, watts, least_w = self._zeros.copy(), self._zeros.copy(), math.inf
        limit, slow_ms = self.limit - known.slow + log_clock, rate / 1000 * exp(known.slow - log_clock)
        for at, promised, quality, power_w in self._here:
            own = promised + bias[at]
            room = limit - own
            chance = 1.0
            if room < sure:
                usual = 0.5 + 0.5 * erf(room * scale)
                chance = usual + tail * (0.5 + 0.5 * erf((room - size) * tail_scale) - usual)
            busy = slow_ms * exp(own)
            if doubt:
                room -= suspect
                usual = 0.5 + 0.5 * erf(room * scale)
                usual += tail * (0.5 + 0.5 * erf((room - size) * tail_scale) - usual)
                chance += doubt * (usual - chance)
                busy *= 1 + doubt * (exp(suspect) - 1)
            if busy > some_load:
                chance = self._queued(chance, busy, exp(room), irregular, tail, size)
                if busy > overload:
                    chance *= (overload / busy) ** _OVERLOAD_POWER
                    busy = min(busy, 1.0)
            value = quality - points * (own - fastest) if points else quality
            worth[at] = (value + late) * chance - late
            watts[at] = drawn = power_w * busy * full_w * factors[at]
            if drawn < least_w:
                least_w = drawn
        if self.remote:
            self._weigh_remote(state, worth, watts)
        if self.has_low:
            self._lower(worth)
        return worth, watts, least_w

    def _queued(  # noqa: PLR0917 - by position, called for each action
        self, chance: float, busy: float, ratio: float, irregular: float, tail: float, size: float
    ) -> float:
        """The chance of an answer in time where some wait for others.

        A spike makes those that follow wait, too; where requests come at random, so do some that follow nothing.
        """
        if ratio < _AMPLE:
            gap, scale = 1 / busy, self._tail_scale
            late_after = ratio - 1 + gap
            if late_after > 0:
                follow = 1 - erf((log(late_after) - size) * scale)
                follow += 1 - erf((log(late_after + gap) - size) * scale)
                chance -= 0.5 * tail * follow
        if irregular > _REGULAR:
            chance *= 1 - irregular * blocked(busy, ratio)
        return 0.0 if chance < 0 else chance

    def _weigh_remote(self, state: TaskState, worth: list[float], watts: list[float]) -> None:
        late, most_s, rate, trust = self._tuning.late_points, self._limit_s, state.rate, 1.0
        if state.failing:  # one of a few says much, one of a hundred little
            trust -= (1 - self._tuning.failed) * min(state.failing * self._tuning.failing / max(rate, 1e-9), 1.0)
        ways = []
        for link in state.links:
            ways.append((link.chance() * trust, clamped(min(link.sending_s, most_s) * rate, 0.0, 1.0)))
        for at, way, other, quality, power_w in self._there:
            chance, sending = ways[way]
            if other == at:
                # Nobody stands by: a saving is no reason to bet answers on a network that loses every tenth.
                chance = chance if chance >= _ALONE_CHANCE else 0.0
                worth[at] = (quality + late) * chance - late
                watts[at] = power_w * sending
            else:
                worth[at] = quality * chance + worth[other] * (1 - chance)
                watts[at] = power_w * sending + watts[other] * (1 - chance)

    def _lower(self, worth: list[float]) -> None:
        """What is not good enough costs, if anything that is comes in time: it yields to a battery that has to last."""
        in_time = any(
            not low and value > self.quality[at] * _ALLOWED_CHANCE - self._tuning.late_points * (1 - _ALLOWED_CHANCE)
            for at, (low, value) in enumerate(zip(self.low, worth, strict=True))
        )
        if in_time:
            for at, low in enumerate(self.low):
                if low:
                    worth[at] -= LOW_POINTS
