"""The daemon's side of the protocol with the hub: birth, state, spool and acknowledgements, over one link at a time.

Everything worth keeping is in the spool before it is sent and stays there until the hub names it in `down/ack`;
`up/birth` and `up/state` are retained and say how things are, so they are sent anew on every connection. A broker
that can't be reached or refuses us changes nothing on the device: it works on, and the spool waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

from edge_daemon.clock import Clock
from edge_daemon.config import MqttSection, TlsSection, password
from edge_daemon.lanes import Lane
from edge_daemon.link import Address, Arrived, Connected, Denied, Echoed, End, Ended, Link, Looked, News, Will
from edge_daemon.logs import Seldom
from edge_daemon.outbox import Outbox
from edge_daemon.sensors.tcpinfo import TcpInfo
from edge_daemon.store import Store
from edge_sdk.errors import ConfigError, StorageError, WireError
from edge_sdk.mqtt import (
    MAX_DOWN_BYTES,
    Ack,
    Birth,
    DeviceId,
    Down,
    State,
    Up,
    UpEnvelope,
    down_topic,
    pack,
    unpack_down,
    up_topic,
)
from edge_sdk.wire import new_token

log = logging.getLogger(__name__)

STATE_EVERY_S: Final = 1.0  # a burst of changes is one state
_BACKOFF_S: Final = (1.0, 60.0)  # the broker can't be reached
_REFUSED_S: Final = (5.0, 300.0)  # it refuses us: only a person can mend that
_STEADY_S: Final = 30.0  # a connection that held this long was a good one
_SUSPICIOUS: Final = 3  # connections in a row that did not hold
_INBOX: Final = 200
_LOG_EVERY_S: Final = 60.0
_AGAIN_S: Final = 15.0  # after the disk did not take what is desired

HubStatus = Literal["none", "connecting", "connected", "refused"]
Deliver = Callable[[bytes, bool], Awaitable[None]]


class Uplink:
    """The connection to the hub.

    Args:
        section: The broker.
        device: Who we are.
        boot: This start of the daemon.
        store: With the spool, to be used in `store_lane`.
        store_lane: Where the store lives.
        clock: Of envelopes and resending.
        birth: What we are; asked anew for each connection.
        state: How we are; asked whenever it is sent.
        on_command: Gets a command's payload and whether it was retained.
        on_desired: Gets a desired document's payload.
        on_round_trip: Gets each measured round trip in milliseconds.
        on_look: Gets what the kernel says of the connection, every few seconds.
    """

    def __init__(
        self,
        section: MqttSection,
        device: DeviceId,
        boot: str,
        *,
        store: Store,
        store_lane: Lane,
        clock: Clock,
        birth: Callable[[bool], Birth],
        state: Callable[[], State],
        on_command: Deliver,
        on_desired: Deliver,
        on_round_trip: Callable[[float], None],
        on_look: Callable[[TcpInfo], None],
    ) -> None:
        self._section = section
        self._device = device
        self._boot = boot
        self._store = store
        self._store_lane = store_lane
        self._lane = Lane("mqtt")
        self._clock = clock
        self._birth = birth
        self._state = state
        self._deliver = {Down.CMD: on_command, Down.DESIRED: on_desired, Down.ACK: self._on_ack}
        self._on_round_trip = on_round_trip
        self._on_look = on_look
        self._kinds = {down_topic(device, kind): kind for kind in Down}
        self._outbox = Outbox()
        self._mark: int | None = None
        self._composed = 0.0
        self._inbox: asyncio.Queue[Arrived] = asyncio.Queue(_INBOX)
        self._work = asyncio.Event()
        self._sending = asyncio.Lock()
        self._state_wanted = True
        self._state_sent_s = -STATE_EVERY_S
        self._link: Link | None = None
        self._again: asyncio.TimerHandle | None = None
        self._stopping = False
        self._complaint = Seldom(_LOG_EVERY_S)
        self._said = ""
        self.status: HubStatus = "connecting"
        self.text = ""

    # ---------------------------------------------------------------------------------- for the daemon

    def poke(self) -> None:
        """Something new is in the spool."""
        self._work.set()

    def state_changed(self) -> None:
        """Something is different that the retained state tells of."""
        self._state_wanted = True
        self._work.set()

    def send_again(self, payload: bytes) -> None:
        """Send a reply of the past once more, the very same bytes; the hub tells it by its boot and seq."""
        if self._link is not None:
            self._link.publish(up_topic(self._device, Up.REPLY), payload)

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        receiving = asyncio.get_running_loop().create_task(self._receive(), name="uplink-inbox")
        try:
            await self._keep_connected()
        finally:
            receiving.cancel()
            await asyncio.wait({receiving})

    async def close(self, timeout_s: float) -> None:
        """Send what waits, say that we go offline, and disconnect; at most for `timeout_s`."""
        self._stopping = True
        link = self._link  # which may break meanwhile
        if link is not None and self.status == "connected":
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError, StorageError):
                await asyncio.wait_for(self._send_due(link), timeout_s / 2)
            link.publish(*self._retained(Up.BIRTH, self._birth(False)), retain=True)
        if link is not None:
            link.close()
        # The lane is in `Link.run` until the link has ended.
        closed = await asyncio.get_running_loop().run_in_executor(None, self._lane.close, timeout_s)
        if not closed:
            log.warning("the broker did not let us say goodbye; it will tell our will")

    # ---------------------------------------------------------------------------------- connection

    async def _keep_connected(self) -> None:
        mqtt5 = True
        attempt = 0
        while not self._stopping:
            began_s = self._clock.monotonic()
            try:
                end = await self._connection(mqtt5=mqtt5)
            except ConfigError as error:
                attempt += 1
                self._tell("refused", str(error))
                await asyncio.sleep(pause_s(Ended.REFUSED, attempt))
                continue
            if end.how is Ended.CLOSED:  # as `close` wants it
                return
            if end.how is Ended.OLD_BROKER:
                mqtt5 = False
                continue
            if not end.connected and not mqtt5:
                mqtt5 = True  # the broker may have been replaced by a newer one
            held = end.connected and self._clock.monotonic() - began_s >= _STEADY_S
            attempt = 0 if held else attempt + 1
            self._note(end, attempt)
            await asyncio.sleep(pause_s(end.how, attempt))

    async def _connection(self, *, mqtt5: bool) -> End:
        """One connection from begin to end."""
        loop = asyncio.get_running_loop()
        address = await self._store_lane.run(self._address)

        def tell(news: News) -> None:
            loop.call_soon_threadsafe(self._hear, link, news)

        link = Link(address, mqtt5=mqtt5, tell=tell)
        self._link = link
        self._outbox.forget()
        self._mark = None
        running = asyncio.ensure_future(self._lane.run(link.run))
        try:
            while not running.done():
                if self.status == "connected" and not self._stopping:
                    await self._send_what_is_due(link)
                await self._idle(running)
            return running.result()
        except BaseException:
            link.close()
            raise
        finally:
            if self._link is link:
                self._link = None
            if self.status == "connected":
                self.status = "connecting"

    async def _idle(self, running: asyncio.Future[End]) -> None:
        """Wait until there is something to do."""
        patience_s = self._outbox.next_s(self._clock.monotonic())
        if self._state_wanted:
            patience_s = min(patience_s, STATE_EVERY_S)
        working = asyncio.ensure_future(self._work.wait())
        first: set[asyncio.Future[Any]] = {running, working}
        try:
            await asyncio.wait(first, timeout=max(0.05, patience_s), return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
        self._work.clear()

    def _hear(self, link: Link, news: News) -> None:
        """What the link's thread tells, here in the loop."""
        if link is not self._link:
            return
        match news:
            case Connected():
                self._welcome(link)
            case Arrived():
                self._take_in(news)
            case Echoed(rtt_ms=rtt_ms):
                self._on_round_trip(rtt_ms)
            case Looked(info=info):
                self._on_look(info)
            case Denied(text=text):
                self._complain(text)

    def _take_in(self, message: Arrived) -> None:
        try:
            self._inbox.put_nowait(message)
        except asyncio.QueueFull:
            self._complain("more messages arrive than can be worked through; the hub will send them again")

    def _welcome(self, link: Link) -> None:
        where = f"{self._section.host}:{self._section.effective_port}"
        self.status, self.text, self._said = "connected", f"to {where} as {self._device}", ""
        log.info("connected %s", self.text)
        link.publish(*self._retained(Up.BIRTH, self._birth(True), self._composed), retain=True)
        self.state_changed()

    def _note(self, end: End, attempt: int) -> None:
        """Keep how the connection ended for `edge daemon status`, and log it once, not at every attempt."""
        where = f"{self._section.host}:{self._section.effective_port}"
        match end.how:
            case Ended.REFUSED:
                why = f"refuses {self._username()}: {end.text}; check user name and password under [mqtt]"
                self._tell("refused", f"{where} {why}")
            case Ended.TAKEN_OVER:
                why = f"another client connected to {where} as {self._device}; is this device's name used twice?"
                self._tell("refused", why)
            case Ended.UNREACHABLE:
                self._tell("connecting", f"{where} can't be reached: {end.text}; working on without a hub")
            case Ended.LOST if attempt >= _SUSPICIOUS:  # mosquitto 2.0.11 does not say that it was taken over
                why = f"is the name {self._device} used twice, or the network bad?"
                self._tell("connecting", f"the connection to {where} never lasts: {end.text}; {why}")
            case _:
                self._tell("connecting", f"the connection to {where} ended: {end.text}")

    def _tell(self, status: HubStatus, text: str) -> None:
        self.status, self.text = status, text[:1000]
        if self.text != self._said:
            self._said = self.text
            log.warning("%s", self.text)

    def _complain(self, text: str) -> None:
        ending = self._complaint.ending(self._clock.monotonic())
        if ending is not None:
            log.warning("%s%s", text[:300], ending)

    def _username(self) -> str:
        return self._section.username or str(self._device)

    def _address(self) -> Address:
        """Where to connect to; files are read anew each time, so that a renewed password or key is taken up."""
        section = self._section
        # The birth says the same time: a will that is older than the last birth is of a connection before it.
        self._composed = self._clock.wall()
        will = UpEnvelope(id=new_token(), boot=self._boot, seq=0, sent=self._composed, body=self._birth(False))
        return Address(
            host=section.host,
            port=section.effective_port,
            # Not our name as it is: rumqttd refuses a client id with a slash. (mosquitto as the hub runs it takes the
            # user name for it anyway.)
            client_id=f"{self._device.tenant}:{self._device.device}",
            username=self._username(),
            password=password(section),
            tls=None if section.encryption is None else tls_context(section.encryption),
            keepalive_s=section.keepalive_s,
            probe_every_s=section.probe_every_s,
            topics=tuple(self._kinds),
            probe_topic=down_topic(self._device, Down.ACK),
            will=Will(topic=up_topic(self._device, Up.BIRTH), payload=pack(will), delay_s=section.will_delay_s),
        )

    # ---------------------------------------------------------------------------------- sending

    async def _send_what_is_due(self, link: Link) -> None:
        try:
            await self._send_due(link)
        except StorageError as error:  # the connection is well: what comes from the hub is still to be read
            self._complain(f"what waits for the hub cannot be read: {error}")

    async def _send_due(self, link: Link) -> None:
        async with self._sending:  # or what is due would be found twice
            await self._send(link)

    async def _send(self, link: Link) -> None:
        now_s = self._clock.monotonic()
        if self._state_wanted and now_s - self._state_sent_s >= STATE_EVERY_S:
            self._state_wanted, self._state_sent_s = False, now_s
            link.publish(*self._retained(Up.STATE, self._state()), retain=True)
        mark = self._mark
        if mark is None:
            mark = self._mark = await self._store_lane.run(self._store.last_row)
        live, backlog = await self._store_lane.run(lambda: self._store.split(self._outbox.window, mark))
        due = self._outbox.due(live, now_s, backlog=backlog)
        if not due:
            return
        for one in await self._store_lane.run(lambda: self._store.payloads(due)):
            link.publish(up_topic(self._device, one.kind), one.payload)
        self._outbox.sent(due, now_s)

    def _retained(self, kind: Up, body: Birth | State, composed: float | None = None) -> tuple[str, bytes]:
        sent = self._clock.wall() if composed is None else composed
        envelope = UpEnvelope(id=new_token(), boot=self._boot, seq=0, sent=sent, body=body)
        return up_topic(self._device, kind), pack(envelope)

    # ---------------------------------------------------------------------------------- receiving

    async def _receive(self) -> None:
        while True:
            message = await self._inbox.get()
            kind = self._kinds.get(message.topic)
            if kind is None:
                self._complain(f"a message on {message.topic[:100]!r}, which is not ours, is ignored")
                continue
            if kind is Down.DESIRED and self._again is not None:
                self._again.cancel()  # an older one
            try:
                await self._deliver[kind](message.payload, message.retained)
            except WireError as error:
                self._complain(f"{message.topic}: {error}")
            except StorageError as error:
                self._complain(f"{message.topic}: {error}")
                if kind is Down.DESIRED:
                    self._try_again(message)
            except Exception:
                # One hostile message must not keep the next from being read.
                log.exception("a message on %s could not be worked through", message.topic)

    def _try_again(self, message: Arrived) -> None:
        """In a while: it is retained, so that the hub sends it again only at the next connection."""
        self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self._take_in, message)

    async def _on_ack(self, payload: bytes, _retained: bool) -> None:
        ack: Ack = unpack_down(Down.ACK, payload[: MAX_DOWN_BYTES + 1], where="down/ack").body
        gone = await self._store_lane.run(lambda: self._store.acknowledge(ack.boot, ack.ranges))
        if gone:
            self._outbox.heard()
            self.poke()


def tls_context(tls: TlsSection) -> ssl.SSLContext:
    """What a connection is encrypted and checked with.

    Raises:
        ConfigError: A file is missing or is no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca, cadata=tls.ca_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert is not None and tls.key is not None:
            context.load_cert_chain(Path(tls.cert), Path(tls.key))
        elif tls.cert_pem is not None and tls.key_pem is not None:
            _load_chain(context, f"{tls.cert_pem}\n{tls.key_pem}")
    except (OSError, ssl.SSLError) as cause:
        raise ConfigError(f"mqtt.tls can't be used: {cause}", where=tls.ca or "mqtt.tls") from cause
    return context


def _load_chain(context: ssl.SSLContext, pem: str) -> None:
    """OpenSSL reads a key from a file only: one in memory, so that no disk keeps it."""
    descriptor = os.memfd_create("edge-tls")
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def pause_s(how: Ended, attempt: int) -> float:
    """Doubling, with full jitter from a half to the whole: a fleet that lost its broker must not come back as one."""
    shortest, longest = _REFUSED_S if how in {Ended.REFUSED, Ended.TAKEN_OVER} else _BACKOFF_S
    whole = min(longest, shortest * 2.0 ** min(attempt, 16))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
