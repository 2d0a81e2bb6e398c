"""What the runs of several seeds come to: means, spread, and the regret against the clairvoyant of the same seed.

Seeds that nothing can hold are left out of the means and counted; where all are such, all count, and it is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        took_s: Of processor time, for one run; the longest.
    """

    effective_accuracy: float
    regret_pct: float | None = None
    gap_pct: float | None = None
    gap_pct_worst: float | None = None
    took_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One seed, without its timelines; the rows in the order of `policies`.

    Attributes:
        broken: The limits that even the smallest variant breaks.
        throttled: The firmware slows even the smallest variant down.
        decided_us: What each decision took; float32, shape `(seconds,)`.
    """

    seed: int
    broken: tuple[str, ...]
    throttled: bool
    policies: tuple[str, ...]
    rows: tuple[Seeded, ...]
    decided_us: tuple[NDArray[np.float32], ...]
    oracle: Bounds | None
    floor: Bounds | None


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


def tried(scenario: Scenario, played: Played) -> Tried:
    """What is kept of one seed: its timelines may go."""
    best = None if played.oracle is None else played.oracle.run
    return Tried(
        seed=played.seed,
        broken=played.broken,
        throttled=played.throttled,
        rows=tuple(_seeded(scenario, played, run) for run in played.runs),
        decided_us=tuple(np.asarray(run.decision_us, dtype=np.float32) for run in played.runs),
        policies=tuple(run.policy for run in played.runs),
        oracle=None if played.oracle is None else _reached(played.oracle, None),
        floor=None if played.floor is None else _reached(played.floor, best),
    )


def result(scenario: Scenario, seeds: Sequence[Tried], notes: Sequence[str] = ()) -> Result:
    """All of one scenario.

    Args:
        scenario: As it was played.
        seeds: What came of each, in order.
        notes: What is to be said beside.
    """
    infeasible = tuple(one.seed for one in seeds if one.broken)
    counted = [one for one in seeds if not one.broken] or list(seeds)
    said = list(notes)
    if len(infeasible) == len(seeds):
        said.append(f"even the smallest variant breaks a limit in every seed, so all count: {_why(seeds)}")
    elif infeasible:
        said.append(f"left out, because even the smallest variant breaks a limit there: {_why(seeds)}")
    throttled = [str(one.seed) for one in counted if one.throttled and one.oracle is not None]
    if throttled:
        said.append(
            f"the firmware throttles even the smallest variant in seed {', '.join(throttled)}: the clairvoyant, who "
            "keeps below the throttle while that can be done, is no bound there, and a policy may be better"
        )
    return Result(
        scenario=scenario.name,
        duration_s=scenario.duration_s,
        seeds=tuple(one.seed for one in seeds),
        infeasible=infeasible,
        notes=tuple(said),
        oracle=_bounds([one.oracle for one in counted if one.oracle is not None]),
        floor=_bounds([one.floor for one in counted if one.floor is not None]),
        policies=tuple(_score(scenario, seeds, counted, index) for index in range(len(seeds[0].rows))),
    )


def _why(seeds: Sequence[Tried]) -> str:
    """The limits, and the seeds in which each breaks."""
    limits = dict.fromkeys(limit for one in seeds for limit in one.broken)
    return "; ".join(
        f"{limit} in seed {', '.join(str(one.seed) for one in seeds if limit in one.broken)}" for limit in limits
    )


def _score(scenario: Scenario, seeds: Sequence[Tried], counted: Sequence[Tried], index: int) -> Score:
    these = [one.rows[index] for one in counted]
    decided = np.concatenate([one.decided_us[index] for one in counted])
    regrets = [one.regret_pct for one in these if one.regret_pct is not None]

    def mean(of: Callable[[Seeded], float]) -> float:
        return statistics.fmean(of(one) for one in these)

    def ends(of: Callable[[Seeded], float]) -> tuple[float, float]:
        return min(of(one) for one in these), max(of(one) for one in these)

    switches = mean(lambda one: one.switches)
    return Score(
        policy=seeds[0].policies[index],
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
        seeds=tuple(one.rows[index] for one in seeds),
    )


def _seeded(scenario: Scenario, played: Played, run: Run) -> Seeded:
    decided = np.asarray(run.decision_us)
    return Seeded(
        seed=played.seed,
        feasible=played.feasible,
        effective_accuracy=run.effective_accuracy,
        regret_pct=None if played.oracle is None else regret_pct(run, played.oracle.run),
        late_pct=run.late_pct,
        hot_pct=run.hot_pct(scenario.limits.temp_c),
        alive_pct=run.alive_pct(until_s(scenario)),
        energy_wh=run.energy_wh[-1],
        switches=run.switches,
        toggles=run.toggles,
        decision_us_p50=quantile(decided, 0.5),
        decision_us_p99=quantile(decided, 0.99),
    )


def _reached(bound: Bound, oracle: Run | None) -> Bounds:
    return Bounds(
        effective_accuracy=bound.run.effective_accuracy,
        regret_pct=None if oracle is None else regret_pct(bound.run, oracle),
        gap_pct=bound.gap_pct,
        gap_pct_worst=bound.gap_pct,
        took_s=bound.took_s,
    )


def _bounds(seeds: Sequence[Bounds]) -> Bounds | None:
    """The mean of the seeds; of the time the longest."""
    if not seeds:
        return None
    gaps = [one.gap_pct for one in seeds if one.gap_pct is not None]
    regrets = [one.regret_pct for one in seeds if one.regret_pct is not None]
    return Bounds(
        effective_accuracy=statistics.fmean(one.effective_accuracy for one in seeds),
        regret_pct=statistics.fmean(regrets) if regrets else None,
        gap_pct=statistics.fmean(gaps) if gaps else None,
        gap_pct_worst=max(gaps, default=None),
        took_s=max(one.took_s for one in seeds),
    )


def until_s(scenario: Scenario) -> float:
    """When the battery's time is over."""
    return min(scenario.limits.battery_until_s or float(scenario.duration_s), float(scenario.duration_s))


def regret_pct(run: Run, oracle: Run) -> float:
    """What is missing to the clairvoyant, of the clairvoyant's."""
    best = oracle.effective_accuracy
    return 100 * (best - run.effective_accuracy) / best if best > 0 else 0.0


def quantile(values: NDArray[Any], share: float) -> float:
    """The value that this share of all does not exceed; 0 where there are none."""
    return float(np.quantile(values, share, method="lower")) if len(values) else 0.0
