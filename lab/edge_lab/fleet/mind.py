"""A daemon's deciding half without its machine: the real switcher, commands and memory, with nobody to wait for.

What the daemon does in threads (SQLite, sensors, sockets) is here a store in memory and values that are handed in, so
nothing suspends, and `at_once` runs a coroutine of the daemon's to its end where it stands.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from edge_daemon.apps import Apps
from edge_daemon.clock import Clock
from edge_daemon.commanding import Commanding, Measurer
from edge_daemon.hearing import heard_of
from edge_daemon.lanes import Here
from edge_daemon.policies import registry
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.types import AppJoined, Tried, Try
from edge_daemon.recorder import Recorder
from edge_daemon.remarks import Remarks
from edge_daemon.store import Store
from edge_daemon.switcher import Switcher
from edge_daemon.tasks import TaskOwner
from edge_lab.fleet.cast import Part
from edge_sdk.local import AppReport, Register
from edge_sdk.mqtt import Conditions, Event, State

T = TypeVar("T")

SAMPLE_S = 5.0  # the daemon's own default, `[telemetry] sample_every_s`


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never waits returns."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # of the coroutine
    work.close()
    raise AssertionError("a coroutine that was taken for one that never waits has waited")


class Mind:
    """One device's.

    Args:
        part: The board.
        store: In memory, of this device.
        clock: Of everything.
        tasks: Own the measurements that commands ask for.
        measurer: Times variants.
        report_s: Length of a batch of telemetry.
    """

    def __init__(
        self, part: Part, store: Store, clock: Clock, *, tasks: TaskOwner, measurer: Measurer, report_s: float
    ) -> None:
        self._clock = clock
        self._store = store
        self._part = part
        self._apps = Apps()
        frame = Frame(use=registry.DEFAULT, factory=registry.find(registry.DEFAULT), site=part.site)
        name = part.offered.name
        self.switcher = Switcher({name: part.offered}, self._apps, store, Here(), clock, frame=frame)
        self.switcher.on_try = self._wanted
        self.recorder = Recorder(sample_every_s=SAMPLE_S, telemetry_every_s=report_s, now_s=clock.monotonic())
        self.commanding = Commanding(
            self.switcher,
            store,
            Here(),
            clock,
            recorder=self.recorder,
            measurer=measurer,
            tasks=tasks,
            state=self.state,
        )
        self._remarks = Remarks()
        self._conditions = Conditions()
        self._try: str | None = None
        at_once(self.switcher.restore())
        self._app = self._apps.join(Register(name="camera"), name, 0, clock.monotonic())

    def begin(self, conditions: Conditions) -> None:
        """The one app starts."""
        self._conditions = conditions
        at_once(self.switcher.tick(conditions))
        at_once(self.switcher.feed(AppJoined(app=self._app.id, model=self._app.model)))

    @property
    def variant(self) -> str:
        """What the app is told to run."""
        assert self._app.assigned is not None  # noqa: S101 - it was, when it joined
        return self._app.assigned.decision.variant

    @property
    def wanted(self) -> str | None:
        """A variant that the policy would have timed in idle time; asked once."""
        wanted, self._try = self._try, None
        return wanted

    def second(self, conditions: Conditions, report: AppReport) -> Sequence[Event]:
        """Pass a second (or what it is a sample of), and return what the hub is to be told of it."""
        now_s, now = self._clock.monotonic(), self._clock.wall()
        self._app.seen_s = now_s
        self._conditions = conditions
        heard = heard_of(self._apps, self._app, report, now_s=now_s, now=now)
        self.recorder.saw(self._app.model, report)
        if heard.changed:
            self.switcher.changes += 1
        at_once(self.switcher.feed(*heard.events))
        at_once(self.switcher.tick(conditions))
        self.recorder.sample(now_s, now, conditions, {self._app.model: self._app.active})
        return (*heard.told, *self._remarks.of(conditions, now_s, now))

    def tried(self, variant: str, took_ms: float) -> None:
        """A variant was timed."""
        at_once(self.switcher.feed(Tried(model=self._app.model, variant=variant, latency_ms=took_ms)))

    def state(self) -> State:
        """What the device reports of itself."""
        totals = self._store.spool.totals()
        return State(
            at=self._clock.wall(),
            conditions=self._conditions,
            models=self.switcher.models(),
            desired_version=self.commanding.desired_version,
            desired_refused=self.commanding.desired_refused,
            spooled=totals.rows,
            dropped=totals.dropped,
        )

    def _wanted(self, wish: Try) -> None:
        self._try = wish.variant
