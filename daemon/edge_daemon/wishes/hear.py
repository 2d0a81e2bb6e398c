"""Between what is said and the policy: an event is heard, and the policy is told what is in force where it is new.

The policy knows one preference a model. A word counts at once; so does the wish of an app that runs its model alone,
since nobody is disturbed by it. What comes about otherwise (a schedule begins, another app joins or leaves) the policy
takes in like a change of the conditions: at once where a limit is broken, else when the dwell allows.
"""

from __future__ import annotations

from edge_daemon.policy.state import PolicyState
from edge_daemon.policy.types import AppLeft, Event, Preferred, Tick
from edge_daemon.wishes.schedule import Position
from edge_daemon.wishes.state import AppWish, Site, Wishes, Word, in_force, joined, left, looked, said
from edge_sdk.preference import Preference


def hear(
    wishes: Wishes,
    event: Event | AppWish,
    state: PolicyState,
    site: Site,
    *,
    now_s: float,
    at: float,
    position: Position | None,
) -> tuple[Wishes, tuple[Event, ...]]:
    """The wishes after an event, and what the policy is told, in order.

    Args:
        wishes: As they were.
        event: Any; those about wishes do not reach the policy themselves.
        state: The policy's.
        site: Of schedules.
        now_s: Monotonic.
        at: The wall clock.
        position: The board's, if it is known.
    """
    if isinstance(event, Tick) or wishes.steady is None:
        wishes = looked(wishes, site, now_s=now_s, at=at, position=position)
    scene, names = wishes.scene(site, now_s), tuple(record.name for record in state.models)
    at_once: tuple[str, ...] = ()
    match event:
        case Preferred(model=model):
            at_once = names if model is None else (model,)
            wishes = said(wishes, at_once, event.preference, scene)
        case AppWish():
            at_once = (event.model,) if all(one.app == event.app for one in wishes.of(event.model)) else ()
            wishes = joined(wishes, event, scene)
        case AppLeft():
            wishes = left(wishes, event.app)
        case Tick():
            pass
        case _:
            return wishes, (event,)
    told: list[Event] = []
    for record in state.models:
        now, is_word = in_force(wishes, record.name, scene), record.name in at_once
        is_new = now.preference != record.preference or now.why != record.wished_by
        if is_new or (is_word and isinstance(event, Preferred)):  # a word counts also when it is said again
            told.append(Preferred(model=record.name, preference=now.preference, said=is_word, why=now.why))
    if isinstance(event, Tick | AppLeft):
        told.append(event)
    return wishes, tuple(told)


def carried(state: PolicyState | None) -> Wishes:
    """What an earlier version kept: the policy's own preferences, as words."""
    models = () if state is None else state.models
    return Wishes(
        words=tuple(
            Word(model=record.name, preference=record.preference)
            for record in models
            if record.preference != Preference()
        )
    )
