"""What goes into the frame and what comes out: events in, instructions out, all values, no I/O.

`Frame.step(state, event) -> (state, instructions)` is in `edge_daemon.policy.frame`; the state is in
`edge_daemon.policy.state`.
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
        latency_ms: Expected median of one inference here; a policy learns by how much that is wrong.
        measured: `latency_ms` was measured on this very machine.
        power_w: Above idle while it computes all the time; an estimate unless somebody measured it.
        accelerated: It is made for an accelerator: only an app that says so can run it.
        twin: The variant that the CPU runs in its place.
    """

    id: str
    quality: float
    latency_ms: float
    measured: bool
    size_bytes: int
    power_w: float = 3.0
    accelerated: bool = False
    twin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """A server that runs the model, too, and can be asked while a variant stands by.

    Attributes:
        quality: Of its answers, in the unit of the variants'.
        payload_kb: What is sent for one request, in 1000 bytes.
        server_ms: What it takes; of 0, where nobody says, all that it takes counts as sending.
        radio_w: Drawn above idle while sending.
        spares: It is not to be asked while the network is metered.
    """

    quality: float
    payload_kb: float
    server_ms: float = 0.0
    radio_w: float = 1.1
    spares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model the daemon serves; the variants that can run here, any order, and the server that may be asked."""

    name: str
    variants: tuple[VariantFacts, ...]
    server: ServerFacts | None = None


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A second has passed. Events without a clock of their own happen at the time of the last tick.

    Attributes:
        now_s: Monotonic clock.
        at: Wall clock, only copied into decisions.
        until_s: On the monotonic clock: the battery is to last until then; None where nobody asks.
    """

    now_s: float
    at: float
    conditions: Conditions
    until_s: float | None = None


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
    """An app runs this model now.

    Attributes:
        runs: The variants it can run; None where it does not tell: then those for the CPU.
        asks: It knows how to ask the server; where it does not, `why` may say more than that it knows none.
    """

    app: str
    model: str
    runs: tuple[str, ...] | None = None
    asks: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCannotAsk:
    """An app was told to ask the server and cannot: another signature, no such model, not reached."""

    app: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCanRun:
    """An app says what it can run, or that its accelerator is too hot, or no longer so.

    Attributes:
        runs: None leaves what it said before.
        hot: Nothing more is to be put on its accelerator.
    """

    app: str
    runs: tuple[str, ...] | None = None
    hot: bool = False


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
    """What an app measured in its last window, of its active variant.

    Attributes:
        arrived: Requests that came, also those that still wait; None where the app does not count them.
        latencies_ms: A sample of the inferences of `variant`, without waiting.
        slow_ms: The inference that made it report at once, if one did; `waited_ms` before it began.
        now_s: Monotonic clock, of a report at once.
        sent: Requests that the server was asked, and `replied` of them that it answered in time.
        remote_ms: What it took to be answered by the server, at the median; also of answers that came too late.
    """

    app: str
    variant: str
    calls: int
    late: int
    p50_ms: float | None
    p95_ms: float | None
    arrived: int | None = None
    latencies_ms: tuple[float, ...] = ()
    slow_ms: float | None = None
    waited_ms: float | None = None
    now_s: float | None = None
    sent: int = 0
    replied: int = 0
    remote_ms: float | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Somebody looked whether the server is there.

    Attributes:
        rtt_ms: One round trip to it; None where it did not answer.
    """

    rtt_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A variant was timed once in idle time, because the policy asked for it."""

    model: str
    variant: str
    latency_ms: float


Event = (
    Tick
    | Preferred
    | Pinned
    | Unpinned
    | Paused
    | AppJoined
    | AppCanRun
    | AppCannotAsk
    | AppLeft
    | AppPinned
    | AppReported
    | ActivationFailed
    | Measured
    | Tried
    | Looked
)


# ------------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Tell this app to run this variant, or to ask the server while this variant stands by."""

    app: str
    decision: Decision
    pinned_by: PinnedBy | None
    asks: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """Time this variant once, when nothing else runs; the answer is a `Tried`."""

    model: str
    variant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advise:
    """Tell the apps of this model how many requests a second would fit; None takes it back."""

    model: str
    most_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFailed:
    """The plug-in policy failed: what runs goes on, and the frame chooses the cheapest until it is asked again."""

    policy: str
    reason: str


Instruction = Assign | Decided | Quarantined | Try | Advise | PolicyFailed
