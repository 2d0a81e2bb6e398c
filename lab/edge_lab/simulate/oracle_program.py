"""The dynamic program over what ran last and the two modes of heat, for one price of a joule.

Backward it finds what the rest of the run is worth from each point of the grid; forward it chooses anew each second
with the exact temperatures, the exact queue and that value. The value between points is linear in both modes; backward
the heat of an action is that of one which goes on, and the queue remembers one second; forward neither is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_lab.simulate.board import Clock
from edge_lab.simulate.oracle_heat import Grid, Modes, modes_of, reachable
from edge_lab.simulate.oracle_seconds import Indices, Played, Seconds, tabulate
from edge_lab.simulate.world import SUBSTEPS, Floats, World

TIE: Final = 0.2  # points of quality that a load must bring, so that a plan has no needless ones
_CHUNK: Final = 64  # seconds whose matrices are made at once
_OVER: Final = 400.0  # points a second per degree above the limit: far more than heat is ever worth
_TOUCH_C: Final = 1e-6  # planned and played temperatures differ by their rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What ran last, as states: a local or hedged action, or a server's with the variant that stayed loaded.

    Attributes:
        action: Of each state, `[states]`.
        after: The state after each action, `[states, actions]`.
        loads: Whether that loads a variant, `[states, actions]`.
        begin: The state after each action as the first, `[actions]`.
    """

    action: Indices
    after: Indices
    loads: NDArray[np.bool_]
    begin: Indices


def chain_of(seconds: Seconds) -> Chain:
    """The states of these actions."""
    actions = seconds.actions
    variants = [index for index, action in enumerate(actions) if not action.remote]
    names = {actions[index].id: index for index in variants}
    smallest = min(variants, key=lambda index: actions[index].latency_ms)
    states: list[tuple[int, int]] = []
    for index, action in enumerate(actions):
        if not action.remote:
            states.append((index, index))
        elif action.hedge is not None:
            states.append((index, names.get(action.hedge, smallest)))
        else:
            states.extend((index, variant) for variant in variants)
    number = {state: place for place, state in enumerate(states)}

    def follow(index: int, loaded: int) -> tuple[int, int]:
        action = actions[index]
        if not action.remote:
            return index, index
        return index, loaded if action.hedge is None else names.get(action.hedge, smallest)

    steps = [[follow(index, loaded) for index in range(len(actions))] for _, loaded in states]
    return Chain(
        action=np.array([index for index, _ in states]),
        after=np.array([[number[step] for step in row] for row in steps]),
        loads=np.array([[step[1] != state[1] for step in row] for state, row in zip(states, steps, strict=True)]),
        begin=np.array([number[follow(index, smallest)] for index in range(len(actions))]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What the rest of the run is worth at a price.

    Attributes:
        price: Points of quality per joule.
        begin: `[seconds + 1, states, points, points]` of float32: from each second on, less `above` of that second.
        whole: From the run's begin, without the price of what is drawn anyway.
    """

    price: float
    begin: NDArray[np.float32]
    above: Floats
    whole: float


@dataclass(slots=True)
class Plan:
    """A chosen action for each second, and what the planner expects of it."""

    actions: list[int]
    quality: float = 0.0
    joules: float = 0.0
    hot_s: int = 0


class Program:
    """The program of one run."""

    def __init__(self, world: World, points: int = 32) -> None:
        self._world = world
        self.seconds: Seconds = tabulate(world)
        self.modes: Modes = modes_of(world)
        self.chain: Chain = chain_of(self.seconds)
        self._heat_c: Floats = self.seconds.heat_j @ self.modes.gain
        self.grid: Grid = reachable(self.modes, self._heat_c, points)

    def finer(self, points: int) -> Program:
        """The same on another grid."""
        other = copy.copy(self)
        other.grid = reachable(self.modes, self._heat_c, points)
        return other

    # ---------------------------------------------------------------------------------------------- backward

    def value(self, price: float, *, tie: float = TIE, keep: bool = True) -> Value:
        """The value of the rest, from the end to the begin; `keep=False` only for the whole."""
        chain, points = self.chain, self.grid.points
        count, states = self._world.seconds, len(chain.action)
        begin = np.zeros((count + 1 if keep else 1, states, points, points), dtype=np.float32)
        above = np.zeros(count + 1)
        rest = np.zeros((states, points, points))
        worth = self._worth(price, tie)
        total = 0.0
        which = chain.after + states * chain.loads
        for first in range((count - 1) // _CHUNK * _CHUNK, -1, -_CHUNK):
            moves = self._moves(first, min(first + _CHUNK, count))
            for place in range(moves.fast.shape[0] - 1, -1, -1):
                second = first + place
                if second == 0:
                    break
                reached = (moves.fast[place] @ rest @ moves.slow[place]).reshape(-1, points, points)
                reached -= moves.over[place]
                rest = (reached[which] + worth[second][:, :, None, None]).max(axis=1)
                top = float(rest.max())
                rest -= top
                total += top
                above[second] = total
                if keep:
                    begin[second] = rest
        start = self._start(price, rest)
        return Value(price=price, begin=begin, above=above, whole=total + start)

    def _worth(self, price: float, tie: float) -> Floats:
        """What a second brings, `[seconds, states, actions]`."""
        seconds, chain, backlog = self.seconds, self.chain, self.seconds.backlog
        alone = seconds.quality - price * seconds.joules
        worth = alone[:, None, :] - (price * self._world.switch_j + tie) * chain.loads
        change = np.zeros((len(alone), len(seconds.actions), len(seconds.actions)))
        change[backlog.second, backlog.before, backlog.after] = backlog.quality - price * backlog.joules
        worth += change[:, chain.action, :]
        return worth

    def _moves(self, begin: int, end: int) -> _Moves:
        """Where each action leads from each point, as matrices that interpolate, and how far above the limit."""
        grid, modes, chain = self.grid, self.modes, self.chain
        points = grid.points
        numbers = np.arange(points)
        drive = modes.idle_c[begin:end, None, None, :] + self._heat_c[begin:end, None]
        drive = drive + np.array([0.0, self._world.switch_j])[:, None, None] * modes.gain[0]
        at = grid.low_c[begin:end, :, None] + grid.step_c[begin:end, :, None] * numbers
        to = modes.keep[:, None] * at[:, None, None] + drive[..., None]  # [seconds, loads, actions, modes, points]
        low_c, step_c = (of[begin + 1 : end + 1, None, None, :, None] for of in (grid.low_c, grid.step_c))
        place = (to - low_c) / step_c
        np.clip(place, 0, points - 1, out=place)
        weight = np.maximum(0, 1 - np.abs(place[..., None] - numbers))
        over = np.maximum(0, to[..., 0, :, None] + to[..., 1, None, :] - modes.limit_c) * _OVER
        return _Moves(
            fast=weight[:, :, chain.action, 0],
            slow=weight[:, :, chain.action, 1].swapaxes(-1, -2).copy(),
            over=over[:, :, chain.action].reshape(end - begin, -1, points, points),
        )

    def _start(self, price: float, rest: Floats) -> float:
        best = -np.inf
        for index in range(len(self.seconds.actions)):
            to = self.modes.keep * self.modes.start_c + self.modes.idle_c[0] + self._heat_c[0, index]
            reached = _between(rest[None], self.grid, 1, self.chain.begin[index : index + 1], to[None])[0]
            alone = self.seconds.quality[0, index] - price * self.seconds.joules[0, index]
            best = max(best, float(alone + reached))
        return best

    # ----------------------------------------------------------------------------------------------- forward

    def forward(self, value: Value, prices: Floats | None = None) -> Plan:
        """The plan by this value; `prices`, one a second, for what is drawn now where not that of the value."""
        if prices is None:
            prices = np.full(self._world.seconds, value.price)
        return _Forward(self, self._world, value, prices).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moves:
    fast: Floats
    slow: Floats
    over: Floats


def _between(begin: NDArray[Any], grid: Grid, second: int, states: Indices, at_c: Floats) -> Floats:
    """The value at `at_c` (`[n, 2]`) at the begin of a second in each of these states; `begin[0]` is that second's."""
    place = np.clip((at_c - grid.low_c[second]) / grid.step_c[second], 0, grid.points - 1)
    corner = np.minimum(place.astype(np.int64), grid.points - 2)
    (x, y), (u, v) = corner.T, (place - corner).T
    table = begin[0].astype(np.float64)
    value: Floats = (1 - u) * ((1 - v) * table[states, x, y] + v * table[states, x, y + 1]) + u * (
        (1 - v) * table[states, x + 1, y] + v * table[states, x + 1, y + 1]
    )
    return value


class _Forward:
    def __init__(self, program: Program, world: World, value: Value, prices: Floats) -> None:
        self._program, self._world, self._value, self._prices = program, world, value, prices
        self._clock = Clock(world)
        self._free_s = self._link_s = -1.0
        self._spill = [0.0] * SUBSTEPS

    def run(self) -> Plan:
        program, world, value, prices = self._program, self._world, self._value, self._prices
        modes, chain, grid = program.modes, program.chain, program.grid
        plan = Plan(actions=[])
        at_c = modes.start_c
        state = -1
        for second in range(world.seconds):
            played = self._played(second)
            after = chain.begin if state < 0 else chain.after[state]
            load_j = np.zeros(len(after)) if state < 0 else chain.loads[state] * world.switch_j
            tie = np.zeros(len(after)) if state < 0 else chain.loads[state] * TIE
            heat_j = np.array([_padded(one.joules, SUBSTEPS) for one in played]) + self._spill[:SUBSTEPS]
            heat_j[:, 0] += load_j
            to = modes.keep * at_c + modes.idle_c[second] + heat_j @ modes.gain
            die_c = to.sum(axis=1)
            cost_j = load_j + [sum(one.joules) for one in played]
            gain = np.array([one.quality for one in played])
            rest = _between(value.begin[second + 1 : second + 2], grid, second + 1, after, to)
            score = gain - prices[second] * cost_j - tie + rest
            hot = die_c > modes.limit_c - _TOUCH_C
            if hot.all():
                score = -die_c
                plan.hot_s += 1
            else:
                score[hot] = -np.inf
            chosen = int(score.argmax())
            plan.actions.append(chosen)
            plan.quality += played[chosen].quality
            plan.joules += float(cost_j[chosen])
            state, at_c = int(after[chosen]), to[chosen]
            self._pass(played[chosen], float(die_c[chosen]))
        return plan

    def _played(self, second: int) -> list[Played]:
        seconds, clock = self._program.seconds, self._clock.ratio
        if clock == 1 and max(self._free_s, self._link_s) <= seconds.bench.first_s(second):
            return seconds.alone[second]
        return [seconds.bench.serve(second, action, self._free_s, self._link_s, clock) for action in seconds.actions]

    def _pass(self, played: Played, die_c: float) -> None:
        self._free_s = max(self._free_s, played.free_s)
        self._link_s = max(self._link_s, played.link_free_s)
        left, fresh = self._spill[SUBSTEPS:], played.joules[SUBSTEPS:]
        width = max(len(left), len(fresh), SUBSTEPS)
        self._spill = [a + b for a, b in zip(_padded(left, width), _padded(fresh, width), strict=True)]
        self._clock.second(die_c)


def _padded(joules: Sequence[float], width: int) -> list[float]:
    return [*joules[:width], *[0.0] * (width - len(joules))]
