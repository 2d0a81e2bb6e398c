"""What the frame makes of a day: wishes, pins, failures, what no policy may break, policies that fail themselves."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from climbing import Climber
from msgspec import structs

import edge_daemon.policies
import edge_daemon.policy
from edge_daemon.policies.contract import Event as Told
from edge_daemon.policies.contract import Factory, Replied, Second, Setting, Verdict, Why
from edge_daemon.policy import tables
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.setting import Site, setting_of
from edge_daemon.policy.state import PolicyState, dump, initial, load
from edge_daemon.policy.types import (
    ActivationFailed,
    Advise,
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
    Try,
    Unpinned,
    VariantFacts,
)
from edge_sdk.mqtt import Conditions, Decision, Throttle
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

LADDER = (("xl", 99.0, 160.0), ("l", 98.6, 80.0), ("m", 97.5, 40.0), ("s", 95.0, 20.0), ("xs", 90.0, 8.0))
TAKES_MS = {name: latency_ms for name, _, latency_ms in LADDER}
CALM = Conditions(temp_c=45.0, temp_limit_c=75.0, battery_pct=100.0, charging=True, rtt_ms=2.0)
ACCURATE = Preference(mode=Mode.ACCURACY)


def ladder(*rungs: tuple[str, float, float]) -> ModelFacts:
    return ModelFacts(
        name="digits",
        variants=tuple(
            VariantFacts(id=name, quality=quality, latency_ms=latency_ms, measured=False, size_bytes=1000)
            for name, quality, latency_ms in rungs or LADDER
        ),
    )


class Device:
    """One model, one app, a clock that goes on with each second."""

    def __init__(
        self, *rungs: tuple[str, float, float], preference: Preference = ACCURATE, factory: Factory = Climber
    ) -> None:
        self.facts = (ladder(*rungs),)
        self.frame = Frame(use="climber", factory=factory)
        self.state: PolicyState = initial(self.facts)
        self.now_s = 0.0
        self.said: list[Instruction] = []
        self.conditions = CALM
        self.tell(Preferred(model=None, preference=preference))
        self.tell(AppJoined(app="app", model="digits"))
        self.seconds(1)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.state, instructions = self.frame.step(self.state, event)
            self.said += instructions

    def seconds(self, count: int, **changes: object) -> str:
        self.conditions = replace_conditions(self.conditions, changes)
        for _ in range(count):
            self.now_s += 1.0
            self.tell(Tick(now_s=self.now_s, at=1e9 + self.now_s, conditions=self.conditions))
        return self.active

    def reports(self, p50_ms: float, *, calls: int = 30, slow_ms: float | None = None) -> str:
        seen = AppReported(
            app="app", variant=self.active, calls=calls, late=0, p50_ms=p50_ms, p95_ms=None, slow_ms=slow_ms
        )
        self.tell(seen)
        return self.active

    @property
    def decision(self) -> Decision:
        decision = self.state.models[0].decision
        assert decision is not None
        return decision

    @property
    def active(self) -> str:
        return self.decision.variant

    @property
    def switches(self) -> list[tuple[str, str]]:
        return [(d.decision.because.code, d.decision.variant) for d in self.said if isinstance(d, Decided)]


class Stubborn(Climber):
    """Wants the best whatever happens."""

    def _verdict(self, index: int, state: Any, second: Second | None) -> Verdict:
        del state, second
        best = max(self.setting.tasks[index].actions, key=lambda action: action.quality)
        return Verdict(task=index, action=best.id, why=Why(code="gain"))


class Broken(Climber):
    """Fails while it is told to."""

    is_broken = False

    def step(self, state: Any, event: Told) -> tuple[Any, tuple[Verdict, ...]]:
        if Broken.is_broken:
            raise RuntimeError("out of ideas")
        return super().step(state, event)


class Listener:
    """Makes policies that note what they are told; what they are only asked is noted too."""

    def __init__(self, probe: str | None = None, most_per_s: float | None = None) -> None:
        self.seconds: list[Second] = []
        self.replies: list[Replied] = []
        self.probe, self.most_per_s = probe, most_per_s

    def listen(self, setting: Setting) -> Climber:
        listener = self

        class Listening(Climber):
            def step(self, state: Any, event: Told) -> tuple[Any, tuple[Verdict, ...]]:
                (listener.seconds if isinstance(event, Second) else listener.replies).append(event)  # type: ignore[arg-type]
                after, verdicts = super().step(state, event)
                more = {"probe": listener.probe, "most_per_s": listener.most_per_s}
                return after, tuple(structs.replace(verdict, **more) for verdict in verdicts)

        return Listening(setting)


def replace_conditions(conditions: Conditions, changes: dict[str, object]) -> Conditions:
    values = {name: getattr(conditions, name) for name in Conditions.__struct_fields__}
    return Conditions(**{**values, **changes})


def test_the_first_decision_is_the_modes_favourite_and_says_so() -> None:
    assert Device().switches == [("start", "xl")]
    assert [Device(preference=Preference(mode=mode)).active for mode in Mode] == ["xl", "l", "xs", "m"]


def test_a_decision_says_what_bound_who_came_second_and_by_how_much_in_data_and_in_one_sentence() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=100.0))
    because = device.decision.because
    assert (because.code, because.runner_up, because.margin) == ("start", "xl", 0.5)
    assert because.numbers == {"slowdown": 1.0, "draws_w": 3.0}
    assert because.text == (
        "first choice (accuracy, at most 100 ms): l (98.6 points in 80 ms); next is xl, 0.5 points a request behind; "
        "slowdown 1, draws 3 W (estimated)"
    )
    device.seconds(1, power_w=4.2)
    device.reports(200.0)
    device.seconds(1)
    assert device.decision.because.code == "latency"
    assert device.decision.because.text == (
        "answers have to come within 100 ms: m (97.5 points in 40 ms) instead of l (98.6 points in 80 ms); "
        "next is xl, 0.5 points a request behind; slowdown 2.5, draws 3 W"  # a sensor tells the power now
    )


def test_an_empty_battery_takes_the_cheapest_whatever_the_policy_says_and_the_charger_brings_it_back() -> None:
    device = Device()
    assert device.seconds(10, charging=False, battery_pct=9.0) == "m"  # low: thrift, by the policy's own weights
    assert device.seconds(10, battery_pct=8.0) == "xs"
    assert device.decision.because.code == "battery"
    assert "8 % (critical)" in device.decision.because.text
    assert device.seconds(4, charging=True) == "xs"  # a plug that is just being pushed in
    assert device.seconds(9) == "xl"
    assert device.decision.because.code == "recovered"


def test_a_charge_resting_on_a_threshold_changes_nothing_and_leaving_takes_more_than_entering() -> None:
    device = Device()
    assert device.seconds(10, charging=False, battery_pct=8.0) == "xs"
    before = len(device.switches)
    for _ in range(30):
        device.seconds(1, battery_pct=8.4)
        device.seconds(1, battery_pct=7.6)
    assert device.seconds(20, battery_pct=10.9) == "xs"
    assert len(device.switches) == before
    assert device.seconds(20, battery_pct=11.0) == "m"


def test_a_loose_plug_does_not_flap_the_choice() -> None:
    device = Device()
    assert device.seconds(10, charging=False, battery_pct=5) == "xs"
    before = len(device.switches)
    for _ in range(30):
        device.seconds(2, charging=True)
        device.seconds(1, charging=False)
    assert len(device.switches) == before


def test_what_is_clearly_beyond_the_limit_of_heat_takes_the_cheapest_whatever_the_policy_says() -> None:
    device = Device(factory=Stubborn)
    assert [device.seconds(1, temp_c=t) for t in (74.0, 76.0, 77.0)] == ["xl", "xl", "xs"]
    assert device.decision.because.code == "thermal"
    assert device.decision.because.runner_up == "xl"
    assert "77 °C (critical: limit 75 °C)" in device.decision.because.text
    assert device.seconds(20, temp_c=73.5) == "xs"
    assert device.seconds(20, temp_c=73.0) == "xl"


def test_a_user_may_lower_the_limit_of_heat_and_never_raise_it() -> None:
    device = Device(factory=Stubborn)
    device.seconds(10, temp_c=62.0)
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_temp_c=60.0)))
    assert device.active == "xs"
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_temp_c=90.0)))
    assert device.seconds(1, temp_c=77.0) == "xs"


@pytest.mark.parametrize(
    ("throttle", "active"),
    [(Throttle.SOFT, "l"), (Throttle.THERMAL, "m"), (Throttle.POWER, "m"), (Throttle.CRITICAL, "xs")],
)
def test_throttling_shrinks_at_once_and_flickering_bits_do_not_flap(throttle: Throttle, active: str) -> None:
    device = Device(factory=Stubborn)
    assert device.seconds(1, throttle=throttle) == active
    assert device.decision.because.code == "throttle"
    before = len(device.switches)
    for _ in range(20):
        device.seconds(3, throttle=Throttle.NONE)
        device.seconds(1, throttle=throttle)
    assert len(device.switches) == before
    assert device.seconds(30, throttle=Throttle.NONE) == "xl"


def test_a_slow_network_leaves_less_time_within_the_deadline() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, deadline_ms=250.0))
    assert device.active == "xl"
    assert device.seconds(1, rtt_ms=120.0) == "l"
    assert device.decision.because.code == "deadline"
    assert "within 250 ms, 120 ms round trip included" in device.decision.because.text
    assert device.seconds(1, rtt_ms=200.0) == "m"
    assert device.seconds(10, rtt_ms=None) == "m"  # silence is no good news
    assert device.seconds(10, rtt_ms=2.0) == "xl"


def test_a_deadline_shorter_than_the_round_trip_leaves_what_comes_closest() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, deadline_ms=100.0))
    assert device.seconds(1, rtt_ms=300.0) == "xs"
    assert device.decision.because.code == "deadline"


def test_a_round_trip_that_varies_a_little_does_not_make_the_policy_anew() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, deadline_ms=250.0))
    device.seconds(1, rtt_ms=100.0)
    policy = device.state.plugged.policy
    for second in range(30):
        device.seconds(1, rtt_ms=95.0 + second % 14)
    assert device.state.plugged.policy is policy


def test_what_the_user_wants_counts_at_once() -> None:
    device = Device()
    wishes = {
        Preference(mode=Mode.SPEED): "xs",
        Preference(mode=Mode.BATTERY): "m",
        Preference(mode=Mode.ACCURACY, max_latency_ms=30.0): "s",
        Preference(mode=Mode.SPEED, min_accuracy=97.0): "m",
        ACCURATE: "xl",
    }
    seen = []
    for wish in wishes:
        device.tell(Preferred(model="digits", preference=wish))
        seen.append(device.active)
        assert device.decision.because.code == "preference"
    assert seen == list(wishes.values())


def test_limits_that_contradict_each_other_are_told_to_the_policy_as_they_are() -> None:
    wish = Preference(mode=Mode.ACCURACY, max_latency_ms=30.0, min_accuracy=99.0, max_temp_c=20.0)
    device = Device(preference=wish)
    setting = setting_of(device.state, device.frame.site)
    assert (setting.temp_c, setting.tasks[0].limit_ms, setting.tasks[0].min_quality) == (20.0, 30.0, 99.0)
    device.seconds(60)
    assert device.active == "xs"  # heat yields to nothing, and the sentence says so
    assert "limit 20 °C" in device.decision.because.text
    assert len(device.switches) <= 2


def test_a_slow_call_is_told_to_the_policy_at_once() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=250.0))
    assert device.reports(160.0, slow_ms=480.0) == "l"
    assert device.decision.because.code == "latency"


def test_what_apps_did_in_a_second_is_told_as_one() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    seen = AppReported(
        app="app", variant="xl", calls=3, late=1, p50_ms=None, p95_ms=None, arrived=5, latencies_ms=(150.0, 170.0)
    )
    device.tell(seen, replace(seen, calls=2, late=9, arrived=None, latencies_ms=(math.nan, -1.0, 0.0, 200.0)))
    device.tell(replace(seen, variant="s"))  # what still ran before the switch counts, its times say nothing
    device.seconds(1)
    told = heard.seconds[-1].tasks[0]
    assert (told.action, told.requests, told.late) == ("xl", 12, 4)
    assert told.latencies_ms == (150.0, 170.0, 200.0)
    device.seconds(1)
    assert heard.seconds[-1].tasks[0].requests == 0
    assert [second.now_s for second in heard.seconds] == sorted(second.now_s for second in heard.seconds)


def test_a_tick_that_comes_late_is_told_as_one_second_of_it() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.tell(AppReported(app="app", variant="xl", calls=100, late=10, p50_ms=160.0, p95_ms=None))
    device.now_s += 9.0
    device.seconds(1)
    told = heard.seconds[-1].tasks[0]
    assert (told.requests, told.late) == (10, 1)


def test_what_an_app_did_after_hours_without_one_is_told_as_a_second() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.seconds(1)
    device.tell(AppLeft(app="app"))
    device.seconds(50)
    device.tell(AppJoined(app="app", model="digits"))
    device.tell(AppReported(app="app", variant=device.active, calls=10, late=0, p50_ms=160.0, p95_ms=None))
    device.seconds(1)
    assert heard.seconds[-1].tasks[0].requests == 10


def test_ticks_more_often_than_once_a_second_only_look_at_what_no_policy_may_break() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    before = len(heard.seconds)
    for _ in range(40):
        device.now_s -= 0.9
        device.seconds(1)
    assert 3 <= len(heard.seconds) - before <= 5
    device.now_s -= 0.9
    assert device.seconds(1, throttle=Throttle.CRITICAL) == "xs"


def test_what_was_tried_in_idle_time_comes_back_and_is_asked_for() -> None:
    heard = Listener(probe="m", most_per_s=7.0)
    device = Device(factory=heard.listen)
    assert Try(model="digits", variant="m") in device.said
    assert [item for item in device.said if isinstance(item, Advise)] == [Advise(model="digits", most_per_s=7.0)]
    device.tell(Tried(model="digits", variant="m", latency_ms=55.0))
    device.seconds(1)
    probed = heard.seconds[-1].tasks[0].probed
    assert probed is not None
    assert (probed.action, probed.latency_ms) == ("m", 55.0)


def test_a_measurement_on_the_machine_replaces_the_prediction() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=100.0))
    assert device.active == "l"
    device.seconds(10)
    device.tell(Measured(model="digits", variant="xl", median_ms=50.0))
    assert device.seconds(1) == "xl"
    assert device.decision.because.code == "measured"


def test_whatever_flaps_nothing_comes_back_within_a_dwell() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=100.0))
    left: dict[str, float] = {}
    before = device.active
    for second in range(240):
        device.reports((2.5 if second % 2 else 0.5) * TAKES_MS[device.active])
        device.seconds(1)
        if device.active != before:
            assert device.now_s - left.get(device.active, -math.inf) >= tables.DWELL_S
            left[before] = device.now_s
            before = device.active
    assert len(device.switches) > 5


def test_a_server_is_not_a_variant_and_models_that_no_app_runs_are_no_tasks() -> None:
    facts = (ladder(), replace(ladder(), name="faces"))
    frame, state = Frame(use="climber", factory=Climber), initial((facts[0], facts[1]))
    state, _ = frame.step(state, Tick(now_s=1.0, at=1.0, conditions=CALM))
    assert [model.decision is not None for model in state.models] == [True, True]  # a first choice, for whoever comes
    assert setting_of(state, frame.site).tasks == ()
    for app, model in (("a", "faces"), ("b", "digits"), ("c", "faces")):
        state, _ = frame.step(state, AppJoined(app=app, model=model))
    assert [task.name for task in setting_of(state, frame.site).tasks] == ["digits", "faces"]
    state, _ = frame.step(state, AppLeft(app="b"))
    assert [task.name for task in setting_of(state, frame.site).tasks] == ["faces"]


def test_a_variant_for_an_accelerator_is_offered_only_where_every_app_can_run_it() -> None:
    tpu = VariantFacts(id="tpu", quality=99.5, latency_ms=5.0, measured=False, size_bytes=1, accelerated=True, twin="s")
    facts = (replace(ladder(), variants=(*ladder().variants, tpu)),)
    frame, state = Frame(use="climber", factory=Climber), initial(facts)

    def tell(event: Event) -> str:
        nonlocal state
        state, _ = frame.step(state, event)
        decision = state.models[0].decision
        assert decision is not None
        return decision.variant

    assert tell(Preferred(model=None, preference=ACCURATE)) == "xl"
    assert tell(AppJoined(app="new", model="digits", runs=("tpu", "xl", "s"))) == "tpu"
    assert tell(AppJoined(app="old", model="digits")) == "s"  # at once: it cannot run what runs
    ran = [tell(Tick(now_s=float(second), at=1.0, conditions=CALM)) for second in range(1, 12)]
    assert ran[-1] == "xl"  # of those that both run, once it is not barred any more
    assert tell(Pinned(model="digits", variant="tpu", by=PinnedBy.HUB)) == "tpu"
    told = {app: state.assignment(app) for app in ("new", "old")}
    assert told["new"] is not None
    assert told["new"].decision.variant == "tpu"
    assert told["old"] is not None
    assert told["old"].decision.variant == "s"  # its twin stands in
    assert "cannot run tpu" in told["old"].decision.because.text


# --------------------------------------------------------------------------------------------- policies that fail


def test_a_policy_that_raises_is_told_of_once_and_what_runs_goes_on() -> None:
    device = Device(factory=Broken)
    before = device.active
    Broken.is_broken = True
    try:
        device.seconds(200)
        failed = [item for item in device.said if isinstance(item, PolicyFailed)]
        assert [(item.policy, item.reason) for item in failed] == [("climber", "RuntimeError: out of ideas")]
        assert device.active == before
        device.tell(Preferred(model=None, preference=Preference(mode=Mode.BALANCED)))
        assert device.active == "xs"  # a choice is to be made, and the cheapest is safe whatever the conditions
        assert device.seconds(1, throttle=Throttle.CRITICAL) == "xs"
    finally:
        Broken.is_broken = False
    assert device.seconds(int(tables.PLUGIN_AGAIN_S) + 12, throttle=Throttle.NONE) == "l"
    assert len([item for item in device.said if isinstance(item, PolicyFailed)]) == 1


@pytest.mark.parametrize(
    "verdicts",
    [
        (),
        (Verdict(task=1, action="xl", why=Why(code="gain")),),
        (Verdict(task=0, action="ghost", why=Why(code="gain")),),
        (Verdict(task=0, action="xl", why=Why(code="gain"), probe="ghost"),),
        (Verdict(task=0, action="xl", why=Why(code="gain"), most_per_s=math.nan),),
        (Verdict(task=0, action="xl", why=Why(code="")),),
        ("xl",),
        None,
        (Verdict(task="first", action="xl", why="because"),),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_nonsense_is_no_verdict(verdicts: Any) -> None:
    class Nonsense(Climber):
        def step(self, state: Any, event: Told) -> tuple[Any, Any]:
            del event
            return state, verdicts

    device = Device(factory=Nonsense)
    assert device.seconds(30) == "xs"
    assert len([item for item in device.said if isinstance(item, PolicyFailed)]) == 1


def test_numbers_that_are_none_do_not_leave_the_device() -> None:
    class Odd(Climber):
        def _verdict(self, index: int, state: Any, second: Second | None) -> Verdict:
            found = super()._verdict(index, state, second)
            numbers = (("cap_w", math.nan), ("a b", 1.0), ("price_per_j", 2.0), ("huge", math.inf))
            return structs.replace(
                found, why=Why(code="gain", runner_up=found.action, margin=math.nan, numbers=numbers)
            )

    because = Device(factory=Odd).decision.because
    assert (because.margin, because.runner_up, because.numbers) == (None, None, {"price_per_j": 2.0})
    assert "price 2 points/J (estimated)" in because.text


def test_what_a_policy_learned_outlives_its_setting_and_a_restart() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=250.0))
    device.reports(480.0)
    device.seconds(1)
    assert device.active == "l"
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_latency_ms=130.0)))
    assert device.active == "m"
    kept = load(dump(device.state))
    again = initial(device.facts, kept)
    again, _ = device.frame.step(again, AppJoined(app="app", model="digits"))
    wish = Preference(mode=Mode.ACCURACY, max_latency_ms=260.0)
    again, _ = device.frame.step(again, Preferred(model=None, preference=wish))
    assert again.models[0].decision is not None
    assert again.models[0].decision.variant == "l"  # three times 80 ms
    other = initial(device.facts, kept)
    other, _ = Frame(use="another", factory=Climber).step(other, AppJoined(app="app", model="digits"))
    assert other.plugged.state == Climber(other.plugged.setting).initial()  # what another learned says nothing to it


def test_pins_win_in_the_order_hub_operator_app() -> None:
    device = Device()

    def told() -> tuple[str, PinnedBy | None]:
        assigned = [item for item in device.said if isinstance(item, Assign)][-1]
        return assigned.decision.variant, assigned.pinned_by

    device.tell(AppPinned(app="app", variant="s"))
    assert told() == ("s", PinnedBy.APP)
    device.tell(Pinned(model="digits", variant="m", by=PinnedBy.OPERATOR))
    assert told() == ("m", PinnedBy.OPERATOR)
    device.tell(Pinned(model="digits", variant="l", by=PinnedBy.HUB))
    assert told() == ("l", PinnedBy.HUB)
    device.tell(Pinned(model="digits", variant="xs", by=PinnedBy.OPERATOR), AppPinned(app="app", variant="xl"))
    assert told() == ("l", PinnedBy.HUB)
    device.seconds(20, temp_c=90.0, battery_pct=1.0, charging=False)
    assert told() == ("l", PinnedBy.HUB)
    device.tell(Unpinned(model=None, by=PinnedBy.HUB))
    assert told() == ("xs", PinnedBy.OPERATOR)
    device.tell(Unpinned(model=None, by=PinnedBy.OPERATOR))
    assert told() == ("xl", PinnedBy.APP)
    device.tell(AppPinned(app="app", variant=None))
    assert told() == ("xs", None)


def test_while_paused_nothing_switches_but_by_pins() -> None:
    device = Device()
    device.tell(Paused(paused=True))
    assert device.seconds(20, temp_c=90.0) == "xl"
    device.tell(Pinned(model="digits", variant="m", by=PinnedBy.HUB))
    assert device.active == "m"
    device.tell(Unpinned(model=None, by=PinnedBy.HUB))
    assert device.active == "m"
    device.tell(Paused(paused=False))
    assert device.active == "xs"


def test_a_variant_that_fails_twice_is_left_out_and_tried_again_later() -> None:
    device = Device()
    device.reports(160.0)
    device.seconds(5)
    device.tell(ActivationFailed(app="app", variant="xl", reason="out of memory"))
    assert device.decision.because.code == "failure"
    assert "out of memory" in device.decision.because.text
    device.seconds(20)
    assert device.active == "xl"
    device.tell(ActivationFailed(app="app", variant="xl", reason="out of memory"))
    assert any(isinstance(item, Quarantined) and item.variant == "xl" for item in device.said)
    assert device.seconds(590) == "l"
    assert device.seconds(30) == "xl"


def test_where_every_variant_fails_none_is_tried_again_in_a_hurry() -> None:
    device = Device()
    for _ in range(200):
        device.tell(ActivationFailed(app="app", variant=device.active, reason="no such library"))
    assert len(device.switches) <= 2 + 2 * len(LADDER)
    device.seconds(10)
    before = len(device.switches)
    device.seconds(300)
    assert len(device.switches) == before


def test_after_a_failure_what_last_worked_runs_on_only_if_it_keeps_the_limits() -> None:
    device = Device()
    device.reports(160.0)
    assert device.seconds(1, temp_c=77.0) == "xs"
    device.tell(ActivationFailed(app="app", variant="xs", reason="corrupt"))
    assert device.active == "s"


def test_a_restart_carries_on_and_forgets_nothing_that_was_learned() -> None:
    device = Device()
    device.seconds(20, charging=False, battery_pct=15.0)
    device.tell(Pinned(model="digits", variant="s", by=PinnedBy.HUB))
    kept = load(dump(device.state))
    assert kept == device.state
    again = initial(device.facts, kept)
    assert again.models == device.state.models
    assert again.apps == ()
    again, _ = device.frame.step(again, Unpinned(model=None, by=PinnedBy.HUB))
    decision = again.models[0].decision
    assert decision is not None
    assert decision.variant == "m"


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"version":99,"models":[]}', b'{"models":[{}]}']
)
def test_a_damaged_state_is_none(payload: bytes) -> None:
    assert load(payload) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"charge": 9},
        {"heat": -1},
        {"drained_s": 1e9},
        {"models": {"left": [{"variant": "xl", "at_s": 1e9}]}},
    ],
    ids=str,
)
def test_a_state_that_does_not_hold_together_is_none(damage: dict[str, Any]) -> None:
    kept = json.loads(dump(Device().state))
    kept["models"][0].update(damage.get("models", {}))
    kept.update({name: value for name, value in damage.items() if name != "models"})
    assert load(json.dumps(kept).encode()) is None


# ------------------------------------------------------------------------------------------------------ adversity


def test_a_single_variant_runs_whatever_happens() -> None:
    device = Device(
        ("only", 90.0, 50.0), preference=Preference(mode=Mode.ACCURACY, max_latency_ms=1.0, min_accuracy=99.0)
    )
    assert device.seconds(30, temp_c=99.0, charging=False, battery_pct=0.0, throttle=Throttle.CRITICAL) == "only"
    device.tell(*[ActivationFailed(app="app", variant="only", reason="x")] * 5)
    assert device.seconds(30) == "only"
    assert len(device.switches) == 1


def test_a_model_without_variants_decides_nothing() -> None:
    state = initial((ModelFacts(name="digits", variants=()),))
    for event in (
        AppJoined(app="app", model="digits"),
        Tick(now_s=1.0, at=1.0, conditions=CALM),
        Preferred(model=None, preference=ACCURATE),
        Pinned(model="digits", variant="x", by=PinnedBy.HUB),
        Paused(paused=False),
    ):
        state, instructions = Frame(use="climber", factory=Climber).step(state, event)
        assert instructions == ()


def test_variants_nobody_has_timed_are_ranked_by_quality_and_then_by_size() -> None:
    facts = tuple(
        VariantFacts(id=name, quality=90.0, latency_ms=math.nan, measured=False, size_bytes=size)
        for name, size in (("big", 2000), ("little", 1000))
    )
    frame = Frame(use="climber", factory=Climber)
    state, _ = frame.step(initial((ModelFacts(name="m", variants=facts),)), Tick(now_s=1.0, at=1.0, conditions=CALM))
    decision = state.models[0].decision
    assert decision is not None
    assert decision.variant == "little"


def test_a_slow_variant_that_is_no_better_does_not_make_shares_ample() -> None:
    device = Device(("int16", 99.1, 4000.0), *LADDER)
    assert device.seconds(10, throttle=Throttle.SOFT) == "l"


def test_an_empty_battery_takes_the_cheapest() -> None:
    assert Device().seconds(1, charging=False, battery_pct=0.0) == "xs"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_values_that_are_none_change_nothing(value: float | None) -> None:
    device = Device()
    assert device.seconds(30, temp_c=value, battery_pct=value, rtt_ms=value, temp_limit_c=value, charging=None) == "xl"


def test_a_temperature_that_falls_silent_is_taken_for_the_worst_it_may_have_become_and_then_for_none() -> None:
    device = Device()
    assert device.seconds(5, temp_c=60.0) == "xl"
    assert device.seconds(30, temp_c=None) == "xl"  # 60 °C and half a degree a second: not beyond 75 °C yet
    assert device.seconds(20) == "xs"
    assert device.decision.because.code == "thermal"
    assert "silent for" in device.decision.because.text
    assert "60 °C when last read" in device.decision.because.text
    assert device.seconds(500) == "xs"
    assert device.seconds(60) == "xl"
    assert len(device.switches) == 3


def test_a_temperature_that_was_never_there_is_no_reason_for_anything() -> None:
    device = Device()
    device.state = replace(device.state, temp_last_c=None)
    assert device.seconds(700, temp_c=None) == "xl"


def test_a_temperature_that_is_a_moment_late_is_the_last_one() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.seconds(1, temp_c=60.0)
    device.seconds(8, temp_c=math.nan)
    assert [second.temp_c for second in heard.seconds[-8:]] == [60.0] * 5 + [None] * 3


@pytest.mark.parametrize(("stuck_c", "runs"), [(0.0, "xl"), (85.0, "xs")])
def test_a_sensor_that_is_stuck_for_ever_does_not_flap_the_choice(stuck_c: float, runs: str) -> None:
    device = Device()
    device.seconds(5, temp_c=stuck_c)
    before = len(device.switches)
    for _ in range(60):
        device.reports(TAKES_MS[device.active])
        device.seconds(10)
    assert device.active == runs
    assert len(device.switches) == before


def test_latencies_of_zero_teach_nothing() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    for _ in range(30):
        device.reports(0.0, slow_ms=0.0)
        device.seconds(1)
    assert device.active == "xl"
    assert heard.replies == []
    assert {second.tasks[0].latencies_ms for second in heard.seconds} == {()}


@pytest.mark.parametrize("jump_s", [-1e9, -86_400.0, -3600.0, math.nan])
def test_a_clock_that_jumps_back_never_cuts_a_dwell_short(jump_s: float, monkeypatch) -> None:
    monkeypatch.setattr(tables, "DWELL_S", 8.0)
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=170.0))
    device.reports(320.0)
    assert device.seconds(1) == "l"
    device.reports(80.0)
    device.tell(Tick(now_s=device.now_s + jump_s, at=0.0, conditions=CALM))
    device.now_s = device.now_s + (jump_s if math.isfinite(jump_s) else 0.0)
    assert device.seconds(7) == "l"
    assert device.seconds(3) == "xl"


def test_a_day_that_passes_at_once_or_not_at_all_is_borne() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    for jump_s in (86_400.0, -86_400.0, 86_400.0):
        device.now_s += jump_s
        device.seconds(20)
    assert device.active == "xl"
    assert len(device.switches) == 1
    assert [s.now_s for s in heard.seconds] == sorted(s.now_s for s in heard.seconds)


def test_what_an_event_names_that_does_not_exist_changes_nothing() -> None:
    device = Device()
    before = device.state
    for event in (
        Preferred(model="ghost", preference=ACCURATE),
        Pinned(model="ghost", variant="xl", by=PinnedBy.HUB),
        Pinned(model="digits", variant="ghost", by=PinnedBy.HUB),
        Pinned(model="digits", variant="xl", by=PinnedBy.APP),
        Unpinned(model=None, by=PinnedBy.HUB),
        AppJoined(app="other", model="ghost"),
        AppPinned(app="ghost", variant="xl"),
        AppPinned(app="app", variant="ghost"),
        AppReported(app="ghost", variant="xl", calls=1, late=0, p50_ms=1.0, p95_ms=None),
        AppReported(app="app", variant="ghost", calls=1, late=0, p50_ms=1.0, p95_ms=None),
        ActivationFailed(app="ghost", variant="xl", reason="x"),
        Measured(model="digits", variant="ghost", median_ms=1.0),
        Measured(model="digits", variant="xl", median_ms=math.nan),
    ):
        device.state, instructions = device.frame.step(device.state, event)
        assert instructions == ()
        assert device.state == before


def test_what_no_policy_may_break_has_codes_of_its_own_and_numbers() -> None:
    device = Device(factory=Stubborn)
    device.seconds(10, charging=False, battery_pct=4.0)
    assert "4 %" in device.decision.because.text
    device.seconds(20, charging=True)
    device.seconds(1, temp_c=78.0)
    assert "78 °C" in device.decision.because.text
    device.seconds(20, temp_c=40.0)
    device.seconds(1, throttle=Throttle.CRITICAL)
    assert "critical" in device.decision.because.text
    assert [code for code, _ in device.switches[1::2]] == ["battery", "thermal", "throttle"]
    assert {code for code, _ in device.switches[2::2]} == {"recovered"}


def test_the_policy_reads_no_clock_file_or_socket_and_draws_no_lots() -> None:
    plain = "__future__ bisect collections.abc dataclasses enum functools itertools json math msgspec statistics types"
    allowed = {*plain.split(), "typing"}
    folders = [Path(str(package.__file__)).parent for package in (edge_daemon.policy, edge_daemon.policies)]
    for path in sorted(path for folder in folders for path in folder.glob("*.py") if path.name != "registry.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name in allowed or name.startswith(("edge_daemon.polic", "edge_sdk.")), f"{path.name}: {name}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, path.name


def test_a_state_is_never_changed_in_place() -> None:
    device = Device()
    before, copy = device.state, load(dump(device.state))
    device.seconds(30, temp_c=76.0, charging=False, battery_pct=3.0)
    device.tell(
        ActivationFailed(app="app", variant="xs", reason="x"), Pinned(model="digits", variant="l", by=PinnedBy.HUB)
    )
    assert before == copy


# ------------------------------------------------------------------------------------------------ one board's budget


def told_of(device: Device) -> Setting:
    return setting_of(device.state, device.frame.site)


def test_a_gauge_of_energy_is_told_in_joules_and_what_it_holds_does_not_wobble() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.seconds(1, charging=False, battery_pct=40.0, battery_wh=4.0, battery_full_wh=10.0)
    assert told_of(device).battery_j == 36_000.0
    assert heard.seconds[-1].battery_j == 14_400.0
    policy = device.state.plugged.policy
    for second in range(20):
        device.seconds(1, battery_full_wh=10.0 + 0.01 * second)
    assert device.state.plugged.policy is policy
    device.seconds(1, battery_full_wh=8.0)
    assert told_of(device).battery_j == 28_800.0


def test_percent_are_reckoned_with_the_capacity_of_the_profile_and_stay_percent_without_one() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.seconds(1, charging=False, battery_pct=50.0)
    assert (told_of(device).battery_j, heard.seconds[-1].battery_j) == (None, None)
    device.frame = replace(device.frame, site=Site(capacity_wh=12.0))
    device.seconds(1)
    assert (told_of(device).battery_j, heard.seconds[-1].battery_j) == (43_200.0, 21_600.0)
    device.seconds(1, battery_pct=None)
    assert (told_of(device).battery_j, heard.seconds[-1].battery_j) == (None, None)  # on mains there is none


def test_who_knows_energy_and_time_spends_below_what_is_low_for_others() -> None:
    device = Device()
    device.frame = replace(device.frame, site=Site(capacity_wh=12.0))
    device.conditions = replace_conditions(CALM, {"charging": False, "battery_pct": 7.0})

    def until(left_s: float) -> str:
        device.now_s += 1.0
        device.tell(Tick(now_s=device.now_s, at=1e9, conditions=device.conditions, until_s=device.now_s + left_s))
        return device.active

    assert [until(600.0 - second) for second in range(20)][-1] == "xl"
    assert told_of(device).until_s == pytest.approx(device.state.now_s + 581.0, abs=6.0)
    policy = device.state.plugged.policy
    assert [until(580.0 - second) for second in range(20)][-1] == "xl"
    assert device.state.plugged.policy is policy  # the moment stands while time goes on
    device.conditions = replace_conditions(device.conditions, {"battery_pct": 2.0})
    assert until(500.0) == "xs"
    assert device.seconds(30, battery_pct=7.0) == "xs"  # nobody asks any more: then this is critical


def test_power_of_a_part_of_the_board_is_not_taken_for_the_boards() -> None:
    heard = Listener()
    device = Device(factory=heard.listen)
    device.seconds(1, power_w=9.0, power_scope="processor", clock=0.5, up_mbps=3.0)
    assert (heard.seconds[-1].power_w, heard.seconds[-1].clock, heard.seconds[-1].up_mbps) == (None, 0.5, 3.0)
    device.seconds(1, power_scope="board")
    assert heard.seconds[-1].power_w == 9.0


def test_the_models_of_a_board_share_the_lowest_limits_that_anybody_asks_for() -> None:
    facts = (ladder(), replace(ladder(), name="faces"))
    frame, state = Frame(use="climber", factory=Climber), initial(facts)
    wishes = {"digits": Preference(max_power_w=5.0, max_temp_c=70.0), "faces": Preference(max_power_w=4.0)}
    for name, wish in wishes.items():
        state, _ = frame.step(state, Preferred(model=name, preference=wish))
        state, _ = frame.step(state, AppJoined(app=name, model=name))
    state, _ = frame.step(state, Tick(now_s=1.0, at=1.0, conditions=CALM))
    setting = setting_of(state, frame.site)
    assert (setting.max_power_w, setting.temp_c, len(setting.tasks)) == (4.0, 70.0, 2)
