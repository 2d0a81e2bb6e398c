"""Bad input under every policy that ships: nothing fails, nothing flaps, and something sensible runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from edge_daemon.policies import registry
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.state import initial
from edge_daemon.policy.types import (
    AppJoined,
    AppReported,
    Decided,
    Instruction,
    ModelFacts,
    PolicyFailed,
    Preferred,
    Tick,
    VariantFacts,
)
from edge_sdk.mqtt import Conditions
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

LADDER = (("xl", 99.0, 160.0), ("l", 98.0, 80.0), ("m", 96.0, 40.0), ("s", 93.0, 20.0), ("xs", 88.0, 8.0))
TAKES_MS = {name: ms for name, _, ms in LADDER}
SECONDS = 60


class Device:
    """One model, one app that calls four times a second, under a policy that ships."""

    def __init__(self, use: str, *, rungs: tuple[tuple[str, float, float], ...] = LADDER, **wish: object) -> None:
        self.frame = Frame(use=use, factory=registry.find(use))
        variants = tuple(
            VariantFacts(id=name, quality=quality, latency_ms=ms, measured=False, size_bytes=1000)
            for name, quality, ms in rungs
        )
        self.state = initial((ModelFacts(name="m", variants=variants),))
        self.said: list[Instruction] = []
        self.now_s = 0.0
        self._tell(Preferred(model=None, preference=Preference(**{"mode": Mode.ACCURACY, **wish})))  # type: ignore[arg-type]
        self._tell(AppJoined(app="a", model="m"))

    def seconds(
        self, count: int = SECONDS, *, took: Callable[[float], float] = lambda ms: ms, temp_c: float | None = 45.0
    ) -> str:
        for _ in range(count):
            self.now_s += 1.0
            ran = self.runs
            ms = took(TAKES_MS.get(ran, 50.0))
            seen = AppReported(
                app="a", variant=ran, calls=4, late=0, p50_ms=ms, p95_ms=ms, arrived=4, latencies_ms=(ms,) * 4
            )
            self._tell(seen)
            conditions = Conditions(temp_c=temp_c, temp_limit_c=75.0, charging=True)
            self._tell(Tick(now_s=self.now_s, at=1e9 + self.now_s, conditions=conditions))
        return self.runs

    @property
    def runs(self) -> str:
        decision = self.state.models[0].decision
        assert decision is not None
        return decision.variant

    @property
    def switches(self) -> int:
        return sum(isinstance(item, Decided) for item in self.said) - 1

    def is_well(self) -> bool:
        return not any(isinstance(item, PolicyFailed) for item in self.said)

    def _tell(self, event: object) -> None:
        self.state, instructions = self.frame.step(self.state, event)  # type: ignore[arg-type]
        self.said += instructions


each_policy = pytest.mark.parametrize("use", registry.BUILT_IN)


@each_policy
def test_a_single_variant_runs_whatever_is_asked_for(use: str) -> None:
    device = Device(use, rungs=(("only", 90.0, 50.0),), max_latency_ms=1.0, min_accuracy=99.0, max_temp_c=10.0)
    assert device.seconds() == "only"
    assert device.is_well()
    assert device.switches == 0


@each_policy
def test_limits_that_nothing_keeps_settle_on_one_variant(use: str) -> None:
    device = Device(use, max_latency_ms=0.5, min_accuracy=100.0, max_power_w=0.001)
    device.seconds()
    before = device.switches
    device.seconds()
    assert device.is_well()
    assert device.switches - before <= 2


@each_policy
@pytest.mark.parametrize("stuck_c", [0.0, 85.0])
def test_a_temperature_that_is_stuck_for_ever_settles_on_one_variant(use: str, stuck_c: float) -> None:
    device = Device(use, max_latency_ms=250.0)
    device.seconds(temp_c=stuck_c)
    before = device.switches
    runs = device.seconds(temp_c=stuck_c)
    assert device.is_well()
    assert device.switches - before <= 2
    assert (runs == "xs") is (stuck_c > 80 or use == "static-fast")


@each_policy
@pytest.mark.parametrize("nonsense", [0.0, -1.0, math.nan, math.inf, 1e300])
def test_latencies_that_are_none_neither_fail_nor_flap(use: str, nonsense: float) -> None:
    device = Device(use, max_latency_ms=250.0)
    device.seconds(took=lambda _: nonsense)
    assert device.is_well()
    assert device.switches <= 6


@each_policy
def test_a_day_that_passes_at_once_or_not_at_all_is_borne(use: str) -> None:
    device = Device(use, max_latency_ms=250.0)
    device.seconds()
    before = device.switches
    for jump_s in (86_400.0, -86_400.0, 86_400.0):
        device.now_s += jump_s
        device.seconds(20)
    assert device.is_well()
    assert device.switches - before <= 4


@each_policy
def test_a_sensor_that_comes_and_goes_does_not_flap_the_choice(use: str) -> None:
    device = Device(use, max_latency_ms=250.0)
    device.seconds()
    before = device.switches
    for _ in range(15):
        device.seconds(6, temp_c=None)
        device.seconds(2)
    assert device.is_well()
    assert device.switches - before <= 4
