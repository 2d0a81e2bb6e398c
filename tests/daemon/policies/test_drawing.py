"""What a variant draws is learned apart from the base, from one meter, and decides where heat binds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_stage import second, setting, task

from edge_daemon.policies import drawing
from edge_daemon.policies.contract import Action, Second, Setting
from edge_daemon.policies.optimal import Optimal
from edge_daemon.policies.tuning import Tuning

pytestmark = pytest.mark.device

FIRST = Action(id="first", quality=70.0, latency_ms=50.0, power_w=3.0)
OTHER = Action(id="other", quality=70.1, latency_ms=50.0, power_w=3.0)
BASE_W, LOADS_W = 3.1, 1.0
SEED = 7


def seconds(made: Setting, factors: dict[str, float], *, temp_c: float | None = None) -> Iterator[Second]:
    """Ten minutes: each action in turn for a minute, two or six requests a second, loading it draws a watt more."""
    noise, before = random.Random(SEED), ""
    promised = {action.id: action for each in made.tasks for action in each.actions}
    for now_s in range(600):
        running = ("first", "other")[now_s // 60 % 2]
        requests = 6 if now_s // 20 % 2 else 2
        action = promised[running]
        drawn_w = requests * action.latency_ms / 1000 * action.power_w * factors[running]
        power_w = BASE_W + drawn_w + LOADS_W * (running != before) + noise.gauss(0, 0.05)
        latencies_ms = (action.latency_ms,) * requests
        yield second(float(now_s), running, requests, latencies_ms=latencies_ms, power_w=power_w, temp_c=temp_c)
        before = running


def made(**fields: float) -> Setting:
    return setting(task(FIRST, OTHER), **fields)


@pytest.mark.parametrize("factors", [{"first": 1.4, "other": 0.7}, {"first": 0.8, "other": 1.25}])
def test_what_each_variant_draws_is_told_apart_from_the_base(factors: dict[str, float]) -> None:
    policy = Optimal(made())
    state = policy.initial()
    for event in seconds(made(), factors):
        state, _ = policy.step(state, event)
    found = dict(zip(("first", "other"), state.tasks[0].drawn.factors, strict=True))
    for id_, factor in factors.items():
        assert found[id_] * state.power_scale == pytest.approx(factor, rel=0.08)
    assert state.base_w == pytest.approx(BASE_W, abs=0.15)


def test_where_heat_binds_the_one_that_draws_less_runs_though_both_promise_the_same() -> None:
    limited = made(temp_c=60.0)
    policy = Optimal(limited)
    for factors, least in (({"first": 1.4, "other": 0.7}, "other"), ({"first": 0.7, "other": 1.4}, "first")):
        state = policy.initial()
        for event in seconds(limited, factors, temp_c=50.0):
            state, _ = policy.step(state, event)
        for now_s in range(600, 660):  # hot by now
            state, verdicts = policy.step(state, second(float(now_s), "other", 6, temp_c=61.0, power_w=None))
        assert verdicts[0].action == least


def test_a_second_that_a_variant_was_loaded_in_or_another_one_tried_teaches_nothing() -> None:
    policy = Optimal(made())
    state = policy.initial()
    for event in list(seconds(made(), {"first": 1.0, "other": 1.0}))[:59]:
        state, _ = policy.step(state, event)
    before = state.tasks[0].drawn.factors
    state, _ = policy.step(state, second(59.0, "other", 6, power_w=9.0))
    assert state.tasks[0].drawn.factors == before
    state, _ = policy.step(state, second(60.0, "other", 6, power_w=4.0))
    assert state.tasks[0].drawn.factors != before


def test_it_is_kept_by_name_and_a_dump_from_before_it_was_learned_is_taken() -> None:
    policy = Optimal(made())
    state = policy.initial()
    for event in seconds(made(), {"first": 1.4, "other": 0.7}):
        state, _ = policy.step(state, event)
    kept = policy.dump(state)
    turned = Optimal(setting(task(OTHER, FIRST)))
    assert turned.load(kept).tasks[0].drawn.factors == state.tasks[0].drawn.factors[::-1]
    old = json.loads(kept)
    del old["tasks"]["made"]["factors"]
    loaded = policy.load(json.dumps(old).encode())
    assert loaded.tasks[0].bias == state.tasks[0].bias
    assert loaded.tasks[0].drawn.factors == (1.0, 1.0)
    old["tasks"]["made"]["factors"] = {"first": 1e9}
    assert policy.load(json.dumps(old).encode()) == policy.initial()


@given(
    st.lists(
        st.tuples(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.integers(0, 1), st.booleans()), min_size=1, max_size=200
    )
)
def test_whatever_a_meter_says_factors_stay_in_bounds_and_variances_positive(story) -> None:
    tuning = Tuning()
    one = other = drawing.first(tuning, 2)
    base_w, base_var = 2.7, tuning.base_var
    for power_w, watts, at, loaded in story:
        if loaded:
            one, other = drawing.began(one, at), drawing.began(other, 1 - at)
            continue
        running = [drawing.Running(0, one, at, watts), drawing.Running(1, other, 1 - at, watts / 3)]
        off_w = power_w - base_w - sum(each.watts * each.drawn.factors[each.at] for each in running)
        base_w, base_var, ((_, one), (_, other)) = drawing.metered(tuning, off_w, base_w, base_var, running)
        base_w = min(max(base_w, 1.3), 4.5)  # as the policy does
        for drawn in (one, other):
            assert all(drawing.FACTOR_LEAST <= factor <= drawing.FACTOR_MOST for factor in drawn.factors)
            assert all(0 < variance < math.inf for variance in drawn.variances)
            assert math.isfinite(drawn.shared)
        assert 0 < base_var < math.inf


def shown_late(events: list[Second], over_s: int) -> Iterator[Second]:
    """The same as a meter tells it that shows the mean of so many seconds."""
    powers = [event.power_w for event in events if event.power_w is not None]
    for now_s, event in enumerate(events):
        window = powers[max(0, now_s + 1 - over_s) : now_s + 1]
        yield replace(event, power_w=sum(window) / len(window))


def test_a_meter_that_shows_what_was_drawn_a_while_ago_tells_nothing_of_variants() -> None:
    events = list(seconds(made(), {"first": 1.4, "other": 0.7}))
    for over_s, learns in ((1, True), (10, False)):
        policy = Optimal(made())
        state = policy.initial()
        for event in shown_late(events, over_s):
            state, _ = policy.step(state, event)
        assert state.meter.is_prompt is learns
        assert (state.tasks[0].drawn.factors != (1.0, 1.0)) is learns
        assert state.base_w == pytest.approx(BASE_W, abs=0.6)  # that it still follows, later


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.booleans()), max_size=100))
def test_what_is_known_of_a_meter_stays_bounded(story) -> None:
    meter = drawing.Meter()
    for power_w, ours_w, paused in story:
        meter = drawing.paused(meter) if paused else drawing.followed(meter, power_w, ours_w)
        assert 0 <= meter.changed <= 20.1 * 1e8
        assert -meter.changed <= meter.shown <= 3 * meter.changed
        assert meter.is_prompt in {True, False}


def test_several_tasks_share_one_meter() -> None:
    two = Setting(board=made().board, tasks=(task(FIRST, name="one"), task(replace(OTHER, power_w=2.0), name="two")))
    policy = Optimal(two)
    state, noise = policy.initial(), random.Random(SEED)
    for now_s in range(900):
        first, other = (6, 2)[now_s // 30 % 2], (2, 7)[now_s // 50 % 2]
        power_w = BASE_W + first * 0.05 * 3.0 * 1.3 + other * 0.05 * 2.0 * 0.8 + noise.gauss(0, 0.05)
        seen = tuple(
            second(0.0, action, count, latencies_ms=(50.0,) * count).tasks[0]
            for action, count in (("first", first), ("other", other))
        )
        state, _ = policy.step(state, Second(now_s=float(now_s), tasks=seen, power_w=power_w))
    (one,), (two_,) = (each.drawn.factors for each in state.tasks)
    assert one * state.power_scale == pytest.approx(1.3, rel=0.08)
    assert two_ * state.power_scale == pytest.approx(0.8, rel=0.12)
