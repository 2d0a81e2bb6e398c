"""What could have been known: is a run feasible at all, and what would one have done who knew it to its end.

The clairvoyant plans by dynamic programming (`oracle_program`), with a price per joule where the battery or the mean
power binds, and its plan is played in the simulator like any policy: what it achieves is achieved. How much better any
other plan of one action a second could be is bounded by the program's dual.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_daemon.policies.contract import Event, Second, Setting, Verdict, Why
from edge_lab.simulate.oracle_program import Plan, Program, Value
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.world import World

_MARGIN_C: Final = 0.2
_POINTS: Final = 32
_SEARCHES: Final = 8  # programs on the coarse grid to find the price
_TUNINGS: Final = 9  # plans by the same value with other prices for what is drawn now
_CLOSE: Final = 0.001  # of the budget: near enough
_HIGH: Final = 1e4  # points a joule: more than any answer is worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """Whether the smallest variant alone holds each limit, in this run.

    Attributes:
        hottest_c: Of the die at the end of a second.
        temp: It stays 0.2 degrees below the limit.
        battery: It lasts until the target.
        power: The mean is below the limit.
    """

    hottest_c: float
    temp: bool
    battery: bool
    power: bool

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
        gap_pct: Of the bound, from what was achieved; a little below zero where the grid's error is larger.
        price: Points of quality per joule; 0 where energy does not bind.
        took_s: CPU time.
    """

    run: Run
    bound: float
    gap_pct: float
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
    local = [action for action in setting.tasks[0].actions if not action.remote]
    smallest = min(local, key=lambda action: (action.latency_ms, action.id)).id
    run = play(world, "smallest", Replay([smallest] * world.seconds), replies=False)
    hottest_c = max(run.temp_c)
    until_s = setting.until_s or float(world.seconds)
    mean_w = run.energy_wh[-1] * 3600 / world.seconds
    return Feasibility(
        hottest_c=hottest_c,
        temp=setting.temp_c is None or hottest_c <= setting.temp_c - _MARGIN_C,
        battery=run.alive_pct(until_s) == 100,  # noqa: PLR2004 - all of it
        power=setting.max_power_w is None or mean_w <= setting.max_power_w,
    )


def clairvoyant(world: World, *, quick: bool = False) -> Oracle:
    """Plan the run as one who knows it to its end, and play the plan.

    Args:
        world: The run.
        quick: A coarse grid and no bound to speak of: about a fifth of the time, 0.1 % worse.
    """
    began = time.process_time()
    coarse = Program(world, _POINTS // 2)
    budget_j = _budget_j(world)
    price = _price(coarse, budget_j)
    program = coarse if quick else coarse.finer(_POINTS)
    value = program.value(price)
    plan = _plan(program, value, budget_j)
    run = play(world, "oracle", Replay([program.seconds.actions[index].id for index in plan.actions]), replies=False)
    paid = price * budget_j if price else 0.0
    whole = program.value(price, tie=0, keep=False).whole
    if not quick:
        whole += whole - coarse.value(price, tie=0, keep=False).whole
    bound = (whole + paid) / max(len(world.arrive_s), 1)
    return Oracle(
        run=run,
        bound=bound,
        gap_pct=100 * (1 - run.effective_accuracy / bound) if bound > 0 else 0.0,
        price=price,
        took_s=time.process_time() - began,
    )


def _budget_j(world: World) -> float:
    """What may be drawn above idle in the whole run."""
    setting = world.setting
    fixed_j = setting.board.idle_w * world.seconds + float(np.mean(world.extra_w)) * world.seconds
    limits = [np.inf]
    if setting.battery_j is not None:
        limits.append(setting.battery_j - float(world.battery_w.sum()))
    if setting.max_power_w is not None:
        limits.append(setting.max_power_w * world.seconds)
    return float(min(limits)) - fixed_j - 1e-3


def _price(program: Program, budget_j: float) -> float:
    """The price of a joule at which the plan just keeps the budget, found on the coarse grid."""
    if not np.isfinite(budget_j):
        return 0.0

    def over(price: float) -> float:
        return program.forward(program.value(price)).joules - budget_j

    low, low_over = 0.0, over(0.0)
    if low_over <= 0:
        return 0.0
    high = _price_without_heat(program, budget_j)
    high_over = over(high)
    while high_over > 0 and high < _HIGH:
        low, low_over = high, high_over
        high = max(high * 1.3, 0.1)
        high_over = over(high)
    # Illinois: the false position, with the weight of an end that stays halved.
    for _ in range(_SEARCHES):
        if min(abs(low_over), abs(high_over)) < _CLOSE * budget_j or high - low < _CLOSE * high:
            break
        price = (low * high_over - high * low_over) / (high_over - low_over)
        now_over = over(price)
        if now_over > 0:
            low, low_over, high_over = price, now_over, high_over / 2
        else:
            high, high_over, low_over = price, now_over, low_over / 2
    return low if abs(low_over) < abs(high_over) else high


def _price_without_heat(program: Program, budget_j: float) -> float:
    """The same if each second stood alone: heat saves energy, too, so that is rarely too low."""
    quality, joules = program.seconds.quality, program.seconds.joules
    low, high = 0.0, _HIGH
    rows = np.arange(len(quality))
    for _ in range(40):
        price = (low + high) / 2 if low else high / 16
        drawn = joules[rows, (quality - price * joules).argmax(axis=1)].sum()
        if drawn > budget_j:
            low = price
        else:
            high = price
    return high


def _plan(program: Program, value: Value, budget_j: float) -> Plan:
    """The best plan by this value that keeps the budget: the price of what is drawn now takes what is left."""
    plan = program.forward(value)
    if value.price == 0:
        return plan
    best, low, high = (plan, 0.0, value.price) if plan.joules <= budget_j else (None, value.price, value.price * 1.1)
    if best is not None:
        low = value.price * 0.9
    for _ in range(_TUNINGS):
        price = (low + high) / 2 if best else high
        plan = program.forward(value, price)
        if plan.joules > budget_j:
            low = price
            if best is None:
                high *= 1.1
        else:
            high = price
            if best is None or plan.quality > best.quality:
                best = plan
        if best is not None and budget_j - best.joules < _CLOSE / 10 * budget_j:
            break
    return best or plan
