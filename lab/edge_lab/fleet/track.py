"""What a device of one kind goes through, played once and told many times.

The real policy decides each second of a simulated world; what comes of it (samples, switches with their reasons,
states) is kept, and thousands of devices tell it from different moments on. Deciding anew for each of them would take
a core for every few thousand devices and show nothing else: they meet the same fate. A device that somebody steers gets
a mind of its own, with what the track had learned up to there.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from edge_daemon.policy.state import PolicyState, dump, load
from edge_daemon.spool import Limits
from edge_daemon.store import Store
from edge_daemon.tasks import TaskOwner
from edge_lab.fleet.cast import Part
from edge_lab.fleet.mind import SAMPLE_S, Mind
from edge_lab.fleet.scene import Scene
from edge_sdk.manifest import Latency
from edge_sdk.mqtt import Event, ModelState, Sample
from edge_sdk.wire import new_token

SPOOL: Final = Limits(max_bytes=1_000_000, max_age_s=7 * 86_400.0)
_POLICY, _WISHES = "policy", "wishes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How a device is from `at_s` on.

    Attributes:
        kept: What its daemon would have in its store, by key.
    """

    at_s: float
    models: dict[str, ModelState]
    kept: dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A life from 0 to `length_s`; all times in it are seconds of its own.

    Attributes:
        samples: By the end of their windows.
        events, moments: By their time.
    """

    part: Part
    length_s: float
    samples: tuple[Sample, ...]
    events: tuple[Event, ...]
    moments: tuple[Moment, ...]

    def samples_between(self, after_s: float, until_s: float) -> tuple[Sample, ...]:
        """Those whose windows ended in this time."""
        return self.samples[_after(self.samples, after_s) : _after(self.samples, until_s)]

    def sample_at(self, at_s: float) -> Sample:
        """The last one, or the first."""
        return self.samples[max(0, _after(self.samples, at_s) - 1)]

    def events_between(self, after_s: float, until_s: float) -> tuple[Event, ...]:
        """What happened in this time."""
        return self.events[_after(self.events, after_s) : _after(self.events, until_s)]

    def next_event_s(self, after_s: float) -> float:
        """When something happens next; the end where nothing does."""
        at = _after(self.events, after_s)
        return self.events[at].at if at < len(self.events) else self.length_s

    def moment(self, at_s: float) -> Moment:
        """How a device is at this time."""
        found = bisect.bisect_right(self.moments, at_s, key=lambda moment: moment.at_s)
        return self.moments[max(0, found - 1)]


def rehearse(part: Part, seed: int) -> Track:
    """Play a life."""
    scene, clock = Scene(part, seed), _Played()
    store = Store(None, boot=new_token(), limits=SPOOL)
    mind = Mind(part, store, clock, tasks=TaskOwner(), measurer=_Nobody(), report_s=SAMPLE_S)
    mind.begin(scene.conditions())
    samples: list[Sample] = []
    events: list[Event] = []
    moments: list[Moment] = []
    changes = -1
    for _ in range(scene.world.seconds):
        report = scene.serve(mind.variant)
        probe = mind.wanted
        took_ms = None if probe is None else scene.probe(probe)
        clock.now_s += 1.0
        if probe is not None and took_ms is not None:
            mind.tried(probe, took_ms)
        events += mind.second(scene.conditions(), report)
        if mind.switcher.changes != changes:
            changes = mind.switcher.changes
            moments.append(_moment(mind, store, clock.now_s))
        batch = mind.recorder.batch(clock.now_s)
        samples += () if batch is None else batch.samples
    store.close()
    return Track(
        part=part,
        length_s=float(scene.world.seconds),
        samples=tuple(samples),
        events=tuple(events),
        moments=tuple(moments),
    )


def _moment(mind: Mind, store: Store, at_s: float) -> Moment:
    kept = {_POLICY: dump(mind.switcher.state), _WISHES: store.get(_WISHES) or b""}
    return Moment(at_s=at_s, models=mind.switcher.models(), kept=kept)


def moved_sample(sample: Sample, by_s: float) -> Sample:
    """The same at another time."""
    return msgspec.structs.replace(sample, at=sample.at + by_s)


def moved_event(event: Event, by_s: float) -> Event:
    """The same at another time."""
    return msgspec.structs.replace(event, at=event.at + by_s)


def moved_models(models: dict[str, ModelState], by_s: float) -> dict[str, ModelState]:
    """The same with decisions at another time."""
    return {
        name: model
        if model.decision is None
        else msgspec.structs.replace(
            model, decision=msgspec.structs.replace(model.decision, at=model.decision.at + by_s)
        )
        for name, model in models.items()
    }


def moved_memory(kept: dict[str, bytes], by_s: float) -> dict[str, bytes]:
    """What a daemon's store would hold had all of it happened at another time."""
    state = load(kept[_POLICY])
    assert state is not None  # noqa: S101 - our own dump
    return kept | {_POLICY: dump(_moved(state, by_s))}


def _moved(state: PolicyState, by_s: float) -> PolicyState:
    models = tuple(
        replace(
            model,
            decision=None
            if model.decision is None
            else msgspec.structs.replace(model.decision, at=model.decision.at + by_s),
            history=tuple(msgspec.structs.replace(one, at=one.at + by_s) for one in model.history),
        )
        for model in state.models
    )
    return replace(state, models=models, at=state.at + by_s)


def _after(told: Sequence[Sample | Event], at_s: float) -> int:
    return bisect.bisect_right(told, at_s, key=lambda one: one.at)


class _Played:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """See `edge_daemon.clock.Clock`."""
        return self.now_s

    def wall(self) -> float:
        """See `edge_daemon.clock.Clock`; a track begins at 0."""
        return self.now_s


class _Nobody:
    """Nobody orders anything in a rehearsal."""

    async def measure(self, model: str, variant: str | None) -> tuple[Latency, ...]:
        """See `Measurer`."""
        raise NotImplementedError
