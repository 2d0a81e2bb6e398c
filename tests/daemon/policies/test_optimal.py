"""What the policy `optimal` promises, whatever it is told, and what it does in situations made by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edge_daemon.policies.choosing import VOLUNTARY
from edge_daemon.policies.contract import Action, Board, Probed, Replied, Second, Setting, Task, TaskSeen
from edge_daemon.policies.optimal import Optimal
from edge_daemon.policies.tuning import Tuning
from edge_sdk.preference import Mode

pytestmark = pytest.mark.device

LADDER = (
    Action(id="small", quality=74.0, latency_ms=30.0, power_w=3.0),
    Action(id="medium", quality=77.0, latency_ms=60.0, power_w=3.1),
    Action(id="large", quality=80.0, latency_ms=150.0, power_w=3.3),
)
REMOTE = Action(id="remote", quality=84.0, latency_ms=25.0, power_w=1.1, remote=True, payload_kb=30.0, hedge="small")
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink stories as long as these takes minutes
DWELL_S = Tuning().dwell_s
LATENCY = {action.id: action.latency_ms for action in LADDER}


def setting(*actions: Action, **limits) -> Setting:
    task = Task(name="model", actions=actions or LADDER, limit_ms=limits.pop("limit_ms", 250.0))
    return Setting(board=Board(estimated=False), tasks=(replace(task, **limits.pop("task", {})),), **limits)


def second(now_s: float, action: str, requests: int = 4, slow: float = 1.0, **sensed) -> Second:
    latencies = () if action not in LATENCY else (LATENCY[action] * slow,) * requests
    seen = TaskSeen(action=action, requests=requests, latencies_ms=latencies, probed=sensed.pop("probed", None))
    return Second(now_s=now_s, tasks=(seen,), **sensed)


class Played:
    """A policy and what it decided so far."""

    def __init__(self, made: Setting) -> None:
        self.policy = Optimal(made)
        self.state = self.policy.initial()
        self.action = ""
        self.moves: list[tuple[float, str, str, str]] = []

    def tell(self, event) -> str:
        before = self.policy.dump(self.state)
        self.state, verdicts = self.policy.step(self.state, event)
        assert isinstance(before, bytes)
        for verdict in verdicts:
            if verdict.action != self.action:
                self.moves.append((event.now_s, self.action, verdict.action, verdict.why.code))
                self.action = verdict.action
        return self.action

    def run(self, seconds: int, begin: int = 0, **how) -> str:
        for now_s in range(begin, begin + seconds):
            self.tell(second(float(now_s), self.action, **how))
        return self.action


# --------------------------------------------------------------------------------------- whatever it is told

numbers = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-20, 120),
    st.sampled_from([0.0, 85.0, -0.0, 1e-300, 1e300]),
)
names = st.sampled_from(["small", "medium", "large", "remote", "gone", ""])
told = st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.floats(1, 900), max_size=12).map(tuple)
probes = st.none() | st.builds(Probed, action=names, latency_ms=st.floats(allow_nan=True) | st.floats(0, 900))
looks = st.builds(
    TaskSeen,
    action=names,
    requests=st.integers(0, 400),
    late=st.integers(0, 9),
    latencies_ms=told,
    sent=st.integers(0, 9),
    replied=st.integers(0, 9),
    probed=probes,
)
steps = st.lists(
    st.tuples(
        st.floats(0, 6),
        looks,
        st.fixed_dictionaries(dict.fromkeys(("temp_c", "power_w", "battery_j", "clock", "rtt_ms", "up_mbps"), numbers)),
        st.booleans(),
        st.lists(st.tuples(names, st.floats(allow_nan=True) | st.floats(1, 900)), max_size=4),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, phases=QUICK)
@given(
    steps, st.sampled_from([None, 40.0, 75.0]), st.sampled_from([None, 900.0]), st.sampled_from([20.0, 250.0, math.inf])
)
def test_it_never_flaps_and_always_answers_whatever_it_is_told(story, temp_c, battery_j, limit_ms) -> None:
    made = setting(
        *LADDER,
        REMOTE,
        temp_c=temp_c,
        battery_j=battery_j,
        until_s=None if battery_j is None else 100.0,
        limit_ms=limit_ms,
    )
    played, now_s = Played(made), 0.0
    for passed_s, seen, sensed, charging, replies in story:
        now_s += passed_s
        played.tell(Second(now_s=now_s, tasks=(seen,), charging=charging, **sensed))
        assert played.action in {"small", "medium", "large", "remote"}
        for part, (action, latency_ms) in enumerate(replies):
            at_s = now_s + part / 10
            played.tell(Replied(now_s=at_s, task=0, action=action, latency_ms=latency_ms))
        now_s += len(replies) / 10
    check_dwells(played.moves)


def check_dwells(moves: list[tuple[float, str, str, str]]) -> None:
    """No two voluntary changes within a dwell, and no variant comes back within a dwell after another one ran."""
    chosen = [at for at, _, _, code in moves if code in VOLUNTARY]
    assert all(later - at >= DWELL_S for at, later in pairwise(chosen))
    ran = [(at, new) for at, _, new, _ in moves if new != "remote"]
    ran = [item for index, item in enumerate(ran) if index == 0 or item[1] != ran[index - 1][1]]
    for (_, first), (left_s, _), (back_s, third) in zip(ran, ran[1:], ran[2:], strict=False):
        assert first != third or back_s - left_s >= DWELL_S


@settings(max_examples=25, deadline=None, phases=QUICK)
@given(steps)
def test_a_step_is_pure_and_a_dump_carries_what_was_learned(story) -> None:
    policy, now_s = Optimal(setting(*LADDER, REMOTE, temp_c=75.0)), 0.0
    state = policy.initial()
    for passed_s, seen, sensed, charging, _ in story:
        now_s += passed_s
        event = Second(now_s=now_s, tasks=(seen,), charging=charging, **sensed)
        once, again = policy.step(state, event), policy.step(state, event)
        assert policy.dump(once[0]) == policy.dump(again[0])
        assert [verdict.action for verdict in once[1]] == [verdict.action for verdict in again[1]]
        state = once[0]
    loaded = policy.load(policy.dump(state))
    assert loaded.tasks[0].bias == state.tasks[0].bias
    assert loaded.tasks[0].action == state.tasks[0].action
    assert loaded.known == state.known


@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"\xff", b"[" * 10_000, b'{"known": 3}', b"x" * (1 << 21)])
def test_a_damaged_dump_begins_afresh(payload) -> None:
    policy = Optimal(setting())
    assert policy.load(payload) == policy.initial()


def test_numbers_out_of_bounds_in_a_dump_begin_afresh() -> None:
    policy = Optimal(setting(*LADDER, REMOTE, temp_c=75.0))
    played = Played(setting(*LADDER, REMOTE, temp_c=75.0))
    played.run(5, temp_c=50.0, rtt_ms=30.0, up_mbps=20.0)
    whole = policy.dump(played.state)
    for good, bad in (
        (b'"slow":', b'"slow":1e300,"_":'),
        (b'"base_w":', b'"base_w":-9e99,"_":'),
        (b'"spread":', b'"spread":0,"_":'),
    ):
        state, verdicts = policy.step(policy.load(whole.replace(good, bad)), second(9.0, "small", temp_c=50.0))
        assert verdicts[0].action in {"small", "medium", "large", "remote"}
        assert math.isfinite(state.known.slow)


# ---------------------------------------------------------------------------------------- in a given situation


def test_on_mains_and_cool_the_best_that_is_in_time_runs() -> None:
    assert Played(setting(temp_c=75.0)).run(30, requests=2, temp_c=45.0, power_w=3.2) == "large"
    assert Played(setting(limit_ms=100.0)).run(30, requests=2) == "medium"


def test_without_any_sensor_it_works_by_what_it_is_told_of_inferences() -> None:
    played = Played(setting(temp_c=75.0, battery_j=9000.0, until_s=3600.0))
    assert played.run(30) in LATENCY
    assert played.run(30, begin=30, slow=5.0) == "small"


def test_two_slow_inferences_are_contention_and_where_spikes_are_known_one_is_none() -> None:
    played = Played(setting(limit_ms=200.0))
    played.run(30, requests=6)
    for now_s in range(30, 530):
        if now_s % 10 == 0:  # spikes, one at a time: it learns that they pass
            played.tell(Replied(now_s=now_s - 0.8, task=0, action=played.action, latency_ms=LATENCY[played.action] * 2))
            played.tell(Replied(now_s=now_s - 0.3, task=0, action=played.action, latency_ms=LATENCY[played.action]))
        played.tell(second(float(now_s), played.action, requests=6))
    before = played.action
    assert before == "medium"
    left = [
        played.tell(Replied(now_s=530 + part / 10, task=0, action=before, latency_ms=LATENCY[before] * 5)) != before
        for part in range(1, 7)
    ]
    assert left == sorted(left)
    assert not left[0]
    assert left[-1]
    assert played.moves[-1][3] == "latency"


def test_near_the_limit_of_heat_it_takes_what_the_board_bears() -> None:
    played = Played(setting(temp_c=75.0))
    played.run(10, requests=6, temp_c=60.0, power_w=4.0)
    assert played.run(200, begin=10, requests=6, temp_c=76.0, power_w=4.5) == "small"
    assert any(code == "thermal" for *_, code in played.moves)


def test_a_battery_that_has_to_last_makes_it_cheaper_and_a_charger_frees_it() -> None:
    # Nothing but idle fits: 2.7 W for an hour are 9720 J.
    played = Played(setting(battery_j=9900.0, until_s=3600.0))
    for now_s in range(200):
        played.tell(second(float(now_s), played.action, battery_j=9900.0 - 3.3 * now_s, power_w=3.3))
    assert played.action == "small"
    for now_s in range(200, 260):
        played.tell(second(float(now_s), played.action, battery_j=9200.0, power_w=3.3, charging=True))
    assert played.action == "large"


def test_it_asks_the_server_while_answers_are_in_time_and_stops_when_nothing_goes_through() -> None:
    played = Played(setting(*LADDER, REMOTE))
    assert played.run(20, rtt_ms=40.0, up_mbps=20.0) == "remote"
    assert played.run(2, begin=20, rtt_ms=math.inf, up_mbps=0.0) != "remote"


def test_what_is_not_good_enough_runs_only_if_nothing_better_is_in_time() -> None:
    wanted = {"min_quality": 79.0}
    assert Played(setting(task=wanted)).run(30, requests=2) == "large"
    assert Played(setting(task=wanted, limit_ms=100.0)).run(30, requests=2) in {"small", "medium"}


@pytest.mark.parametrize(
    ("mode", "expected"), [(Mode.ACCURACY, "large"), (Mode.SPEED, "small"), (Mode.BATTERY, "small")]
)
def test_the_mode_weighs_quality_against_time(mode, expected) -> None:
    ladder = (LADDER[0], LADDER[1], replace(LADDER[2], quality=77.5))
    ladder = (ladder[0], replace(ladder[1], quality=75.5), ladder[2])
    assert Played(setting(*ladder, task={"mode": mode}, limit_ms=math.inf)).run(30, requests=1) == expected


def test_one_variant_is_all_there_is() -> None:
    played = Played(setting(LADDER[2], temp_c=75.0))
    assert played.run(30, temp_c=90.0, power_w=6.0) == "large"
    assert len(played.moves) == 1


def test_when_nothing_fits_it_says_how_many_requests_would() -> None:
    policy = Optimal(setting(LADDER[2], temp_c=75.0))
    state, now_s = policy.initial(), 0.0
    for now_s in range(60):
        state, verdicts = policy.step(state, second(float(now_s), "large", requests=6, temp_c=76.0, power_w=5.5))
    advised = verdicts[0].most_per_s
    assert advised is not None
    assert 0 <= advised < 6


def test_several_tasks_share_what_the_board_bears() -> None:
    task = setting().tasks[0]
    made = Setting(board=Board(), tasks=(task, replace(task, name="other", weight=3.0)), temp_c=75.0)
    policy = Optimal(made)
    state, actions = policy.initial(), ["", ""]
    for now_s in range(120):
        seen = tuple(TaskSeen(action=action, requests=3) for action in actions)
        state, verdicts = policy.step(state, Second(now_s=float(now_s), tasks=seen, temp_c=70.0, power_w=4.6))
        actions = [verdict.action for verdict in verdicts]
        for numbers in (dict(verdict.why.numbers) for verdict in verdicts):
            assert not numbers or numbers["board_w"] >= state.base_w + numbers["draws_w"]
    assert sum(task.watts for task in state.tasks) <= state.cap_w + 0.2
    assert LATENCY[actions[1]] >= LATENCY[actions[0]]  # the one that counts more runs the costlier


def test_a_clock_that_jumps_a_day_changes_nothing_at_once() -> None:
    played = Played(setting(temp_c=75.0))
    before = played.run(30, requests=2, temp_c=50.0, power_w=3.2)
    assert played.run(30, begin=86_400, requests=2, temp_c=50.0, power_w=3.2) == before
    assert len(played.moves) <= 2


def test_a_probe_corrects_a_promise_before_users_pay_for_it() -> None:
    policy = Optimal(setting(limit_ms=200.0))
    state, action, asked = policy.initial(), "", None
    for now_s in range(40):
        true_ms = {**LATENCY, "large": 400.0}
        probed = None if asked is None else Probed(action=asked, latency_ms=true_ms[asked])
        state, verdicts = policy.step(state, second(float(now_s), action, requests=1, probed=probed))
        action, asked = verdicts[0].action, verdicts[0].probe
    assert action == "medium"


def test_every_number_of_the_policy_is_explained() -> None:
    explained = re.findall(r"^ +(\w+): ", Tuning.__doc__ or "", re.MULTILINE)  # however Python indents it
    assert set(Tuning.__dataclass_fields__) <= set(explained)


def test_a_mode_is_no_emergency() -> None:
    ladder = tuple(replace(action, latency_ms=action.latency_ms / 1000) for action in LADDER)
    played = Played(setting(*ladder, task={"mode": Mode.SPEED}, limit_ms=math.inf))
    for now_s in range(30):
        seen = TaskSeen(action=played.action, requests=4, latencies_ms=(0.05,) * 4)
        played.tell(Second(now_s=float(now_s), tasks=(seen,)))
    assert all(code not in {"latency", "network"} for *_, code in played.moves)
