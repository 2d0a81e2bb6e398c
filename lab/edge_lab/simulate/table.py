"""A result as text."""

from __future__ import annotations

from collections.abc import Sequence

from edge_lab.simulate.score import Result, Score
from edge_sdk.cli.output import table

_HEADER = ("policy", "eff. accuracy", "regret", "late", "hot", "alive", "energy", "switches", "decision p50 / p99")


def shown(results: Sequence[Result]) -> str:
    """A table for each scenario, and what is to be said of it."""
    return "\n\n".join(_shown(one) for one in results)


def _shown(result: Result) -> str:
    counted = len(result.seeds) - len(result.infeasible)
    left_out = result.infeasible and counted  # where none can be held all count
    of = f"{counted} of {len(result.seeds)} seeds" if left_out else _seeds(result.seeds)
    lines = [f"{result.scenario}: {result.duration_s} s, {of}"]
    rows = [_row(score) for score in result.policies]
    if result.floor is not None:
        rows.insert(0, ("(floor)", f"{result.floor.effective_accuracy:.2f}", _pct(result.floor.regret_pct), *("",) * 6))
    if result.oracle is not None:
        rows.insert(0, ("(oracle)", f"{result.oracle.effective_accuracy:.2f}", _pct(0.0), *("",) * 6))
    lines.append(table(_HEADER, rows, right=frozenset(range(1, len(_HEADER)))))
    if result.oracle is not None and result.oracle.gap_pct is not None:
        worst = result.oracle.gap_pct_worst
        lines.append(f"oracle: {result.oracle.gap_pct:.2f} % below its dual bound on average, {worst:.2f} % at worst")
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines)


def switched(score: Score) -> str:
    """Switches, and after a plus the changes between server and board."""
    return f"{score.switches:.0f}" + (f" + {score.toggles:.0f}" if score.toggles else "")


def _row(score: Score) -> tuple[str, ...]:
    return (
        score.policy,
        f"{score.effective_accuracy:.2f}",
        _pct(score.regret_pct),
        _pct(score.late_pct),
        _pct(score.hot_pct),
        f"{score.alive_pct:.1f} %",
        f"{score.energy_wh:.2f} Wh",
        switched(score),
        f"{score.decision_us_p50:.0f} / {score.decision_us_p99:.0f} us",
    )


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
