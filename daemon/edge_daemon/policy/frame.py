"""The frame around a policy: one event in, instructions out.

It keeps what no policy has to know (pins in the order hub, operator, app; pauses; which variants cannot be loaded; the
history), makes the policy anew when its setting changes, tells it what happened, and carries its verdicts out as far as
nothing that stands above it forbids them. Events between ticks happen at the last tick's time as far as elapsed dwells
go, and start new ones at the next tick, so a dwell is never shorter than it says. Whatever an event names that does not
exist changes nothing. The same events give the same instructions: all of this is a pure function, if the policy is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from edge_daemon.policies.contract import Factory, Replied
from edge_daemon.policy import tables, way
from edge_daemon.policy.senses import sensed, warmed
from edge_daemon.policy.setting import BARE, Site, is_priced, patience_ms, usable
from edge_daemon.policy.state import (
    AppRecord,
    Left,
    ModelRecord,
    PolicyState,
    sane_ms,
    with_app,
    with_model,
    with_variant,
)
from edge_daemon.policy.turn import Turn
from edge_daemon.policy.types import (
    ActivationFailed,
    AppCannotAsk,
    AppCanRun,
    AppJoined,
    AppLeft,
    AppPinned,
    AppReported,
    Event,
    Instruction,
    Looked,
    Measured,
    Paused,
    Pinned,
    PinnedBy,
    Preferred,
    Quarantined,
    Tick,
    Tried,
    Unpinned,
)

_MOST_REASON = 300
_LATEST_S = 60.0  # a report at once is of the time since the last tick, which is not longer ago


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A policy and the board it is for.

    Attributes:
        use: The policy's name.
        factory: Makes it for a setting.
        site: What the profile says of the board.
    """

    use: str
    factory: Factory
    site: Site = BARE

    def step(self, state: PolicyState, event: Event) -> tuple[PolicyState, tuple[Instruction, ...]]:
        """The state after the event, and what is to be done, in order."""
        turn = Turn(self, state, ticked=isinstance(event, Tick))
        _HEARD[type(event)](turn, event)
        return turn.state, tuple(turn.out)


# ------------------------------------------------------------------------------------------------------ time passes


def _ticked(turn: Turn, tick: Tick) -> None:
    before_s = turn.state.now_s
    state = sensed(turn.state, tick, priced=is_priced(turn.state, turn.frame.site))
    turn.state = replace(state, models=tuple(_stamped(model, state.now_s) for model in state.models))
    turn.plug()
    verdicts = turn.ask_second()
    for model in turn.state.models:
        if turn.state.apps_of(model.name) or model.pin is not None:
            turn.decide(model.name, verdicts.get(model.name))
        elif model.current is None and model.variants:
            turn.decide(model.name, turn.would(model))
    for app in turn.state.apps:
        if app.refused and before_s < app.asks_s <= state.now_s:
            turn.assign(app.app)  # others may ask all the while, so that no decision changes


def _stamped(model: ModelRecord, now_s: float) -> ModelRecord:
    """Bars that began since the last tick begin now; those that ended are forgotten."""
    if not model.left:
        return model
    left = (Left(variant=item.variant, at_s=now_s) if item.at_s is None else item for item in model.left)
    lasting = tuple(item for item in left if item.at_s is None or now_s - item.at_s < tables.DWELL_S)
    return model if lasting == model.left else replace(model, left=lasting)


# ------------------------------------------------------------------------------------------------------ apps


def _joined(turn: Turn, event: AppJoined) -> None:
    state = turn.state
    model = state.model(event.model)
    if model is None:
        return
    first = not state.apps_of(model.name)
    app = AppRecord(app=event.app, model=event.model, runs=event.runs, asks=event.asks, refused=event.why)
    turn.state = with_app(state, app)
    turn.plug()
    turn.decide(model.name, turn.would(model) if first and model.pin is None else None)
    turn.assign(event.app)


def _can_run(turn: Turn, event: AppCanRun) -> None:
    app = turn.state.app(event.app)
    if app is None:
        return
    runs = app.runs if event.runs is None else event.runs
    turn.state = with_app(turn.state, replace(app, runs=runs, hot=event.hot))
    turn.plug()
    model = turn.state.model(app.model)
    if model is not None and model.current is not None and model.current not in usable(turn.state, model):
        turn.decide(model.name, turn.would(model))
    turn.assign(event.app)  # a stand-in may have become needless


def _cannot_ask(turn: Turn, event: AppCannotAsk) -> None:
    """It is not told to for a while; where none of the model's apps can, the server is no choice any more."""
    state = turn.state
    app = state.app(event.app)
    model = state.model(app.model) if app else None
    if app is None or model is None or model.server is None:
        return
    hold_s = min(tables.CANNOT_ASK_S * 2.0 ** min(app.refusals, 16), tables.CANNOT_ASK_MAX_S)
    reason = event.reason[:_MOST_REASON] or "it does not say why"
    _refused(turn, replace(app, refused=reason, asks_s=state.now_s + hold_s, refusals=app.refusals + 1))


def _refused(turn: Turn, app: AppRecord) -> None:
    turn.state = with_app(turn.state, app)
    turn.plug()
    model = turn.state.model(app.model)
    if model is not None and model.asks and model.pin is None:
        turn.decide(model.name, turn.would(model))
    turn.assign(app.app)


def _left(turn: Turn, event: AppLeft) -> None:
    state = turn.state
    if state.app(event.app) is not None:
        turn.state = replace(state, apps=tuple(app for app in state.apps if app.app != event.app))
        turn.plug()


def _app_pinned(turn: Turn, event: AppPinned) -> None:
    state = turn.state
    app = state.app(event.app)
    model = state.model(app.model) if app else None
    if app is None or model is None or (event.variant is not None and model.variant(event.variant) is None):
        return
    turn.state = with_app(state, replace(app, pin=event.variant))
    turn.assign(event.app)


def _reported(turn: Turn, seen: AppReported) -> None:
    state = turn.state
    app = state.app(seen.app)
    model = state.model(app.model) if app else None
    variant = model.variant(seen.variant) if model else None
    if app is None or model is None or variant is None:
        return
    if seen.calls > 0:
        if variant.failures or variant.strikes:
            model = with_variant(model, replace(variant, failures=0, strikes=0, out_until_s=None))
        model = model if model.proven == variant.id else replace(model, proven=variant.id)
    if app.pin is None or model.pin is not None:  # what an app pinned for itself says nothing of the model's choice
        model = _worked(model, seen)
    turn.state = with_model(state, model)
    if seen.sent > 0 and model.server is not None:
        _asked(turn, model, app, seen)
        app = turn.state.app(app.app) or app
    if app.active != variant.id:
        turn.state = with_app(turn.state, replace(app, active=variant.id))
    slow_ms = sane_ms(seen.slow_ms)
    if slow_ms is not None:
        _replied(turn, model, seen, slow_ms)


def _worked(model: ModelRecord, seen: AppReported) -> ModelRecord:
    requests = max(seen.calls, seen.arrived or 0)
    times: tuple[float, ...] = ()
    if model.decision is not None and model.decision.variant == seen.variant:
        told = seen.latencies_ms or (() if seen.p50_ms is None else (seen.p50_ms,))
        times = tuple(ms for ms in told if sane_ms(ms) is not None)
    if not requests and not seen.late and not times:
        return model
    work = model.work.more(
        requests, min(seen.late, requests), times, sent=seen.sent, replied=min(seen.replied, seen.sent)
    )
    return replace(model, work=work)


def _asked(turn: Turn, model: ModelRecord, app: AppRecord, seen: AppReported) -> None:
    """What requests to the server tell of the way there, or, where others are answered, of this app's requests."""
    state, server = turn.state, model.server
    took_ms = sane_ms(seen.remote_ms)
    if server is None:
        return
    sends: dict[str, float] = {"payload_kb": server.payload_kb, "server_ms": server.server_ms}
    if took_ms is not None:
        state = replace(state, way=way.answered(state.way, state.now_s, took_ms, **sends))
    if seen.replied > 0:
        state = with_app(state, replace(app, refused="", refusals=0, replied_s=state.now_s, unheard_s=None))
    turn.state = state
    if took_ms is not None or seen.replied > 0:
        return
    others = [other for other in state.apps if other.app != app.app]
    since_s = app.unheard_s
    if since_s is None or state.now_s - since_s > tables.WAY_STALE_S:
        if any(_asks(state, other) for other in others):  # whether it is the way or the app, they will tell
            turn.state = with_app(state, replace(app, unheard_s=state.now_s))
            return
    elif any(other.replied_s is not None and other.replied_s >= since_s for other in others):
        reason = "the server answers others in time, and not this app"
        _refused(turn, replace(app, refused=reason, asks_s=state.now_s + tables.SENT_HOLD_S, unheard_s=None))
        return
    state = with_app(state, replace(app, unheard_s=None))
    turn.state = replace(state, way=way.unanswered(state.way, state.now_s, patience_ms(state, model), **sends))


def _asks(state: PolicyState, app: AppRecord) -> bool:
    model = state.model(app.model)
    return model is not None and model.asks and not app.why_not(state.now_s)


def _replied(turn: Turn, model: ModelRecord, seen: AppReported, slow_ms: float) -> None:
    """Something slow or late has just ended: the policy need not wait for the end of the second."""
    state = turn.state
    tasks = () if state.plugged is None else state.plugged.setting.tasks
    index = next((i for i, task in enumerate(tasks) if task.name == model.name), None)
    if index is None or all(action.id != seen.variant for action in tasks[index].actions):
        return
    since_s = 0.0
    if seen.now_s is not None and state.seen_s is not None:
        since_s = seen.now_s - state.seen_s
    reply = Replied(
        now_s=state.now_s + (since_s if 0 < since_s < _LATEST_S else 0.0),
        task=index,
        action=seen.variant,
        latency_ms=slow_ms,
        waited_ms=sane_ms(seen.waited_ms) or 0.0,
    )
    for name, verdict in turn.ask(reply).items():
        turn.decide(name, verdict)


def _failed(turn: Turn, event: ActivationFailed) -> None:
    state = turn.state
    app = state.app(event.app)
    model = state.model(app.model) if app else None
    variant = model.variant(event.variant) if model else None
    if model is None or variant is None:
        return
    failures, strikes, until_s = variant.failures + 1, variant.strikes, variant.out_until_s
    if failures >= tables.FAILURES_TO_QUARANTINE:
        hold_s = min(tables.QUARANTINE_S * 2.0 ** min(strikes, 16), tables.QUARANTINE_MAX_S)
        failures, strikes, until_s = 0, strikes + 1, state.now_s + hold_s
        seen_s = state.now_s if state.seen_s is None else state.seen_s
        reason = event.reason[:1000]
        turn.out.append(Quarantined(model=model.name, variant=variant.id, until_s=seen_s + hold_s, reason=reason))
    broken = replace(variant, failures=failures, strikes=strikes, out_until_s=until_s)
    barred = tuple(item for item in model.left if item.variant != broken.id)
    model = replace(
        with_variant(model, broken),
        left=(*barred, Left(variant=broken.id, at_s=None)),
        proven=None if model.proven == broken.id and app is not None and app.active != broken.id else model.proven,
    )
    turn.state = with_model(state, model)
    if model.pin is None and model.decision is not None and model.decision.variant == broken.id:
        turn.fall_back(model, broken, event.reason)
    turn.plug()


# ------------------------------------------------------------------------------------------------------ orders


def _preferred(turn: Turn, event: Preferred) -> None:
    state = turn.state
    named = [model for model in state.models if event.model in (None, model.name)]
    for model in named:
        wished = replace(model, preference=event.preference, wished_by=event.why)
        turn.state = with_model(turn.state, wished if event.said else replace(wished, pending="preference"))
    turn.state = replace(turn.state, heat=warmed(turn.state))  # the limit of heat may have moved
    turn.plug()
    for model in named:
        if event.said:
            _decide_anew(turn, model.name, "preference")
        elif not turn.state.apps_of(model.name):  # of the others the policy speaks within a second
            _decide_anew(turn, model.name, None)


def _pinned(turn: Turn, event: Pinned) -> None:
    model = turn.state.model(event.model)
    if model is None or model.variant(event.variant) is None or event.by is PinnedBy.APP:
        return
    if event.by is PinnedBy.HUB:
        turn.hold_pin(replace(model, hub_pin=event.variant))
    else:
        turn.hold_pin(replace(model, operator_pin=event.variant))
    turn.plug()


def _unpinned(turn: Turn, event: Unpinned) -> None:
    for model in turn.state.models:
        mine = model.hub_pin if event.by is PinnedBy.HUB else model.operator_pin
        if event.model not in (None, model.name) or mine is None or event.by is PinnedBy.APP:
            continue
        freed = replace(model, hub_pin=None) if event.by is PinnedBy.HUB else replace(model, operator_pin=None)
        if freed.pin is not None:
            turn.hold_pin(freed)
            turn.plug()
        else:
            turn.state = with_model(turn.state, freed)
            turn.plug()
            _decide_anew(turn, model.name, "unpin")
            for app in turn.state.apps_of(model.name):
                turn.assign(app.app)  # an app's own pin counts again


def _decide_anew(turn: Turn, name: str, word: str | None) -> None:
    model = turn.state.model(name)
    if model is not None and model.variants:
        turn.decide(name, turn.would(model) if model.pin is None else None, word=word)


def _paused(turn: Turn, event: Paused) -> None:
    turn.state = replace(turn.state, paused=event.paused)
    if not event.paused:
        for model in turn.state.models:
            turn.decide(model.name)


# ------------------------------------------------------------------------------------------------------ measurements


def _measured(turn: Turn, event: Measured) -> None:
    model = turn.state.model(event.model)
    variant = model.variant(event.variant) if model else None
    median_ms = sane_ms(event.median_ms)
    if model is None or variant is None or median_ms is None:
        return
    timed = with_variant(model, replace(variant, latency_ms=median_ms, measured=True))
    turn.state = with_model(turn.state, replace(timed, pending="measured"))
    turn.plug()


def _tried(turn: Turn, event: Tried) -> None:
    model = turn.state.model(event.model)
    latency_ms = sane_ms(event.latency_ms)
    if model is not None and latency_ms is not None and model.variant(event.variant) is not None:
        tried = replace(model.work, tried=(event.variant, latency_ms))
        turn.state = with_model(turn.state, replace(model, work=tried))


def _looked(turn: Turn, event: Looked) -> None:
    state = turn.state
    rtt_ms = None if event.rtt_ms is None else sane_ms(event.rtt_ms)
    is_back = state.way is not None and state.way.rtt_ms is None and rtt_ms is not None
    turn.state = replace(state, way=way.looked(state.way, state.now_s, rtt_ms))
    for app in state.apps:
        if is_back and app.waits(state.now_s):  # that others were answered was the last of a server that went
            _refused(turn, replace(app, refused=""))


_HEARD: Mapping[type[Event], Callable[[Turn, Any], None]] = MappingProxyType(
    {
        Tick: _ticked, AppReported: _reported, AppJoined: _joined, AppCanRun: _can_run, AppLeft: _left,
        AppCannotAsk: _cannot_ask, AppPinned: _app_pinned, ActivationFailed: _failed, Preferred: _preferred,
        Pinned: _pinned, Unpinned: _unpinned, Paused: _paused, Measured: _measured, Tried: _tried, Looked: _looked,
    }
)  # fmt: skip
