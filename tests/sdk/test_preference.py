"""The ranking of variants: total, independent of the order given, and what each mode promises."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import WireError
from edge_sdk.preference import Candidate, Mode, Preference, merit, rank
from edge_sdk.wire import decode, encode

pytestmark = pytest.mark.device

candidates = st.builds(
    Candidate,
    id=st.sampled_from("abcdefgh"),
    quality=st.sampled_from([0.0, 50.0, 85.0, 90.0, 95.0, 99.5]) | st.floats(0, 100),
    latency_ms=st.sampled_from([0.0, 1e-9, 0.5, 1.0, 2.0, 4.0]) | st.floats(0, 1e6),
    size_bytes=st.integers(0, 10**9),
)
families = st.lists(candidates, max_size=8, unique_by=lambda c: c.id)
modes = st.sampled_from(Mode)


def of(id_: str, quality: float, latency_ms: float, size_bytes: int = 1000) -> Candidate:
    return Candidate(id=id_, quality=quality, latency_ms=latency_ms, size_bytes=size_bytes)


def order(mode: Mode, *family: Candidate) -> str:
    return "".join(c.id for c in rank(family, mode))


@given(families, modes, st.randoms())
def test_the_order_does_not_depend_on_the_order_given(family: list[Candidate], mode: Mode, chance) -> None:
    ranked = rank(family, mode)
    assert sorted(c.id for c in ranked) == sorted(c.id for c in family)
    chance.shuffle(family)
    assert rank(family, mode) == ranked


@given(families, modes)
def test_a_variant_that_is_better_in_everything_is_never_behind(family: list[Candidate], mode: Mode) -> None:
    places = {c.id: place for place, c in enumerate(rank(family, mode))}
    for one in family:
        for other in family:
            if one.quality > other.quality and one.latency_ms < other.latency_ms and one.size_bytes < other.size_bytes:
                assert places[one.id] < places[other.id]


@given(families.filter(bool))
def test_accuracy_takes_the_most_accurate(family: list[Candidate]) -> None:
    assert rank(family, Mode.ACCURACY)[0].quality == max(c.quality for c in family)


@given(families.filter(bool))
def test_speed_takes_the_fastest_of_those_within_ten_points_of_the_best(family: list[Candidate]) -> None:
    usable = [c for c in family if c.quality >= max(c.quality for c in family) - 10]
    assert rank(family, Mode.SPEED)[0].latency_ms <= max(min(c.latency_ms for c in usable), 1e-6)
    assert rank(family, Mode.SPEED)[0] in usable


@given(families.filter(bool))
def test_battery_never_takes_a_slower_one_than_balanced_nor_balanced_than_accuracy(family: list[Candidate]) -> None:
    taken = [max(rank(family, mode)[0].latency_ms, 1e-6) for mode in (Mode.BATTERY, Mode.BALANCED, Mode.ACCURACY)]
    assert taken[0] <= taken[1] * (1 + 1e-9)
    assert taken[1] <= taken[2] * (1 + 1e-9)


def test_a_doubling_of_the_time_must_buy_half_a_point_under_balanced_and_two_under_battery() -> None:
    small, large = of("s", 95.0, 1.0), of("l", 96.0, 2.0)
    assert order(Mode.BALANCED, small, large) == "ls"
    assert order(Mode.BATTERY, small, large) == "sl"
    assert order(Mode.BALANCED, small, of("l", 95.4, 2.0)) == "sl"
    assert order(Mode.BATTERY, small, of("l", 97.1, 2.0)) == "ls"


def test_ties_go_to_the_faster_then_the_smaller_then_the_alphabet() -> None:
    assert order(Mode.ACCURACY, of("a", 90, 2), of("b", 90, 1)) == "ba"
    assert order(Mode.ACCURACY, of("a", 90, 1, 20), of("b", 90, 1, 10)) == "ba"
    assert order(Mode.ACCURACY, of("b", 90, 1), of("a", 90, 1)) == "ab"


def test_nothing_to_rank_gives_nothing() -> None:
    assert rank([], Mode.SPEED) == ()


def test_what_is_too_bad_has_no_merit_under_speed() -> None:
    assert merit(of("a", 80, 0.1), Mode.SPEED, 99) == -math.inf


@pytest.mark.parametrize(
    "plain",
    [
        {"max_latency_ms": 0},
        {"max_latency_ms": -1},
        {"max_latency_ms": 1e12},
        {"deadline_ms": 0},
        {"min_accuracy": 100.5},
        {"max_temp_c": 1000},
        {"mode": "fast"},
        {"max_latency": 10},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(WireError):
        decode(msgspec.json.encode(plain), Preference, where="here")


def test_an_empty_preference_is_balanced_and_bound_by_nothing() -> None:
    assert decode(b"{}", Preference, where="here") == Preference() == Preference(mode=Mode.BALANCED)
    assert encode(Preference()) == b"{}"
