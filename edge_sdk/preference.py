"""What a user wants of a model, and the ranking of variants that follows from it.

A preference is a mode (what to maximise) and explicit limits (what must hold). The ranking here is pure and shared:
the SDK uses it where no daemon runs, the daemon's policy uses it below its own constraints.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from msgspec import Meta, structs

from edge_sdk import until
from edge_sdk.wire import Celsius, Percent, Wire

Limit = Annotated[float, Meta(gt=0, le=86_400_000)]
Lifetime = Annotated[float, Meta(gt=0, le=31_536_000)]  # seconds, a year at most
PowerLimit = Annotated[float, Meta(gt=0, le=10_000)]
Moment = Annotated[str, Meta(max_length=40)]


class Mode(enum.Enum):
    """What to maximise once the limits hold."""

    ACCURACY = "accuracy"
    BALANCED = "balanced"
    SPEED = "speed"
    BATTERY = "battery"


class Preference(Wire, frozen=True, kw_only=True):
    """A mode and explicit limits; a limit left out does not bind.

    Attributes:
        mode: What to maximise once the limits hold.
        max_latency_ms: One inference may take this long (95th percentile).
        deadline_ms: From the call until the answer is at the hub: one inference plus one network round trip.
        min_accuracy: The variant's quality, in the metric's own unit (percent for classification), may not be below.
        max_temp_c: The board may not be hotter; it can only lower the profile's own limit.
        battery_until: The battery lasts until then: a time of day (`18:30`, every day anew) or a date and time
            (`2026-11-27T18:30`, with or without a zone), see `edge_sdk.until`. It does not bind on mains.
        battery_for_s: The same as a time from now on; whoever takes it in makes a `battery_until` of it (`fixed`).
        max_power_w: The board may not draw more, as a mean over a minute.

    Raises:
        ValueError: `battery_until` is no moment, or `battery_for_s` is given beside it.
    """

    mode: Mode = Mode.BALANCED
    max_latency_ms: Limit | None = None
    deadline_ms: Limit | None = None
    min_accuracy: Percent | None = None
    max_temp_c: Celsius | None = None
    battery_until: Moment | None = None
    battery_for_s: Lifetime | None = None
    max_power_w: PowerLimit | None = None

    def __post_init__(self) -> None:
        if self.battery_until is not None:
            until.check(self.battery_until)
            if self.battery_for_s is not None:
                raise ValueError("battery_until and battery_for_s exclude each other")

    def fixed(self, at: float) -> Preference:
        """The same with a moment where it had a time from now on, so that it means the same later.

        Args:
            at: Now, by the wall clock of whoever takes it in; while that is not set, nothing changes.
        """
        if self.battery_for_s is None or not until.is_set(at):
            return self
        moment = until.spelled(at + self.battery_for_s)
        return structs.replace(self, battery_until=moment, battery_for_s=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a ranking needs to know of a variant.

    Attributes:
        id: The variant.
        quality: Its measured quality in the metric's own unit, higher is better.
        latency_ms: Expected time of one inference on this device.
        size_bytes: Of its file: the tie-break, and a stand-in for memory traffic.
    """

    id: str
    quality: float
    latency_ms: float
    size_bytes: int


# Points of quality that a doubling of the latency must buy before it is worth it. Chosen so that on the families of
# docs/explanation/preferences.md `balanced` takes the knee of the accuracy/latency curve; `battery` halves the
# latency (and so, at constant power, the energy) for two points.
POINTS_PER_DOUBLING = {Mode.ACCURACY: 0.0, Mode.BALANCED: 0.5, Mode.BATTERY: 2.0}

# Under `speed`, a variant may be at most this many points below the best before speed stops being worth it.
SPEED_FLOOR_POINTS = 10.0


class Rankable(Protocol):
    """What a ranking reads of a variant: the attributes of `Candidate`."""

    @property
    def id(self) -> str: ...  # noqa: D102 - see Candidate
    @property
    def quality(self) -> float: ...  # noqa: D102
    @property
    def latency_ms(self) -> float: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Rankable)


def merit(candidate: Rankable, mode: Mode, best_quality: float) -> float:
    """What a variant is worth under a mode: points of quality, or halvings of the latency under `speed`.

    Args:
        candidate: The variant.
        mode: What to maximise.
        best_quality: The highest among the variants it is compared with.
    """
    latency_ms = max(candidate.latency_ms, 1e-6)
    if mode is Mode.SPEED:
        usable = candidate.quality >= best_quality - SPEED_FLOOR_POINTS
        return -math.log2(latency_ms) if usable else -math.inf
    return candidate.quality - POINTS_PER_DOUBLING[mode] * math.log2(latency_ms)


def rank(candidates: Sequence[R], mode: Mode) -> tuple[R, ...]:
    """The candidates, the most wanted first. Limits are not looked at: filter before ranking.

    Ties go to the faster, then the smaller, then the earlier in the alphabet, so that the order never depends on the
    order given.
    """
    best = max((c.quality for c in candidates), default=0.0)

    def key(candidate: R) -> tuple[float, float, int, str]:
        return (-merit(candidate, mode, best), max(candidate.latency_ms, 1e-6), candidate.size_bytes, candidate.id)

    return tuple(sorted(candidates, key=key))
