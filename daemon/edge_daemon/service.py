"""The daemon as one process: what it consists of, in which order that starts, and how it ends.

Start: state, sensors, models, policy, local API, hub, tasks. Stop: the other way round, in stages, each with a time
limit, so that apps are answered, what was recorded is on the disk and the hub hears a goodbye; but nothing that hangs
can keep the process from ending. A part that cannot do its work says so and leaves the others alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_daemon import catalogue, notify
from edge_daemon.api import Api
from edge_daemon.apps import Apps
from edge_daemon.clock import Clock, Steps, SystemClock
from edge_daemon.commanding import Commanding
from edge_daemon.config import Config, site, state_directory
from edge_daemon.eventlog import EventLog
from edge_daemon.journal import Journal
from edge_daemon.lanes import Lane
from edge_daemon.listener import Listener
from edge_daemon.measuring import ChildMeasurer
from edge_daemon.policies import registry
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.setting import site_of
from edge_daemon.policy.types import PolicyFailed
from edge_daemon.position import Whereabouts
from edge_daemon.probing import Prober
from edge_daemon.recorder import Recorder
from edge_daemon.remarks import Remarks
from edge_daemon.sensors.suite import SensorSuite
from edge_daemon.spool import Limits
from edge_daemon.store import Store
from edge_daemon.switcher import Switcher
from edge_daemon.tasks import TaskOwner
from edge_sdk._version import __version__
from edge_sdk.errors import InternalError, StorageError
from edge_sdk.local import AppReport, Status, socket_path
from edge_sdk.manifest import Delegate
from edge_sdk.mqtt import MAX_UP_BYTES, Birth, Conditions, Event, ServedModel, State
from edge_sdk.profile import board_name, recognise
from edge_sdk.wire import encode, new_token

if TYPE_CHECKING:
    from edge_daemon.uplink import Uplink

log = logging.getLogger(__name__)

SOFTWARE: Final = f"adaptive-edge-sdk {__version__}"
TIDY_EVERY_S: Final = 10.0
STOP_S: Final = 3.0  # each stage of the end; systemd's own patience is 90 s, a person's is less
_RECORD_EVERY_S: Final = 0.5  # windows begin at 1 s
_STEP_S: Final = 2.0  # a wall clock that is further off than a slow tick explains was set by somebody
_ALIVE_S: Final = 30.0  # without a tick for so long the daemon is no longer working, whatever else it does
_BIRTH_ROOM: Final = 16 * 1024
_ECHO_S: Final = 1.0  # one Ctrl-C or timeout(1) may reach us twice: by the group, and from whoever started us
_SIGNALLED: Final = 128


class Service:
    """A running daemon: `await run()`, which returns when `stop` was called.

    Args:
        config: As loaded.
        socket: Of the local API; else the configuration's, else the usual place.
        clock: Of everything.
        events: Where to note what the policy is told and decides; None notes nothing.
    """

    def __init__(
        self, config: Config, *, socket: Path | None = None, clock: Clock | None = None, events: Path | None = None
    ) -> None:
        self._config = config
        self._socket = socket or socket_path(config.api.socket)
        self._clock = clock or SystemClock()
        self._events = events
        self._boot = new_token()
        self._started = self._clock.wall()
        self._tasks = TaskOwner()
        self._ending = asyncio.Event()
        # What is open: name, how to close it, how long that may take; the last opened is the first to be closed.
        self._closing: list[tuple[str, Callable[[], Awaitable[object]], float]] = []
        self._conditions = Conditions()
        self._ticked_s = self._clock.monotonic()
        self._uplink: Uplink | None = None

    def stop(self) -> None:
        """Let `run` return."""
        self._ending.set()

    async def run(self) -> None:
        """Start, work until told to stop or something vital fails, and end everything.

        Raises:
            EdgeError: It cannot start, or failed; nothing of it is left running.
        """
        ending = asyncio.ensure_future(self._ending.wait())
        failing = asyncio.ensure_future(self._tasks.failed.wait())
        starting = asyncio.ensure_future(self._start())
        try:
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _give_back()
                notify.notify(f"READY=1\nSTATUS=serving {len(self._catalogue.served)} models on {self._socket}")
                log.info("%s is ready: %s", SOFTWARE, self._summary())
                await asyncio.wait({ending, failing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            notify.notify("STOPPING=1")
            for waiting in (starting, ending, failing):
                waiting.cancel()
            await asyncio.wait({starting, ending, failing})
            await self._stop()
        log.info("stopped")
        if self._tasks.failure is not None:
            raise InternalError("a part of the daemon failed; its log says which") from self._tasks.failure

    # ---------------------------------------------------------------------------------- start

    async def _start(self) -> None:
        await self._open_state()
        await self._begin_sensing()
        await self._take_models()
        await self._serve()
        await self._join_hub()
        self._begin_tasks()

    async def _open_state(self) -> None:
        """The store, alone in its lane: whoever opened an SQLite connection is to use it."""
        telemetry = self._config.telemetry
        limits = Limits(max_bytes=int(telemetry.spool_max_mb * 1e6), max_age_s=telemetry.spool_max_age_h * 3600)
        self._store_lane = self._lane("store")
        directory = state_directory(self._config)
        self._store = await self._store_lane.run(lambda: Store(directory, boot=self._boot, limits=limits))
        self._closing.append(("state", lambda: self._store_lane.run(self._store.close), STOP_S))

    async def _begin_sensing(self) -> None:
        root = self._config.sensors.root
        known = recognise(root, self._config.device.profile)
        self._profile, self._board, self._profiles_left_out = known.profile, board_name(root), known.left_out
        for why in known.left_out:
            log.warning("a device profile is left out: %s", why)
        self._sensor_lane = self._lane("sensing")
        self._sensors = SensorSuite(root, self._profile, self._clock.monotonic, owned=self._config.sensors)
        self._whereabouts = Whereabouts(self._config.site.position_file, self._clock.monotonic)
        self._closing.append(("sensors", lambda: self._sensor_lane.run(self._sensors.close), STOP_S))
        await self._sense()

    async def _take_models(self) -> None:
        config, root, profile = self._config, self._config.sensors.root, self._profile
        hashing = Lane("models")
        self._catalogue = await hashing.run(lambda: catalogue.read(config, profile, root))
        hashing.close(0)
        telemetry = config.telemetry
        self._apps = Apps()
        self._journal = Journal(self._store, self._store_lane, self._clock)
        self._switcher = Switcher(
            self._catalogue.served, self._apps, self._store, self._store_lane, self._clock,
            frame=self._frame(), site=site(config),
        )  # fmt: skip
        self._switcher.on_failed = self._policy_failed
        if self._events is not None:
            events = self._switcher.events = EventLog(self._events)

            async def close() -> None:
                events.close()

            self._closing.append(("event log", close, STOP_S))
        self._recorder = Recorder(
            sample_every_s=telemetry.sample_every_s,
            telemetry_every_s=telemetry.telemetry_every_s,
            now_s=self._clock.monotonic(),
        )
        self._remarks = Remarks()
        measurer = ChildMeasurer(self._catalogue)
        self._prober = Prober(measurer, self._switcher.feed, self._clock, self._tasks.once)
        self._switcher.on_try = self._prober.wanted
        self._commanding = Commanding(
            self._switcher, self._store, self._store_lane, self._clock, recorder=self._recorder, measurer=measurer,
            tasks=self._tasks, state=self._state,
        )  # fmt: skip
        self._switcher.position = await self._sensor_lane.run(self._whereabouts.now)
        await self._switcher.restore()
        self._closing.append(("policy", self._switcher.save, STOP_S))
        await self._switcher.tick(self._conditions)

    async def _serve(self) -> None:
        api = self._api = Api(
            catalogue=self._catalogue,
            apps=self._apps,
            switcher=self._switcher,
            recorder=self._recorder,
            journal=self._journal,
            clock=self._clock,
            whereabouts=self._whereabouts,
            status=self._status,
            used=self._used,
        )
        listener = Listener(self._socket, api.handle, group=self._config.api.group)
        await listener.open()

        async def close() -> None:
            self._apps.release()  # who waits for an assignment gets one
            await listener.close()

        self._closing.append(("local API", close, STOP_S))

    async def _join_hub(self) -> None:
        """The uplink and what it needs, if there is a hub; paho is imported only then."""
        self._closing.append(("tasks", lambda: self._tasks.stop_all(STOP_S), 2 * STOP_S))
        device, section = self._config.device_id(), self._config.mqtt
        if device is None or section is None:
            return
        from edge_daemon.uplink import Uplink

        self._uplink = uplink = Uplink(
            section,
            device,
            self._boot,
            store=self._store,
            store_lane=self._store_lane,
            clock=self._clock,
            birth=self._birth,
            state=self._state,
            on_command=self._commanding.command,
            on_desired=self._commanding.desired,
            on_round_trip=self._sensors.round_trip.feed,
            on_look=self._sensors.look,
        )
        self._journal.uplink = uplink
        self._commanding.sender = uplink
        self._closing.append(("connection to the hub", lambda: uplink.close(STOP_S), 2 * STOP_S))
        await self._commanding.restore()
        started = [Event(at=self._started, kind="started", text=SOFTWARE)]
        for model in self._catalogue.broken:
            text = f"it is configured and can't be served: {model.reason}"
            started.append(Event(at=self._started, kind="model-left-out", model=model.name, text=text[:1000]))
        left_out = self._profiles_left_out
        started += [Event(at=self._started, kind="profile-left-out", text=why[:1000]) for why in left_out]
        if self._store.trouble is not None:
            started.append(Event(at=self._started, kind="state", text=self._store.trouble))
        await self._journal.tell(*started)

    def _begin_tasks(self) -> None:
        if self._uplink is not None:
            self._tasks.spawn("uplink", self._uplink.run, vital=False)
            self._closing.append(("recording", self._last_words, STOP_S))
        self._tasks.spawn("policy", self._keep_deciding)
        self._tasks.spawn("telemetry", self._keep_recording, vital=False)
        self._tasks.spawn("keeper", self._keep_state, vital=False)
        server, switcher = self._catalogue.server, self._switcher
        if server is not None:
            from edge_daemon.reach import Reach  # which nobody else needs

            reach = Reach(server, self._clock.monotonic, switcher.asks_blindly, switcher.feed)
            self._tasks.spawn("server", reach.run, vital=False)
        watchdog_s = notify.watchdog_s()
        if watchdog_s is not None:
            self._tasks.spawn("watchdog", lambda: self._keep_alive(watchdog_s / 2))

    def _lane(self, name: str) -> Lane:
        lane = Lane(name)

        async def close() -> None:
            closed = await asyncio.get_running_loop().run_in_executor(None, lane.close, STOP_S)
            if not closed:
                log.warning("the thread %r hangs; the daemon ends without it", name)

        self._closing.append((name, close, 2 * STOP_S))
        return lane

    # ---------------------------------------------------------------------------------- stop

    async def _stop(self) -> None:
        while self._closing:
            name, close, limit_s = self._closing.pop()
            try:
                await asyncio.wait_for(close(), limit_s)
            except (asyncio.TimeoutError, TimeoutError):
                log.warning("the %s did not end within %.0f s", name, limit_s)
            except Exception as error:  # noqa: BLE001 - the next stage must come whatever this one says
                log.warning("the %s did not end well: %s", name, error)

    async def _last_words(self) -> None:
        """What was recorded since the last batch, and that the daemon ends."""
        batch = self._recorder.batch(self._clock.monotonic(), all_of_it=True)
        goodbye = Event(at=self._clock.wall(), kind="stopped")
        await self._journal.tell(*([goodbye] if batch is None else [batch, goodbye]))

    # ---------------------------------------------------------------------------------- tasks

    async def _keep_deciding(self) -> None:
        tick_s = self._config.policy.tick_s
        while True:
            began_s = self._clock.monotonic()
            await self._sense()
            self._switcher.position = await self._sensor_lane.run(self._whereabouts.now)
            await self._switcher.tick(self._conditions)
            self._prober.look(calm=self._switcher.is_calm, load_pct=self._conditions.load_pct)
            for app in self._apps.gone(self._clock.monotonic()):
                await self._api.leave(app, "its process is dead, or it was silent for too long")
            self._ticked_s = self._clock.monotonic()
            await asyncio.sleep(max(0.0, tick_s - (self._ticked_s - began_s)))

    async def _keep_recording(self) -> None:
        """Remarkable changes of the conditions; where there is a hub, telemetry and the retained state, too."""
        changes, told_s = self._switcher.changes, self._clock.monotonic()
        while True:
            await asyncio.sleep(_RECORD_EVERY_S)
            now_s, at = self._clock.monotonic(), self._clock.wall()
            remarks = self._remarks.of(self._conditions, now_s, at)
            for sensor in (remark for remark in remarks if remark.kind == "sensor"):
                log.warning("%s", sensor.text)
            if self._uplink is None:
                continue
            active = {name: model.active for name, model in self._switcher.models().items()}
            self._recorder.sample(now_s, at, self._conditions, active)
            batch = self._recorder.batch(now_s)
            await self._journal.tell(*remarks, *([] if batch is None else [batch]))
            if changes != self._switcher.changes or now_s - told_s >= self._recorder.telemetry_every_s:
                changes, told_s = self._switcher.changes, now_s
                self._uplink.state_changed()

    async def _keep_state(self) -> None:
        """Save what the policy learned, drop what is too old, and say so when the disk does not take it."""
        every_s = self._config.policy.snapshot_every_s
        saved_s = self._clock.monotonic()
        said: str | None = None
        steps = Steps(self._clock)
        while True:
            await self._tidy(steps.since())
            if self._clock.monotonic() - saved_s >= every_s:
                saved_s = self._clock.monotonic()
                with contextlib.suppress(StorageError):  # the store keeps what it said, see below
                    await self._switcher.save()
            if self._store.trouble != said:
                said = self._store.trouble
                if said is None:
                    log.info("state is kept again")
                else:
                    log.error("%s; working on, but a restart would not know what changed since", said)
            await asyncio.sleep(min(TIDY_EVERY_S, every_s))

    async def _tidy(self, stepped_s: float) -> None:
        """Drop what is too old, by a clock that may have been set by `stepped_s` in the meantime."""
        if abs(stepped_s) > _STEP_S:
            log.warning("the wall clock was set %s by %.0f s", "forward" if stepped_s > 0 else "back", abs(stepped_s))
        now = self._clock.wall()
        with contextlib.suppress(StorageError):
            await self._store_lane.run(lambda: self._store.tidy(now, max(0.0, stepped_s)))

    async def _keep_alive(self, every_s: float) -> None:
        """Tell systemd that we live, as long as decisions are made."""
        while True:
            if self._clock.monotonic() - self._ticked_s < _ALIVE_S + self._config.policy.tick_s:
                notify.notify("WATCHDOG=1")
            await asyncio.sleep(every_s)

    # ---------------------------------------------------------------------------------- what we are and how

    def _frame(self) -> Frame:
        """The policy that is configured, for this board.

        Raises:
            EdgeError: There is none of this name, or it cannot be imported.
        """
        use = self._config.policy.use
        return Frame(use=use, factory=registry.find(use), site=site_of(self._profile))

    def _policy_failed(self, failed: PolicyFailed) -> None:
        text = f"the policy {failed.policy} failed; what runs goes on: {failed.reason}"
        told = Event(at=self._clock.wall(), kind="policy-failed", text=text[:1000])
        self._tasks.once("telling", self._journal.tell(told))

    async def _sense(self) -> None:
        conditions = await self._sensor_lane.run(self._sensors.read)
        played = self._config.sensors.played
        self._conditions = msgspec.structs.replace(conditions, played=True) if played else conditions

    def _used(self, app: str, model: str, report: AppReport) -> None:
        """Count the time that calls took on an accelerator, whose driver may not, and note that there were calls."""
        if report.calls:
            self._prober.called()
        delegate = report.computes_on
        if delegate is None:  # an app of before it said so
            served = self._catalogue.served.get(model)
            variants = () if served is None else served.bundle.manifest.variants
            delegate = next((v.target.delegate.value for v in variants if v.id == report.active), Delegate.CPU.value)
        busy_pct = None if report.usage is None else report.usage.busy_pct
        self._sensors.busy.saw(app, delegate, busy_pct=busy_pct, busy_ms=report.calls * (report.p50_ms or 0.0))

    def _birth(self, online: bool) -> Birth:
        """What we are. Offline, which is also the will, says no more than that: wills are at most 64 kB."""
        if not online:
            return Birth(online=False)
        birth = Birth(
            online=True,
            profile=None if self._profile is None else self._profile.id,
            board=self._board,
            software=SOFTWARE,
            started=self._started,
            models=tuple(model.shown for model in self._catalogue.served.values()),
        )
        if len(encode(birth)) > MAX_UP_BYTES - _BIRTH_ROOM:
            models = tuple(ServedModel(name=model.name, version=model.version) for model in birth.models)
            birth = msgspec.structs.replace(birth, models=models)
        return birth

    def _state(self) -> State:
        totals = self._store.spool.totals()  # three numbers in memory: no lane is needed to look at them
        return State(
            at=self._clock.wall(),
            conditions=self._conditions,
            models=self._switcher.models(),
            desired_version=self._commanding.desired_version,
            desired_refused=self._commanding.desired_refused,
            spooled=totals.rows,
            dropped=totals.dropped,
        )

    async def _status(self) -> Status:
        totals = self._store.spool.totals()
        uplink = self._uplink
        return Status(
            at=self._clock.wall(),
            started=self._started,
            software=SOFTWARE,
            profile=None if self._profile is None else self._profile.id,
            board=self._board,
            conditions=self._conditions,
            models=self._switcher.models(),
            apps=self._apps.status(),
            hub="none" if uplink is None else uplink.status,
            hub_text="no [mqtt] in the configuration: reports to nobody" if uplink is None else uplink.text,
            spooled=totals.rows,
            dropped=totals.dropped,
            left_out={model.name: model.reason[:1000] for model in self._catalogue.broken},
            trouble=tuple(text[:1000] for text in (self._store.trouble, *self._profiles_left_out) if text is not None),
        )

    def _summary(self) -> str:
        served, broken = self._catalogue.served, self._catalogue.broken
        models = f"{len(served)} models" if len(served) != 1 else "1 model"
        left_out = f" ({len(broken)} left out)" if broken else ""
        hub = "reports to nobody" if self._uplink is None else f"reports as {self._config.device_id()}"
        board = f"profile {self._profile.id}" if self._profile is not None else "no profile"
        return f"{models}{left_out}, {board}, {hub}, local API on {self._socket}"


def run(config: Config, *, socket: Path | None = None, events: Path | None = None) -> None:
    """Run a daemon in this process until SIGTERM or SIGINT; a second one ends it at once.

    Raises:
        EdgeError: It cannot start, or a vital part failed.
    """
    asyncio.run(_run(config, socket, events))


def _give_back() -> None:
    """Let the kernel have what importing and hashing took and freed, which glibc keeps: about 2 of 24 MB."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # malloc_trim(3); other C libraries have none
    if trim is not None:
        trim(0)


async def _run(config: Config, socket: Path | None, events: Path | None) -> None:
    service = Service(config, socket=socket, events=events)
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    first_s: list[float] = []

    def hear(number: int) -> None:
        name = signal.Signals(number).name
        if not first_s:
            first_s.append(loop.time())
            log.info("%s: stopping", name)
            service.stop()
        elif loop.time() - first_s[0] > _ECHO_S:
            log.warning("%s again: ending at once", name)
            os._exit(_SIGNALLED + number)

    for number in signals:
        loop.add_signal_handler(number, hear, number)
    try:
        await service.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
