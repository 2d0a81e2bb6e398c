"""What the frame remembers, how it starts, and how it survives a restart.

All values; a step makes new ones. Times are seconds of the frame's own clock, which runs only while ticks arrive and
never backwards: a restart or a stepped clock can lengthen a dwell, never cut it short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from edge_daemon.policies.contract import MAX_LATENCIES
from edge_daemon.policy import tables
from edge_daemon.policy.types import Assign, ModelFacts, PinnedBy, ServerFacts, VariantFacts
from edge_daemon.policy.way import Way
from edge_sdk.mqtt import Because, Conditions, Decision, Throttle
from edge_sdk.preference import Preference

VERSION = 2
_READS = (1, 2)  # version 1 had bands and estimates of its own: they are passed over
HISTORY = 50
_MAX_DUMP_BYTES = 16 * 1024 * 1024
_LATEST_UNIX = 4102444800.0
_SLOWEST_MS = 86_400_000.0
_FASTEST_MS = 1e-4
_WORST_QUALITY = -1e9
_LEAST_WH, _MOST_WH = 0.01, 1e6
_LEAST_CLOCK = 0.05
SERVER = "server+"  # before the id of the variant that stands by; no variant's name has a plus


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRecord:
    """One variant, what was promised of it and how its activations went.

    Attributes:
        latency_ms: Expected median of one inference.
        failures: Failed activations since it last worked.
        strikes: Quarantines since it last worked.
        out_until_s: End of the last quarantine.
    """

    id: str
    quality: float
    size_bytes: int
    latency_ms: float
    measured: bool
    power_w: float = 3.0
    accelerated: bool = False
    twin: str | None = None
    failures: int = 0
    strikes: int = 0
    out_until_s: float | None = None

    @property
    def energy_mj(self) -> float:
        """Of one inference, as far as anybody knows before it runs."""
        return self.latency_ms * self.power_w


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A variant that was left and may not come back yet; `at_s` is None until the next tick."""

    variant: str
    at_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What apps reported of a model since the policy was last asked."""

    requests: int = 0
    late: int = 0
    latencies_ms: tuple[float, ...] = ()
    tried: tuple[str, float] | None = None
    sent: int = 0
    replied: int = 0

    def more(
        self, requests: int, late: int, latencies_ms: tuple[float, ...], *, sent: int = 0, replied: int = 0
    ) -> Work:
        """With another report; times of its inferences as far as there is room."""
        room = MAX_LATENCIES - len(self.latencies_ms)
        return replace(
            self,
            requests=self.requests + requests,
            late=self.late + late,
            latencies_ms=(*self.latencies_ms, *latencies_ms[: max(room, 0)]),
            sent=self.sent + sent,
            replied=self.replied + replied,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One model.

    Attributes:
        variants: In the order of the facts; never empty once a decision was made.
        decision: What is to run now, and why.
        bound: The code of what keeps the decision from something better.
        left: Variants barred because they were just left.
        proven: The variant that last answered calls in an app.
        pending: What changed by itself and no decision has followed yet: `measured`, `preference`; empty is nothing.
        wished_by: What had a part in the preference beside somebody's word.
        most_per_s: The rate of requests that would fit, where nothing fits the one there is.
        work: Since the policy was last asked; it does not outlive a restart.
        history: The last decisions, oldest first.
        server: That may be asked; None without one.
        asks: It is asked, and the decision's variant stands by.
    """

    name: str
    variants: tuple[VariantRecord, ...]
    preference: Preference = Preference()  # noqa: RUF009 - a frozen value
    operator_pin: str | None = None
    hub_pin: str | None = None
    decision: Decision | None = None
    bound: str | None = None
    left: tuple[Left, ...] = ()
    proven: str | None = None
    pending: str = ""
    wished_by: str = ""
    most_per_s: float | None = None
    work: Work = Work()
    history: tuple[Decision, ...] = ()
    server: ServerFacts | None = None
    asks: bool = False

    def chosen(self, action: str) -> tuple[VariantRecord | None, bool]:
        """The variant that an action runs, and whether the server is asked while that stands by."""
        asks = action.startswith(SERVER)
        return self.variant(action.removeprefix(SERVER)), asks

    def variant(self, id: str | None) -> VariantRecord | None:  # noqa: A002 - `id` is the field's name everywhere
        """The variant of this id, or None."""
        for variant in self.variants:
            if variant.id == id:
                return variant
        return None

    @property
    def current(self) -> VariantRecord | None:
        """What is to run now."""
        return None if self.decision is None else self.variant(self.decision.variant)

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
    """One app.

    Attributes:
        pin: Its own.
        active: What it said it runs.
        runs: What it can run; None: what the CPU can.
        hot: Nothing more is to be put on its accelerator.
        asks: It knows how to ask a server.
        refused: Why it could not, when it was told to; it is told to again at `asks_s`.
        refusals: How often it could not since it last did.
        replied_s: When it last told of an answer of the server's in time; `unheard_s` when of none for the first time.
    """

    app: str
    model: str
    pin: str | None = None
    active: str | None = None
    runs: tuple[str, ...] | None = None
    hot: bool = False
    asks: bool = False
    refused: str = ""
    asks_s: float = 0.0
    refusals: int = 0
    replied_s: float | None = None
    unheard_s: float | None = None

    def can_run(self, variant: VariantRecord) -> bool:
        """Whether it said so; one that says nothing computes on the CPU."""
        if self.hot and variant.accelerated:
            return False
        return not variant.accelerated if self.runs is None else variant.id in self.runs

    def waits(self, now_s: float) -> bool:
        """It is told to ask no server for a while, without having said that it could not."""
        return bool(self.refused) and not self.refusals and now_s < self.asks_s

    def why_not(self, now_s: float) -> str:
        """Why it is not told to ask a server; empty where it may be."""
        if not self.asks:
            return self.refused or "the SDK is from before servers, or told to ask none"
        return self.refused if self.refused and now_s < self.asks_s else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """The conditions as they are taken for true; what is not a sane number, or too old, is None.

    Attributes:
        battery_wh: What a gauge of energy says is left; `full_wh` what it holds.
        power_w: Of the whole board.
        clock: Current over full.
    """

    temp_c: float | None = None
    limit_c: float | None = None
    battery_pct: float | None = None
    battery_wh: float | None = None
    full_wh: float | None = None
    charging: bool | None = None
    power_w: float | None = None
    clock: float | None = None
    up_mbps: float | None = None
    rtt_ms: float | None = None
    throttle: Throttle = Throttle.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """Everything the frame knows, and what the plug-in policy has learned.

    Attributes:
        now_s: Its own clock, see the module.
        seen_s: The monotonic clock at the last tick; None after a restart.
        at: The wall clock at the last tick.
        asked_s: When the policy was last asked; None before the first time.
        heat: The band of heat, see `tables.HEAT`; so `charge`.
        throttle: The worst signal of the last seconds, `throttle_s` when it was last as bad as that.
        temp_last_c: The last temperature read, at `temp_seen_s`; so for battery and round trip.
        drained_s: When the charger was last away; `metered_s` when the network was last metered, None if it is not.
        trip_ms: The round trip that deadlines are reckoned with.
        full_wh: What the battery holds, as adopted; `until_s` how long it is to last, on the frame's clock.
        use: The policy that `learned` is of: its last dump.
        plugged: The policy at work (`edge_daemon.policy.plugged`); it does not outlive a restart.
        failed_s: When the policy failed, while it is not to be asked.
        way: To the server, as far as it was seen; it does not outlive a restart.
    """

    models: tuple[ModelRecord, ...]
    version: int = VERSION
    apps: tuple[AppRecord, ...] = ()
    paused: bool = False
    now_s: float = 0.0
    seen_s: float | None = None
    at: float = 0.0
    asked_s: float | None = None
    senses: Senses = Senses()
    heat: int = 0
    charge: int = 0
    throttle: Throttle = Throttle.NONE
    throttle_s: float = 0.0
    temp_last_c: float | None = None
    temp_seen_s: float = 0.0
    battery_seen_s: float = 0.0
    rtt_seen_s: float = 0.0
    drained_s: float = 0.0
    metered_s: float | None = None
    trip_ms: float = 0.0
    full_wh: float | None = None
    until_s: float | None = None
    use: str = ""
    learned: bytes = b""
    plugged: Any = field(default=None, compare=False)
    failed_s: float | None = None
    way: Way | None = None

    def model(self, name: str) -> ModelRecord | None:
        """The model of this name, or None."""
        return next((model for model in self.models if model.name == name), None)

    def app(self, app: str) -> AppRecord | None:
        """The app of this identity, or None."""
        return next((record for record in self.apps if record.app == app), None)

    def apps_of(self, model: str) -> tuple[AppRecord, ...]:
        """The apps that run it."""
        return tuple(app for app in self.apps if app.model == model)

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
        asks = model.asks and not record.why_not(self.now_s)
        decision = _for(record, model, model.decision)
        if model.asks and not asks:
            decision = _alone(decision, record.why_not(self.now_s))
        return Assign(app=app, decision=decision, pinned_by=model.pinned_by, asks=asks)

    def explain(self, model: str | None = None) -> tuple[Decision, ...]:
        """The last decisions of one model or of all, newest first."""
        chosen = [d for record in self.models if model in (None, record.name) for d in reversed(record.history)]
        return tuple(sorted(chosen, key=lambda d: -d.at))


def initial(models: tuple[ModelFacts, ...], kept: PolicyState | None = None, *, at: float = 0.0) -> PolicyState:
    """The state before the first event.

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
        asked_s=None,
        until_s=None,
        plugged=None,
        failed_s=None,
        way=None,
        at=wall(at, kept.at),
    )


def dump(state: PolicyState) -> bytes:
    """The state as JSON, for `load`."""
    plugged = state.plugged
    learned, use = (state.learned, state.use) if plugged is None else (plugged.dump(), plugged.use)
    return msgspec.json.encode(replace(state, plugged=None, learned=learned, use=use))


def load(payload: bytes) -> PolicyState | None:
    """The dumped state, or None when it is damaged or of another version: then one starts afresh."""
    if len(payload) > _MAX_DUMP_BYTES:
        return None
    try:
        state = msgspec.json.decode(payload, type=PolicyState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if state.version not in _READS or not _holds_together(state):
        return None
    return replace(state, version=VERSION, plugged=None)


def sense(conditions: Conditions) -> Senses:
    """What is sane of the conditions."""
    pct, rtt = conditions.battery_pct, conditions.rtt_ms
    whole_board = conditions.power_scope in {None, "board"}
    return Senses(
        temp_c=_finite(conditions.temp_c),
        limit_c=_finite(conditions.temp_limit_c),
        battery_pct=pct if pct is not None and 0 <= pct <= 100 else None,  # noqa: PLR2004 - percent; NaN fails too
        charging=conditions.charging,
        battery_wh=_within(conditions.battery_wh, 0.0, _MOST_WH),
        full_wh=_within(conditions.battery_full_wh, _LEAST_WH, _MOST_WH),
        power_w=_within(conditions.power_w, 0.0, tables.MAX_POWER_W) if whole_board else None,
        clock=_within(conditions.clock, _LEAST_CLOCK, 1.0),
        up_mbps=_within(conditions.up_mbps, 0.0, 1e6),
        rtt_ms=rtt if rtt is not None and 0 <= rtt <= _SLOWEST_MS else None,
        throttle=conditions.throttle,
    )


def wall(at: float, before: float) -> float:
    """A wall-clock time that a decision may carry, or the one before."""
    return at if 0 <= at <= _LATEST_UNIX else before


def sane_ms(value: float | None) -> float | None:
    """A latency one can learn from, or None."""
    return value if value is not None and _FASTEST_MS <= value <= _SLOWEST_MS else None


def with_model(state: PolicyState, model: ModelRecord) -> PolicyState:
    """The state with the model of this name replaced."""
    for old in state.models:
        if old is model:
            return state
    return replace(state, models=tuple(model if old.name == model.name else old for old in state.models))


def with_app(state: PolicyState, app: AppRecord) -> PolicyState:
    """The state with the app of this identity added or replaced."""
    return replace(state, apps=(*(other for other in state.apps if other.app != app.app), app))


def with_variant(model: ModelRecord, new: VariantRecord) -> ModelRecord:
    """The model with the variant of this id replaced."""
    return replace(model, variants=tuple(new if variant.id == new.id else variant for variant in model.variants))


def _for(app: AppRecord, model: ModelRecord, decision: Decision) -> Decision:
    """The decision as this app can carry it out: a pin may name what it cannot run, then its twin stands in."""
    variant = model.variant(decision.variant)
    if variant is None or app.can_run(variant):
        return decision
    twin = model.variant(variant.twin)
    others = [twin] if twin is not None and app.can_run(twin) else [v for v in model.variants if app.can_run(v)]
    if not others:
        return decision
    taken = min(others, key=lambda other: (-other.quality, other.latency_ms, other.id))
    text = f"{decision.because.text}; this app cannot run {variant.id}, so {taken.id} stands in"
    because = msgspec.structs.replace(decision.because, text=text[:1000])
    return msgspec.structs.replace(decision, variant=taken.id, because=because)


def _alone(decision: Decision, why: str) -> Decision:
    """The decision as an app carries it out that cannot ask the server: what stands by computes."""
    text = f"{decision.because.text}; this app does not ask it ({why}), so {decision.variant} computes"
    return msgspec.structs.replace(decision, because=msgspec.structs.replace(decision.because, text=text[:1000]))


def _holds_together(state: PolicyState) -> bool:
    """No band beyond the tables, no dwell or quarantine that would never end."""
    return (
        0 <= state.heat <= len(tables.HEAT)
        and 0 <= state.charge <= len(tables.CHARGE)
        and max(state.throttle_s, state.temp_seen_s, state.battery_seen_s, state.rtt_seen_s, state.drained_s)
        <= state.now_s
        and (state.metered_s or 0.0) <= state.now_s
        and all(
            max([0.0, *(left.at_s or 0.0 for left in model.left)]) <= state.now_s
            and all((v.out_until_s or 0.0) <= state.now_s + tables.QUARANTINE_MAX_S for v in model.variants)
            for model in state.models
        )
    )


def _within(value: float | None, least: float, most: float) -> float | None:
    return value if value is not None and least <= value <= most else None  # false for NaN


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _fresh(facts: ModelFacts) -> ModelRecord:
    return ModelRecord(
        name=facts.name, variants=tuple(_record(variant) for variant in facts.variants), server=facts.server
    )


def _record(facts: VariantFacts) -> VariantRecord:
    latency_ms = sane_ms(facts.latency_ms)
    if latency_ms is None:  # nothing sane was promised: the worst is expected until it is seen
        latency_ms = _SLOWEST_MS if not facts.latency_ms < _FASTEST_MS else _FASTEST_MS
    return VariantRecord(
        id=facts.id,
        quality=facts.quality if math.isfinite(facts.quality) else _WORST_QUALITY,
        size_bytes=facts.size_bytes,
        latency_ms=latency_ms,
        measured=facts.measured,
        power_w=facts.power_w if 0 < facts.power_w <= tables.MAX_POWER_W else 3.0,
        accelerated=facts.accelerated,
        twin=facts.twin,
    )


def _carried(fresh: ModelRecord, kept: ModelRecord | None) -> ModelRecord:
    if kept is None:
        return fresh
    variants = tuple(_known(variant, kept.variant(variant.id)) for variant in fresh.variants)
    there = {variant.id for variant in variants}
    decision = None if kept.asks else kept.decision  # nothing is known of the server now
    return replace(
        kept,
        variants=variants,
        server=fresh.server,
        asks=False,
        operator_pin=kept.operator_pin if kept.operator_pin in there else None,
        hub_pin=kept.hub_pin if kept.hub_pin in there else None,
        decision=decision if decision is not None and decision.variant in there else None,
        proven=kept.proven if kept.proven in there else None,
        left=tuple(left for left in kept.left if left.variant in there),
        work=Work(),
    )


def _known(fresh: VariantRecord, kept: VariantRecord | None) -> VariantRecord:
    """What is known of a variant, if it is the same file: how it failed, and what was measured on command."""
    if kept is None or kept.size_bytes != fresh.size_bytes or sane_ms(kept.latency_ms) is None:
        return fresh
    known = replace(fresh, failures=kept.failures, strikes=kept.strikes, out_until_s=kept.out_until_s)
    return replace(known, latency_ms=kept.latency_ms, measured=True) if kept.measured else known
