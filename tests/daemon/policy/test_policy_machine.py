"""Whatever happens, in whatever order: what the policy promises holds.

Hypothesis makes up devices and what happens to them: ticks with any conditions (also absurd ones), reports, pins of
three hands, preferences, failures, clocks that jump, restarts. After each event all promises are checked by formulas of
this file's own; at the end everything is replayed and must come out the same.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from edge_daemon.policy import tables
from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord, dump, initial, load
from edge_daemon.policy.step import step
from edge_daemon.policy.types import (
    ActivationFailed,
    AppJoined,
    AppLeft,
    AppPinned,
    AppReported,
    Assign,
    Event,
    Instruction,
    Measured,
    ModelFacts,
    Paused,
    Pinned,
    PinnedBy,
    Preferred,
    Quarantined,
    Tick,
    Unpinned,
    VariantFacts,
)
from edge_sdk.mqtt import Conditions, Throttle
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

CODES = {
    "latency", "deadline", "battery", "thermal", "throttle", "accuracy", "preference", "pin", "unpin", "failure",
    "start", "measured", "recovered",
}  # fmt: skip
BY_ITSELF = (Tick, AppReported, AppJoined, Paused, Measured)
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
    temp_c=st.sampled_from((45.0, 45.0, 64.5, 66.0, 67.5, 70.0, 71.5, 74.0, 76.0, None, *ABSURD)),
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


def in_time(state: PolicyState, model: ModelRecord, variant: VariantRecord) -> bool:
    wish = model.preference
    p95 = variant.latency_ms * math.exp(state.log_slowdown + model.log_tail)
    trip = state.senses.rtt_ms or 0.0
    over = wish.max_latency_ms is not None and p95 > wish.max_latency_ms * (1 + EPS)
    late = wish.deadline_ms is not None and p95 > (wish.deadline_ms - trip) + EPS * abs(wish.deadline_ms - trip)
    return not over and not late


def may_run(state: PolicyState, model: ModelRecord, variant: VariantRecord) -> bool:
    barred = any(
        item.variant == variant.id and (item.at_s is None or state.now_s - item.at_s < tables.DWELL_S)
        for item in model.left
    )
    return lasts(state, variant) and not barred


def lasts(state: PolicyState, variant: VariantRecord) -> bool:
    return variant.out_until_s is None or state.now_s >= variant.out_until_s


def critical(state: PolicyState, model: ModelRecord) -> bool:
    return model.thermal == 3 or state.battery == 3 or state.throttle is Throttle.CRITICAL


class Device(RuleBasedStateMachine):
    """A device to which things happen."""

    @initialize(first=st.one_of(st.just(list(LADDER)), variants), second=variants)
    def start(self, first: list[VariantFacts], second: list[VariantFacts]) -> None:
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
        self.switched: dict[str, list[float | None]] = {}  # begin of the dwell by model; [None] until the next tick
        self.fled: dict[tuple[str, str], float] = {}  # when a variant was left urgently
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
        tail=st.sampled_from((1.0, 1.2, 2.0, None, *ABSURD)),
    )
    def reports(self, app: str, variant: str | None, calls: int, slowed: float | None, tail: float | None) -> None:
        assigned = self.state.assignment(app)
        ran = variant or (assigned.decision.variant if assigned else "ghost")
        known = self.state.model(assigned.decision.model) if assigned else None
        record = known.variant(ran) if known else None
        p50_ms = None if slowed is None else slowed * (record.prior_ms if record else 1.0)
        p95_ms = None if tail is None or p50_ms is None else p50_ms * tail
        self.happens(AppReported(app=app, variant=ran, calls=calls, late=calls // 3, p50_ms=p50_ms, p95_ms=p95_ms))

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

    @precondition(lambda self: self.ticks > 0)
    @rule()
    def restarts(self) -> None:
        kept = load(dump(self.state))
        assert kept == self.state
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
        after, instructions = step(before, event)
        self.state = after
        self.log.append(event)
        self.said.append(instructions)
        self.passes(before, event)
        for item in instructions:
            self.is_sound(item)
        for record in after.models:
            if record.variants:
                self.switches_seldom(before, record, event)
                self.keeps_limits(record)
        self.apps_are_told()
        assert load(dump(after)) == after

    def passes(self, before: PolicyState, event: Event) -> None:
        if not isinstance(event, Tick):
            return
        self.ticks += 1
        if before.seen_s is not None and 0 < event.now_s - before.seen_s < math.inf:
            self.elapsed_s += event.now_s - before.seen_s
        assert before.now_s <= self.state.now_s == pytest.approx(self.elapsed_s)
        for begins in self.switched.values():
            if begins[0] is None:
                begins[0] = self.elapsed_s

    def is_sound(self, item: Instruction) -> None:
        if isinstance(item, Quarantined):
            assert item.reason
            return
        decision = item.decision
        model = self.state.model(decision.model)
        assert model is not None
        assert model.variant(decision.variant) is not None
        assert decision.because.code in CODES
        assert 0 < len(decision.because.text) <= 1000
        assert decision.because.runner_up != decision.variant
        assert math.isfinite(decision.at)

    def switches_seldom(self, before: PolicyState, record: ModelRecord, event: Event) -> None:
        """Voluntary switches wait for a dwell since the last switch of any kind."""
        old = before.model(record.name)
        assert old is not None
        if old.decision is None or record.decision is None or old.decision.variant == record.decision.variant:
            if old.decision is None and record.decision is not None:
                self.switched[record.name] = [self.elapsed_s if isinstance(event, Tick) else None]
            return
        left, taken = record.variant(old.decision.variant), record.variant(record.decision.variant)
        assert left is not None
        assert taken is not None
        if isinstance(event, BY_ITSELF):
            assert not before.paused or not self.state.paused
            assert old.pin is None
            assert lasts(self.state, taken)
            urgent = taken.latency_ms < left.latency_ms
            if (urgent and critical(self.state, record)) or (urgent and not in_time(self.state, record, left)):
                pass
            elif urgent and tables.THROTTLE_RANK[self.state.throttle] + record.thermal + self.state.battery > 0:
                pass  # a band that is not critical asks for something cheaper
            else:
                begin = self.switched[record.name][0]
                assert begin is not None
                assert self.elapsed_s - begin >= tables.DWELL_S - 1e-6
        else:
            self.fled.clear()  # somebody's word, or a failure, overrides bars
        if isinstance(event, ActivationFailed):
            assert lasts(self.state, taken) or record.pin == taken.id
        self.switched[record.name] = [self.elapsed_s if isinstance(event, Tick) else None]

    def keeps_limits(self, record: ModelRecord) -> None:
        """No hard limit is broken while another variant would keep it."""
        if record.decision is None:
            return
        current = record.variant(record.decision.variant)
        assert current is not None
        if record.pin is not None:
            assert current.id == record.pin
            assert record.decision.because.code == "pin"
            return
        if self.state.paused:
            return
        usable = [variant for variant in record.variants if may_run(self.state, record, variant)]
        if not usable:
            return
        if critical(self.state, record):
            cheapest = min(variant.latency_ms for variant in usable)
            assert current.latency_ms <= cheapest * tables.SHARE_MARGIN * (1 + EPS)
        elif any(in_time(self.state, record, variant) for variant in usable):
            assert in_time(self.state, record, current)

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
            state, instructions = step(state, event)
            assert repr(instructions) == repr(said)
        assert dump(state) == dump(self.state)


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
