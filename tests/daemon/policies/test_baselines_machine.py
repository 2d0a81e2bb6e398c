"""Whatever is sensed, a baseline answers each second with one action of its setting for each task, and never raises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_stage import HEDGED, LOCAL, SERVER, SMALL, setting, task

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Probed, Replied, Second, Setting, TaskSeen
from edge_sdk.preference import Mode

pytestmark = pytest.mark.device

WILD = st.one_of(
    st.none(), st.just(0.0), st.just(math.inf), st.just(-math.inf), st.just(math.nan), st.floats(-1e5, 1e5)
)
TIMES = st.one_of(st.just(0.0), st.just(math.inf), st.just(math.nan), st.floats(-10.0, 1e6))
IDS = st.sampled_from(["small", "middle", "large", "server", "server+hedge", "", "gone"])
SEEN = st.builds(
    TaskSeen,
    action=IDS,
    requests=st.integers(0, 10_000),
    late=st.integers(0, 10_000),
    latencies_ms=st.lists(TIMES, max_size=4).map(tuple),
    sent=st.integers(0, 100),
    replied=st.integers(0, 100),
    probed=st.one_of(st.none(), st.builds(Probed, action=IDS, latency_ms=TIMES)),
)
REPLIES = st.builds(Replied, now_s=st.just(0.0), task=st.integers(0, 1), action=IDS, latency_ms=TIMES, waited_ms=TIMES)
SECONDS = st.builds(
    Second,
    now_s=st.floats(0.0, 1e6),
    tasks=st.tuples(SEEN, SEEN),
    temp_c=WILD,
    power_w=WILD,
    battery_j=WILD,
    charging=st.booleans(),
    clock=WILD,
    rtt_ms=WILD,
    up_mbps=WILD,
)
SETTINGS: tuple[Setting, ...] = (
    setting(task(*LOCAL, SERVER, HEDGED), task(SMALL, name="other"), temp_c=75.0, until_s=3600.0, battery_j=13_500.0),
    setting(task(limit_ms=math.inf, mode=Mode.SPEED), task(SMALL, SERVER, name="other", mode=Mode.BATTERY)),
    setting(task(limit_ms=0.001, min_quality=99.0), task(name="other", mode=Mode.BALANCED), max_power_w=0.5),
)


@pytest.mark.parametrize("name", [name for name in registry.BUILT_IN if name != "optimal"])
@settings(max_examples=40, deadline=None)
@given(made_for=st.sampled_from(SETTINGS), events=st.lists(st.one_of(SECONDS, REPLIES), max_size=6))
def test_every_second_has_a_verdict_for_each_task(name: str, made_for: Setting, events: list[Second | Replied]) -> None:
    policy = registry.find(name)(made_for)
    state = policy.initial()
    for event in events:
        before = policy.dump(state)
        after, verdicts = policy.step(state, event)
        assert policy.dump(state) == before, "the state that was given has changed"
        assert policy.step(state, event)[1] == verdicts, "the same state and event, another verdict"
        state = after
        if isinstance(event, Second):
            assert [verdict.task for verdict in verdicts] == [0, 1]
        for verdict in verdicts:
            assert verdict.action in {action.id for action in made_for.tasks[verdict.task].actions}
            assert all(math.isfinite(value) for _, value in verdict.why.numbers)
    policy.step(policy.load(policy.dump(state)), Second(now_s=0.0, tasks=(TaskSeen(action="", requests=0),) * 2))


@pytest.mark.parametrize("name", [name for name in registry.BUILT_IN if name != "optimal"])
@settings(max_examples=40, deadline=None)
@given(payload=st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
def test_any_bytes_are_loaded(name: str, payload: bytes) -> None:
    policy = registry.find(name)(SETTINGS[0])
    assert type(policy.load(payload)) is type(policy.initial())
