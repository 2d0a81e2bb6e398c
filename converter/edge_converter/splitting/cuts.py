"""Which cuts make the best pipeline: an exact answer, by dynamic programming over the places a model can be cut at.

A pipeline is as fast as its slowest stage. A stage computes, then hands on what crosses the cut behind it; both are in
its time, because a stage that sends does not compute. Of plans that are as fast as the best, or slower by no more than
a given share, the one that hands on the fewest bytes is taken. Nothing is measured here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Matrix = NDArray[np.float64]
_NO_WAY = (0, np.inf, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where to cut.

    Attributes:
        cuts: Ascending, numbers of places from 1: the cut `k` lies before the atom `k`.
        stages_ms: Of each stage, handing on included.
        slowest_ms: Of the slowest of them.
        size_bytes: Of all that is handed on.
    """

    cuts: tuple[int, ...]
    stages_ms: tuple[float, ...]
    slowest_ms: float
    size_bytes: int


def best(
    atoms_ms: Sequence[float],
    sizes_bytes: Sequence[int],
    parts: int,
    *,
    ms_per_byte: float = 0.0,
    slack: float = 0.0,
    barred: frozenset[tuple[int, int]] = frozenset(),
) -> Plan | None:
    """The cuts with the fastest slowest stage.

    Args:
        atoms_ms: How long each run of operators between two neighbouring places takes, in order.
        sizes_bytes: What crosses each place between two atoms: one fewer than the atoms.
        parts: How many stages, at least 1.
        ms_per_byte: Of the link.
        slack: Plans slower than the best by at most this share count as being as fast.
        barred: Stages, as (first atom, atom after the last), that must not be.

    Returns:
        The plan, or None where there are fewer places than cuts, or all ways are barred. Among equal ones, the plan
        that cuts earliest from the back.
    """
    count = len(atoms_ms)
    stages = _stages(atoms_ms, sizes_bytes, ms_per_byte)
    for first, last in barred:
        stages[first, last] = np.inf
    fastest = _fastest(stages, parts)
    if not np.isfinite(fastest):
        return None
    limit = fastest * (1 + slack)
    sent = np.array([0, *sizes_bytes, 0], np.int64)
    # Of `k` stages that end before atom `j` and keep to the limit: (bytes, slowest stage, where the last begins).
    rows = [[(0, 0.0, 0), *([_NO_WAY] * count)]]
    for _ in range(parts):
        row = [_NO_WAY] * (count + 1)
        for end in range(1, count + 1):
            options = (
                (before[0] + int(sent[end]), max(before[1], float(stages[start, end])), start)
                for start, before in enumerate(rows[-1][:end])
                if before is not _NO_WAY and stages[start, end] <= limit
            )
            row[end] = min(options, default=_NO_WAY)
        rows.append(row)
    cuts, end = [], count
    for row in reversed(rows[1:]):
        end = row[end][2]
        cuts.append(end)
    return of(atoms_ms, sizes_bytes, tuple(sorted(cuts))[1:], ms_per_byte=ms_per_byte)


def of(
    atoms_ms: Sequence[float], sizes_bytes: Sequence[int], cuts: tuple[int, ...], *, ms_per_byte: float = 0.0
) -> Plan:
    """The plan that these cuts are."""
    stages = _stages(atoms_ms, sizes_bytes, ms_per_byte)
    borders = (0, *cuts, len(atoms_ms))
    times = tuple(float(stages[start, end]) for start, end in itertools.pairwise(borders))
    return Plan(cuts=cuts, stages_ms=times, slowest_ms=max(times), size_bytes=sum(sizes_bytes[cut - 1] for cut in cuts))


def _stages(atoms_ms: Sequence[float], sizes_bytes: Sequence[int], ms_per_byte: float) -> _Matrix:
    """`[first, last + 1]`: the time of the stage of these atoms; infinite where that is none."""
    ends = np.concatenate([[0.0], np.cumsum(np.asarray(atoms_ms, np.float64))])
    sent = np.array([0, *sizes_bytes, 0], np.float64) * ms_per_byte
    stages: _Matrix = ends[None, :] - ends[:, None] + sent[None, :]
    stages[np.tril_indices(len(ends))] = np.inf
    return stages


def _fastest(stages: _Matrix, parts: int) -> float:
    """The smallest slowest stage there can be; infinite where there is no such plan."""
    row = np.full(len(stages), np.inf)
    row[0] = 0.0
    for _ in range(parts):
        row = np.maximum(row[:, None], stages).min(axis=0)
    return float(row[-1])
