"""A device as a Sparkplug edge node: one MQTT connection, its births, data, commands and death.

The specification's rules are here and in `metrics`: a death certificate as the will of each connection, whose bdSeq
its births repeat; a birth before any data, and again when a host asks or the metrics are others; with a primary host,
none of it until that host says that it is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edge_hub.connecting import unless_lost
from edge_hub.interop import metrics
from edge_hub.interop.metrics import Reading
from edge_hub.interop.numbers import BirthNumbers
from edge_hub.interop.orders import Choose
from edge_hub.interop.payload import decode, encode
from edge_hub.interop.session import Connect, Session, Will, again_and_again
from edge_hub.interop.view import View, past_view
from edge_sdk.errors import WireError
from edge_sdk.mqtt import Sample

_log = logging.getLogger(__name__)

# Telemetry of the past that waits to be sent: an hour of one record in ten seconds.
MOST_LATE = 360
_MOST_COMMANDS = 100
_MAX_STATE_BYTES = 1024


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """What a host publishes of itself; it may say more."""

    online: bool
    timestamp: float


@dataclass(slots=True)
class PrimaryHost:
    """Whether the primary host is there, by its STATE messages. Pure.

    Attributes:
        online: As the last message that counts has it; None before any.
    """

    online: bool | None = None
    _seen: float | None = None
    _came_up: float | None = None

    def told(self, payload: bytes) -> None:
        """A STATE message came. An old one, of a session that is over, changes nothing."""
        if len(payload) > _MAX_STATE_BYTES:
            return
        try:
            state = msgspec.json.decode(payload, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        floor = self._seen if state.online else self._came_up
        if floor is not None and not state.timestamp >= floor:
            return
        self.online = state.online
        self._seen = state.timestamp if self._seen is None else max(self._seen, state.timestamp)
        if state.online:
            self._came_up = state.timestamp


class EdgeNode:
    """One edge node, for as long as its device is there: `run` until cancelled.

    Args:
        group: The group id.
        view: Its device as it is now.
        host: The primary host's id; None waits for nobody.
        connect: Makes its sessions.
        numbers: Counts the connections of every edge node.
        choose: Takes what a host writes.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        *,
        group: str,
        view: View,
        host: str | None,
        connect: Connect,
        numbers: BirthNumbers,
        choose: Choose,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = metrics.node_id(view.device)
        self._topics = {verb: metrics.topic(group, verb, self.name) for verb in ("NBIRTH", "NDATA", "NDEATH", "NCMD")}
        self._state_topic = None if host is None else metrics.state_topic(host)
        self._host = PrimaryHost()
        self._connect = connect
        self._numbers = numbers
        self._choose = choose
        self._clock = clock
        self._view = view
        self._late: deque[Sample] = deque(maxlen=MOST_LATE)
        self._commands: deque[bytes] = deque(maxlen=_MOST_COMMANDS)
        self._news = asyncio.Event()
        # What hosts know since the last birth, by name; of it what is to be said again; and the names' aliases.
        self._told: dict[str, Reading] = {}
        self._retell: set[str] = set()
        self._aliases: dict[str, int] = {}
        self._seq = 0
        self._born = False

    def show(self, view: View) -> None:
        """Its device as it is now."""
        self._view = view
        self._news.set()

    def late(self, samples: Iterable[Sample]) -> None:
        """Telemetry of the past; of what is too much, the oldest is dropped."""
        self._late.extend(samples)
        self._news.set()

    async def run(self) -> None:
        """Live until cancelled; then a death certificate is published before the connection is closed."""
        await again_and_again(f"Sparkplug edge node {self.name}", self._once)

    async def _once(self) -> None:
        bdseq = await self._numbers.following(self._view.device)
        will = Will(
            topic=self._topics["NDEATH"], payload=encode(metrics.death(bdseq, at=self._clock()), with_types=True)
        )
        topics = [self._topics["NCMD"], *([] if self._state_topic is None else [self._state_topic])]
        self._commands.clear()
        self._born = False
        session = self._connect(will, topics, self._heard)
        await session.open()
        try:
            await self._live(session, bdseq)
        finally:
            # A goodbye keeps the broker from publishing the will, so that it has to be said first.
            if self._born and await session.publish(will.topic, will.payload, qos=1):
                await session.flush()
            await session.close()

    async def _live(self, session: Session, bdseq: int) -> None:
        while self._state_topic is not None and not self._host.online:
            if not await self._hear_news(session):
                return
        await self._bear(session, bdseq)
        while await self._hear_news(session):
            if self._state_topic is not None and not self._host.online:
                _log.info("Sparkplug edge node %s: the primary host is gone", self.name)
                return
            rebirth = await self._obey()
            now = metrics.readings(self._view)
            if rebirth or {each.name for each in now} != set(self._told):
                await self._bear(session, bdseq)
                continue
            changed = [each for each in now if each.value != self._told[each.name].value or each.name in self._retell]
            if changed:
                await self._tell(session, changed)
                self._told.update({each.name: each for each in changed})
                self._retell.clear()
            while self._late:
                past = metrics.past_readings(past_view(self._view.device, self._late.popleft()))
                await self._tell(session, [each for each in past if each.name in self._aliases], historical=True)

    async def _bear(self, session: Session, bdseq: int) -> None:
        now = metrics.readings(self._view)
        self._aliases = {each.name: alias for alias, each in enumerate(now, start=1)}
        self._told = {each.name: each for each in now}
        self._retell.clear()
        self._seq = 0
        self._born = True
        payload = metrics.birth(now, bdseq=bdseq, aliases=self._aliases, at=self._clock())
        await session.publish(self._topics["NBIRTH"], encode(payload, with_types=True))

    async def _tell(self, session: Session, changed: Sequence[Reading], *, historical: bool = False) -> None:
        if not changed:
            return
        self._seq = metrics.following(self._seq)
        payload = metrics.data(changed, seq=self._seq, aliases=self._aliases, at=self._clock(), historical=historical)
        await session.publish(self._topics["NDATA"], encode(payload, with_types=False))

    async def _obey(self) -> bool:
        """Carry out what hosts wrote; whether one of them asked for a rebirth."""
        rebirth = False
        names = {alias: name for name, alias in self._aliases.items()}
        while self._commands:
            try:
                wants, pins = metrics.wanted(decode(self._commands.popleft(), where=self._topics["NCMD"]), names)
            except WireError as error:
                _log.warning("Sparkplug: %s", error)
                continue
            rebirth = rebirth or wants
            for model, variant in pins.items():
                if model not in self._view.models:
                    _log.warning("Sparkplug: %s has no model %s", self.name, ascii(model[:80]))
                    continue
                # A host may show what it wrote. What holds is told again, and once more when the device has done it.
                self._retell.add(metrics.pin_metric(model))
                await self._choose(self._view.device, model, variant)
        return rebirth

    async def _hear_news(self, session: Session) -> bool:
        """Wait for something to do; false when the connection is over."""
        await unless_lost(session.lost, self._news.wait())
        self._news.clear()
        return not session.lost.is_set()

    def _heard(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic == self._state_topic:
            self._host.told(payload)
        elif topic == self._topics["NCMD"] and not retained:  # a command is for now
            self._commands.append(payload)
        self._news.set()
