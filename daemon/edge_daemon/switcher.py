"""Between the frame and the apps: feeds events to the pure frame and carries out what it instructs.

All steps happen one after the other. A step whose effect must survive (a preference, a pin, a pause) is first
computed, then committed to the disk together with whatever answers it, and only then adopted; if the commit fails,
nothing has happened. What is wanted goes through `edge_daemon.wishes` first: the policy is told what is in force.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edge_daemon.apps import App, Apps
from edge_daemon.catalogue import Offered
from edge_daemon.clock import Clock
from edge_daemon.errors import UnknownModelError
from edge_daemon.eventlog import EventLog
from edge_daemon.lanes import Door
from edge_daemon.logs import Seldom
from edge_daemon.policy.because import explained
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.safety import is_calm
from edge_daemon.policy.setting import is_deadline_tighter, limit_ms, spared, stand_ins
from edge_daemon.policy.state import PolicyState, dump, initial, load
from edge_daemon.policy.tables import LOOK_EVERY_S
from edge_daemon.policy.types import (
    Advise,
    Assign,
    Decided,
    Event,
    Instruction,
    ModelFacts,
    PinnedBy,
    PolicyFailed,
    Preferred,
    Quarantined,
    Tick,
    Try,
)
from edge_daemon.policy.way import is_fresh
from edge_daemon.spool import Message, Stored
from edge_daemon.store import Answer, Store
from edge_daemon.wishes import state as wishing
from edge_daemon.wishes.hear import carried, hear
from edge_daemon.wishes.schedule import Position, Scene
from edge_daemon.wishes.state import AppWish, Site, Wishes
from edge_daemon.wishes.strictest import BoardLimits
from edge_sdk.errors import PinnedError, StorageError, UnknownVariantError
from edge_sdk.local import Assignment
from edge_sdk.mqtt import MAX_UP_BYTES, Conditions, Decision, ModelState
from edge_sdk.wire import encode

log = logging.getLogger(__name__)

_POLICY = "policy"
_WISHES = "wishes"
# A step of ours takes well below a millisecond on a small board; this is a policy that holds up the daemon's loop.
SLOW_STEP_S: Final = 0.05
_LOG_EVERY_S: Final = 60.0
# A broker hangs up on who sends more, and the reply would come again.
_EXPLAINED_BYTES: Final = MAX_UP_BYTES - 16 * 1024

_Heard = tuple[Event, Sequence[Instruction]]


class Switcher:
    """The policy at work.

    Args:
        models: What is served, by name.
        apps: Who runs it.
        store: Where the policy's state outlives a restart, to be used in `lane`.
        clock: Of decisions and commits.
        frame: The policy in its frame.
        site: Schedules and time zone.

    Attributes:
        changes: Counts what a hub would like to know: decisions, pins, preferences, confirmed switches.
        position: Where the board is, as last found out; None while that is not known.
        events: Notes what the policy is told and decides, for `replay`; None where nobody asked for that.
        on_try: Times a variant in idle time.
        on_failed: Tells the hub of a policy that failed.
    """

    def __init__(
        self,
        models: Mapping[str, Offered],
        apps: Apps,
        store: Store,
        lane: Door,
        clock: Clock,
        *,
        frame: Frame,
        site: Site = Site(),  # noqa: B008 - a frozen value
    ) -> None:
        self._models = models
        self._apps = apps
        self._store = store
        self._lane = lane
        self._clock = clock
        self._frame = frame
        self._turn = asyncio.Lock()
        self._state = initial(_facts(models))
        self._saved: Mapping[str, bytes] = {}
        self._slow = Seldom(_LOG_EVERY_S)
        self._site = site
        self._wishes = Wishes()
        self.events: EventLog | None = None
        self.on_try: Callable[[Try], None] = lambda _: None
        self.on_failed: Callable[[PolicyFailed], None] = lambda _: None
        self.changes = 0
        self.position: Position | None = None

    async def restore(self) -> None:
        """Take up the state of before the restart, where it is whole."""
        kept, words = await self._lane.run(lambda: (self._store.get(_POLICY), self._store.get(_WISHES)))
        before = None if kept is None else load(kept)
        if kept is not None and before is None:
            log.warning("the kept state of the policy can't be read: pins and what was learned are forgotten")
        self._state = initial(_facts(self._models), before, at=self._clock.wall())
        wishes = None if words is None else wishing.load(words)
        if words is not None and wishes is None:
            log.warning("the kept preferences can't be read and are forgotten")
        if self.events is not None:
            self.events.begin(self._frame, self._state)
        self._wishes = wishes or carried(before if words is None else None)
        new = [m for m in self._models.values() if before is None or before.model(m.name) is None]
        unsaid = [m for m in new if self._wishes.word(m.name) is None]
        first = [Preferred(model=m.name, preference=m.preference) for m in unsaid if m.preference is not None]
        try:
            await self.commit(first)
        except StorageError:  # a disk that is full by now; the store keeps what it said
            await self.feed(*first)

    @property
    def state(self) -> PolicyState:
        """What the policy knows now."""
        return self._state

    @property
    def is_calm(self) -> bool:
        """Nothing that no policy may break is near: neither heat nor throttling nor a low charge."""
        return is_calm(self._state)

    def asks_blindly(self) -> bool:
        """An app may ask a server, and none has just told of its answers."""
        state = self._state
        if is_fresh(state.way, state.now_s, 0.75 * LOOK_EVERY_S):  # ticks come a little early or late
            return False
        return any(
            model.server is not None
            and model.variants
            and not spared(state, model)  # a look costs, too
            and (
                any(app.waits(state.now_s) for app in state.apps_of(model.name))
                or stand_ins(state, model, model.variants)
            )
            for model in state.models
        )

    async def tick(self, conditions: Conditions) -> None:
        """A second has passed, and this is sensed."""
        until_s = self.board_limits().until_s
        await self.feed(
            Tick(now_s=self._clock.monotonic(), at=self._clock.wall(), conditions=conditions, until_s=until_s)
        )

    async def feed(self, *events: Event | AppWish) -> None:
        """Step; what is learned is saved by the next `save`."""
        async with self._turn:
            self._state, self._wishes, heard = self._steps(events)
            self._carry_out(heard)

    async def commit(
        self,
        events: Sequence[Event],
        *,
        values: Mapping[str, bytes] | None = None,
        messages: Sequence[Message] = (),
        answer: Answer | None = None,
    ) -> tuple[Stored, ...]:
        """Step, and commit the new state with `values`, `messages` and `answer`, all or nothing.

        Who is cancelled meanwhile, since the peer hung up or the daemon ends, leaves memory and disk alike.

        Raises:
            StorageError: It could not be committed; the policy is as before.
        """
        async with self._turn:
            state, wishes, heard = self._steps(events)
            now, kept = self._clock.wall(), {_POLICY: dump(state), _WISHES: wishing.dump(wishes)}
            done: list[tuple[Stored, ...]] = []

            def keep() -> None:
                done.append(
                    self._store.commit(now, values={**kept, **(values or {})}, messages=messages, answer=answer)
                )

            try:
                await self._lane.finish(keep)
            finally:
                if done:
                    self._state, self._wishes, self._saved = state, wishes, kept
                    self.changes += 1
                    self._carry_out(heard)
        return done[0]

    async def save(self) -> None:
        """Keep what was learned, and what became of wishes with time, if it is anything new.

        Raises:
            StorageError: It could not be kept.
        """
        async with self._turn:
            kept = {_POLICY: dump(self._state), _WISHES: wishing.dump(self._wishes)}
            new = {key: value for key, value in kept.items() if value != self._saved.get(key)}
            if new:
                now = self._clock.wall()
                await self._lane.run(lambda: self._store.commit(now, values=new))
                self._saved = kept

    def assignment(self, app: App) -> Assignment | None:
        """What an app is to run, as it travels."""
        own_ms, record = wishing.latest_ms(self._wishes, app.id, self._scene()), self._state.model(app.model)
        if record is not None and is_deadline_tighter(self._state, record):
            own_ms = min(limit_ms(self._state, record), own_ms or float("inf"))
        served = self._models.get(app.model)
        return app.assignment(own_ms, None if served is None else served.server)

    def check_model(self, model: str | None) -> None:
        """Raise if this model is not served.

        Raises:
            UnknownModelError: It is not.
        """
        if model is not None and model not in self._models:
            raise UnknownModelError(f"no model {model!r} here", hint=f"there are: {_list(self._models)}")

    def check_variant(self, model: str, variant: str) -> None:
        """Raise if this model has no such variant that can run here.

        Raises:
            UnknownModelError: There is no such model.
            UnknownVariantError: It has no such variant, or this machine can't run it.
        """
        self.check_model(model)
        ids = [v.id for v in self._models[model].facts.variants]
        if variant not in ids:
            raise UnknownVariantError(
                f"no variant {variant!r} of {model} can run here", hint=f"there are: {', '.join(ids)}"
            )

    def check_unpinned(self, model: str | None, by: PinnedBy) -> None:
        """Raise if a higher hand than `by` has pinned the model (or any, for None).

        Raises:
            PinnedError: It has.
        """
        higher = {PinnedBy.APP: {PinnedBy.OPERATOR, PinnedBy.HUB}, PinnedBy.OPERATOR: {PinnedBy.HUB}}.get(by, set())
        for record in self._state.models:
            hand = record.pinned_by
            if hand is not None and hand in higher and model in (None, record.name):
                raise PinnedError(
                    f"{record.name} is pinned to {record.pin} by the {hand.value}", hint="it is for them to unpin it"
                )

    def models(self) -> dict[str, ModelState]:
        """Every model as it is now."""
        scene = self._scene()
        spoken = {record.name: self._apps.spoke_last(record.name) for record in self._state.models}
        return {
            record.name: ModelState(
                active=None if (app := spoken[record.name]) is None else app.active,
                on=None if app is None else app.computes_on,
                decision=record.decision,
                pinned=record.pin,
                pinned_by=None if record.pinned_by is None else record.pinned_by.value,
                preference=record.preference,
                wished_by=wishing.in_force(self._wishes, record.name, scene).why or None,
                apps=self._apps.count(record.name),
                paused=self._state.paused,
            )
            for record in self._state.models
        }

    def explain(self, model: str | None = None) -> tuple[Decision, ...]:
        """The last decisions, newest first; as many as fit into one message."""
        found = explained(self._state, model)
        sizes = itertools.accumulate(len(encode(decision)) + 1 for decision in found)
        fitting = itertools.takewhile(lambda pair: pair[1] <= _EXPLAINED_BYTES, zip(found, sizes, strict=True))
        return tuple(decision for decision, _ in fitting)

    def board_limits(self) -> BoardLimits:
        """What the preferences in force ask of the board, for a policy's `Setting`."""
        names = tuple(record.name for record in self._state.models)
        return wishing.board_limits(self._wishes, names, self._site, self._clock.monotonic())

    def _scene(self) -> Scene:
        return self._wishes.scene(self._site, self._clock.monotonic())

    def _steps(self, events: Sequence[Event | AppWish]) -> tuple[PolicyState, Wishes, list[_Heard]]:
        """What would be after these events, and what the policy was told and answered on the way."""
        state, wishes = self._state, self._wishes
        now_s, at = self._clock.monotonic(), self._clock.wall()
        heard: list[_Heard] = []
        began_s = time.perf_counter()
        for event in events:
            wishes, told = hear(wishes, event, state, self._site, now_s=now_s, at=at, position=self.position)
            for one in told:
                state, instructions = self._frame.step(state, one)
                heard.append((one, instructions))
        took_s = time.perf_counter() - began_s
        held_back = self._slow.allows(now_s) if took_s > SLOW_STEP_S else None
        if held_back is not None:
            log.warning(
                "the policy %s took %.0f ms to decide; the daemon waits for it meanwhile (%d more such held back)",
                self._frame.use, 1e3 * took_s, held_back,
            )  # fmt: skip
        return state, wishes, heard

    def _carry_out(self, heard: Sequence[_Heard]) -> None:
        if self.events is not None:
            self.events.heard(heard)
        for instruction in (item for _, instructions in heard for item in instructions):
            if not isinstance(instruction, Assign | Try):
                self.changes += 1
            match instruction:
                case Assign(app=id_):
                    self._assign(id_, instruction)
                case Decided(decision=decision):
                    log.info("%s: %s (%s)", decision.model, decision.variant, decision.because.text)
                case Quarantined(model=model, variant=variant, reason=reason):
                    log.warning("%s: %s is left out for a while: %s", model, variant, reason)
                case Try():
                    self.on_try(instruction)
                case Advise(model=model, most_per_s=most_per_s):
                    self._advise(model, most_per_s)
                case PolicyFailed(policy=policy, reason=reason):
                    log.error("the policy %s failed; what runs goes on, else the cheapest: %s", policy, reason)
                    self.on_failed(instruction)

    def _assign(self, id_: str, assign: Assign) -> None:
        for app in self._apps:
            if app.id == id_:
                app.assign(assign)

    def _advise(self, model: str, most_per_s: float | None) -> None:
        for app in self._apps:
            if app.model == model:
                app.advise(most_per_s)


def _facts(models: Mapping[str, Offered]) -> tuple[ModelFacts, ...]:
    return tuple(model.facts for model in models.values())


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"
