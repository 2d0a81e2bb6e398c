"""What a device lives through, whoever decides it: the track of its kind, or a mind of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_daemon.clock import Clock
from edge_daemon.store import Store
from edge_lab.fleet.mind import Mind
from edge_lab.fleet.track import Track, moved_event, moved_memory, moved_models, moved_sample
from edge_sdk.local import AppReport
from edge_sdk.mqtt import Event, Sample, State, Tele


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What is to be told of the time since the last look.

    Attributes:
        changed: The retained state is out of date.
        over: The track has ended.
    """

    events: Sequence[Event] = ()
    tele: Tele | None = None
    changed: bool = False
    over: bool = False


class Life(Protocol):
    """A device's."""

    def live(self, *, report: bool) -> Lived:
        """Live up to now; `report` asks for the batch of what was sampled."""

    def state(self) -> State:
        """How it is."""

    def next_s(self) -> float:
        """How long until something happens."""


class Told:
    """A life that the track of its kind tells.

    Args:
        track: Of its kind.
        at_s: Where in it this device begins.
        store: Whose spool the state tells of.
        clock: Of now.
    """

    def __init__(self, track: Track, at_s: float, store: Store, clock: Clock) -> None:
        self.track = track
        self._store = store
        self._clock = clock
        self._began_s = clock.monotonic() - at_s
        self._seen_s = self._reported_s = at_s

    @property
    def position_s(self) -> float:
        """Where in the track now is."""
        return self._clock.monotonic() - self._began_s

    def live(self, *, report: bool) -> Lived:
        """See `Life`."""
        now_s, by_s = self.position_s, self._by_s()
        events = [moved_event(event, by_s) for event in self.track.events_between(self._seen_s, now_s)]
        changed = self.track.moment(now_s) is not self.track.moment(self._seen_s)
        self._seen_s = now_s
        samples: tuple[Sample, ...] = ()
        if report:
            samples = self.track.samples_between(self._reported_s, now_s)
            self._reported_s = now_s
        return Lived(
            events=events,
            tele=Tele(samples=tuple(moved_sample(one, by_s) for one in samples)) if samples else None,
            changed=changed or report,
            over=now_s >= self.track.length_s,
        )

    def state(self) -> State:
        """See `Life`."""
        position_s, totals = self.position_s, self._store.spool.totals()
        return State(
            at=self._clock.wall(),
            conditions=self.track.sample_at(position_s).conditions,
            models=moved_models(self.track.moment(position_s).models, self._by_s()),
            spooled=totals.rows,
            dropped=totals.dropped,
        )

    def next_s(self) -> float:
        """See `Life`."""
        return max(0.0, self.track.next_event_s(self._seen_s) - self.position_s)

    def memory(self) -> dict[str, bytes]:
        """What a daemon that lived it would have in its store."""
        return moved_memory(self.track.moment(self.position_s).kept, self._by_s())

    def _by_s(self) -> float:
        return self._clock.wall() - self.position_s


class Steered:
    """A life that its own policy decides, because somebody gave it orders; what it meets is still the track's.

    Args:
        told: Its life up to now.
        mind: Its own.
        clock: Of now.
    """

    def __init__(self, told: Told, mind: Mind, clock: Clock) -> None:
        self._told = told
        self._mind = mind
        self._clock = clock
        self._changes = mind.switcher.changes
        self._passed_s = clock.monotonic()

    def live(self, *, report: bool) -> Lived:
        """See `Life`."""
        now_s = self._clock.monotonic()
        sample = self._met()
        passed_s, self._passed_s = now_s - self._passed_s, now_s
        events = self._mind.second(sample.conditions, self._served(sample, passed_s))
        changed, self._changes = self._changes != self._mind.switcher.changes, self._mind.switcher.changes
        return Lived(
            events=events,
            tele=self._mind.recorder.batch(now_s, all_of_it=report) if report else None,
            changed=changed or report,
        )

    def state(self) -> State:
        """See `Life`."""
        return self._mind.state()

    def next_s(self) -> float:
        """See `Life`."""
        return self._mind.recorder.sample_every_s

    def _met(self) -> Sample:
        track = self._told.track
        return track.sample_at(self._told.position_s % track.length_s)

    def _served(self, sample: Sample, passed_s: float) -> AppReport:
        """What the app would have done: the track's requests, each as long as this variant takes here."""
        (stats,) = sample.models.values()
        variant = self._mind.variant
        facts = {one.id: one for one in self._told.track.part.offered.facts.variants}
        slower = 1.0
        if stats.p50_ms is not None and stats.variant in facts:
            slower = stats.p50_ms / facts[stats.variant].latency_ms
        took_ms = facts[variant].latency_ms * slower
        limit_ms = self._told.track.part.preference.max_latency_ms or float("inf")
        calls = round(stats.calls * passed_s / sample.window_s) if sample.window_s else 0
        tail = stats.p95_ms / stats.p50_ms if stats.p50_ms and stats.p95_ms else 1.0
        return AppReport(
            active=variant,
            computes_on="cpu",
            calls=calls,
            late=calls if took_ms > limit_ms else 0,
            p50_ms=round(took_ms, 2) if calls else None,
            p95_ms=round(took_ms * tail, 2) if calls else None,
            arrived=calls,
        )
