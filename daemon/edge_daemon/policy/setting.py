"""What the policy is made for just now: which actions may be taken, and within what limits.

What may not be taken is left out: quarantined variants, those that one of the model's apps cannot run, everything but
the pin of a pinned model. Models that no app runs are no tasks. Contradicting wishes yield like this:

- one board has one limit of heat: the lowest that any model's preference or the profile asks for;
- `max_latency_ms` and `deadline_ms` less the round trip: the tighter counts; a deadline shorter than the round trip is
  one that nothing keeps;
- whether `min_accuracy` or the time yields, where nothing keeps both, is the policy's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_daemon.policies.contract import Action, Board, Setting, Task
from edge_daemon.policy import tables
from edge_daemon.policy.senses import limit_c
from edge_daemon.policy.state import SERVER, AppRecord, ModelRecord, PolicyState, VariantRecord
from edge_daemon.policy.types import ServerFacts
from edge_daemon.policy.way import expected_ms
from edge_sdk.facts import Profile
from edge_sdk.local import PATIENCE_S
from edge_sdk.physics import BoardModel, of
from edge_sdk.preference import Mode

_LEAST_MS = 1e-3
_J_PER_WH = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the profile says of the board.

    Attributes:
        capacity_wh: Of its battery, where a gauge tells percent alone; None where nobody knows: then the charge is
            looked at by the frame's bands only.
        switch_j: What loading another variant takes.
    """

    board: Board = Board()  # noqa: RUF009 - a frozen value
    capacity_wh: float | None = None
    switch_j: float = 0.6


BARE = Site()


def site_of(profile: Profile | None) -> Site:
    """What a profile says; of a board without one, what is taken for true of any.

    Raises:
        ImpossibleProfileError: It says what cannot be.
    """
    model = of(profile)
    return Site(
        board=board_of(model),
        capacity_wh=None if model.battery is None else model.battery.capacity_wh,
        switch_j=model.switch_j,
    )


def board_of(model: BoardModel) -> Board:
    """What a policy is told of a board's physics."""
    return Board(
        idle_w=model.idle_w,
        r_c_per_w=model.r_c_per_w,
        c_j_per_c=model.c_j_per_c,
        clock_power=model.clock_power,
        estimated=bool(model.estimated & {"idle_w", "r_c_per_w", "c_j_per_c"}),
    )


def setting_of(state: PolicyState, site: Site) -> Setting:
    """The setting of a state.

    Args:
        state: What is known.
        site: The board.
    """
    powers = [m.preference.max_power_w for m in state.models if m.preference.max_power_w is not None]
    capacity_wh = capacity_of(state, site)
    return Setting(
        board=site.board,
        tasks=tuple(
            task_of(state, model, site) for model in state.models if model.variants and state.apps_of(model.name)
        ),
        temp_c=limit_c(state),
        until_s=state.until_s,
        battery_j=None if capacity_wh is None else capacity_wh * _J_PER_WH,
        max_power_w=min(powers, default=None),
    )


def capacity_of(state: PolicyState, site: Site) -> float | None:
    """What the battery holds in Wh: as its gauge says, else as the profile does, where there is a battery at all."""
    if state.full_wh is not None:
        return state.full_wh
    return None if state.senses.battery_pct is None else site.capacity_wh


def energy_j(state: PolicyState, site: Site) -> float | None:
    """What is left in the battery: as its gauge says, else the percentage of what it holds."""
    senses, capacity_wh = state.senses, capacity_of(state, site)
    if senses.battery_wh is not None:
        return senses.battery_wh * _J_PER_WH
    if senses.battery_pct is None or capacity_wh is None:
        return None
    return senses.battery_pct / 100 * capacity_wh * _J_PER_WH


def is_priced(state: PolicyState, site: Site) -> bool:
    """The policy knows the energy that is left and how long it has to last."""
    return state.until_s is not None and energy_j(state, site) is not None


def task_of(state: PolicyState, model: ModelRecord, site: Site) -> Task:
    """One model as a task of its own; also of one that no app runs yet."""
    thrifty = state.charge >= tables.LOW and not is_priced(state, site)
    here, server = offered(state, model), model.server
    asking = () if server is None else tuple(asked(server, variant) for variant in stand_ins(state, model, here))
    return Task(
        name=model.name,
        actions=(*(_action(variant) for variant in here), *asking),
        limit_ms=limit_ms(state, model),
        min_quality=model.preference.min_accuracy,
        mode=Mode.BATTERY if thrifty else model.preference.mode,
        switch_j=site.switch_j,
    )


def offered(state: PolicyState, model: ModelRecord) -> Sequence[VariantRecord]:
    """What the policy may choose from; at the worst what runs, or anything."""
    pinned = model.variant(model.pin)
    return (pinned,) if pinned is not None else usable(state, model)


def asked(server: ServerFacts, variant: VariantRecord) -> Action:
    """To ask the server while this variant stands by."""
    return Action(
        id=f"{SERVER}{variant.id}",
        quality=server.quality,
        latency_ms=server.server_ms,
        power_w=server.radio_w,
        remote=True,
        payload_kb=server.payload_kb,
        hedge=variant.id,
    )


def stand_ins(state: PolicyState, model: ModelRecord, here: Sequence[VariantRecord]) -> Sequence[VariantRecord]:
    """What may stand by while the server is asked: the best of those in time, and the fastest; none if nobody can ask.

    Not all, since each makes the policy's choice longer: those left out are slower or worse than one that is in.
    """
    if model.pin is not None or not any(not app.why_not(state.now_s) for app in state.apps_of(model.name)):
        return ()
    if spared(state, model):
        return ()
    most_ms = limit_ms(state, model)
    in_time = [variant for variant in here if variant.latency_ms <= most_ms]
    best = sorted(in_time, key=lambda variant: (-variant.quality, variant.latency_ms, variant.id))[: tables.HEDGES]
    fastest = min(here, key=lambda variant: (variant.latency_ms, variant.id))
    return best if fastest in best else (*best, fastest)


def patience_ms(state: PolicyState, model: ModelRecord) -> float:
    """How long an app waits for a server, and for what stands by after it."""
    most_ms = limit_ms(state, model)
    return most_ms if most_ms < float("inf") else 1000 * PATIENCE_S


def too_late(state: PolicyState, model: ModelRecord) -> str:
    """Why the server is not to be asked, or cannot be expected to answer in time; empty where it can."""
    server = model.server
    if server is None:
        return "there is none"
    if why_not := spared(state, model):
        return why_not
    took_ms = expected_ms(state.way, state.now_s, payload_kb=server.payload_kb, server_ms=server.server_ms)
    if took_ms is None or took_ms == float("inf"):
        return "the server does not answer"
    return f"the server takes about {took_ms:.0f} ms" if took_ms > patience_ms(state, model) else ""


def left_out(state: PolicyState, model: ModelRecord) -> str:
    """Why no app of the model is told to ask its server; empty where one may be, or there is nothing to ask."""
    if model.server is None or model.pin is not None:
        return ""
    reasons = [app.why_not(state.now_s) for app in state.apps_of(model.name)]
    return spared(state, model) or ("; ".join(sorted({*reasons})) if all(reasons) else "")


def spared(state: PolicyState, model: ModelRecord) -> str:
    """Why its server is no choice whoever could ask it: each byte costs. Empty where it is one."""
    is_spared = model.server is not None and model.server.spares and state.metered_s is not None
    return "the network is metered" if is_spared else ""


def usable(state: PolicyState, model: ModelRecord) -> Sequence[VariantRecord]:
    """The variants that are not in quarantine and that every app of the model can run, at least one."""
    apps = state.apps_of(model.name)
    runnable = tuple(v for v in model.variants if _all_run(apps, v)) or tuple(
        v for v in model.variants if not v.accelerated
    )
    lasting = tuple(v for v in runnable if lasts(state, v))
    current = model.current
    return lasting or ((current,) if current is not None else runnable or model.variants)


def lasts(state: PolicyState, variant: VariantRecord) -> bool:
    """Whether it is in no quarantine."""
    return variant.out_until_s is None or state.now_s >= variant.out_until_s


def limit_ms(state: PolicyState, model: ModelRecord) -> float:
    """How long an inference may take; `inf` where any time will do."""
    wish = model.preference
    most_ms = float("inf") if wish.max_latency_ms is None else wish.max_latency_ms
    if is_deadline_tighter(state, model):
        most_ms = (wish.deadline_ms or 0.0) - state.trip_ms
    return max(most_ms, _LEAST_MS)


def is_deadline_tighter(state: PolicyState, model: ModelRecord) -> bool:
    """Whether `deadline_ms` leaves less than `max_latency_ms`."""
    wish = model.preference
    if wish.deadline_ms is None:
        return False
    return wish.max_latency_ms is None or wish.deadline_ms - state.trip_ms < wish.max_latency_ms


def _all_run(apps: Sequence[AppRecord], variant: VariantRecord) -> bool:
    return all(app.can_run(variant) for app in apps) if apps else not variant.accelerated


def _action(variant: VariantRecord) -> Action:
    return Action(
        id=variant.id,
        quality=variant.quality,
        latency_ms=variant.latency_ms,
        power_w=variant.power_w,
        measured=variant.measured,
        size_bytes=variant.size_bytes,
    )
