"""Plays the acts on a stage and writes down what came of it.

The conditions change with the clock; everything else is looked at: the daemon's status, the real sensors of the
machine, and what the hub has stored of switches and replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edge_daemon.sensors.suite import SensorSuite
from edge_hub.api import CommandView, EventView
from edge_lab.acts import Act, Facts
from edge_lab.played import PlayedConditions
from edge_lab.stage import DEVICE, MODEL, Stage
from edge_lab.story import CommandSent, Moment, Story, Switch
from edge_lab.view import View
from edge_sdk.mqtt import Command, Configure, Explain, Measure, Pin, Prefer, ServedVariant, Unpin
from edge_sdk.preference import Preference

_PICTURE_S = 0.1
_LOOK_EVERY_S = 0.25
_HUB_EVERY_S = 0.5
# For what is still on its way when the last act is over: the last command's reply, the last switch's event.
_LAST_WORDS_S = 15.0
_REST_S = 1.0
_EXPIRES_S = 30.0
_PENDING = "pending"
_SWITCH = "switch"


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What is remembered between two looks.

    Attributes:
        begun_s: The play's first moment, on the monotonic clock.
        after: The last event of the hub that was seen.
        sent: Ids of commands by their place in the story.
    """

    begun_s: float
    after: int = 0
    sent: dict[int, str] = field(default_factory=dict)
    looked_s: float = float("-inf")
    asked_s: float = float("-inf")

    def now_s(self) -> float:
        return time.monotonic() - self.begun_s


class Performance:
    """One play.

    Args:
        stage: Everything on it is up.
        acts: What happens, one after the other.
        start: How the board is before the first.
        view: Shows it.
        wait: Sleeps; may raise to end the play.
    """

    def __init__(
        self,
        stage: Stage,
        acts: Sequence[Act],
        start: PlayedConditions,
        *,
        view: View,
        wait: Callable[[float], None],
    ) -> None:
        self._stage = stage
        self._acts = acts
        self._start = start
        self._view = view
        self._wait = wait
        self._hub = stage.hub
        self._fast_rtt_ms = 0.0

    def run(self) -> Story:
        """Play it to the end.

        Raises:
            LabError: A process of the stage died.
            TransportError: The hub or the daemon does not answer any more.
        """
        length_s = sum(act.lasts_s for act in self._acts)
        story = Story(began=time.time(), length_s=length_s, answers=self._stage.answers)
        del self._stage.answers[:]
        watch = _Watch(begun_s=time.monotonic())
        with SensorSuite() as real:
            began_s, conditions = 0.0, self._start
            for act in self._acts:
                story.acts.append((watch.now_s(), act.short, act.title))
                self._say(act, story, watch)
                while (at_s := watch.now_s()) < began_s + act.lasts_s:
                    share = (at_s - began_s) / (act.lasts_s * act.ramp)
                    self._play(conditions.towards(act.becomes, share))
                    self._look(act, conditions.towards(act.becomes, share), real, story, watch)
                    self._wait(_PICTURE_S)
                began_s, conditions = began_s + act.lasts_s, act.becomes
            self._last_words(self._acts[-1], real, story, watch)
        return story

    def _play(self, conditions: PlayedConditions) -> None:
        self._stage.board.show(conditions)
        self._stage.link.rtt_ms = conditions.rtt_ms

    def _say(self, act: Act, story: Story, watch: _Watch) -> None:
        facts = self._facts(story)
        for command in act.says(facts):
            watch.sent[len(story.commands)] = self._hub.send([DEVICE], command, expires_s=_EXPIRES_S)[str(DEVICE)]
            story.commands.append(CommandSent(at_s=watch.now_s(), name=_name(command), words=words(command)))

    def _look(self, act: Act, conditions: PlayedConditions, real: SensorSuite, story: Story, watch: _Watch) -> None:
        at_s = watch.now_s()
        self._stage.require()
        if at_s - watch.looked_s >= _LOOK_EVERY_S:
            watch.looked_s = at_s
            status = self._stage.status()
            model = status.models.get(MODEL)
            if not conditions.rtt_ms and status.conditions.rtt_ms is not None:
                self._fast_rtt_ms = status.conditions.rtt_ms
            story.moments.append(
                Moment(
                    at_s=at_s,
                    act=act.title,
                    played=conditions,
                    sensed=status.conditions,
                    real=real.read(),
                    active=model.active if model else None,
                )
            )
        if at_s - watch.asked_s >= _HUB_EVERY_S:
            watch.asked_s = at_s
            self._ask_hub(story, watch)
        self._view.show(story, act.title, at_s)

    def _ask_hub(self, story: Story, watch: _Watch) -> None:
        device = self._hub.device(DEVICE).device
        story.hub_devices = int(device.online)
        story.hub_messages = device.messages
        while events := self._hub.events(after=watch.after):
            watch.after = events[-1].id
            switches = [_switch(event, story.began) for event in events if event.event.kind == _SWITCH]
            # What had been going on before the curtain rose (the app's first load) is none of the play's switches.
            story.switches = [*story.switches, *(each for each in switches if each.at_s >= 0 and each.old is not None)]
        for number, sent in tuple(watch.sent.items()):
            found = self._hub.command(sent)
            if found.state != _PENDING:
                story.commands[number] = _replied(story.commands[number], found)
                del watch.sent[number]

    def _last_words(self, act: Act, real: SensorSuite, story: Story, watch: _Watch) -> None:
        """Wait until nothing is on its way any more."""
        deadline_s = watch.now_s() + _LAST_WORDS_S
        quiet_since_s = watch.now_s()
        while watch.now_s() < deadline_s:
            before = len(story.switches)
            self._look(act, act.becomes, real, story, watch)
            if watch.sent or len(story.switches) != before or story.active_by_app() != story.active_by_hub():
                quiet_since_s = watch.now_s()
            elif watch.now_s() - quiet_since_s >= _REST_S:
                return
            self._wait(_PICTURE_S)

    def _facts(self, story: Story) -> Facts:
        birth = self._hub.device(DEVICE).device.birth
        models = birth.models if birth is not None else ()
        variants = next((model.variants for model in models if model.name == MODEL), ())
        status = self._stage.status().models.get(MODEL)
        return Facts(
            model=MODEL,
            variants=variants,
            active=status.active if status else None,
            slow_ms=_slow_ms(variants, story),
            rtt_ms=self._fast_rtt_ms,
        )


def _slow_ms(variants: Sequence[ServedVariant], story: Story) -> float:
    """What the most accurate variant takes: as the app saw it, else as the bundle knows it."""
    if not variants:
        return 1.0
    best = max(variants, key=lambda variant: (variant.quality, -(variant.latency_ms or 0.0)))
    work = story.by_variant().get(best.id)
    return (work.p95_ms if work else None) or best.latency_ms or 1.0


def _switch(view: EventView, began: float) -> Switch:
    event = view.event
    because = event.because
    return Switch(
        at_s=event.at - began,
        old=event.old,
        new=event.new,
        code=because.code if because else "",
        text=because.text if because else event.text or "",
        took_ms=event.took_ms,
    )


def _replied(command: CommandSent, found: CommandView) -> CommandSent:
    reply = found.reply
    return replace(
        command,
        status=found.state,
        text=(reply.text if reply else None) or "",
        took_s=max(0.0, found.finished - found.sent) if found.finished is not None else None,
    )


def _name(command: Command) -> str:
    return str(type(command).__struct_config__.tag)


def words(command: Command) -> str:
    """A command as one would type it."""
    parts = [_name(command)]
    if isinstance(command, Prefer):
        parts += _wish(command.preference)
    elif isinstance(command, Pin):
        parts.append(command.variant)
    elif isinstance(command, (Unpin, Explain)):
        parts += [command.model] if command.model else []
    elif isinstance(command, Measure):
        parts.append(command.variant or command.model)
    elif isinstance(command, Configure):
        parts.append("telemetry")
    return " ".join(parts)


def _wish(preference: Preference) -> list[str]:
    limits = {"deadline": preference.deadline_ms, "latency": preference.max_latency_ms}
    told = [f"{name} {value:.0f} ms" for name, value in limits.items() if value is not None]
    return [preference.mode.value, *told]
