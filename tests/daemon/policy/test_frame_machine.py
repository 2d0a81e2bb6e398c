"""Whatever happens, in whatever order, and whatever the policy says: what the frame promises holds.

Hypothesis makes up devices and what happens to them: ticks with any conditions (also absurd ones), reports, pins of
three hands, preferences, failures, clocks that jump, restarts; and under each a policy, one of ours or one that says
what comes into its head. After each event all promises are checked by formulas of this file's own; at the end
everything is replayed and must come out the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from climbing import Climber
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Event as Told
from edge_daemon.policies.contract import Factory, Second, Setting, Verdict, Why
from edge_daemon.policy import tables
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.setting import setting_of
from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord, dump, initial, load
from edge_daemon.policy.types import (
    ActivationFailed,
    AppCanRun,
    AppJoined,
    AppLeft,
    AppPinned,
    AppReported,
    Assign,
    Decided,
    Event,
    Instruction,
    Measured,
    ModelFacts,
    Paused,
    Pinned,
    PinnedBy,
    PolicyFailed,
    Preferred,
    Quarantined,
    Tick,
    Tried,
    Unpinned,
    VariantFacts,
)
from edge_sdk.mqtt import Conditions, Decision, Throttle
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import decode, encode

pytestmark = pytest.mark.device

CODES = {
    "latency", "deadline", "battery", "thermal", "throttle", "power", "network", "accuracy", "preference", "pin",
    "unpin", "failure", "start", "measured", "recovered", "gain",
}  # fmt: skip
SAFETY = {"battery", "thermal", "throttle"}
BY_ITSELF = (Tick, AppReported, AppJoined, AppCanRun, AppLeft, Paused, Measured, Tried)
MODELS = ("digits", "faces")
VARIANTS = ("a", "b", "c", "d", "e")
APPS = ("app1", "app2")
EPS = 1e-9

# Few values near what matters, so that events meet; every so often an absurd one.
ABSURD = (math.nan, math.inf, -math.inf, -1.0, 1e300)
latencies = st.sampled_from((0.5, 1.0, 2.0, 5.0, 10.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 0.0, *ABSURD))
variants = st.lists(
    st.builds(
        VariantFacts,
        id=st.sampled_from(VARIANTS),
        quality=st.sampled_from((70.0, 80.0, 90.0, 90.2, 94.0, 95.0, 96.0, 98.0, 99.0, *ABSURD)),
        latency_ms=latencies,
        measured=st.booleans(),
        size_bytes=st.sampled_from((0, 1000, 50_000)),
    ),
    max_size=5,
    unique_by=lambda facts: facts.id,
)
LADDER = tuple(
    VariantFacts(id=name, quality=quality, latency_ms=latency_ms, measured=False, size_bytes=1000)
    for name, quality, latency_ms in (
        ("a", 99.0, 160.0), ("b", 98.0, 80.0), ("c", 97.0, 40.0), ("d", 95.0, 20.0), ("e", 90.0, 10.0),
    )
)  # fmt: skip
conditions = st.builds(
    Conditions,
    temp_c=st.sampled_from((45.0, 45.0, 64.5, 70.0, 73.5, 76.0, 77.5, 85.0, None, None, *ABSURD)),
    temp_limit_c=st.sampled_from((75.0, 75.0, 75.0, 75.0, None, math.nan)),
    throttle=st.sampled_from((*Throttle, *[Throttle.NONE] * 8)),
    battery_pct=st.sampled_from((100.0, 80.0, 55.0, 52.0, 40.0, 22.0, 15.0, 9.0, 5.0, 0.0, None, *ABSURD)),
    charging=st.sampled_from((None, True, True, False)),
    rtt_ms=st.sampled_from((0.0, 1.0, 5.0, 20.0, 50.0, 100.0, 300.0, None, *ABSURD)),
)
times = st.sampled_from((None, None, 0.5, 8.0, 15.0, 30.0, 60.0, 120.0, 250.0))
preferences = st.builds(
    Preference,
    mode=st.sampled_from(Mode),
    max_latency_ms=times,
    deadline_ms=times,
    min_accuracy=st.sampled_from((None, None, 90.0, 96.5, 99.0)),
    max_temp_c=st.sampled_from((None, None, 70.0)),
)
models = st.sampled_from(("digits", "digits", "faces"))
ids = st.sampled_from((*VARIANTS, "ghost"))
hands = st.sampled_from([PinnedBy.OPERATOR, PinnedBy.HUB])


class Whim:
    """A policy that says what comes into its head, the same thing whenever it is told the same; at times it fails."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def initial(self) -> int:
        return 0

    def step(self, state: int, event: Told) -> tuple[int, tuple[Verdict, ...]]:
        state = (state * 31 + len(repr(event))) % 9973
        if state % 97 == 0:
            raise ValueError("a whim")
        tasks = range(len(self.setting.tasks)) if isinstance(event, Second) or state % 2 else ()
        return state, tuple(self._verdict(index, state + index) for index in tasks)

    def _verdict(self, index: int, whim: int) -> Verdict:
        ids = [action.id for action in self.setting.tasks[index].actions]
        why = Why(code=("gain", "latency", "thermal", "holds")[whim % 4], numbers=(("whim", float(whim)),))
        probe = ids[whim % len(ids)] if whim % 5 == 0 else None
        return Verdict(task=index, action=ids[whim % len(ids)], why=why, probe=probe)

    def dump(self, state: int) -> bytes:
        return str(state).encode()

    def load(self, payload: bytes) -> int:
        return int(payload or b"0")


POLICIES: dict[str, Factory] = {"climber": Climber, "whim": Whim, **{n: registry.find(n) for n in registry.BUILT_IN}}


def lasts(state: PolicyState, variant: VariantRecord) -> bool:
    return variant.out_until_s is None or state.now_s >= variant.out_until_s


def cost(variant: VariantRecord) -> float:
    return variant.latency_ms * variant.power_w


def same(one: PolicyState | None, other: PolicyState) -> bool:
    """But for what the policy knows, which a dump takes along."""
    return one is not None and replace(one, learned=b"", use="") == replace(other, learned=b"", use="")


class Device(RuleBasedStateMachine):
    """A device to which things happen."""

    @initialize(
        first=st.one_of(st.just(list(LADDER)), variants), second=variants, use=st.sampled_from(sorted(POLICIES))
    )
    def start(self, first: list[VariantFacts], second: list[VariantFacts], use: str) -> None:
        self.frame = Frame(use=use, factory=POLICIES[use])
        self.facts = (
            ModelFacts(name="digits", variants=tuple(first)),
            ModelFacts(name="faces", variants=tuple(second)),
        )
        self.state = initial(self.facts, at=1.0)
        self.log: list[Event | None] = []  # None is a restart
        self.said: list[tuple[Instruction, ...]] = []
        self.told: dict[str, Assign] = {}
        self.clock_s = 100.0
        self.elapsed_s = 0.0
        self.ticks = 0
        self.left: dict[tuple[str, str], float] = {}  # when a variant was left by itself
        for app in APPS:
            self.happens(AppJoined(app=app, model="digits"))

    # ------------------------------------------------------------------------------------------------ what happens

    @rule(passed_s=st.sampled_from((0.05, 1.0, 1.0, 2.0, 5.0, 9.0, 30.0, 700.0)), sensed=conditions)
    def second(self, passed_s: float, sensed: Conditions) -> None:
        self.clock_s += passed_s
        self.happens(Tick(now_s=self.clock_s, at=1e9 + self.clock_s, conditions=sensed))

    @rule(sensed=conditions)
    def seconds_at_rest(self, sensed: Conditions) -> None:
        for _ in range(12):
            self.clock_s += 1.0
            self.happens(Tick(now_s=self.clock_s, at=1e9 + self.clock_s, conditions=sensed))

    @rule(by_s=st.sampled_from([-50.0, -1e6, 0.0, 86400.0, 1e9]), sensed=conditions)
    def the_clock_jumps(self, by_s: float, sensed: Conditions) -> None:
        self.clock_s += by_s
        self.happens(Tick(now_s=self.clock_s, at=-5.0, conditions=sensed))

    @rule(nonsense=st.sampled_from([math.nan, math.inf, -math.inf]), sensed=conditions)
    def the_clock_is_nonsense(self, nonsense: float, sensed: Conditions) -> None:
        self.happens(Tick(now_s=nonsense, at=nonsense, conditions=sensed))
        self.clock_s += 1.0
        self.happens(Tick(now_s=self.clock_s, at=1e9, conditions=sensed))

    @rule(app=st.sampled_from(APPS), model=st.sampled_from(("digits", "digits", "faces", "ghost")))
    def joins(self, app: str, model: str) -> None:
        self.happens(AppJoined(app=app, model=model))

    @rule(app=st.sampled_from(APPS))
    def leaves(self, app: str) -> None:
        self.told.pop(app, None)
        self.happens(AppLeft(app=app))

    @rule(
        app=st.sampled_from(APPS),
        variant=st.sampled_from((None, None, None, *VARIANTS, "ghost")),
        calls=st.sampled_from([0, 1, 30, 10**9]),
        slowed=st.sampled_from((0.5, 0.9, 1.0, 1.0, 1.1, 2.0, 4.0, None, *ABSURD)),
        slow=st.sampled_from((None, None, 1.7, 3.0, *ABSURD)),
    )
    def reports(self, app: str, variant: str | None, calls: int, slowed: float | None, slow: float | None) -> None:
        assigned = self.state.assignment(app)
        ran = variant or (assigned.decision.variant if assigned else "ghost")
        known = self.state.model(assigned.decision.model) if assigned else None
        record = known.variant(ran) if known else None
        usual_ms = record.latency_ms if record else 1.0
        p50_ms = None if slowed is None else slowed * usual_ms
        self.happens(
            AppReported(
                app=app,
                variant=ran,
                calls=calls,
                late=calls // 3,
                p50_ms=p50_ms,
                p95_ms=p50_ms,
                arrived=calls + 1,
                latencies_ms=() if p50_ms is None else (p50_ms,) * min(calls, 20),
                slow_ms=None if slow is None else slow * usual_ms,
                now_s=self.clock_s + 0.4,
            )
        )

    @rule(app=st.sampled_from(APPS), variant=st.sampled_from((None, None, None, "b")), times=st.integers(1, 3))
    def fails(self, app: str, variant: str | None, times: int) -> None:
        for _ in range(times):
            assigned = self.state.assignment(app)
            tried = variant or (assigned.decision.variant if assigned else "ghost")
            self.happens(ActivationFailed(app=app, variant=tried, reason="out of memory " * 200))

    @rule(app=st.sampled_from(APPS), variant=st.one_of(st.none(), ids))
    def pins_for_itself(self, app: str, variant: str | None) -> None:
        self.happens(AppPinned(app=app, variant=variant))

    @rule(model=models, variant=ids, by=hands)
    def is_pinned(self, model: str, variant: str, by: PinnedBy) -> None:
        self.happens(Pinned(model=model, variant=variant, by=by))

    @rule(model=st.one_of(st.none(), models), by=hands)
    def is_unpinned(self, model: str | None, by: PinnedBy) -> None:
        self.happens(Unpinned(model=model, by=by))

    @rule(model=st.one_of(st.none(), models), preference=preferences)
    def is_wished(self, model: str | None, preference: Preference) -> None:
        self.happens(Preferred(model=model, preference=preference))

    @rule(paused=st.booleans())
    def is_paused(self, paused: bool) -> None:
        self.happens(Paused(paused=paused))

    @rule(model=models, variant=ids, median_ms=latencies)
    def is_measured(self, model: str, variant: str, median_ms: float) -> None:
        self.happens(Measured(model=model, variant=variant, median_ms=median_ms))

    @rule(app=st.sampled_from(APPS), runs=st.sampled_from((None, ("a", "b", "tpu"), ("c", "ghost"))), hot=st.booleans())
    def can_run(self, app: str, runs: tuple[str, ...] | None, hot: bool) -> None:
        self.happens(AppCanRun(app=app, runs=runs, hot=hot))

    @rule(model=models, variant=ids, latency_ms=latencies)
    def is_tried(self, model: str, variant: str, latency_ms: float) -> None:
        self.happens(Tried(model=model, variant=variant, latency_ms=latency_ms))

    @precondition(lambda self: self.ticks > 0)
    @rule()
    def restarts(self) -> None:
        kept = load(dump(self.state))
        assert same(kept, self.state)
        self.state = initial(self.facts, kept, at=2.0)
        assert not self.state.apps
        self.told.clear()
        self.log.append(None)
        self.said.append(())
        for app in APPS:
            self.happens(AppJoined(app=app, model="digits"))

    # ------------------------------------------------------------------------------------------- what is promised

    def happens(self, event: Event) -> None:
        before = self.state
        after, instructions = self.frame.step(before, event)
        self.state = after
        self.log.append(event)
        self.said.append(instructions)
        self.passes(before, event)
        for item in instructions:
            self.is_sound(item)
        for record in after.models:
            if record.variants:
                self.does_not_flap(before, record, event)
                self.is_safe(record, event)
        self.offers_only_what_may_run()
        self.apps_are_told()
        if len(self.log) % 5 == 0:
            assert same(load(dump(after)), after)

    def passes(self, before: PolicyState, event: Event) -> None:
        if not isinstance(event, Tick):
            return
        self.ticks += 1
        if before.seen_s is not None and 0 < event.now_s - before.seen_s < math.inf:
            self.elapsed_s += event.now_s - before.seen_s
        assert before.now_s <= self.state.now_s == pytest.approx(self.elapsed_s)

    def is_sound(self, item: Instruction) -> None:
        if isinstance(item, Quarantined | PolicyFailed):
            assert item.reason
            return
        if not isinstance(item, Assign | Decided):
            assert self.state.model(item.model) is not None
            return
        decision = item.decision
        model = self.state.model(decision.model)
        assert model is not None
        assert model.variant(decision.variant) is not None
        assert decision.because.code in CODES
        assert 0 < len(decision.because.text) <= 1000
        assert decision.because.runner_up != decision.variant
        assert math.isfinite(decision.at)
        assert decode(encode(decision), Decision, where="a decision") == decision

    def does_not_flap(self, before: PolicyState, record: ModelRecord, event: Event) -> None:
        """What was left does not come back by itself within a dwell, but for what no policy may break."""
        old = before.model(record.name)
        assert old is not None
        if old.decision is None or record.decision is None or old.decision.variant == record.decision.variant:
            return
        left, taken = old.decision.variant, record.decision.variant
        if isinstance(event, BY_ITSELF):
            assert not before.paused or not self.state.paused
            assert old.pin is None
            variant = record.variant(taken)
            assert variant is not None
            assert lasts(self.state, variant)
            if record.decision.because.code not in SAFETY:
                assert self.elapsed_s - self.left.get((record.name, taken), -math.inf) >= tables.DWELL_S - 1e-6
            self.left[record.name, left] = self.elapsed_s
        elif not isinstance(event, ActivationFailed):  # somebody's word overrides bars
            self.left = {key: at_s for key, at_s in self.left.items() if key[0] != record.name}
        if isinstance(event, ActivationFailed):
            variant = record.variant(taken)
            assert variant is not None
            assert lasts(self.state, variant) or record.pin == taken

    def is_safe(self, record: ModelRecord, event: Event) -> None:
        """Critical heat, charge and throttling leave the cheapest, whatever the policy says."""
        if record.decision is None:
            return
        current = record.variant(record.decision.variant)
        assert current is not None
        if record.pin is not None:
            assert current.id == record.pin
            assert record.decision.because.code == "pin"
            return
        state = self.state
        if state.paused or not isinstance(event, Tick) or not state.apps_of(record.name):
            return
        if state.heat or state.charge == tables.CRITICAL or state.throttle is Throttle.CRITICAL:
            apps = state.apps_of(record.name)
            common = [v for v in record.variants if all(app.can_run(v) for app in apps)] or list(record.variants)
            usable = [variant for variant in common if lasts(state, variant)] or [current]
            assert cost(current) <= min(cost(variant) for variant in usable) * (1 + EPS)

    def offers_only_what_may_run(self) -> None:
        for task in setting_of(self.state, self.frame.site).tasks:
            model = self.state.model(task.name)
            assert model is not None
            assert self.state.apps_of(model.name)
            offered = {action.id for action in task.actions}
            assert offered
            if model.pin is not None:
                assert offered == {model.pin}
            elif len(offered) > 1:
                assert all(lasts(self.state, v) for v in model.variants if v.id in offered)

    def apps_are_told(self) -> None:
        """Each app was told what it is to run, and pins win in the order hub, operator, app."""
        for item in self.said[-1]:
            if isinstance(item, Assign):
                self.told[item.app] = item
        for app in self.state.apps:
            model = self.state.model(app.model)
            assert model is not None
            assigned = self.state.assignment(app.app)
            if assigned is None:
                assert not model.variants
                continue
            assert model.decision is not None
            expected = model.hub_pin or model.operator_pin or app.pin or model.decision.variant
            wanted = model.variant(expected)
            assert wanted is not None
            if not app.can_run(wanted) and (expected != app.pin or model.pin is not None):  # then another stands in
                expected = assigned.decision.variant
                runs = {variant.id for variant in model.variants if app.can_run(variant)}
                assert expected in (runs or {wanted.id})
            assert assigned.decision.variant == expected
            hand = (
                PinnedBy.HUB if model.hub_pin
                else PinnedBy.OPERATOR if model.operator_pin
                else PinnedBy.APP if app.pin
                else None
            )  # fmt: skip
            assert assigned.pinned_by is hand
            told = self.told[app.app]
            assert (told.decision.variant, told.pinned_by) == (expected, hand)

    def teardown(self) -> None:
        if not hasattr(self, "facts"):
            return
        state = initial(self.facts, at=1.0)
        for event, said in zip(self.log, self.said, strict=True):
            if event is None:
                state = initial(self.facts, load(dump(state)), at=2.0)
                continue
            state, instructions = self.frame.step(state, event)
            assert repr(instructions) == repr(said)
        assert dump(state) == dump(self.state)


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
