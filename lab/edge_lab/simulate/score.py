"""What the runs of several seeds come to: means, spread, and the regret against the clairvoyant of the same seed.

Seeds that nothing can hold are left out of the means and counted; where all are such, all count, and it is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_lab.simulate.play import Run
from edge_lab.simulate.scenario import Scenario
from edge_lab.simulate.trial import Bound, Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """One run in numbers.

    Attributes:
        effective_accuracy: Quality of the answers in time, over all requests.
        regret_pct: Of the clairvoyant's effective accuracy in the same world; None where it was not planned.
        alive_pct: Of the time until the battery was to last.
        late_pct, hot_pct: Of the requests, and of the seconds.
        switches: Loads of another variant.
        toggles: Changes between server and board.
    """

    seed: int
    feasible: bool
    effective_accuracy: float
    regret_pct: float | None
    late_pct: float
    hot_pct: float
    alive_pct: float
    energy_wh: float
    switches: int
    toggles: int
    decision_us_p50: float
    decision_us_p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The smallest and the largest of the seeds."""

    effective_accuracy: tuple[float, float]
    regret_pct: tuple[float, float] | None
    late_pct: tuple[float, float]
    hot_pct: tuple[float, float]
    switches: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One policy: means over the seeds that count, decision times over all their decisions."""

    policy: str
    effective_accuracy: float
    regret_pct: float | None
    late_pct: float
    hot_pct: float
    alive_pct: float
    energy_wh: float
    switches: float
    toggles: float
    switches_per_h: float
    decision_us_p50: float
    decision_us_p99: float
    spread: Spread
    seeds: tuple[Seeded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The clairvoyant or the floor, over the same seeds.

    Attributes:
        regret_pct: Of the floor, against the clairvoyant.
        gap_pct: The clairvoyant's to its dual bound: mean, and `gap_pct_worst`.
    """

    effective_accuracy: float
    regret_pct: float | None = None
    gap_pct: float | None = None
    gap_pct_worst: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One scenario.

    Attributes:
        infeasible: Seeds in which even the smallest variant breaks a limit.
        notes: What a reader must know.
    """

    scenario: str
    duration_s: int
    seeds: tuple[int, ...]
    infeasible: tuple[int, ...]
    notes: tuple[str, ...]
    oracle: Bounds | None
    floor: Bounds | None
    policies: tuple[Score, ...]


def result(scenario: Scenario, played: Sequence[Played], notes: Sequence[str] = ()) -> Result:
    """All of one scenario.

    Args:
        scenario: As it was played.
        played: Its seeds, in order.
        notes: What is to be said beside.
    """
    infeasible = tuple(one.seed for one in played if not one.feasible)
    counted = [one for one in played if one.feasible] or list(played)
    said = list(notes)
    if len(infeasible) == len(played):
        said.append(f"even the smallest variant breaks a limit in every seed, so all count: {_why(played)}")
    elif infeasible:
        said.append(f"left out, because even the smallest variant breaks a limit there: {_why(played)}")
    return Result(
        scenario=scenario.name,
        duration_s=scenario.duration_s,
        seeds=tuple(one.seed for one in played),
        infeasible=infeasible,
        notes=tuple(said),
        oracle=_bounds(counted, lambda one: one.oracle),
        floor=_bounds(counted, lambda one: one.floor),
        policies=tuple(_score(scenario, played, counted, index) for index in range(len(played[0].runs))),
    )


def _why(played: Sequence[Played]) -> str:
    """The limits, and the seeds in which each breaks."""
    limits = dict.fromkeys(limit for one in played for limit in one.broken)
    return "; ".join(
        f"{limit} in seed {', '.join(str(one.seed) for one in played if limit in one.broken)}" for limit in limits
    )


def _score(scenario: Scenario, played: Sequence[Played], counted: Sequence[Played], index: int) -> Score:
    seeded = [_seeded(scenario, one, one.runs[index]) for one in played]
    seeds = {one.seed for one in counted}
    these = [one for one in seeded if one.seed in seeds]
    decided = sorted(us for one in counted for us in one.runs[index].decision_us)
    regrets = [one.regret_pct for one in these if one.regret_pct is not None]

    def mean(of: Callable[[Seeded], float]) -> float:
        return statistics.fmean(of(one) for one in these)

    def ends(of: Callable[[Seeded], float]) -> tuple[float, float]:
        return min(of(one) for one in these), max(of(one) for one in these)

    switches = mean(lambda one: one.switches)
    return Score(
        policy=played[0].runs[index].policy,
        effective_accuracy=mean(lambda one: one.effective_accuracy),
        regret_pct=statistics.fmean(regrets) if regrets else None,
        late_pct=mean(lambda one: one.late_pct),
        hot_pct=mean(lambda one: one.hot_pct),
        alive_pct=mean(lambda one: one.alive_pct),
        energy_wh=mean(lambda one: one.energy_wh),
        switches=switches,
        toggles=mean(lambda one: one.toggles),
        switches_per_h=switches * 3600 / scenario.duration_s,
        decision_us_p50=quantile(decided, 0.5),
        decision_us_p99=quantile(decided, 0.99),
        spread=Spread(
            effective_accuracy=ends(lambda one: one.effective_accuracy),
            regret_pct=(min(regrets), max(regrets)) if regrets else None,
            late_pct=ends(lambda one: one.late_pct),
            hot_pct=ends(lambda one: one.hot_pct),
            switches=ends(lambda one: one.switches),
        ),
        seeds=tuple(seeded),
    )


def _seeded(scenario: Scenario, played: Played, run: Run) -> Seeded:
    decided = sorted(run.decision_us)
    limits = scenario.limits
    return Seeded(
        seed=played.seed,
        feasible=played.feasible,
        effective_accuracy=run.effective_accuracy,
        regret_pct=None if played.oracle is None else regret_pct(run, played.oracle.run),
        late_pct=run.late_pct,
        hot_pct=run.hot_pct(limits.temp_c),
        alive_pct=run.alive_pct(until_s(scenario)),
        energy_wh=run.energy_wh[-1],
        switches=run.switches,
        toggles=run.toggles,
        decision_us_p50=quantile(decided, 0.5),
        decision_us_p99=quantile(decided, 0.99),
    )


def _bounds(counted: Sequence[Played], of: Callable[[Played], Bound | None]) -> Bounds | None:
    found = [(one, bound) for one in counted if (bound := of(one)) is not None]
    if not found:
        return None
    gaps = [bound.gap_pct for _, bound in found if bound.gap_pct is not None]
    regrets = [
        regret_pct(bound.run, one.oracle.run)
        for one, bound in found
        if one.oracle is not None and one.oracle is not bound
    ]
    return Bounds(
        effective_accuracy=statistics.fmean(bound.run.effective_accuracy for _, bound in found),
        regret_pct=statistics.fmean(regrets) if regrets else None,
        gap_pct=statistics.fmean(gaps) if gaps else None,
        gap_pct_worst=max(gaps, default=None),
    )


def until_s(scenario: Scenario) -> float:
    """When the battery's time is over."""
    return min(scenario.limits.battery_until_s or float(scenario.duration_s), float(scenario.duration_s))


def regret_pct(run: Run, oracle: Run) -> float:
    """What is missing to the clairvoyant, of the clairvoyant's."""
    best = oracle.effective_accuracy
    return 100 * (best - run.effective_accuracy) / best if best > 0 else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values; 0 where there are none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
