"""The play: what happens to the board, and what is said to it, act by act.

Written against what a device shows (its variants, its limits, how long answers take) and not against the policy's
thresholds: the battery is drained until it is nearly empty, the board is heated beyond its limit. What the
policy makes of it is for the audience to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_lab.played import PlayedConditions
from edge_sdk.mqtt import Command, Explain, Pin, Prefer, Report, ServedVariant, Unpin
from edge_sdk.preference import Mode, Preference

LENGTH_S = 75.0
MIN_LENGTH_S = 20.0
FIRST_WISH = Preference(mode=Mode.ACCURACY)

_COOL_C = 30.0  # below the limit
_BEYOND_C = 3.0  # clearly: what a policy rides on, and a few tenths of noise, are left to it
_SLOW_RTT_MS = 80.0
_DEADLINE_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the play needs to know of the device, when an act begins.

    Attributes:
        model: Its name on the device.
        variants: Those that can run there.
        active: The one that runs.
        slow_ms: What the most accurate variant takes there, 95th percentile.
        rtt_ms: The round trip while the network is fast.
    """

    model: str
    variants: Sequence[ServedVariant]
    active: str | None
    slow_ms: float
    rtt_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act.

    Attributes:
        title: For people, without a final stop.
        short: The same in a word or two, for a plot.
        lasts_s: In a play of `LENGTH_S`.
        becomes: The conditions at its end.
        ramp: The share of the act that it takes to get there.
        says: What is sent to the device over MQTT as it begins.
    """

    title: str
    short: str
    lasts_s: float
    becomes: PlayedConditions
    ramp: float = 0.6
    says: Callable[[Facts], tuple[Command, ...]] = lambda _facts: ()


def play(limit_c: float) -> tuple[PlayedConditions, tuple[Act, ...]]:
    """How the board begins, and the acts.

    Args:
        limit_c: What the device holds its temperature below.
    """
    calm = PlayedConditions(temp_c=limit_c - _COOL_C, battery_pct=100.0, charging=True, rtt_ms=0.0)
    drained = replace(calm, battery_pct=6.0, charging=False)
    charged = replace(calm, battery_pct=30.0)
    hot = replace(charged, temp_c=limit_c + _BEYOND_C, battery_pct=45.0)
    cooled = replace(hot, temp_c=calm.temp_c, battery_pct=60.0)
    slowed = replace(cooled, rtt_ms=_SLOW_RTT_MS, battery_pct=65.0)
    quick = replace(slowed, rtt_ms=0.0, battery_pct=70.0)
    return calm, (
        Act(title="On mains and cool", short="mains", lasts_s=6, becomes=calm),
        Act(title="The battery drains to 6 %", short="battery", lasts_s=10, becomes=drained, ramp=0.8),
        Act(title="The charger is back", short="charger", lasts_s=10, becomes=charged),
        Act(title="The sun heats the board beyond its limit", short="heat", lasts_s=9, becomes=hot, ramp=0.7),
        Act(title="It cools down", short="cooling", lasts_s=10, becomes=cooled, ramp=0.2),
        Act(
            title="Answers must be at the hub in time, and the network gets slow",
            short="network",
            lasts_s=9,
            becomes=slowed,
            ramp=0.3,
            says=lambda facts: (Prefer(model=facts.model, preference=_deadline(facts)),),
        ),
        Act(
            title="The network is fast again, the user wants speed",
            short="speed",
            lasts_s=5,
            becomes=quick,
            ramp=0.1,
            says=lambda facts: (Prefer(model=facts.model, preference=Preference(mode=Mode.SPEED)),),
        ),
        Act(
            title="The hub pins a variant",
            short="pin",
            lasts_s=5,
            becomes=quick,
            says=lambda facts: (Pin(model=facts.model, variant=_other(facts)),),
        ),
        Act(
            title="The hub unpins it and asks why",
            short="unpin",
            lasts_s=5,
            becomes=quick,
            says=lambda facts: (Unpin(model=facts.model), Explain(model=facts.model)),
        ),
        Act(
            title="The user wants accuracy again",
            short="accuracy",
            lasts_s=6,
            becomes=quick,
            says=lambda facts: (Prefer(model=facts.model, preference=FIRST_WISH), Report()),
        ),
    )


def scaled(acts: Sequence[Act], seconds: float) -> tuple[Act, ...]:
    """The same acts, `seconds` long in all."""
    factor = seconds / sum(act.lasts_s for act in acts)
    return tuple(replace(act, lasts_s=act.lasts_s * factor) for act in acts)


def _deadline(facts: Facts) -> Preference:
    """A deadline that any variant keeps while the network is fast, and none once it is slow: the cheapest is nearest.

    Between fast and slow lies more than a round trip varies by itself; what one variant saves over another is less.
    """
    deadline_ms = facts.rtt_ms + _DEADLINE_SHARE * _SLOW_RTT_MS + facts.slow_ms
    return Preference(mode=Mode.ACCURACY, deadline_ms=round(deadline_ms, 1))


def _other(facts: Facts) -> str:
    """The most accurate variant that does not run now."""
    others = [variant for variant in facts.variants if variant.id != facts.active] or list(facts.variants)
    return max(others, key=lambda variant: (variant.quality, variant.id)).id
