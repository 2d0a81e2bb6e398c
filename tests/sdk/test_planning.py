"""A plan is the best of all there are, by trying all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import UsageError
from edge_sdk.parallel import Link, plan

pytestmark = pytest.mark.device

Costs = Mapping[str, Sequence[float | None]]


def every_plan(costs: Costs, sizes: Sequence[float], links: Mapping[str, Link]) -> Iterator[tuple[float, float]]:
    """Bottleneck and sum of each way to lay the segments on places, in any order of any of them."""
    count = len(sizes) - 1
    for used in range(1, len(costs) + 1):
        for places in itertools.permutations(costs, used):
            for cuts in itertools.combinations(range(1, count), used - 1):
                stages = []
                for place, start, end in zip(places, (0, *cuts), (*cuts, count), strict=True):
                    ms = sum(math.inf if each is None else each for each in costs[place][start:end])
                    link = links.get(place)
                    stages.append(ms + (link.ms(sizes[start]) + link.ms(sizes[end]) if link else 0.0))
                yield max(stages), sum(stages)


ms = st.one_of(st.none(), st.integers(0, 20).map(float), st.floats(0, 100))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Costs, Sequence[float], Mapping[str, Link]]:
    count = draw(st.integers(1, 6))
    names = ["cpu", "npu", "far", "gpu"][: draw(st.integers(1, 4))]
    costs = {name: draw(st.lists(ms, min_size=count, max_size=count)) for name in names}
    sizes = draw(st.lists(st.integers(0, 10**6), min_size=count + 1, max_size=count + 1))
    reached = draw(st.sets(st.sampled_from(names)))
    speeds = st.builds(Link, mb_s=st.floats(0.1, 1000), latency_ms=st.floats(0, 10))
    return costs, sizes, {name: draw(speeds) for name in sorted(reached)}


@given(problems())
@settings(max_examples=150, deadline=None)
def test_no_plan_is_better(problem: tuple[Costs, Sequence[float], Mapping[str, Link]]) -> None:
    costs, sizes, links = problem
    possible = [each for each in every_plan(costs, sizes, links) if math.isfinite(each[0])]
    if not possible:
        with pytest.raises(UsageError, match="no plan runs every segment"):
            plan(costs, sizes, links=links)
        return
    found = plan(costs, sizes, links=links)
    best_ms = min(slowest for slowest, _ in possible)
    assert found.bottleneck_ms == pytest.approx(best_ms)
    among = min(total for slowest, total in possible if slowest <= best_ms * (1 + 1e-9))
    assert found.latency_ms == pytest.approx(among)
    # It is a plan: every segment once, in order, no place twice, and the stages take what they say.
    segments = [number for stage in found.stages for number in range(stage.first, stage.last + 1)]
    assert segments == list(range(1, len(sizes)))
    assert len({stage.place for stage in found.stages}) == len(found.stages)
    for stage in found.stages:
        assert stage.compute_ms == pytest.approx(sum(costs[stage.place][stage.first - 1 : stage.last]))  # type: ignore[arg-type]
        assert found.place_of(stage.first) == found.place_of(stage.last) == stage.place
    wholes = [sum(each) for each in costs.values() if None not in each]  # type: ignore[arg-type]
    assert (found.whole is None) == (not wholes)
    assert found.gain is None or found.gain >= 1 - 1e-9


def test_a_pipeline_is_balanced_over_unequal_places() -> None:
    found = plan({"cpu": [3.0] * 8, "npu": [1.0] * 8}, [0.0] * 9)
    assert {stage.place: stage.last - stage.first + 1 for stage in found.stages} == {"cpu": 2, "npu": 6}
    assert (found.bottleneck_ms, found.gain) == (6, pytest.approx(8 / 6))
    assert not found.is_whole


def test_where_the_way_costs_more_than_it_gains_the_whole_stays_in_one_place() -> None:
    links = {"far": Link(mb_s=11.9, latency_ms=1.0)}
    found = plan({"here": [2.0, 2.0], "far": [1.0, 1.0]}, [600e3, 100e3, 40.0], links=links)
    assert found.is_whole
    assert found.stages == (found.whole,)
    assert found.stages[0].place == "here"
    quick = plan({"here": [20.0, 20.0], "far": [10.0, 10.0]}, [600e3, 100e3, 40.0], links=links)
    assert [stage.place for stage in quick.stages] == ["here", "far"]
    assert quick.stages[1].transfer_ms == pytest.approx(2.0 + 100.04 / 11.9)


@pytest.mark.parametrize(
    ("costs", "sizes", "reason"),
    [
        ({}, [1, 1], "0 places"),
        ({str(number): [1.0] for number in range(9)}, [1, 1], "9 places"),
        ({"a": [1.0]}, [1, 1, 1], "1 costs of a and 3 boundaries"),
        ({"a": []}, [1], "0 costs of a and 1 boundaries"),
        ({"a": [-1.0]}, [1, 1], "negative or no number"),
        ({"a": [math.nan]}, [1, 1], "negative or no number"),
        ({"a": [1.0]}, [1, math.inf], "negative or no number"),
        ({"a": [None]}, [1, 1], "no plan runs every segment"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(costs: Costs, sizes: Sequence[float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan(costs, sizes)


@pytest.mark.parametrize(("mb_s", "latency_ms"), [(0, 0), (-1, 0), (math.nan, 0), (1, -1), (1, math.nan)])
def test_a_link_that_makes_no_sense_is_refused_before_anything_is_measured(mb_s: float, latency_ms: float) -> None:
    with pytest.raises(UsageError, match="a link of"):
        Link(mb_s=mb_s, latency_ms=latency_ms)
