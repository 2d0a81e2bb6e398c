"""Where to cut a model: the plan whose slowest stage is the fastest, by times that were really taken.

What is timed first are atoms, the operators between two neighbouring places, each as a model of its own. Their sum is
more than the whole (every call costs, and what the runtime fuses across a border it no longer does), so the segments of
the plan they make are timed as well, and the atoms in them scaled, until a plan comes out that has been timed. The best
of the timed ones is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from edge_converter.errors import NoCutError
from edge_converter.request import Progress
from edge_converter.splitting import cuts
from edge_converter.splitting.cuts import Plan
from edge_converter.splitting.cutting import Cuttable, Span
from edge_converter.splitting.stage_times import StageClock

# Plans are timed and made anew at most so often; EfficientNet-Lite0 takes two or three.
_MOST_PLANS = 6
# Plans slower than the best by this much count as being as fast, and the one that hands on less is taken: times are no
# surer than that. Of EfficientNet-Lite0 in two, two runs of 1 % chose 88 kB and 376 kB, with stages that took alike.
_SLACK = 0.03
_BYTES_PER_MB = 1e6


def check(model: Cuttable, *, parts: int | None, at: Sequence[int]) -> None:
    """Refuse what cannot be, before anything is timed.

    Raises:
        NoCutError: There are not so many places, or none there.
    """
    count = len(model.points)
    if parts is not None and parts - 1 > count:
        places = f"{count or 'no'} place{'' if count == 1 else 's'}"
        raise NoCutError(
            f"cannot be cut into {parts} parts: it has {places} to cut at",
            where=model.where,
            hint=f"ask for at most {count + 1} parts" if count else "leave it whole",
        )
    known = {point.at for point in model.points}
    for operator in at:
        if operator not in known:
            raise NoCutError(
                f"cannot be cut before operator {operator}",
                where=model.where,
                hint="`edge split --list` shows where it can",
            )


def send_ms(size_bytes: int, link_mb_s: float | None) -> float:
    """How long so many bytes take on a link of so many 10^6 bytes a second; 0 where none is stated."""
    return 1e3 * size_bytes / (link_mb_s * _BYTES_PER_MB) if link_mb_s else 0.0


def given(model: Cuttable, at: Sequence[int]) -> tuple[Span, ...]:
    """The segments that begin with the first operator and with these.

    Raises:
        NoCutError: One of them would compute nothing that is read later.
    """
    places = (0, *sorted(set(at)), model.end)
    found = tuple(itertools.pairwise(places))
    for start, end in found:
        if model.last_given(end) < start:
            raise NoCutError(
                f"operators {start} to {end - 1} compute nothing that a later part reads",
                where=model.where,
                hint="leave out one of --at",
            )
    return found


def best(
    model: Cuttable,
    clock: StageClock,
    atoms_ms: Sequence[float],
    *,
    parts: int,
    link_mb_s: float | None,
    progress: Progress,
) -> tuple[Span, ...]:
    """The segments of the best plan.

    Args:
        model: To cut.
        clock: Times it.
        atoms_ms: What the clock told of the model's atoms.
        parts: How many segments.
        link_mb_s: 10^6 bytes a second between two stages; None where handing on costs nothing.
        progress: Told of each plan.

    Raises:
        NoCutError: There is no way to cut it into so many parts that each compute something for a later one.
    """
    sizes = [point.size_bytes for point in model.points]
    barred = _barred(model)
    current = np.asarray(atoms_ms, np.float64)
    timed: dict[tuple[int, ...], Plan] = {}
    progress.stage("time segments", _MOST_PLANS)
    for _ in range(_MOST_PLANS):
        plan = cuts.best(current.tolist(), sizes, parts, ms_per_byte=send_ms(1, link_mb_s), slack=_SLACK, barred=barred)
        if plan is None or plan.cuts in timed:
            break
        found_ms = clock.times_ms(_spans(model, plan.cuts))
        borders = (0, *plan.cuts, len(current))
        for first, last, ms in zip(borders, borders[1:], found_ms, strict=False):
            current[first:last] *= ms / current[first:last].sum()
        timed[plan.cuts] = cuts.of(current.tolist(), sizes, plan.cuts, ms_per_byte=send_ms(1, link_mb_s))
        progress.advance(1)
    if not timed:
        raise NoCutError(
            f"cannot be cut into {parts} parts that each compute something for a later one",
            where=model.where,
            hint="ask for fewer",
        )
    limit = (1 + _SLACK) * min(plan.slowest_ms for plan in timed.values())
    fast = [plan for plan in timed.values() if plan.slowest_ms <= limit]
    return _spans(model, min(fast, key=lambda plan: (plan.size_bytes, plan.slowest_ms)).cuts)


def _spans(model: Cuttable, plan_cuts: Sequence[int]) -> tuple[Span, ...]:
    places = (0, *(model.points[cut - 1].at for cut in plan_cuts), model.end)
    return tuple(itertools.pairwise(places))


def _barred(model: Cuttable) -> frozenset[tuple[int, int]]:
    """Stages, as (first atom, atom after the last), that would give nothing to anybody."""
    places = (0, *(point.at for point in model.points), model.end)
    last_given = [model.last_given(place) for place in places]
    return frozenset(
        (first, last) for last in range(len(places)) for first in range(last) if places[first] > last_given[last]
    )
