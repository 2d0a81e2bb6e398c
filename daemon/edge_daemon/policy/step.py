"""One event in, instructions out.

A decision changes for one of three reasons:

- **somebody said so** (`Preferred`, `Pinned`, `Unpinned`): at once;
- **urgent**: the running variant breaks a constraint and a cheaper one does not: at once;
- **voluntary**: another variant is better by more than the dead-band: at most once per dwell.

A variant that was left urgently, or that failed, may not come back within one dwell; only somebody's word overrides
that. So each variant is left urgently at most once per dwell, and the switches are bounded however the input flaps. One
that was left voluntarily is not barred: it may be the only one that keeps a limit a second later. Events between ticks
happen at the last tick's time as far as elapsed dwells go, and start new ones at the next tick, so a dwell is never
shorter than it says. Whatever an event names that does not exist changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from edge_daemon.policy import tables
from edge_daemon.policy.because import because, broken, pinned
from edge_daemon.policy.choose import Choice, choose, headroom_c
from edge_daemon.policy.estimate import learn, measured, replaced
from edge_daemon.policy.state import (
    HISTORY,
    AppRecord,
    Left,
    ModelRecord,
    PolicyState,
    VariantRecord,
    initial,
    sane_ms,
    sense,
    wall,
)
from edge_daemon.policy.types import (
    ActivationFailed,
    AppJoined,
    AppLeft,
    AppPinned,
    AppReported,
    Assign,
    Decided,
    Event,
    Instruction,
    Measured,
    Paused,
    Pinned,
    PinnedBy,
    Preferred,
    Quarantined,
    Tick,
    Unpinned,
)
from edge_sdk.mqtt import Because, Decision
from edge_sdk.preference import rank

__all__ = ["initial", "step"]

Instructions = tuple[Instruction, ...]


def step(state: PolicyState, event: Event) -> tuple[PolicyState, Instructions]:  # noqa: C901, PLR0911 - one arm per event
    """The state after the event, and what is to be done, in order."""
    match event:
        case Tick():
            return _settle(_ticked(state, event), ticked=True)
        case AppReported():
            return _settle(_reported(state, event))
        case AppJoined():
            return _joined(state, event)
        case AppLeft():
            return replace(state, apps=tuple(app for app in state.apps if app.app != event.app)), ()
        case AppPinned():
            return _app_pinned(state, event)
        case ActivationFailed():
            return _failed(state, event)
        case Preferred():
            return _preferred(state, event)
        case Pinned():
            return _pinned(state, event)
        case Unpinned():
            return _unpinned(state, event)
        case Paused():
            return _settle(replace(state, paused=event.paused))
        case Measured():
            return _settle(_measured(state, event))


# -------------------------------------------------------------------------------------------- what an event changes


def _ticked(state: PolicyState, tick: Tick) -> PolicyState:
    passed_s = 0.0 if state.seen_s is None else tick.now_s - state.seen_s
    now_s = state.now_s + passed_s if 0 < passed_s < float("inf") else state.now_s  # NaN and steps back do not count
    senses = sense(tick.conditions)
    temp_seen_s = state.temp_seen_s if senses.temp_c is None else now_s
    rtt_seen_s = state.rtt_seen_s if senses.rtt_ms is None else now_s
    if senses.rtt_ms is None and now_s - rtt_seen_s <= tables.SENSOR_HOLD_S:
        senses = replace(senses, rtt_ms=state.senses.rtt_ms)
    battery, battery_seen_s = state.battery, state.battery_seen_s
    drained_s = state.drained_s if senses.charging else now_s
    if senses.charging:
        battery_seen_s = now_s
        battery = battery if now_s - drained_s < tables.CHARGER_CLEAR_S else 0
    elif senses.battery_pct is not None:
        battery, battery_seen_s = tables.follow(tables.BATTERY, battery, senses.battery_pct), now_s
    elif now_s - battery_seen_s > tables.SENSOR_HOLD_S:
        battery, battery_seen_s = 0, now_s
    throttle, throttle_s = state.throttle, state.throttle_s
    milder = tables.THROTTLE_RANK[senses.throttle] < tables.THROTTLE_RANK[throttle]
    if not milder or now_s - throttle_s > tables.THROTTLE_CLEAR_S:
        throttle, throttle_s = senses.throttle, now_s
    ticked = PolicyState(  # written out: `dataclasses.replace` costs as much as all the rest of a quiet tick
        models=state.models,
        version=state.version,
        apps=state.apps,
        paused=state.paused,
        now_s=now_s,
        seen_s=tick.now_s if abs(tick.now_s) < float("inf") else state.seen_s,  # false for NaN
        at=wall(tick.at, state.at),
        senses=senses,
        battery=battery,
        throttle=throttle,
        throttle_s=throttle_s,
        temp_seen_s=temp_seen_s,
        battery_seen_s=battery_seen_s,
        rtt_seen_s=rtt_seen_s,
        drained_s=drained_s,
        log_slowdown=state.log_slowdown,
    )
    models = tuple(_stamped(_warmed(ticked, model), now_s) for model in state.models)
    return replace(ticked, models=models) if models != state.models else ticked


def _warmed(state: PolicyState, model: ModelRecord) -> ModelRecord:
    room = headroom_c(state, model)
    if room is not None:
        level = tables.follow(tables.THERMAL, model.thermal, room[0])
    elif state.senses.temp_c is None and state.now_s - state.temp_seen_s <= tables.SENSOR_HOLD_S:
        level = model.thermal
    else:
        level = 0
    return model if level == model.thermal else replace(model, thermal=level)


def _stamped(model: ModelRecord, now_s: float) -> ModelRecord:
    """Dwells that began since the last tick begin now."""
    if model.switched_s is not None:
        return model
    left = tuple(Left(variant=item.variant, at_s=now_s) if item.at_s is None else item for item in model.left)
    return replace(model, switched_s=now_s, left=left)


def _reported(state: PolicyState, seen: AppReported) -> PolicyState:
    app = state.app(seen.app)
    model = state.model(app.model) if app else None
    variant = model.variant(seen.variant) if model else None
    if app is None or model is None or variant is None:
        return state
    model, log_slowdown = learn(state, model, seen)
    if seen.calls > 0:
        if variant.failures or variant.strikes:
            works = model.variant(variant.id) or variant
            works = replace(works, failures=0, strikes=0, out_until_s=None)
            model = replace(model, variants=replaced(model.variants, works))
        model = replace(model, proven=variant.id)
    state = _with_model(replace(state, log_slowdown=log_slowdown), model)
    return state if app.active == variant.id else _with_app(state, replace(app, active=variant.id))


def _measured(state: PolicyState, event: Measured) -> PolicyState:
    model = state.model(event.model)
    variant = model.variant(event.variant) if model else None
    median_ms = sane_ms(event.median_ms)
    if model is None or variant is None or median_ms is None:
        return state
    return _with_model(state, measured(model, variant, median_ms))


def _joined(state: PolicyState, event: AppJoined) -> tuple[PolicyState, Instructions]:
    if state.model(event.model) is None:
        return state, ()
    app = AppRecord(app=event.app, model=event.model)
    state, instructions = _settle(_with_app(state, app))
    told = any(isinstance(item, Assign) and item.app == event.app for item in instructions)
    assigned = None if told else state.assignment(event.app)
    return state, instructions if assigned is None else (*instructions, assigned)


def _app_pinned(state: PolicyState, event: AppPinned) -> tuple[PolicyState, Instructions]:
    app = state.app(event.app)
    model = state.model(app.model) if app else None
    if app is None or model is None or (event.variant is not None and model.variant(event.variant) is None):
        return state, ()
    state = _with_app(state, replace(app, pin=event.variant))
    assigned = state.assignment(event.app)
    return state, () if assigned is None else (assigned,)


# --------------------------------------------------------------------------------------------------- somebody's word


def _preferred(state: PolicyState, event: Preferred) -> tuple[PolicyState, Instructions]:
    out: list[Instruction] = []
    for model in state.models:
        if event.model in (None, model.name):
            wished = replace(model, preference=event.preference, wished_by=event.why)
            wished = _warmed(state, wished)  # the limit of heat may have moved
            state, said = _decide(state, wished, word="preference" if event.said else None)
            out += said
    return state, tuple(out)


def _pinned(state: PolicyState, event: Pinned) -> tuple[PolicyState, Instructions]:
    model = state.model(event.model)
    if model is None or model.variant(event.variant) is None or event.by is PinnedBy.APP:
        return state, ()
    if event.by is PinnedBy.HUB:
        model = replace(model, hub_pin=event.variant)
    else:
        model = replace(model, operator_pin=event.variant)
    return _hold_pin(state, model)


def _unpinned(state: PolicyState, event: Unpinned) -> tuple[PolicyState, Instructions]:
    out: list[Instruction] = []
    for model in state.models:
        mine = model.hub_pin if event.by is PinnedBy.HUB else model.operator_pin
        if event.model not in (None, model.name) or mine is None or event.by is PinnedBy.APP:
            continue
        freed = replace(model, hub_pin=None) if event.by is PinnedBy.HUB else replace(model, operator_pin=None)
        state, said = _hold_pin(state, freed) if freed.pin else _decide(state, freed, word="unpin")
        out += said
    return state, tuple(out)


def _hold_pin(state: PolicyState, model: ModelRecord) -> tuple[PolicyState, Instructions]:
    """Run what the highest pin says; nothing is to be done when that is what runs by the same hand."""
    variant, by = model.variant(model.pin), model.pinned_by
    before = state.model(model.name)
    if variant is None or by is None:
        return _with_model(state, model), ()
    if before is not None and before.pin == model.pin and before.pinned_by is by and model.decision is not None:
        return _with_model(state, model), ()
    return _switch(state, replace(model, left=()), variant, pinned(state, model, variant, by.value))


def _failed(state: PolicyState, event: ActivationFailed) -> tuple[PolicyState, Instructions]:
    app = state.app(event.app)
    model = state.model(app.model) if app else None
    variant = model.variant(event.variant) if model else None
    if model is None or variant is None:
        return state, ()
    out: Instructions = ()
    failures, strikes, until_s = variant.failures + 1, variant.strikes, variant.out_until_s
    if failures >= tables.FAILURES_TO_QUARANTINE:
        hold_s = min(tables.QUARANTINE_S * 2.0 ** min(strikes, 16), tables.QUARANTINE_MAX_S)
        failures, strikes, until_s = 0, strikes + 1, state.now_s + hold_s
        seen_s = state.now_s if state.seen_s is None else state.seen_s
        out = (Quarantined(model=model.name, variant=variant.id, until_s=seen_s + hold_s, reason=event.reason[:1000]),)
    failed = replace(variant, failures=failures, strikes=strikes, out_until_s=until_s)
    barred = tuple(item for item in model.left if item.variant != failed.id)
    model = replace(
        model,
        variants=replaced(model.variants, failed),
        left=(*barred, Left(variant=failed.id, at_s=None)),
        proven=None if model.proven == failed.id and app is not None and app.active != failed.id else model.proven,
    )
    if model.pin is not None or model.decision is None or model.decision.variant != failed.id:
        return _with_model(state, replace(model, switched_s=None)), out
    state, said = _fall_back(state, model, failed, event.reason)
    return state, (*out, *said)


# ------------------------------------------------------------------------------------------------------- deciding


def _settle(state: PolicyState, *, ticked: bool = False) -> tuple[PolicyState, Instructions]:
    out: Instructions = ()
    for model in state.models:
        state, said = _decide(state, model, ticked=ticked)
        if said:
            out = (*out, *said)
    return state, out


def _decide(
    state: PolicyState, model: ModelRecord, *, word: str | None = None, ticked: bool = False
) -> tuple[PolicyState, Instructions]:
    """Decide on one model; `word` is the code when somebody said so."""
    if not model.variants:
        return _with_model(state, model), ()
    current = model.variant(model.decision.variant) if model.decision else None
    if model.pin is not None:
        return (_with_model(state, model), ()) if current is not None else _hold_pin(state, model)
    if current is not None and state.paused:
        if word != "unpin":
            return _with_model(state, model), ()
        usable = [current]
    else:
        usable = _usable(state, model, current, heed_bars=word is None)
    choice = choose(state, model, usable, current)
    urgent = word is None and _is_urgent(choice, current)
    code = _code(state, model, choice, current, word, urgent=urgent)
    if code is None:
        settled = model.measured and choice.variant is current
        return _with_model(state, replace(model, measured=False) if settled else model), ()
    reason = because(code, state, model, choice, current=current)
    left = _bars(state, model, current, ticked=ticked) if urgent else () if word is not None else model.left
    model = replace(model, bound=_bound(state, model, usable, choice.variant), left=left)
    return _switch(state, model, choice.variant, reason, ticked=ticked)


def _is_urgent(choice: Choice, current: VariantRecord | None) -> bool:
    """The running variant breaks a constraint, and the choice is cheaper."""
    return current is not None and not choice.keeps and choice.variant.latency_ms < current.latency_ms


def _code(
    state: PolicyState,
    model: ModelRecord,
    choice: Choice,
    current: VariantRecord | None,
    word: str | None,
    *,
    urgent: bool,
) -> str | None:
    """Under which code to switch to the choice now; None is not to."""
    if current is None:
        return "start"
    if word is not None:
        return None if choice.variant is current and word == "preference" else word
    if choice.variant is current:
        return None
    if urgent:
        return broken(state, model, current) or "preference"
    if _waited(state, model) and (choice.gain or not choice.keeps):
        return _voluntary(state, model, choice, current)
    return None


def _fall_back(
    state: PolicyState, model: ModelRecord, failed: VariantRecord, why: str
) -> tuple[PolicyState, Instructions]:
    """The assigned variant could not be loaded: what last worked runs on, if it keeps the limits.

    Bars do not count here. Where all others are in quarantine the decision stands: to try them in turn, as fast as they
    fail, would help nobody.
    """
    others = [v for v in model.variants if v.id != failed.id and _lasts(state, v)]
    if not others:
        return _with_model(state, model), ()
    proven = model.variant(model.proven)
    proven = proven if proven in others else None
    choice = choose(state, model, others, proven)
    if proven is not None and choice.keeps:
        choice = replace(choice, variant=proven, runner_up=None)
    reason = because("failure", state, model, choice, current=failed, detail=why)
    return _switch(state, replace(model, bound="failure"), choice.variant, reason)


def _switch(
    state: PolicyState, model: ModelRecord, variant: VariantRecord, reason: Because, *, ticked: bool = False
) -> tuple[PolicyState, Instructions]:
    decision = Decision(model=model.name, variant=variant.id, because=reason, at=state.at)
    before = state.model(model.name)
    model = replace(
        model,
        decision=decision,
        history=(*model.history[1 - HISTORY :], decision),
        switched_s=state.now_s if ticked else None,
        measured=False,
    )
    state = _with_model(state, model)
    out: list[Instruction] = [Decided(decision=decision)]
    alone = before is not None and before.pin is None and model.pin is None  # then an app's own pin stands as it stood
    for app in state.apps:
        if app.model == model.name and not (alone and app.pin is not None):
            assigned = state.assignment(app.app)
            if assigned is not None:
                out.append(assigned)
    return state, tuple(out)


def _usable(
    state: PolicyState, model: ModelRecord, current: VariantRecord | None, *, heed_bars: bool
) -> list[VariantRecord]:
    """What may be chosen: not quarantined, and not just left; at the worst what runs, or anything."""
    usable = [variant for variant in model.variants if _lasts(state, variant)]
    if heed_bars and model.left:
        barred = {item.variant for item in model.left if _holds(state, item)}
        usable = [variant for variant in usable if variant.id not in barred or variant is current]
    if usable:
        return usable
    return [current] if current is not None else list(model.variants)


def _lasts(state: PolicyState, variant: VariantRecord) -> bool:
    return variant.out_until_s is None or state.now_s >= variant.out_until_s


def _holds(state: PolicyState, item: Left) -> bool:
    return item.at_s is None or state.now_s - item.at_s < tables.DWELL_S


def _waited(state: PolicyState, model: ModelRecord) -> bool:
    return model.switched_s is not None and state.now_s - model.switched_s >= tables.DWELL_S


def _bars(state: PolicyState, model: ModelRecord, leaving: VariantRecord | None, *, ticked: bool) -> tuple[Left, ...]:
    if leaving is None:
        return model.left
    kept = tuple(item for item in model.left if item.variant != leaving.id and _holds(state, item))
    return (*kept, Left(variant=leaving.id, at_s=state.now_s if ticked else None))


def _voluntary(state: PolicyState, model: ModelRecord, choice: Choice, current: VariantRecord) -> str:
    if model.measured:
        return "measured"
    if model.bound is not None and choice.variant.latency_ms > current.latency_ms:
        return "recovered"
    return "preference" if choice.keeps else broken(state, model, current) or "preference"


def _bound(state: PolicyState, model: ModelRecord, usable: list[VariantRecord], chosen: VariantRecord) -> str | None:
    """The constraint that kept the mode from its favourite, if one did."""
    favourite = rank(usable, model.preference.mode)[0]
    return None if favourite is chosen else broken(state, model, favourite)


def _with_model(state: PolicyState, model: ModelRecord) -> PolicyState:
    for old in state.models:
        if old is model:
            return state
    return replace(state, models=tuple(model if old.name == model.name else old for old in state.models))


def _with_app(state: PolicyState, app: AppRecord) -> PolicyState:
    return replace(state, apps=(*(other for other in state.apps if other.app != app.app), app))
