"""One played device: the daemon's spool, window and commands, over a connection without threads.

What it lives through comes from a track until somebody gives it orders; from then on a mind of its own decides, and
answers as the daemon does, with the daemon's code.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_daemon.clock import Clock
from edge_daemon.config import MqttSection, TlsSection
from edge_daemon.link import SESSION_EXPIRY_S, Ended
from edge_daemon.outbox import Outbox
from edge_daemon.spool import Message
from edge_daemon.store import Store
from edge_daemon.tasks import TaskOwner
from edge_daemon.uplink import STATE_EVERY_S, pause_s, tls_context
from edge_hub.api import Credentials
from edge_lab.errors import FleetError
from edge_lab.fleet import packets
from edge_lab.fleet.connection import Connection
from edge_lab.fleet.life import Life, Steered, Told
from edge_lab.fleet.mind import Mind, at_once
from edge_lab.fleet.tally import Tally
from edge_lab.fleet.track import SPOOL, Track
from edge_sdk._version import __version__
from edge_sdk.errors import StorageError, WireError
from edge_sdk.manifest import Latency, Origin
from edge_sdk.mqtt import (
    MAX_DOWN_BYTES,
    Birth,
    DeviceId,
    Down,
    Event,
    State,
    Tele,
    Up,
    UpEnvelope,
    down_topic,
    pack,
    unpack_down,
    up_topic,
)
from edge_sdk.wire import new_token

log = logging.getLogger(__name__)

SOFTWARE: Final = f"adaptive-edge-sdk {__version__} (played)"
_JITTER: Final = 0.1  # of the time between two reports
_MEASURED_RUNS: Final = 50
_MOST_COMPOSED: Final = 1000  # of one device: for how long a hub may be away and every message still be timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How devices report.

    Attributes:
        report_s: From one report to the next.
        lag_s: How much later than composed its packets leave; of a slow link.
    """

    report_s: float
    lag_s: float = 0.0


class Device:
    """One device.

    Args:
        credentials: From its enrolment.
        track: Of its kind.
        at_s: Where in it this device begins.
        habits: How it reports.
        clock: Of everything.
        tally: Where it counts what it does.
        rng: Its own chance.
    """

    def __init__(
        self,
        credentials: Credentials,
        track: Track,
        *,
        at_s: float,
        habits: Habits,
        clock: Clock,
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self.who = DeviceId.parse(credentials.device)
        self._credentials = credentials
        self._track = track
        self._habits = habits
        self._clock = clock
        self._tally = tally
        self._random = rng
        self._boot = new_token()
        self._started = clock.wall()
        self._store = Store(None, boot=self._boot, limits=SPOOL)
        self._outbox = Outbox()
        self._kinds = {down_topic(self.who, kind): kind for kind in Down}
        self._told = Told(track, at_s, self._store, clock)
        self._life: Life = self._told
        self._mind: Mind | None = None
        self._tasks = TaskOwner()
        self._connection: Connection | None = None
        self._joining: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._attempt = 0
        self._login_at = 0.0
        self._away_s = 0.0
        self._is_in = False  # the broker has let it in
        self._was_in = False
        self._stopping = False
        self._report_at_s = clock.monotonic() + rng.uniform(0, habits.report_s)
        self._state_at_s = -STATE_EVERY_S
        self._composed: dict[int, float] = {}

    # ---------------------------------------------------------------------------------------------- for the fleet

    @property
    def up(self) -> bool:
        """Connected."""
        return self._connection is not None and self._connection.up

    @property
    def waiting(self) -> int:
        """How many numbered messages the hub has not confirmed."""
        return self._store.spool.totals().rows

    def start(self, after_s: float) -> None:
        """Connect after so long, and live."""
        self._later("join", after_s, self._join)
        self._later("live", after_s, self._live)

    def drop(self, *, away_s: float, restart: bool) -> None:
        """Lose the connection without a word and stay away for so long; `restart` comes back as after a power cut."""
        if self._connection is None:
            return
        self._away_s = away_s
        if restart and self._mind is None:
            self._begin_anew(self._told.position_s % self._track.length_s)
        self._connection.drop()

    def finish(self) -> None:
        """Report no more; what waits is still sent."""
        self._stopping = True
        self._cancel("live")
        self._tell(Event(at=self._clock.wall(), kind="stopped"))
        self.send()

    def send(self) -> None:
        """Send what is due, or due again."""
        if not self.up:
            return
        assert self._connection is not None  # noqa: S101 - it is up
        now_s = self._clock.monotonic()
        due = self._outbox.due(self._store.waiting(self._outbox.window), now_s)
        for one in self._store.payloads(due):
            self._tally.published += 1
            self._connection.publish(up_topic(self.who, one.kind), one.payload)
        self._outbox.sent(due, now_s)

    async def close(self) -> None:
        """Say goodbye, and let go of everything."""
        self._stopping = True
        for name in tuple(self._timers):
            self._cancel(name)
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait({self._joining})
        await self._tasks.stop_all(1.0)
        if self._connection is not None:
            if self.up:
                self._retain(Up.BIRTH, Birth(online=False))
            self._connection.close()
        self._store.close()

    # ---------------------------------------------------------------------------------------------- the connection

    def connected(self) -> None:
        """See `Party`."""
        self._tally.connections += 1
        self._tally.reconnects += self._was_in
        self._is_in, self._was_in, self._attempt = True, True, 0
        self._outbox.forget()
        part = self._track.part
        self._tally.births += 1
        self._retain(
            Up.BIRTH,
            Birth(
                online=True,
                profile=part.fate.profile,
                board=part.board,
                software=SOFTWARE,
                started=self._started,
                models=(part.offered.shown,),
            ),
            self._login_at,
        )
        self.state_changed()
        self.send()

    def lost(self, why: str, *, refused: bool) -> None:
        """See `Party`."""
        log.debug("%s: %s", self.who, why)
        self._tally.lost += self._is_in and not self._stopping
        self._is_in, self._connection = False, None
        self._tally.refused += refused
        if not self._stopping:
            self._attempt += 1
            wait_s = self._away_s or pause_s(Ended.REFUSED if refused else Ended.LOST, self._attempt)
            self._away_s = 0.0
            self._later("join", wait_s, self._join)

    def arrived(self, message: packets.Received) -> None:
        """See `Party`."""
        kind = self._kinds.get(message.topic)
        if self._stopping and kind is not Down.ACK:
            return  # it will be sent again to whoever is born under this name
        try:
            if kind is Down.ACK:
                self._confirmed(message.payload)
            elif kind is Down.CMD:
                self._tally.commands += 1
                at_once(self._minded().commanding.command(message.payload, message.retained))
            elif kind is Down.DESIRED:
                self._tally.desired += 1
                at_once(self._minded().commanding.desired(message.payload, message.retained))
        except (WireError, StorageError):
            self._tally.refused += 1

    def _join(self) -> None:
        if self._joining is None or self._joining.done():
            self._joining = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        given = self._credentials
        connection = Connection(self._login(), tuple(self._kinds), self, lag_s=self._habits.lag_s)
        tls = _tls(given.ca, given.certificate, given.key) if given.tls else None
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, given.host, given.port, ssl=tls)
        except OSError as error:
            self.lost(str(error), refused=False)
        else:
            self._connection = connection

    def _login(self) -> packets.Login:
        section = MqttSection(host=self._credentials.host)
        # As the daemon does: the birth says the time of the will, however long the broker takes to let us in.
        self._login_at = self._clock.wall()
        will = UpEnvelope(id=new_token(), boot=self._boot, seq=0, sent=self._login_at, body=Birth(online=False))
        return packets.Login(
            client_id=f"{self.who.tenant}:{self.who.device}",
            username=self._credentials.username,
            password=self._credentials.password,
            keepalive_s=section.keepalive_s,
            session_expiry_s=SESSION_EXPIRY_S,
            will_topic=up_topic(self.who, Up.BIRTH),
            will_payload=pack(will),
            will_delay_s=section.will_delay_s,
        )

    def _confirmed(self, payload: bytes) -> None:
        ack = unpack_down(Down.ACK, payload[: MAX_DOWN_BYTES + 1], where="down/ack").body
        gone = self._store.acknowledge(ack.boot, ack.ranges)
        self._tally.confirmed += gone
        now_s = self._clock.monotonic()
        for first, last in ack.ranges if ack.boot == self._boot else ():
            for seq in [seq for seq in self._composed if first <= seq <= last]:
                self._tally.waits_s.append(now_s - self._composed.pop(seq))
        if gone:
            self._outbox.heard()

    # ---------------------------------------------------------------------------------------------- the life

    def _live(self) -> None:
        now_s = self._clock.monotonic()
        report = now_s >= self._report_at_s
        if report:
            report_s = self._habits.report_s if self._mind is None else self._mind.recorder.telemetry_every_s
            self._report_at_s = max(self._report_at_s + report_s, now_s + report_s / 2)
        lived = self._life.live(report=report)
        self._tell(*lived.events, *(() if lived.tele is None else (lived.tele,)))
        if lived.over and self._mind is None:
            self._begin_anew(0.0)
            if self._connection is not None:
                self._connection.drop()
        elif lived.changed:
            self.state_changed()
        self.send()
        spread_s = self._random.uniform(-_JITTER, _JITTER) * self._habits.report_s if report else 0.0
        wait_s = min(self._report_at_s - now_s + spread_s, self._life.next_s())
        self._later("live", max(0.05, wait_s), self._live)

    def _begin_anew(self, at_s: float) -> None:
        """The daemon starts again: another boot, the same file, so what waits still waits."""
        self._tally.restarts += 1
        self._boot, self._started = new_token(), self._clock.wall()
        self._composed.clear()
        self._store.spool.boot = self._boot
        self._store.spool.recount()
        self._told = Told(self._track, at_s, self._store, self._clock)
        self._life = self._told
        self._tell(Event(at=self._started, kind="started", text=SOFTWARE))

    def _minded(self) -> Mind:
        """Its own mind; made when the first order comes."""
        if self._mind is None:
            self._store.commit(self._clock.wall(), values=self._told.memory())
            self._mind = mind = Mind(
                self._track.part, self._store, self._clock,
                tasks=self._tasks, measurer=_Stopwatch(self._track), report_s=self._habits.report_s,
            )  # fmt: skip
            mind.commanding.sender = self
            at_once(mind.commanding.restore())
            mind.begin(self._told.state().conditions)
            self._life = Steered(self._told, mind, self._clock)
        return self._mind

    # ---------------------------------------------------------------------------------------------- telling

    def poke(self) -> None:
        """See `edge_daemon.commanding.Sender`: an answer is in the spool."""
        self._tally.sent += 1
        self._tally.replies += 1
        self._time(1)
        self.send()

    def send_again(self, payload: bytes) -> None:
        """See `edge_daemon.commanding.Sender`."""
        if self._connection is not None and self.up:
            self._connection.publish(up_topic(self.who, Up.REPLY), payload)

    def state_changed(self) -> None:
        """See `edge_daemon.commanding.Sender`; at most one a second."""
        wait_s = self._state_at_s + STATE_EVERY_S - self._clock.monotonic()
        if wait_s <= 0:
            self._send_state()
        elif "state" not in self._timers:
            self._later("state", wait_s, self._send_state)

    def _send_state(self) -> None:
        if self.up:
            self._state_at_s = self._clock.monotonic()
            self._tally.states += 1
            self._retain(Up.STATE, self._life.state())

    def _tell(self, *bodies: Event | Tele) -> None:
        if not bodies:
            return
        stored = self._store.commit(self._clock.wall(), messages=[Message(body=body) for body in bodies])
        self._tally.sent += len(bodies)
        self._tally.dropped += len(bodies) - len(stored)
        self._tally.events += sum(isinstance(body, Event) for body in bodies)
        self._tally.reports += sum(isinstance(body, Tele) for body in bodies)
        self._time(len(bodies))

    def _time(self, count: int) -> None:
        """Note when so many messages were composed; of more than are timed, the first are forgotten."""
        last = self._store.spool.seq
        self._composed |= dict.fromkeys(range(last - count + 1, last + 1), self._clock.monotonic())
        for seq in tuple(self._composed)[:-_MOST_COMPOSED]:
            del self._composed[seq]

    def _retain(self, kind: Up, body: Birth | State, composed: float | None = None) -> None:
        sent = self._clock.wall() if composed is None else composed
        envelope = UpEnvelope(id=new_token(), boot=self._boot, seq=0, sent=sent, body=body)
        if self._connection is None:
            raise FleetError("a message without a connection")
        self._connection.publish(up_topic(self.who, kind), pack(envelope), retain=True)

    def _later(self, name: str, wait_s: float, call: Callable[[], None]) -> None:
        self._cancel(name)

        def run() -> None:
            self._timers.pop(name, None)
            call()

        self._timers[name] = asyncio.get_running_loop().call_later(wait_s, run)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


@functools.lru_cache(maxsize=8)
def _tls(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """What a connection is encrypted with; devices without certificates of their own share one."""
    return tls_context(TlsSection(ca_pem=ca, cert_pem=certificate, key_pem=key))


class _Stopwatch:
    """Times variants as a played board would: what they are predicted to take."""

    def __init__(self, track: Track) -> None:
        self._part = track.part

    async def measure(self, model: str, variant: str | None) -> tuple[Latency, ...]:  # noqa: ARG002 - it has one model
        """See `Measurer`; takes as long as the runs would."""
        facts = [one for one in self._part.offered.facts.variants if variant in {None, one.id}]
        await asyncio.sleep(sum(one.latency_ms for one in facts) * _MEASURED_RUNS / 1000)
        return tuple(
            Latency(
                variant=one.id,
                median_ms=one.latency_ms,
                origin=Origin.PREDICTED,
                machine=self._part.board,
                profile=self._part.fate.profile,
                threads=1,
            )
            for one in facts
        )
