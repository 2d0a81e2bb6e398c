"""What the hub orders: commands, each answered exactly once, and desired documents, each version applied once.

The order of business of a command: seen before? then the same answer again, whatever it says. Too late? then
`expired`. Else it is carried out, and its effect, its reply and the reply's place in the spool are one transaction:
a crash leaves a command that was never seen, or one that is done and answered.

Only `measure` takes longer than a transaction. That it has begun is written down first; a daemon that finds such a
note at its start answers `interrupted`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from edge_daemon.clock import Clock
from edge_daemon.lanes import Door
from edge_daemon.logs import Seldom
from edge_daemon.policy.types import Event as PolicyEvent
from edge_daemon.policy.types import Measured, Paused, Pinned, PinnedBy, Preferred, Unpinned
from edge_daemon.recorder import Recorder
from edge_daemon.spool import Message
from edge_daemon.store import Answer, Store
from edge_daemon.switcher import Switcher
from edge_daemon.tasks import TaskOwner
from edge_sdk.errors import EdgeError, StorageError, WireError
from edge_sdk.local import Explanation
from edge_sdk.manifest import Latency
from edge_sdk.mqtt import (
    MAX_DOWN_BYTES,
    Command,
    Configure,
    Desired,
    Down,
    DownEnvelope,
    Explain,
    Measure,
    Pause,
    Pin,
    Prefer,
    Reply,
    ReplyStatus,
    Report,
    Resume,
    State,
    Unpin,
    unpack_down,
)
from edge_sdk.wire import Token, encode

log = logging.getLogger(__name__)

T = TypeVar("T")

DESIRED_VERSION = "desired.version"
DESIRED_REFUSED = "desired.refused"
SETTINGS = "settings"
_MAX_TEXT_CHARS = 1000
_LOG_EVERY_S = 60.0
_AGAIN_S = 15.0  # after the disk did not take a reply


class Sender(Protocol):
    """What the uplink does for replies."""

    def poke(self) -> None:
        """Something new is in the spool."""

    def send_again(self, payload: bytes) -> None:
        """Send a reply of the past once more."""

    def state_changed(self) -> None:
        """The retained state is out of date."""


class Measurer(Protocol):
    """Times variants in a child process."""

    async def measure(self, model: str, variant: str | None) -> tuple[Latency, ...]:
        """Latencies of one variant or of all.

        Raises:
            EdgeError: It could not be measured.
        """
        ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `configure` changed; it outlives a restart."""

    telemetry_every_s: float | None = None
    sample_every_s: float | None = None


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `measure`."""

    latencies: tuple[Latency, ...]


class _Only(msgspec.Struct, frozen=True):
    """What can be saved of a malformed command: whom to answer."""

    id: Token
    sent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a command does, not yet done."""

    text: str
    events: Sequence[PolicyEvent] = ()
    values: dict[str, bytes] = field(default_factory=dict)
    result: Any = None
    then: Callable[[], None] | None = None


class Commanding:
    """Carries out what the hub orders.

    Args:
        switcher: Through which everything durable happens.
        store: The memory of commands, to be used in `lane`.
        lane: Where the store lives.
        clock: Of expiry.
        recorder: Whose rates `configure` changes.
        measurer: Times variants.
        tasks: Owns measurements under way.
        state: The device's state, for `report`.
    """

    def __init__(
        self,
        switcher: Switcher,
        store: Store,
        lane: Door,
        clock: Clock,
        *,
        recorder: Recorder,
        measurer: Measurer,
        tasks: TaskOwner,
        state: Callable[[], State],
    ) -> None:
        self._switcher = switcher
        self._store = store
        self._lane = lane
        self._clock = clock
        self._recorder = recorder
        self._measurer = measurer
        self._tasks = tasks
        self._state = state
        self._complaint = Seldom(_LOG_EVERY_S)
        self._settings = Settings()
        self.sender: Sender | None = None
        self.desired_version = 0
        self.desired_refused: str | None = None
        self.malformed = 0

    async def restore(self) -> None:
        """Take up what earlier orders left, and answer the commands that a crash interrupted.

        On a disk that takes no answer these wait until it does: a daemon that can decide is not kept from it.
        """
        kept = await self._lane.run(lambda: [self._store.get(k) for k in (DESIRED_VERSION, DESIRED_REFUSED, SETTINGS)])
        version, refused, settings = kept
        self.desired_version = _whole("version of what is desired", version, int) or 0
        self.desired_refused = _whole("refusal", refused, bytes.decode) or None
        self._adopt(_whole("settings", settings, msgspec.json.Decoder(Settings).decode) or Settings())
        interrupted = _refusal("interrupted", "the daemon ended before it was done; send a new command")
        for command, sent in await self._lane.run(self._store.commands.unfinished):
            answer = Answer(command=command, sent=sent)
            try:
                await self._reply(answer, interrupted)
            except StorageError:
                self._tasks.once("answer", self._reply_at_last(answer, interrupted))

    # ---------------------------------------------------------------------------------- commands

    async def command(self, payload: bytes, retained: bool) -> None:
        """Work through one message on `down/cmd`.

        Raises:
            StorageError: The answer could not be kept; nothing was done, and the hub may send it again.
        """
        if retained:
            # Whoever left it there, it would be run again by every device that comes to this name.
            self._complain("a retained command is ignored: commands are not retained")
            return
        try:
            envelope = unpack_down(Down.CMD, payload, where="down/cmd")
        except WireError as error:
            await self._malformed(payload, error)
            return
        answer = Answer(command=envelope.id, sent=envelope.sent)
        if await self._seen(answer):
            return
        now = self._clock.wall()
        floor = await self._lane.run(self._store.commands.floor)
        if envelope.expires is not None and not now < envelope.expires:
            late = now - envelope.expires
            await self._reply(answer, Reply(status=ReplyStatus.EXPIRED, text=f"it came {late:.1f} s too late"))
        elif envelope.sent <= floor:
            text = "it is older than what this device remembers of its commands, and may have been run"
            await self._reply(answer, Reply(status=ReplyStatus.EXPIRED, code="too-old", text=text))
        elif isinstance(envelope.body, Measure):
            await self._begin_measuring(answer, envelope.body)
        else:
            await self._carry_out(answer, envelope)

    async def _seen(self, answer: Answer) -> bool:
        """Answer a command that was seen before as it was answered then."""
        before = await self._lane.run(lambda: self._store.commands.recall(answer.command))
        if before is None:
            return False
        if before.reply is not None and self.sender is not None:
            self.sender.send_again(before.reply)
        return True

    async def _malformed(self, payload: bytes, error: WireError) -> None:
        self.malformed += 1
        try:
            if len(payload) > MAX_DOWN_BYTES:
                raise error
            only = msgspec.json.decode(payload, type=_Only)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, WireError):
            self._complain(f"a message that is no command is ignored: {error}")
            return
        # A time that is no time puts the command at the beginning: it is remembered like any other.
        sent = only.sent if 0 <= only.sent <= self._clock.wall() else 0.0
        answer = Answer(command=only.id, sent=sent)
        if not await self._seen(answer):
            await self._reply(answer, _refusal(error.code, str(error)))

    async def _carry_out(self, answer: Answer, envelope: DownEnvelope[Command]) -> None:
        try:
            outcome = self._outcome(envelope.body)
        except StorageError:
            raise
        except EdgeError as error:
            await self._reply(answer, _refusal(error.code, str(error)))
            return
        result = None if outcome.result is None else msgspec.Raw(encode(outcome.result))
        await self._reply(
            answer,
            Reply(status=ReplyStatus.DONE, text=outcome.text, result=result),
            events=outcome.events,
            values=outcome.values,
        )
        log.info("the hub's command is done: %s", outcome.text)
        if outcome.then is not None:
            outcome.then()

    def _outcome(self, command: Command) -> _Outcome:  # noqa: PLR0911 - one for each command
        """What a command is to do.

        Raises:
            EdgeError: It is refused, with the reason.
        """
        match command:
            case Prefer(model=model, preference=preference):
                self._switcher.check_model(model)
                text = f"{model or 'every model'} is to be run for {preference.mode.value}"
                return _Outcome(text=text, events=[Preferred(model=model, preference=preference)])
            case Pin(model=model, variant=variant):
                self._switcher.check_variant(model, variant)
                pinned = Pinned(model=model, variant=variant, by=PinnedBy.HUB)
                return _Outcome(text=f"{model} is pinned to {variant}", events=[pinned])
            case Unpin(model=model):
                self._switcher.check_model(model)
                text = f"{model or 'every model'} is decided by the policy again"
                return _Outcome(text=text, events=[Unpinned(model=model, by=PinnedBy.HUB)])
            case Pause():
                return _Outcome(text="switching is paused", events=[Paused(paused=True)])
            case Resume():
                return _Outcome(text="switching goes on", events=[Paused(paused=False)])
            case Report():
                return _Outcome(text="reported", result=self._state(), then=self._publish_state)
            case Explain(model=model):
                self._switcher.check_model(model)
                return _Outcome(text="explained", result=Explanation(decisions=self._switcher.explain(model)))
            case Configure():
                settings = _merged(self._settings, command)
                return _Outcome(
                    text="configured",
                    values={SETTINGS: msgspec.json.encode(settings)},
                    result=settings,
                    then=lambda: self._adopt(settings),
                )
            case Measure():  # pragma: no cover - it goes its own way, see `command`
                raise AssertionError("measure is not done at once")

    async def _begin_measuring(self, answer: Answer, command: Measure) -> None:
        try:
            if command.variant is not None:
                self._switcher.check_variant(command.model, command.variant)
            self._switcher.check_model(command.model)
        except EdgeError as error:
            await self._reply(answer, _refusal(error.code, str(error)))
            return
        now = self._clock.wall()
        await self._lane.run(lambda: self._store.begin(answer, now))
        self._tasks.once("measure", self._measure(answer, command))

    async def _measure(self, answer: Answer, command: Measure) -> None:
        try:
            latencies = await self._measurer.measure(command.model, command.variant)
        except EdgeError as error:
            await self._reply_at_last(answer, _refusal(error.code, str(error)))
            return
        text = f"timed {len(latencies)} variant{'s' * (len(latencies) != 1)} of {command.model}"
        await self._reply_at_last(
            answer,
            Reply(status=ReplyStatus.DONE, text=text, result=msgspec.Raw(encode(Measurements(latencies=latencies)))),
            events=[Measured(model=command.model, variant=one.variant, median_ms=one.median_ms) for one in latencies],
        )

    async def _reply_at_last(self, answer: Answer, reply: Reply, *, events: Sequence[PolicyEvent] = ()) -> None:
        """As soon as the disk takes it: the hub's command, sent again, is taken for one that still runs."""
        while True:
            try:
                await self._reply(answer, reply, events=events)
            except StorageError as error:  # noqa: PERF203 - that is what the loop is for
                self._complain(f"a reply waits: {error}")
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    async def _reply(
        self,
        answer: Answer,
        reply: Reply,
        *,
        events: Sequence[PolicyEvent] = (),
        values: dict[str, bytes] | None = None,
    ) -> None:
        if reply.status is not ReplyStatus.DONE:
            log.info("the hub's command %s is %s: %s", answer.command[:8], reply.status.value, reply.text)
        messages = [Message(body=reply, reply_to=answer.command)]
        await self._switcher.commit(events, values=values, messages=messages, answer=answer)
        if self.sender is not None:
            self.sender.poke()

    # ---------------------------------------------------------------------------------- desired state

    async def desired(self, payload: bytes, _retained: bool) -> None:
        """Work through one message on `down/desired`: apply it whole, or refuse it whole and say so in the state.

        Raises:
            WireError: It is malformed.
            StorageError: It could not be kept; nothing was applied.
        """
        if not payload:  # the hub cleared it
            return
        try:
            envelope = unpack_down(Down.DESIRED, payload, where="down/desired")
        except WireError as error:
            await self._refuse_desired(f"malformed: {error}")
            raise
        desired: Desired = envelope.body
        if desired.version <= self.desired_version:
            return
        if envelope.expires is not None and not self._clock.wall() < envelope.expires:
            await self._refuse_desired(f"version {desired.version}: it has expired")
            return
        try:
            events = self._desired_events(desired)
        except EdgeError as error:
            await self._refuse_desired(f"version {desired.version}: {error}")
            return
        values = {DESIRED_VERSION: str(desired.version).encode(), DESIRED_REFUSED: b""}
        await self._switcher.commit(events, values=values)
        self.desired_version, self.desired_refused = desired.version, None
        log.info("version %d of what the hub desires is applied", desired.version)
        self._publish_state()

    def _desired_events(self, desired: Desired) -> list[PolicyEvent]:
        events: list[PolicyEvent] = []
        for model, preference in desired.preferences.items():
            self._switcher.check_model(model)
            events.append(Preferred(model=model, preference=preference))
        for model, variant in desired.pins.items():
            if variant is None:
                self._switcher.check_model(model)
                events.append(Unpinned(model=model, by=PinnedBy.HUB))
            else:
                self._switcher.check_variant(model, variant)
                events.append(Pinned(model=model, variant=variant, by=PinnedBy.HUB))
        return events

    async def _refuse_desired(self, text: str) -> None:
        text = text[:_MAX_TEXT_CHARS]
        if text == self.desired_refused:
            return
        log.warning("what the hub desires is refused: %s", text)
        await self._switcher.commit([], values={DESIRED_REFUSED: text.encode()})
        self.desired_refused = text
        self._publish_state()

    # ---------------------------------------------------------------------------------- in detail

    def _adopt(self, settings: Settings) -> None:
        self._settings = settings
        if settings.sample_every_s is not None:
            self._recorder.sample_every_s = settings.sample_every_s
        if settings.telemetry_every_s is not None:
            self._recorder.telemetry_every_s = settings.telemetry_every_s

    def _publish_state(self) -> None:
        if self.sender is not None:
            self.sender.state_changed()

    def _complain(self, text: str) -> None:
        ending = self._complaint.ending(self._clock.monotonic())
        if ending is not None:
            log.warning("%s%s", text[:300], ending)


def _whole(what: str, kept: bytes | None, read: Callable[[bytes], T]) -> T | None:
    """What was kept; None where there is nothing or it is damaged."""
    try:
        return None if kept is None else read(kept)
    except (ValueError, msgspec.DecodeError):
        log.warning("the kept %s can't be read and is forgotten", what)
        return None


def _refusal(code: str, text: str) -> Reply:
    return Reply(status=ReplyStatus.REFUSED, code=code, text=text[:_MAX_TEXT_CHARS])


def _merged(settings: Settings, command: Configure) -> Settings:
    asked = {"telemetry_every_s": command.telemetry_every_s, "sample_every_s": command.sample_every_s}
    return msgspec.structs.replace(settings, **{name: value for name, value in asked.items() if value is not None})
