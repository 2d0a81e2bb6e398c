"""What the policy makes of a day: battery, charger, heat, network, wishes, contention, failures, adversity."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest

import edge_daemon.policy
from edge_daemon.policy import tables
from edge_daemon.policy.state import PolicyState, dump, initial, load
from edge_daemon.policy.step import step
from edge_daemon.policy.types import (
    ActivationFailed,
    AppJoined,
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
    Preferred,
    Quarantined,
    Tick,
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

    def __init__(self, *rungs: tuple[str, float, float], preference: Preference = ACCURATE) -> None:
        self.facts = (ladder(*rungs),)
        self.state: PolicyState = initial(self.facts)
        self.now_s = 0.0
        self.said: list[Instruction] = []
        self.conditions = CALM
        self.tell(Preferred(model=None, preference=preference))
        self.tell(AppJoined(app="app", model="digits"))
        self.seconds(1)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.state, instructions = step(self.state, event)
            self.said += instructions

    def seconds(self, count: int, **changes: object) -> str:
        self.conditions = replace_conditions(self.conditions, changes)
        for _ in range(count):
            self.now_s += 1.0
            self.tell(Tick(now_s=self.now_s, at=1e9 + self.now_s, conditions=self.conditions))
        return self.active

    def reports(self, p50_ms: float, *, calls: int = 30, p95_ms: float | None = None) -> str:
        seen = AppReported(app="app", variant=self.active, calls=calls, late=0, p50_ms=p50_ms, p95_ms=p95_ms)
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


def replace_conditions(conditions: Conditions, changes: dict[str, object]) -> Conditions:
    values = {name: getattr(conditions, name) for name in Conditions.__struct_fields__}
    return Conditions(**{**values, **changes})


def test_the_first_decision_is_the_modes_favourite_and_says_so() -> None:
    assert Device().switches == [("start", "xl")]
    assert [Device(preference=Preference(mode=mode)).active for mode in Mode] == ["xl", "l", "xs", "m"]


def test_the_battery_drains_and_the_variant_shrinks_and_the_charger_brings_it_back() -> None:
    device = Device()
    seen = [device.seconds(10, charging=False, battery_pct=pct) for pct in (100, 60, 50, 40, 20, 10, 8, 3)]
    assert seen == ["xl", "xl", "l", "l", "m", "m", "xs", "xs"]
    assert [code for code, _ in device.switches[1:]] == ["battery", "battery", "battery"]
    assert device.seconds(4, charging=True) == "xs"  # a plug that is just being pushed in
    assert device.seconds(9) == "xl"
    assert device.decision.because.code == "recovered"


def test_a_charge_resting_on_a_threshold_changes_nothing_and_leaving_takes_more_than_entering() -> None:
    device = Device()
    assert device.seconds(10, charging=False, battery_pct=50.0) == "l"
    before = len(device.switches)
    for _ in range(30):
        device.seconds(1, battery_pct=50.4)
        device.seconds(1, battery_pct=49.6)
    assert device.seconds(20, battery_pct=53.9) == "l"
    assert len(device.switches) == before
    assert device.seconds(20, battery_pct=54.0) == "xl"


def test_a_loose_plug_does_not_flap_the_choice() -> None:
    device = Device()
    assert device.seconds(10, charging=False, battery_pct=15) == "m"
    before = len(device.switches)
    for _ in range(30):
        device.seconds(2, charging=True)
        device.seconds(1, charging=False)
    assert len(device.switches) == before


def test_heat_shrinks_at_once_and_cooling_brings_it_back_with_hysteresis() -> None:
    device = Device()
    assert [device.seconds(1, temp_c=t) for t in (66.0, 67.0, 71.0, 75.0)] == ["xl", "l", "m", "xs"]
    assert [code for code, _ in device.switches[1:]] == ["thermal", "thermal", "thermal"]
    assert device.seconds(20, temp_c=71.5) == "xs"  # 3.5 degrees of room: critical is left at 4
    assert device.seconds(20, temp_c=68.0) == "l"
    assert device.seconds(20, temp_c=64.5) == "l"
    assert device.seconds(20, temp_c=64.0) == "xl"


def test_a_user_may_lower_the_limit_of_heat_and_never_raise_it() -> None:
    device = Device()
    device.seconds(10, temp_c=60.0)
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_temp_c=60.0)))
    assert device.active == "xs"
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_temp_c=90.0)))
    assert device.seconds(1, temp_c=75.0) == "xs"


@pytest.mark.parametrize(
    ("throttle", "active"),
    [(Throttle.SOFT, "l"), (Throttle.THERMAL, "m"), (Throttle.POWER, "m"), (Throttle.CRITICAL, "xs")],
)
def test_throttling_shrinks_at_once_and_flickering_bits_do_not_flap(throttle: Throttle, active: str) -> None:
    device = Device()
    assert device.seconds(1, throttle=throttle) == active
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
    assert "120 ms round trip" in device.decision.because.text
    assert device.seconds(1, rtt_ms=200.0) == "s"
    assert device.seconds(10, rtt_ms=None) == "s"  # silence is no good news
    assert device.seconds(10, rtt_ms=2.0) == "xl"


def test_a_deadline_shorter_than_the_round_trip_leaves_the_fastest_which_comes_closest() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, deadline_ms=100.0))
    assert device.seconds(1, rtt_ms=300.0) == "xs"
    assert "the fastest comes closest" in device.decision.because.text


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
    assert seen == list(wishes.values())


def test_observed_lateness_beats_the_evidence_within_two_windows() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=250.0))
    assert device.active == "xl"
    device.reports(480.0)
    assert device.reports(480.0) in {"l", "m"}
    assert device.decision.because.code == "latency"


def test_contention_felt_by_one_variant_speaks_for_all_and_passes() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=250.0))
    for _ in range(6):
        device.reports(3 * TAKES_MS[device.active])
        device.seconds(1)
    assert device.active == "m"
    for _ in range(30):
        device.reports(TAKES_MS[device.active])
        device.seconds(1)
    assert device.active == "l"  # "xl" was seen under contention only, and is underrated until it is measured
    device.tell(Measured(model="digits", variant="xl", median_ms=160.0))
    assert device.seconds(10) == "xl"


def test_evidence_that_is_three_times_too_fast_is_seen_through_without_flapping() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=250.0))
    takes_ms = {**TAKES_MS, "xl": 480.0, "l": 240.0}
    late = 0
    for _ in range(300):
        late += takes_ms[device.active] >= 240
        device.reports(takes_ms[device.active])
        device.seconds(1)
    assert device.active == "m"
    assert len(device.switches) <= 10
    assert late <= 12


def test_a_measurement_on_the_machine_replaces_the_prediction() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=100.0))
    assert device.active == "m"
    device.seconds(10)
    device.tell(Measured(model="digits", variant="l", median_ms=50.0))
    assert device.active == "l"
    assert device.decision.because.code == "measured"


def test_latencies_that_flap_are_followed_once_per_dwell_at_most() -> None:
    device = Device(preference=Preference(mode=Mode.ACCURACY, max_latency_ms=100.0))
    before = len(device.switches)
    for second in range(240):
        device.reports((2.5 if second % 2 else 0.8) * TAKES_MS[device.active])
        device.seconds(1)
    assert len(device.switches) - before <= 2 * 240 / tables.DWELL_S


def test_the_only_variant_that_keeps_the_limit_is_never_barred_for_having_been_left_voluntarily() -> None:
    device = Device(("large", 99.0, 100.0), ("small", 90.0, 10.0))
    assert device.seconds(10, throttle=Throttle.CRITICAL) == "small"
    waited = [device.seconds(1, throttle=Throttle.NONE) for _ in range(30) if device.active == "small"]
    assert waited[-1] == "large"
    assert device.seconds(1, throttle=Throttle.CRITICAL) == "small"


def test_one_that_was_left_urgently_is_not_returned_to_within_the_dwell_however_the_estimates_flip() -> None:
    wish = Preference(mode=Mode.ACCURACY, max_latency_ms=15.0)
    device = Device(("a", 99.0, 10.0), ("b", 98.0, 9.0), preference=wish)
    device.tell(Measured(model="digits", variant="a", median_ms=20.0))
    assert device.active == "b"
    device.tell(Measured(model="digits", variant="b", median_ms=30.0))
    assert device.seconds(8) == "b"
    assert device.seconds(2) == "a"


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
    assert device.seconds(1, temp_c=75.0) == "xs"
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
    again, _ = step(again, Unpinned(model=None, by=PinnedBy.HUB))
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
        {"battery": 9},
        {"battery": -1},
        {"drained_s": 1e9},
        {"models": {"thermal": 4}},
        {"models": {"switched_s": 1e9}},
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
        state, instructions = step(state, event)
        assert instructions == ()


def test_variants_nobody_has_timed_are_ranked_by_quality_and_then_by_size() -> None:
    facts = tuple(
        VariantFacts(id=name, quality=90.0, latency_ms=math.nan, measured=False, size_bytes=size)
        for name, size in (("big", 2000), ("little", 1000))
    )
    state, _ = step(initial((ModelFacts(name="m", variants=facts),)), Paused(paused=False))
    decision = state.models[0].decision
    assert decision is not None
    assert decision.variant == "little"


def test_a_slow_variant_that_is_no_better_does_not_make_the_bands_ample() -> None:
    device = Device(("int16", 99.1, 4000.0), *LADDER)
    assert device.seconds(10, charging=False, battery_pct=40.0) == "l"


def test_an_empty_battery_takes_the_cheapest() -> None:
    assert Device().seconds(1, charging=False, battery_pct=0.0) == "xs"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_values_that_are_none_change_nothing(value: float | None) -> None:
    device = Device()
    assert device.seconds(30, temp_c=value, battery_pct=value, rtt_ms=value, temp_limit_c=value, charging=None) == "xl"


def test_a_sensor_that_falls_silent_keeps_its_band_for_a_while_and_then_lets_go() -> None:
    device = Device()
    assert device.seconds(5, temp_c=75.0) == "xs"
    assert device.seconds(590, temp_c=None) == "xs"
    assert device.seconds(30) == "xl"


@pytest.mark.parametrize("jump_s", [-1e9, -3600.0, math.nan])
def test_a_clock_that_jumps_back_never_cuts_a_dwell_short(jump_s: float) -> None:
    device = Device()
    assert device.seconds(1, throttle=Throttle.THERMAL) == "m"
    device.seconds(11, throttle=Throttle.NONE)
    assert device.active == "xl"
    device.tell(Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_latency_ms=110.0)))
    device.seconds(1)
    device.tell(Measured(model="digits", variant="xl", median_ms=60.0))
    device.tell(Tick(now_s=device.now_s + jump_s, at=0.0, conditions=CALM))
    assert device.active in {"l", "m"}
    device.now_s = device.now_s + (jump_s if math.isfinite(jump_s) else 0.0)
    assert device.seconds(6) != "xl"
    assert device.seconds(3) == "xl"


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
        device.state, instructions = step(device.state, event)
        assert instructions == ()
        assert device.state == before


def test_every_reason_has_a_code_of_its_own_and_numbers() -> None:
    device = Device()
    device.seconds(10, charging=False, battery_pct=40.0)
    assert "40 %" in device.decision.because.text
    device.seconds(1, temp_c=74.0)
    assert "74 °C" in device.decision.because.text
    device.seconds(1, throttle=Throttle.CRITICAL)
    assert "critical" in device.decision.because.text
    assert [code for code, _ in device.switches[-3:]] == ["battery", "thermal", "throttle"]
    assert device.decision.because.runner_up is not None


def test_the_policy_reads_no_clock_file_or_socket_and_draws_no_lots() -> None:
    allowed = {"__future__", "ast", "collections.abc", "dataclasses", "enum", "math", "typing", "msgspec"}
    for path in sorted(Path(edge_daemon.policy.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name in allowed or name.startswith(("edge_daemon.policy", "edge_sdk.")), f"{path.name}: {name}"
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
