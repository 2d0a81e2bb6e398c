"""What the baselines decide in situations made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from policy_stage import HEDGED, LARGE, LOCAL, MIDDLE, SERVER, SMALL, second, setting, task

from edge_daemon.policies.alert import Alert, Slow
from edge_daemon.policies.contract import Action, Replied, Second, Verdict
from edge_daemon.policies.ladder import Latch, reply_ms, rungs, servers
from edge_daemon.policies.rules import DWELL_S, Rules
from edge_daemon.policies.static import Static, StaticFast
from edge_sdk.preference import Mode

pytestmark = pytest.mark.device


def decided(policy: Any, *seconds: Second) -> Verdict:
    """The verdict after the last of these seconds."""
    state, verdicts = policy.initial(), ()
    for each in seconds:
        state, verdicts = policy.step(state, each)
    (verdict,) = verdicts
    return verdict


# ------------------------------------------------------------------------------------------------------ ladder


def test_a_rung_is_slower_only_where_it_is_better() -> None:
    worse = Action(id="worse", quality=69.0, latency_ms=40.0, power_w=3.0)
    assert rungs(task(LARGE, worse, SMALL, SERVER, MIDDLE)) == (SMALL, MIDDLE, LARGE)


def test_rungs_below_the_lowest_quality_are_left_out_unless_all_are() -> None:
    assert rungs(task(*LOCAL, min_quality=75.0)) == (MIDDLE, LARGE)
    assert rungs(task(*LOCAL, min_quality=99.0)) == (LARGE,)


def test_a_mode_that_saves_ends_the_ladder_where_it_wants_no_more() -> None:
    assert rungs(task(*LOCAL, mode=Mode.SPEED)) == (SMALL,)


def test_a_server_is_asked_with_a_hedge_where_there_is_one() -> None:
    assert servers(task(SMALL, SERVER, HEDGED)) == (HEDGED,)
    assert servers(task(SMALL, SERVER)) == (SERVER,)


def test_a_reply_takes_round_trip_sending_and_the_server() -> None:
    assert reply_ms(SERVER, second(0, rtt_ms=40.0, up_mbps=2.0)) == pytest.approx(40 + 30 * 8 / 2 + 25)
    for told in ({}, {"rtt_ms": 40.0, "up_mbps": 0.0}, {"rtt_ms": math.nan, "up_mbps": 1.0}):
        assert reply_ms(SERVER, second(0, **told)) == math.inf


def test_a_latch_stays_as_it_was_between_its_thresholds() -> None:
    latch = Latch(10.0, 5.0)
    assert [latch.after(7.0, is_on=on) for on in (False, True)] == [False, True]
    assert latch.after(11.0, is_on=False)
    assert not latch.after(4.0, is_on=True)
    assert latch.after(None, is_on=True)
    assert latch.after(math.nan, is_on=True)


# ------------------------------------------------------------------------------------------------------ static


def test_static_takes_the_best_whose_profile_fits() -> None:
    assert decided(Static(setting()), second(0)).action == "large"
    assert decided(Static(setting(task(limit_ms=150 * 1.15 - 1))), second(0)).action == "middle"
    assert decided(Static(setting(task(limit_ms=1.0))), second(0)).action == "small"


def test_static_steps_down_for_a_rate_it_cannot_keep_up_with_and_stays_there() -> None:
    busy, quiet = second(1, "large", requests=10), second(2, "middle", requests=1)
    assert decided(Static(setting()), second(0), busy).action == "middle"
    assert decided(Static(setting()), second(0), busy, quiet).action == "middle"


def test_static_remembers_the_highest_rate() -> None:
    policy = Static(setting())
    state, _ = policy.step(policy.initial(), second(0, requests=10))
    again = policy.load(policy.dump(state))
    assert policy.step(again, second(0, requests=0))[1][0].action == "middle"


def test_static_fast_takes_the_smallest_even_below_the_lowest_quality() -> None:
    assert decided(StaticFast(setting(task(*LOCAL, min_quality=75.0))), second(0)).action == "small"


# ------------------------------------------------------------------------------------------------------- rules


def slow(now_s: float, action: str, ms: float, **fields: Any) -> Second:
    return second(now_s, action, latencies_ms=(ms, ms), **fields)


def test_rules_step_down_where_answers_take_most_of_the_limit_and_up_where_they_take_little() -> None:
    policy = Rules(setting())
    assert decided(policy, second(0), slow(DWELL_S, "large", 240.0)).action == "middle"
    down = (second(0), slow(DWELL_S, "large", 240.0))
    assert decided(policy, *down, slow(2 * DWELL_S, "middle", 70.0)).action == "large"


def test_rules_wait_for_ten_seconds_between_two_changes() -> None:
    policy = Rules(setting())
    assert decided(policy, second(0), slow(DWELL_S - 0.1, "large", 240.0)).action == "large"


def test_waiting_counts_for_rules_where_replies_are_told() -> None:
    policy = Rules(setting())
    state, _ = policy.step(policy.initial(), second(0))
    reply = Replied(now_s=0.5, task=0, action="large", latency_ms=100.0, waited_ms=140.0)
    state, verdicts = policy.step(state, reply)
    assert verdicts == ()
    _, (verdict,) = policy.step(state, second(DWELL_S, "large"))
    assert verdict.action == "middle"


def test_heat_caps_the_ladder_and_at_the_limit_takes_the_smallest_at_once() -> None:
    policy = Rules(setting(temp_c=75.0))
    assert decided(policy, second(0, temp_c=50.0), second(10, "large", temp_c=69.0)).action == "middle"
    hot = (second(0, temp_c=50.0), second(1, "large", temp_c=74.0))
    assert decided(policy, *hot).action == "small"
    assert decided(policy, *hot).why.code == "thermal"
    assert decided(policy, *hot, slow(20, "small", 30.0, temp_c=64.0)).action == "small"
    assert decided(policy, *hot, slow(20, "small", 30.0, temp_c=62.0)).action == "middle"


def test_a_battery_at_half_caps_the_ladder_and_at_a_fifth_takes_the_smallest() -> None:
    policy = Rules(setting(battery_j=1000.0))
    assert decided(policy, second(0, battery_j=490.0)).action == "middle"
    assert decided(policy, second(0, battery_j=190.0)).action == "small"
    assert decided(policy, second(0, battery_j=190.0, charging=True)).action == "large"


def test_more_power_than_allowed_caps_the_ladder() -> None:
    assert decided(Rules(setting(max_power_w=4.0)), second(0, power_w=4.5)).action == "middle"


def test_rules_ask_a_server_while_it_would_answer_well_within_the_limit() -> None:
    policy = Rules(setting(task(*LOCAL, SERVER, HEDGED)))
    assert decided(policy, second(0, rtt_ms=40.0, up_mbps=10.0)).action == "server+hedge"
    assert decided(policy, second(0, rtt_ms=140.0, up_mbps=10.0)).action == "large"
    assert decided(policy, second(0)).action == "large"


# ------------------------------------------------------------------------------------------------------- alert


def test_the_filter_follows_what_is_measured_and_is_never_sure() -> None:
    slowed = Slow()
    for _ in range(20):
        slowed = slowed.after(1.5)
    assert slowed.mean == pytest.approx(1.5, abs=1e-3)
    # At rest the paper's filter keeps its least process noise, and a little of the prior: P = (1 - K) P + Q.
    assert slowed.variance == pytest.approx(0.1 / slowed.gain, rel=1e-3)
    jumped = slowed.after(3.0)
    assert jumped.mean == pytest.approx(3.0, abs=0.05)
    assert jumped.after(3.0).variance > slowed.variance


def test_alert_takes_what_is_worth_most_in_time() -> None:
    # 150 ms with a deviation of 47: in time with a probability of 0.98, or of 0.85.
    assert decided(Alert(setting()), second(0, requests=2)).action == "large"
    assert decided(Alert(setting(task(limit_ms=200.0))), second(0, requests=2)).action == "middle"
    assert decided(Alert(setting(task(limit_ms=1000.0))), second(0, requests=2)).action == "large"


def test_alert_learns_from_each_reply_that_everything_takes_longer() -> None:
    policy = Alert(setting())
    state = policy.initial()
    for _ in range(5):
        state, _ = policy.step(state, Replied(now_s=0.1, task=0, action="small", latency_ms=120.0))
    _, (verdict,) = policy.step(state, second(1, "small"))
    assert verdict.action == "small"
    assert dict(verdict.why.numbers)["slow_x"] == pytest.approx(4.0, abs=0.01)
    assert policy.load(policy.dump(state)).slow[0].mean == pytest.approx(4.0, abs=0.01)


def test_an_input_is_to_be_done_before_the_next_for_alert() -> None:
    policy = Alert(setting(task(limit_ms=1000.0)))
    assert decided(policy, second(0, requests=10)).action == "middle"


def test_alert_keeps_to_the_energy_that_is_left_per_second() -> None:
    policy = Alert(setting(task(limit_ms=1000.0), battery_j=3600.0, until_s=1000.0))
    ample, scarce = 3500.0, 3000.0  # 3.5 and 3.0 W, of which 2.7 W are the idle board's
    assert decided(policy, second(0, battery_j=ample)).action == "middle"
    assert decided(policy, second(0, battery_j=scarce)).action == "small"
    assert decided(policy, second(0, battery_j=scarce, charging=True)).action == "large"
    assert decided(policy, second(0, battery_j=2000.0)).why.code == "start"
    assert decided(policy, second(0, battery_j=ample), second(1, "middle", battery_j=2000.0)).why.code == "battery"


def test_alert_takes_the_smallest_when_hot_until_it_has_cooled() -> None:
    policy = Alert(setting(task(limit_ms=1000.0), temp_c=75.0))
    hot = (second(0, temp_c=60.0), second(1, "large", temp_c=73.5))
    assert decided(policy, *hot).action == "small"
    assert decided(policy, *hot, second(2, "small", temp_c=71.0)).action == "small"
    assert decided(policy, *hot, second(2, "small", temp_c=69.0)).action == "large"


def test_alert_asks_a_server_that_is_expected_in_time() -> None:
    policy = Alert(setting(task(*LOCAL, SERVER, HEDGED)))
    assert decided(policy, second(0, rtt_ms=180.0, up_mbps=10.0)).action == "server+hedge"
    assert decided(policy, second(0, rtt_ms=220.0, up_mbps=10.0)).action == "large"


def test_alert_saves_under_a_mode_that_saves() -> None:
    policy = Alert(setting(task(*LOCAL, mode=Mode.BATTERY, min_quality=75.0)))
    assert decided(policy, second(0)).action == "middle"


def test_several_tasks_share_the_energy_by_equal_parts() -> None:
    tasks = (task(limit_ms=1000.0, name="one"), task(limit_ms=1000.0, name="two"))
    policy = Alert(setting(*tasks, battery_j=3600.0, until_s=1000.0))
    one = second(0, battery_j=3500.0)
    both = Second(now_s=0.0, battery_j=3500.0, tasks=one.tasks * 2)
    _, verdicts = policy.step(policy.initial(), both)
    assert [(verdict.task, verdict.action) for verdict in verdicts] == [(0, "middle"), (1, "middle")]
    both = Second(now_s=0.0, battery_j=3300.0, tasks=one.tasks * 2)
    assert {verdict.action for verdict in policy.step(policy.initial(), both)[1]} == {"small"}
