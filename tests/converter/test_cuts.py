"""The planner is exact: no other plan has a faster slowest stage, or hands on fewer bytes at the same speed."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_converter.splitting import cuts

TIMES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=8)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[float], list[int], int, float, float, frozenset[tuple[int, int]]]:
    times = draw(TIMES)
    sizes = [draw(st.integers(0, 12)) for _ in times[1:]]
    stages = [(i, j) for j in range(1, len(times) + 1) for i in range(j)]
    return (
        times,
        sizes,
        draw(st.integers(1, 5)),
        draw(st.sampled_from([0.0, 0.5, 2.0])),
        draw(st.sampled_from([0.0, 0.01, 0.5])),
        draw(st.frozensets(st.sampled_from(stages), max_size=3)),
    )


@given(problems())
def test_no_other_plan_is_better(
    problem: tuple[list[float], list[int], int, float, float, frozenset[tuple[int, int]]],
) -> None:
    times, sizes, parts, ms_per_byte, slack, barred = problem
    every = [
        cuts.of(times, sizes, chosen, ms_per_byte=ms_per_byte)
        for chosen in itertools.combinations(range(1, len(times)), parts - 1)
        if not barred & set(itertools.pairwise((0, *chosen, len(times))))
    ]
    found = cuts.best(times, sizes, parts, ms_per_byte=ms_per_byte, slack=slack, barred=barred)
    if not every:
        assert found is None
        return
    assert found is not None
    assert found in every
    limit = min(plan.slowest_ms for plan in every) * (1 + slack)
    allowed = [plan for plan in every if plan.slowest_ms <= limit]
    assert found.slowest_ms <= limit
    assert found.size_bytes == min(plan.size_bytes for plan in allowed)
    assert found.slowest_ms == min(plan.slowest_ms for plan in allowed if plan.size_bytes == found.size_bytes)


def test_stages_are_balanced() -> None:
    found = cuts.best([1, 1, 1, 3, 3, 3], [9, 9, 9, 9, 9], 2)
    assert found is not None
    assert found.cuts == (4,)
    assert found.stages_ms == (6, 6)


def test_a_slow_link_moves_the_cut_to_where_little_is_handed_on() -> None:
    times, sizes = [1.0] * 6, [9, 9, 9, 9, 1]
    fast, slow = cuts.best(times, sizes, 2), cuts.best(times, sizes, 2, ms_per_byte=1.0)
    assert fast is not None
    assert slow is not None
    assert (fast.cuts, slow.cuts) == ((3,), (5,))
    assert slow.stages_ms == (6, 1)


def test_of_plans_as_fast_the_one_that_hands_on_least_is_taken() -> None:
    found = cuts.best([5.0, 1.0, 1.0, 4.0], [4, 3, 4], 3)
    assert found is not None
    assert (found.cuts, found.size_bytes) == ((1, 2), 7)


def test_more_stages_than_operators_are_no_plan() -> None:
    assert cuts.best([1.0, 1.0], [3], 3) is None


def test_time_that_is_sent_counts_for_the_stage_that_sends() -> None:
    plan = cuts.of([2.0, 3.0], [4], (1,), ms_per_byte=0.25)
    assert plan.stages_ms == pytest.approx((3.0, 3.0))
    assert math.isclose(plan.slowest_ms, 3.0)
