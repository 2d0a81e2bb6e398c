"""What goes into the policy and what comes out: events in, instructions out, all values, no I/O.

`step(state, event) -> (state, instructions)` is in `edge_daemon.policy.step`; the state is there too.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edge_sdk.mqtt import Conditions, Decision
from edge_sdk.preference import Preference


class PinnedBy(enum.Enum):
    """Whose word counts, from the lowest to the highest."""

    APP = "app"
    OPERATOR = "operator"
    HUB = "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFacts:
    """What is known of a variant before it has run here.

    Attributes:
        quality: In the metric's unit, higher is better.
        latency_ms: Expected median of one inference here; replaced by what apps report.
        measured: `latency_ms` was measured on this very machine.
    """

    id: str
    quality: float
    latency_ms: float
    measured: bool
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model the daemon serves; the variants that can run here, any order."""

    name: str
    variants: tuple[VariantFacts, ...]


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A second has passed. Events without a clock of their own happen at the time of the last tick.

    Attributes:
        now_s: Monotonic clock.
        at: Wall clock, only copied into decisions.
    """

    now_s: float
    at: float
    conditions: Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """What is wanted of one model or of all.

    Attributes:
        said: Somebody said so just now, so it counts at once; else it came about by itself (a schedule, another app).
        why: What had a part in it beside somebody's word, for the reason of a decision.
    """

    model: str | None
    preference: Preference
    said: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """An operator or the hub wants this variant and no other."""

    model: str
    variant: str
    by: PinnedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpinned:
    """A pin of this hand is taken back, of one model or of all."""

    model: str | None
    by: PinnedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """Switching stops (`paused`) or goes on."""

    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AppJoined:
    """An app runs this model now."""

    app: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLeft:
    """An app went away."""

    app: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPinned:
    """An app chose a variant for itself; None takes it back."""

    app: str
    variant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReported:
    """What an app measured in its last window, of its active variant."""

    app: str
    variant: str
    calls: int
    late: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationFailed:
    """An app could not load a variant."""

    app: str
    variant: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A variant was timed on this machine, in a child process."""

    model: str
    variant: str
    median_ms: float


Event = (
    Tick
    | Preferred
    | Pinned
    | Unpinned
    | Paused
    | AppJoined
    | AppLeft
    | AppPinned
    | AppReported
    | ActivationFailed
    | Measured
)


# ------------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Tell this app to run this variant."""

    app: str
    decision: Decision
    pinned_by: PinnedBy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A model's variant changed, or whose word it rests on: log it, keep it, show it."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A variant failed too often and is left out until `until_s` on the monotonic clock."""

    model: str
    variant: str
    until_s: float
    reason: str


Instruction = Assign | Decided | Quarantined
