"""What no policy may break leaves less the worse it gets, and never nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_daemon.policy import tables
from edge_daemon.policy.safety import allowed, best, ceiling, is_calm
from edge_daemon.policy.senses import sensed
from edge_daemon.policy.state import PolicyState, initial
from edge_daemon.policy.types import ModelFacts, Tick, VariantFacts
from edge_sdk.mqtt import Conditions, Throttle
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

variants = st.lists(
    st.builds(
        VariantFacts,
        id=st.sampled_from("abcdefgh"),
        quality=st.floats(50, 100),
        latency_ms=st.floats(0.1, 1000),
        measured=st.booleans(),
        size_bytes=st.integers(1, 10**6),
        power_w=st.floats(0.1, 20),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda facts: facts.id,
)
temps = st.floats(-20, 120)
charges = st.floats(0, 100)
throttles = st.sampled_from(Throttle)


def felt(facts: list[VariantFacts], temp_c: float, battery_pct: float, throttle: Throttle) -> PolicyState:
    state = initial((ModelFacts(name="m", variants=tuple(facts)),))
    seen = Conditions(temp_c=temp_c, temp_limit_c=75.0, battery_pct=battery_pct, charging=False, throttle=throttle)
    return sensed(state, Tick(now_s=1.0, at=1.0, conditions=seen), priced=False)


def left(state: PolicyState) -> set[str]:
    model = state.models[0]
    return {variant.id for variant in allowed(ceiling(state), model, model.variants)}


@settings(deadline=None, max_examples=200)
@given(facts=variants, temp_c=temps, battery_pct=charges, throttle=throttles, worse=st.floats(0, 50))
def test_hotter_emptier_or_more_throttled_never_allows_more(
    facts: list[VariantFacts], temp_c: float, battery_pct: float, throttle: Throttle, worse: float
) -> None:
    now = left(felt(facts, temp_c, battery_pct, throttle))
    assert now
    assert left(felt(facts, temp_c + worse, battery_pct, throttle)) <= now
    assert left(felt(facts, temp_c, max(0.0, battery_pct - worse), throttle)) <= now
    later = [each for each in Throttle if tables.THROTTLE_RANK[each] >= tables.THROTTLE_RANK[throttle]]
    assert all(left(felt(facts, temp_c, battery_pct, each)) <= now for each in later)


@settings(deadline=None, max_examples=100)
@given(facts=variants, limit_ms=st.floats(0.1, 1000), floor=st.floats(50, 100), mode=st.sampled_from(Mode))
def test_of_what_is_allowed_the_best_keeps_the_limits_where_any_does(
    facts: list[VariantFacts], limit_ms: float, floor: float, mode: Mode
) -> None:
    state = felt(facts, 40.0, 90.0, Throttle.NONE)
    wish = Preference(mode=mode, max_latency_ms=limit_ms, min_accuracy=floor)
    model = replace(state.models[0], preference=wish)
    taken = best(state, model, model.variants)
    in_time = [v for v in model.variants if v.latency_ms <= limit_ms]
    if in_time:
        assert taken in in_time
    if any(v.quality >= floor for v in in_time):
        assert taken.quality >= floor
    if not in_time:
        assert taken.energy_mj == min(v.energy_mj for v in model.variants)


def test_calm_is_when_nothing_of_it_is_near() -> None:
    facts = [VariantFacts(id="a", quality=90.0, latency_ms=1.0, measured=False, size_bytes=1)]
    assert is_calm(felt(facts, 60.0, 90.0, Throttle.NONE))
    assert not is_calm(felt(facts, 72.0, 90.0, Throttle.NONE))
    assert not is_calm(felt(facts, 60.0, 15.0, Throttle.NONE))
    assert not is_calm(felt(facts, 60.0, 90.0, Throttle.SOFT))
    assert is_calm(felt(facts, math.nan, 90.0, Throttle.NONE))
