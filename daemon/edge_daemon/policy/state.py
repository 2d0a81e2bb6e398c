"""What the policy remembers, how it starts, and how it survives a restart.

All values; `step` makes new ones. Times are seconds of the policy's own clock, which runs only while ticks arrive and
never backwards: a restart or a stepped clock can lengthen a dwell, never cut it short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec

from edge_daemon.policy import tables
from edge_daemon.policy.types import Assign, ModelFacts, PinnedBy, VariantFacts
from edge_sdk.mqtt import Because, Conditions, Decision, Throttle
from edge_sdk.preference import Preference

VERSION = 1
HISTORY = 50
_MAX_DUMP_BYTES = 16 * 1024 * 1024
_LATEST_UNIX = 4102444800.0
_SLOWEST_MS = 86_400_000.0
_FASTEST_MS = 1e-4
_WORST_QUALITY = -1e9

# The p95 of a quiet device over its median, before it has been seen: the tail of interpreter runs on an idle core.
_FIRST_LOG_TAIL = math.log(1.3)

# Evidence measured on this machine at some other time counts like this many windows.
_MEASURED_BEFORE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRecord:
    """One variant, what was promised of it and what was learned.

    Attributes:
        prior_ms: The expectation it started with.
        latency_ms: The median expected while nothing slows the device: `prior_ms * exp(log_bias)`.
        reports: Windows it was learned from.
        failures: Failed activations since it last worked.
        strikes: Quarantines since it last worked.
        out_until_s: End of the last quarantine.
    """

    id: str
    quality: float
    size_bytes: int
    prior_ms: float
    measured: bool
    latency_ms: float
    log_bias: float = 0.0
    reports: int = 0
    failures: int = 0
    strikes: int = 0
    out_until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A variant that was left by itself and may not come back yet; `at_s` is None until the next tick."""

    variant: str
    at_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One model.

    Attributes:
        variants: In the order of the facts; never empty once a decision was made.
        decision: What is to run now, and why.
        bound: The constraint that kept that decision from the mode's favourite.
        switched_s: When the variant last changed; None when that was after the last tick.
        left: Variants barred because they were just left.
        thermal: The band of heat it is in, see `tables.THERMAL`.
        log_tail: Learned logarithm of p95 over median.
        proven: The variant that last answered calls in an app.
        measured: A measurement arrived that no decision has followed yet.
        wished_by: What had a part in the preference beside somebody's word.
        history: The last decisions, oldest first.
    """

    name: str
    variants: tuple[VariantRecord, ...]
    preference: Preference = Preference()  # noqa: RUF009 - a frozen value
    operator_pin: str | None = None
    hub_pin: str | None = None
    decision: Decision | None = None
    bound: str | None = None
    switched_s: float | None = None
    left: tuple[Left, ...] = ()
    thermal: int = 0
    log_tail: float = _FIRST_LOG_TAIL
    proven: str | None = None
    measured: bool = False
    wished_by: str = ""
    history: tuple[Decision, ...] = ()

    def variant(self, id: str | None) -> VariantRecord | None:  # noqa: A002 - `id` is the field's name everywhere
        """The variant of this id, or None."""
        for variant in self.variants:
            if variant.id == id:
                return variant
        return None

    @property
    def pin(self) -> str | None:
        """The variant an operator or the hub pinned; the hub's word is the higher."""
        return self.hub_pin or self.operator_pin

    @property
    def pinned_by(self) -> PinnedBy | None:
        """Whose pin is in force, of those above the apps."""
        if self.hub_pin:
            return PinnedBy.HUB
        return PinnedBy.OPERATOR if self.operator_pin else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRecord:
    """One app: its own pin, and what it said it runs."""

    app: str
    model: str
    pin: str | None = None
    active: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """The conditions the policy looks at; whatever is not a sane number is None."""

    temp_c: float | None = None
    limit_c: float | None = None
    battery_pct: float | None = None
    charging: bool | None = None
    rtt_ms: float | None = None
    throttle: Throttle = Throttle.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """Everything the policy knows.

    Attributes:
        now_s: Its own clock, see the module.
        seen_s: The monotonic clock at the last tick; None after a restart.
        at: The wall clock at the last tick.
        battery: The band of charge, see `tables.BATTERY`.
        throttle: The worst signal of the last seconds.
        throttle_s: When it was last as bad as that.
        temp_seen_s: When a temperature was last read; so for battery and round trip.
        drained_s: When the charger was last away.
        log_slowdown: Learned logarithm of observed over expected latency, shared by all variants of all models.
    """

    models: tuple[ModelRecord, ...]
    version: int = VERSION
    apps: tuple[AppRecord, ...] = ()
    paused: bool = False
    now_s: float = 0.0
    seen_s: float | None = None
    at: float = 0.0
    senses: Senses = Senses()
    battery: int = 0
    throttle: Throttle = Throttle.NONE
    throttle_s: float = 0.0
    temp_seen_s: float = 0.0
    battery_seen_s: float = 0.0
    rtt_seen_s: float = 0.0
    drained_s: float = 0.0
    log_slowdown: float = 0.0

    def model(self, name: str) -> ModelRecord | None:
        """The model of this name, or None."""
        return next((model for model in self.models if model.name == name), None)

    def app(self, app: str) -> AppRecord | None:
        """The app of this identity, or None."""
        return next((record for record in self.apps if record.app == app), None)

    def assignment(self, app: str) -> Assign | None:
        """What this app is to run; None for an unknown app, or before the first step."""
        record = self.app(app)
        model = self.model(record.model) if record else None
        if record is None or model is None or model.decision is None:
            return None
        if model.pinned_by is None and record.pin is not None:
            because = Because(code="pin", text=f"the app pinned {record.pin} for itself")
            decision = Decision(model=model.name, variant=record.pin, because=because, at=self.at)
            return Assign(app=app, decision=decision, pinned_by=PinnedBy.APP)
        return Assign(app=app, decision=model.decision, pinned_by=model.pinned_by)

    def explain(self, model: str | None = None) -> tuple[Decision, ...]:
        """The last decisions of one model or of all, newest first."""
        chosen = [d for record in self.models if model in (None, record.name) for d in reversed(record.history)]
        return tuple(sorted(chosen, key=lambda d: -d.at))


def initial(models: tuple[ModelFacts, ...], kept: PolicyState | None = None, *, at: float = 0.0) -> PolicyState:
    """The state before the first event; the first event makes the first decisions.

    Args:
        models: What is served now.
        kept: An earlier state. Preferences, pins, the decision and all that was learned carry on where the same
            variant (by id and file size) is still there; apps have to join again.
        at: Wall clock, for decisions before the first tick.
    """
    if kept is None:
        return PolicyState(models=tuple(_fresh(facts) for facts in models), at=wall(at, 0.0))
    return replace(
        kept,
        models=tuple(_carried(_fresh(facts), kept.model(facts.name)) for facts in models),
        apps=(),
        seen_s=None,
        at=wall(at, kept.at),
        log_slowdown=min(max(kept.log_slowdown, -2.0), 4.0),
    )


def dump(state: PolicyState) -> bytes:
    """The state as JSON, for `load`."""
    return msgspec.json.encode(state)


def load(payload: bytes) -> PolicyState | None:
    """The dumped state, or None when it is damaged or of another version: then one starts afresh."""
    if len(payload) > _MAX_DUMP_BYTES:
        return None
    try:
        state = msgspec.json.decode(payload, type=PolicyState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return state if state.version == VERSION and _holds_together(state) else None


def sense(conditions: Conditions) -> Senses:
    """What the policy looks at of the conditions."""
    pct = conditions.battery_pct
    rtt = conditions.rtt_ms
    return Senses(
        temp_c=_finite(conditions.temp_c),
        limit_c=_finite(conditions.temp_limit_c),
        battery_pct=pct if pct is not None and 0 <= pct <= 100 else None,  # noqa: PLR2004 - percent; NaN fails too
        charging=conditions.charging,
        rtt_ms=rtt if rtt is not None and 0 <= rtt <= _SLOWEST_MS else None,
        throttle=conditions.throttle,
    )


def wall(at: float, before: float) -> float:
    """A wall-clock time that a decision may carry, or the one before."""
    return at if 0 <= at <= _LATEST_UNIX else before


def sane_ms(value: float | None) -> float | None:
    """A latency one can learn from, or None."""
    return value if value is not None and _FASTEST_MS <= value <= _SLOWEST_MS else None


def _holds_together(state: PolicyState) -> bool:
    """No band beyond the tables, no dwell or quarantine that would never end."""
    return (
        0 <= state.battery <= len(tables.BATTERY)
        and max(state.throttle_s, state.temp_seen_s, state.battery_seen_s, state.rtt_seen_s, state.drained_s)
        <= state.now_s
        and all(
            0 <= model.thermal <= len(tables.THERMAL)
            and max([model.switched_s or 0.0, *(left.at_s or 0.0 for left in model.left)]) <= state.now_s
            and all((v.out_until_s or 0.0) <= state.now_s + tables.QUARANTINE_MAX_S for v in model.variants)
            for model in state.models
        )
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _fresh(facts: ModelFacts) -> ModelRecord:
    return ModelRecord(name=facts.name, variants=tuple(_record(variant) for variant in facts.variants))


def _record(facts: VariantFacts) -> VariantRecord:
    prior_ms = sane_ms(facts.latency_ms)
    if prior_ms is None:  # nothing sane was promised: the worst is expected until it is seen
        prior_ms = _SLOWEST_MS if not facts.latency_ms < _FASTEST_MS else _FASTEST_MS
    return VariantRecord(
        id=facts.id,
        quality=facts.quality if math.isfinite(facts.quality) else _WORST_QUALITY,
        size_bytes=facts.size_bytes,
        prior_ms=prior_ms,
        measured=facts.measured,
        latency_ms=prior_ms,
        reports=_MEASURED_BEFORE if facts.measured else 0,
    )


def _carried(fresh: ModelRecord, kept: ModelRecord | None) -> ModelRecord:
    if kept is None:
        return fresh
    variants = tuple(_learned(variant, kept.variant(variant.id)) for variant in fresh.variants)
    there = {variant.id for variant in variants}
    decision = kept.decision
    return replace(
        kept,
        variants=variants,
        operator_pin=kept.operator_pin if kept.operator_pin in there else None,
        hub_pin=kept.hub_pin if kept.hub_pin in there else None,
        decision=decision if decision is not None and decision.variant in there else None,
        proven=kept.proven if kept.proven in there else None,
        left=tuple(left for left in kept.left if left.variant in there),
        log_tail=min(max(kept.log_tail, 0.0), 2.0),
    )


def _learned(fresh: VariantRecord, kept: VariantRecord | None) -> VariantRecord:
    """What was learned of a variant, if it is the same file. A new prior does not undo what was seen here."""
    if kept is None or kept.size_bytes != fresh.size_bytes or sane_ms(kept.latency_ms) is None:
        return fresh
    if kept.reports == 0 and kept.failures == 0 and not kept.measured:
        return fresh
    return replace(kept, quality=fresh.quality)
