"""What could have been known: is a run feasible at all, and what would one have done who knew it to its end.

The clairvoyant plans by dynamic programming (`oracle_program`), with a price per joule where the battery or the mean
power binds, and its plan is played in the simulator like any policy: what it achieves is achieved. How much better any
other plan of one action a second could be is bounded by the program's dual.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge_daemon.policies.contract import Event, Second, Setting, Verdict, Why
from edge_lab.simulate.oracle_program import Plan, Program, Value
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.world import SUBSTEPS, World

_MARGIN_C: Final = 0.2
_POINTS: Final = 32
_SEARCHES: Final = 5  # programs on the coarse grid to find the price
_TUNINGS: Final = 8  # plans by the same value with other prices for what is drawn now
_CLOSE: Final = 0.003  # of the budget: near enough for the price; a tenth of it for the plan
_FIRST_STEP: Final = 0.01  # of the price
_HIGH: Final = 1e4  # points a joule: more than any answer is worth
_SHARINGS: Final = 4  # halvings of the time that two plans share
_DEARER: Final = 1.5
_SPARE_J: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """Whether the smallest variant alone holds each limit, in this run.

    Attributes:
        hottest_c: Of the die at the end of a second.
        temp: It stays 0.2 degrees below the limit.
        battery: It lasts until the target.
        power: The mean is below the limit.
        clock: The firmware never slows it down. No limit; but the clairvoyant keeps below the firmware's throttle, and
            where even this variant does not, it bounds nothing.
    """

    hottest_c: float
    temp: bool
    battery: bool
    power: bool
    clock: bool

    @property
    def all(self) -> bool:
        """Every limit can be held."""
        return self.temp and self.battery and self.power


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """What the clairvoyant achieved.

    Attributes:
        run: As played.
        bound: No plan of one action a second has a higher effective accuracy, but for what `oracle_program` leaves
            out: the grid's interpolation (its first order is taken away by a second grid), and heat and backlog from
            more than a second before.
        gap_pct: Of the bound, from what was achieved; a little below zero where the grid's error is larger. None where
            nothing bounds it.
        price: Points of quality per joule; 0 where energy does not bind.
        took_s: CPU time.
    """

    run: Run
    bound: float
    gap_pct: float | None
    price: float
    took_s: float


class Replay:
    """A policy that does what was planned, second by second."""

    def __init__(self, plan: list[str]) -> None:
        self._plan = plan

    def __call__(self, setting: Setting) -> Replay:
        """Be its own factory."""
        del setting
        return self

    def initial(self) -> None:
        """Nothing to remember."""

    def step(self, state: None, event: Event) -> tuple[None, tuple[Verdict, ...]]:
        """The planned action at each second's begin."""
        del state
        if not isinstance(event, Second):
            return None, ()
        return None, (Verdict(task=0, action=self._plan[int(event.now_s)], why=Why(code="gain")),)

    def dump(self, state: None) -> bytes:
        """Nothing learned."""
        del state
        return b""

    def load(self, payload: bytes) -> None:
        """Nothing known."""
        del payload


def feasible(world: World) -> Feasibility:
    """Play the smallest variant and look at the limits."""
    setting = world.setting
    run = play(world, "smallest", Replay([_smallest(world)] * world.seconds), replies=False)
    hottest_c = max(run.temp_c)
    until_s = setting.until_s or float(world.seconds)
    mean_w = run.energy_wh[-1] * 3600 / world.seconds
    return Feasibility(
        hottest_c=hottest_c,
        temp=setting.temp_c is None or hottest_c <= setting.temp_c - _MARGIN_C,
        battery=run.alive_pct(until_s) == 100,  # noqa: PLR2004 - all of it
        power=setting.max_power_w is None or mean_w <= setting.max_power_w,
        clock=hottest_c <= world.slows_above_c,
    )


def clairvoyant(world: World, *, quick: bool = False) -> Oracle:
    """Plan the run as one who knows it to its end, and play the plan.

    Where the battery cannot last until the run's end but for its target, it is planned once for the time until the
    target and once for as long as the smallest variant lasts; the better one counts, and nothing bounds it.

    Args:
        world: The run.
        quick: On a coarse grid: in a third of the time, 0.1 % worse.
    """
    began = time.process_time()
    found = [_planned(world, _cut(world, seconds), quick=quick) for seconds in _spans(world)]
    best = max(found, key=lambda one: one.run.effective_accuracy)
    return replace(best, gap_pct=best.gap_pct if len(found) == 1 else None, took_s=time.process_time() - began)


def _planned(world: World, planned: World, *, quick: bool) -> Oracle:
    """The best plan for a part of the run, and the smallest variant after it."""
    began = time.process_time()
    coarse = Program(planned, _POINTS // 2)
    budget_j = _budget_j(planned)
    price = _price(coarse, budget_j)
    program = coarse if quick else coarse.finer(_POINTS)
    plan = _plan(program, program.value(price), budget_j)
    names = [program.seconds.actions[index].id for index in plan.actions]
    names += [_smallest(world)] * (world.seconds - planned.seconds)
    run = play(world, "oracle", Replay(names), replies=False)
    whole = program.value(price, tie=0, keep=False).whole
    if not quick:
        # What linear interpolation takes away falls with the width of the grid: half the width, half the error.
        whole += whole - coarse.value(price, tie=0, keep=False).whole
    bound = (whole + (price * budget_j if price else 0.0)) / max(len(world.arrive_s), 1)
    return Oracle(
        run=run,
        bound=bound,
        gap_pct=100 * (1 - run.effective_accuracy / bound) if bound > 0 else 0.0,
        price=price,
        took_s=time.process_time() - began,
    )


def _smallest(world: World) -> str:
    local = [action for action in world.setting.tasks[0].actions if not action.remote]
    return min(local, key=lambda action: (action.latency_ms, action.id)).id


def _spans(world: World) -> tuple[int, ...]:
    """For how many seconds it is worth to plan."""
    until_s = world.setting.until_s
    if until_s is None or until_s >= world.seconds:
        return (world.seconds,)
    run = play(world, "smallest", Replay([_smallest(world)] * world.seconds), replies=False)
    if run.dead_s is None:
        return (world.seconds,)
    until = max(int(until_s), 1)
    return tuple(sorted({until, max(int(run.dead_s), until)}))


def _cut(world: World, seconds: int) -> World:
    """The first seconds of the run."""
    if seconds == world.seconds:
        return world
    steps = seconds * SUBSTEPS
    return replace(
        world,
        seconds=seconds,
        arrive_s=world.arrive_s[: world.first[seconds]],
        first=world.first[: seconds + 1],
        ambient_c=world.ambient_c[:seconds],
        slowdown=world.slowdown[:steps],
        extra_w=world.extra_w[:steps],
        battery_w=world.battery_w[:seconds],
    )


def _budget_j(world: World) -> float:
    """What may be drawn above idle in the whole run."""
    setting = world.setting
    fixed_j = setting.board.idle_w * world.seconds + float(world.extra_w.sum()) / SUBSTEPS
    limits = [np.inf]
    if setting.battery_j is not None:
        limits.append(setting.battery_j - float(world.battery_w.sum()))
    if setting.max_power_w is not None:
        limits.append(setting.max_power_w * world.seconds)
    return float(min(limits)) - fixed_j - _SPARE_J


def _price(program: Program, budget_j: float) -> float:
    """The price of a joule at which the plan just keeps the budget.

    Without heat every second stands alone, and the price is found at once; a plan with heat draws less by an amount
    that hardly depends on the price.
    """
    if not np.isfinite(budget_j):
        return 0.0
    alone = _Alone(program)
    low, high = 0.0, _HIGH
    price = alone.price(budget_j)
    for _ in range(_SEARCHES):
        joules = program.forward(program.value(price)).joules
        if abs(joules - budget_j) < _CLOSE * budget_j or (price == 0 and joules <= budget_j):
            return price
        low, high = (price, high) if joules > budget_j else (low, price)
        price = alone.price(budget_j + alone.joules(price) - joules)
        if not low < price < high:
            price = (low + high) / 2 if high < _HIGH else low * _DEARER + 0.1
    return price


class _Alone:
    """What would be drawn if each second stood alone."""

    def __init__(self, program: Program) -> None:
        self._quality, self._joules = program.seconds.quality, program.seconds.joules
        self._rows = np.arange(len(self._quality))

    def joules(self, price: float) -> float:
        chosen = (self._quality - price * self._joules).argmax(axis=1)
        return float(self._joules[self._rows, chosen].sum())

    def price(self, budget_j: float) -> float:
        """The least at which no more than this is drawn."""
        if self.joules(0.0) <= budget_j:
            return 0.0
        low, high = 0.0, 1.0
        while high < _HIGH and self.joules(high) > budget_j:
            low, high = high, high * 2
        for _ in range(20):
            price = (low + high) / 2
            low, high = (price, high) if self.joules(price) > budget_j else (low, price)
        return high


def _plan(program: Program, value: Value, budget_j: float) -> Plan:
    """The best plan by this value that keeps the budget; where none does, the most frugal one.

    Near the right price what is drawn may leap; then the two plans next to the leap share the time.
    """
    count = len(program.seconds.quality)
    tried: list[tuple[float, Plan]] = []
    price = value.price
    while True:
        plan = program.forward(value, np.full(count, price))
        tried.append((price, plan))
        over = [one for one in tried if one[1].joules > budget_j]
        within = [one for one in tried if one[1].joules <= budget_j]
        if within and (min(one[0] for one in within) == 0 or _fills(within, budget_j)):
            break
        if len(tried) == _TUNINGS:
            break
        price = _next_price(over, within, budget_j)
    if not within:
        return min((plan for _, plan in tried), key=lambda plan: plan.joules)
    best = max((plan for _, plan in within), key=lambda plan: plan.quality)
    if not over or _fills(within, budget_j):
        return best
    low, high = max(one[0] for one in over), min(one[0] for one in within)
    until, beyond = 0, count
    for _ in range(_SHARINGS):
        middle = (until + beyond) // 2
        plan = program.forward(value, np.where(np.arange(count) < middle, low, high))
        until, beyond = (middle, beyond) if plan.joules <= budget_j else (until, middle)
        if plan.joules <= budget_j and plan.quality > best.quality:
            best = plan
    return best


def _fills(within: list[tuple[float, Plan]], budget_j: float) -> bool:
    return budget_j - max(plan.joules for _, plan in within) < _CLOSE / 10 * budget_j


def _next_price(over: list[tuple[float, Plan]], within: list[tuple[float, Plan]], budget_j: float) -> float:
    """Between the nearest two where there are plans on both sides, else a step beyond the nearest."""
    if over and within:
        (low, much), (high, little) = max(over, key=lambda one: one[0]), min(within, key=lambda one: one[0])
        share = (much.joules - budget_j) / max(much.joules - little.joules, 1e-9)
        return low + (high - low) * min(max(share, 0.1), 0.9)
    near = min(within, key=lambda one: one[0]) if within else max(over, key=lambda one: one[0])
    step = max(near[0], 1.0) * _FIRST_STEP * float(2 ** (len(over) + len(within) - 1))
    return max(near[0] - step, 0.0) if within else near[0] + step
