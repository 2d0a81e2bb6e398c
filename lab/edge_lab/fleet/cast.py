"""Who is in a played fleet: boards, what they run, and what they meet. Data alone.

The variants are those of the benchmark's scenarios (EfficientNet-Lite on a Raspberry Pi 4, see
`docs/explanation/simulator.md`), carried to each board by the factors of its profile. How often a board and its fate
occur is chosen, so that a page of the fleet has something to show: heat, emptying batteries, neighbours on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_daemon.catalogue import Offered
from edge_daemon.policy.setting import Site, site_of
from edge_daemon.policy.types import ModelFacts, VariantFacts
from edge_lab.simulate.scenario import Ambient, Arrivals, Hidden, Limits, Scenario, VariantSection
from edge_sdk import physics, profile
from edge_sdk.facts import Profile
from edge_sdk.manifest import Origin, Precision
from edge_sdk.mqtt import ServedModel, ServedVariant
from edge_sdk.preference import Mode, Preference

MODEL: Final = "classifier"
LENGTH_S: Final = 1800
_YARDSTICK: Final = "rpi4"
_LIMIT_MS: Final = 250.0  # on the yardstick; a slower board is asked for less


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A variant on the yardstick."""

    id: str
    precision: Precision
    accuracy: float
    latency_ms: float
    size_bytes: int


_VARIANTS: Final = (
    _Kind(id="lite0-int8", precision=Precision.INT8, accuracy=74.4, latency_ms=32.5, size_bytes=5_420_000),
    _Kind(id="lite1-int8", precision=Precision.INT8, accuracy=75.9, latency_ms=45.5, size_bytes=6_390_000),
    _Kind(id="lite2-int8", precision=Precision.INT8, accuracy=77.0, latency_ms=60.0, size_bytes=7_220_000),
    _Kind(id="lite3-int8", precision=Precision.INT8, accuracy=79.0, latency_ms=90.0, size_bytes=9_500_000),
    _Kind(id="lite4-int8", precision=Precision.INT8, accuracy=80.2, latency_ms=150.0, size_bytes=15_100_000),
    _Kind(id="lite4-fp32", precision=Precision.FP32, accuracy=81.5, latency_ms=380.0, size_bytes=52_100_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What boards of one kind meet.

    Attributes:
        profile: Of the board.
        share: How often it occurs, of the shares of all.
        version: Of the model it serves.
        ambient_c: At the start and at the end.
        busy_per_s: Requests while busy; a third of that while not.
        battery_wh: Full at the start and to last to the end; None is mains.
        bursts: Of other work on the board, see `scenario.Hidden.burst_rate`.
        mode: What its user prefers.
    """

    profile: str
    share: int
    version: str = "1.4.0"
    ambient_c: tuple[float, float] = (25.0, 25.0)
    busy_per_s: float = 6.0
    battery_wh: float | None = None
    bursts: float = 0.1
    mode: Mode = Mode.ACCURACY


FATES: Final = (
    Fate(profile="rpi4", share=6, ambient_c=(26.0, 40.0)),
    Fate(profile="rpi4", share=4, battery_wh=1.9),
    Fate(profile="rpi4", share=3, version="1.3.2", bursts=0.5),
    Fate(profile="rpi5", share=5, busy_per_s=12.0, bursts=0.3),
    Fate(profile="rpi5", share=2, ambient_c=(30.0, 44.0), busy_per_s=14.0),
    Fate(profile="rpi-zero2w", share=3, battery_wh=0.55, busy_per_s=2.0, mode=Mode.BATTERY),
    Fate(profile="rpi3", share=2, ambient_c=(24.0, 36.0), busy_per_s=3.0, version="1.3.2"),
    Fate(profile="jetson-orin-nano", share=3, busy_per_s=18.0),
    Fate(profile="jetson-nano", share=2, ambient_c=(28.0, 42.0), mode=Mode.BALANCED),
    Fate(profile="imx8mp", share=3, battery_wh=1.2, busy_per_s=4.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A fate, made whole.

    Attributes:
        scenario: What the board meets, for `edge_lab.simulate`.
        offered: What its daemon would have found in its bundle.
        site: What its daemon would know of the board.
        preference: What its configuration says.
    """

    fate: Fate
    board: str
    scenario: Scenario
    offered: Offered
    site: Site
    temp_limit_c: float
    preference: Preference


def part_of(fate: Fate) -> Part:
    """Fill in what the profile says.

    Raises:
        ProfileError: It cannot be read.
    """
    known, yardstick = profile.load(fate.profile), profile.load(_YARDSTICK)
    model = physics.of(known)
    variants = tuple(
        VariantFacts(
            id=kind.id,
            quality=kind.accuracy,
            latency_ms=round(kind.latency_ms * _factor(known, kind.precision) / _factor(yardstick, kind.precision), 2),
            measured=False,
            size_bytes=kind.size_bytes,
            power_w=model.cpu_w,
        )
        for kind in _VARIANTS
    )
    preference = Preference(
        mode=fate.mode,
        max_latency_ms=max(_LIMIT_MS, 2 * variants[0].latency_ms),
        battery_for_s=None if fate.battery_wh is None else float(LENGTH_S),
    )
    return Part(
        fate=fate,
        board=known.name,
        scenario=_scenario(fate, model, variants, preference),
        offered=Offered(
            name=MODEL,
            facts=ModelFacts(name=MODEL, variants=variants),
            shown=ServedModel(
                name=MODEL,
                version=fate.version,
                variants=tuple(_shown(kind, facts) for kind, facts in zip(_VARIANTS, variants, strict=True)),
            ),
            preference=preference,
        ),
        site=site_of(known),
        temp_limit_c=model.max_temp_c,
        preference=preference,
    )


def _factor(known: Profile, precision: Precision) -> float:
    assert known.latency is not None  # noqa: S101 - every profile of ours says it
    return (known.latency.fp32 if precision is Precision.FP32 else known.latency.int8).factor


def _shown(kind: _Kind, facts: VariantFacts) -> ServedVariant:
    return ServedVariant(
        id=kind.id,
        precision=kind.precision.value,
        quality=kind.accuracy,
        size_bytes=kind.size_bytes,
        latency_ms=facts.latency_ms,
        origin=Origin.PREDICTED,
    )


def _scenario(
    fate: Fate, model: physics.BoardModel, variants: tuple[VariantFacts, ...], preference: Preference
) -> Scenario:
    start_c, end_c = fate.ambient_c
    return Scenario(
        name=MODEL,
        duration_s=LENGTH_S,
        profile=fate.profile,
        limits=Limits(
            latency_ms=preference.max_latency_ms or _LIMIT_MS,
            temp_c=model.max_temp_c,
            battery_wh=fate.battery_wh,
            battery_until_s=None if fate.battery_wh is None else float(LENGTH_S),
        ),
        ambient=Ambient(start_c=start_c, end_c=end_c),
        arrivals=Arrivals(quiet_per_s=fate.busy_per_s / 3, busy_per_s=fate.busy_per_s, quiet_s=400.0, busy_s=300.0),
        hidden=Hidden(burst_rate=fate.bursts),
        variant=tuple(
            VariantSection(
                id=one.id,
                accuracy=one.quality,
                latency_ms=one.latency_ms,
                power_w=one.power_w,
                size_bytes=one.size_bytes,
            )
            for one in variants
        ),
    )
