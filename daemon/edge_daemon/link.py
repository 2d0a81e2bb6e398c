"""One connection to the broker, from CONNECT to its end, in one thread.

paho deadlocks when several threads publish or a callback does (paho.mqtt.python #354), and its own queue dies with
the process (#223). So a `Link` is driven by a single thread that does everything: it waits for the socket and for a
pipe that others write to, reads, writes, and takes what is to be published from a queue. A new connection is a new
`Link`; what must not be lost waits in the spool, not here.

MQTT 5 is spoken where the broker has it. Nothing depends on it: the will's delay, the session's expiry and the reason
codes only make things smoother.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import os
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_daemon.sensors.tcpinfo import TcpInfo, tcp_info
from edge_sdk.mqtt import MAX_DOWN_BYTES

CONNECT_S: Final = 10.0  # for name, TCP and TLS, and again until CONNACK
GOODBYE_S: Final = 2.0
SESSION_EXPIRY_S: Final = 3600  # commands wait at the broker for a device that lost its Wi-Fi
PROBE_TIMEOUT_S: Final = 30.0
_QOS: Final = 1
_ROOM_FOR_HEADERS: Final = 4096
# What paho's parser lets through of its own accidents when the bytes are no MQTT.
_NOT_MQTT: Final = (ValueError, LookupError, TypeError, struct.error, MQTTException)
_FAILURE: Final = 0x80  # MQTT 5, 2.4: reason codes from here are failures


class Ended(enum.Enum):
    """How a connection ended."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    OLD_BROKER = "old-broker"
    TAKEN_OVER = "taken-over"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a connection, in words.

    Attributes:
        connected: The broker had accepted it before.
    """

    how: Ended
    text: str
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The broker accepted us and the subscriptions were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message came."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed:
    """A probe came back."""

    rtt_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the kernel says of the connection now; as often as it is probed."""

    info: TcpInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The broker does not let us publish or subscribe."""

    text: str


News = Connected | Arrived | Echoed | Looked | Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says when we are gone without a word."""

    topic: str
    payload: bytes
    delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The broker, and who we are to it.

    Attributes:
        tls: None is unencrypted.
        probe_topic: One of `topics`; it is subscribed to again to measure the round trip.
    """

    host: str
    port: int
    client_id: str
    username: str
    password: str | None
    tls: ssl.SSLContext | None
    keepalive_s: int
    probe_every_s: float
    topics: tuple[str, ...]
    probe_topic: str
    will: Will


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    topic: str
    payload: bytes
    retain: bool


class Link:
    """One connection.

    Args:
        address: Where to, and as whom.
        mqtt5: Speak MQTT 5, else 3.1.1.
        tell: Called in the link's thread with what happens; must return at once.
    """

    def __init__(self, address: Address, *, mqtt5: bool, tell: Callable[[News], None]) -> None:
        self._address = address
        self._mqtt5 = mqtt5
        self._tell = tell
        self._outgoing: collections.deque[_Outgoing] = collections.deque()
        self._closing = False
        self._unacknowledged = 0
        self._connected = False
        self._refusal: ReasonCode | None = None
        self._dismissal: ReasonCode | None = None
        self._probe: tuple[int, float] | None = None
        self._next_probe_s = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._client = self._make()

    # ------------------------------------------------------------------------------- from any thread

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send when it can be sent; whether it arrived, only the hub can say."""
        self._outgoing.append(_Outgoing(topic=topic, payload=payload, retain=retain))
        self._wake()

    def close(self) -> None:
        """Send what is queued, say goodbye, end."""
        self._closing = True
        self._wake()

    # ------------------------------------------------------------------------------- in its own thread

    def run(self) -> End:
        """Connect, serve until the connection ends, and say how it did."""
        try:
            return self._run()
        finally:
            self._client.on_disconnect = None
            with contextlib.suppress(Exception):  # whatever a socket half closed has to say
                self._close_socket()
            wake_write, self._wake_write = self._wake_write, -1
            os.close(self._wake_read)
            os.close(wake_write)

    def _run(self) -> End:
        address = self._address
        try:
            self._client.connect_timeout = CONNECT_S
            self._client.connect(address.host, address.port, address.keepalive_s, **self._session())
        except (OSError, ValueError) as cause:  # ssl.SSLError is an OSError; ValueError is a name that is no name
            return End(how=Ended.UNREACHABLE, text=str(cause) or type(cause).__name__, connected=False)
        began_s = time.monotonic()
        farewell_s: float | None = None
        while (sock := self._client.socket()) is not None:
            now_s = time.monotonic()
            if not self._connected and now_s - began_s > CONNECT_S:
                return End(how=Ended.UNREACHABLE, text="the broker does not answer CONNECT", connected=False)
            if self._closing and farewell_s is None:
                farewell_s = now_s + GOODBYE_S
            if farewell_s is not None and (self._is_quiet() or now_s > farewell_s):
                self._client.disconnect()
                break
            try:
                self._wait(sock)
                self._work()
            except _NOT_MQTT as cause:
                return End(how=Ended.LOST, text=f"what came is no MQTT: {cause}", connected=self._connected)
        return self._end()

    def _is_quiet(self) -> bool:
        """All is sent and acknowledged.

        To hang up with PUBACKs unread would reset the connection, and the broker might lose what it has not read yet:
        the goodbye.
        """
        return not self._outgoing and not self._unacknowledged and not self._client.want_write()

    def _wait(self, sock: Any) -> None:
        """Until the socket or the pipe has something, at most a second."""
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)
        with selectors.DefaultSelector() as selector:
            selector.register(sock, wanted)
            selector.register(self._wake_read, selectors.EVENT_READ)
            ready = selector.select(0.0 if pending else self._patience_s())
        events = {key.fd: mask for key, mask in ready}
        if self._wake_read in events:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._wake_read, 4096):
                    pass
        if pending or events.get(sock.fileno(), 0) & selectors.EVENT_READ:
            self._client.loop_read()

    def _work(self) -> None:
        if self._connected:
            while self._outgoing:
                out = self._outgoing.popleft()
                self._client.publish(out.topic, out.payload, qos=_QOS, retain=out.retain)
                self._unacknowledged += 1
            self._send_probe()
        elif self._closing:
            self._outgoing.clear()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def _patience_s(self) -> float:
        if not self._connected:
            return 1.0
        return min(1.0, max(0.0, self._next_probe_s - time.monotonic()))

    def _send_probe(self) -> None:
        """Subscribe once more to the acknowledgements: a few bytes there and back that disturb nobody.

        A PINGREQ would do, but paho neither sends one on demand nor tells of its answer; a publication would be work
        for the hub, and its PUBACK would also measure how long the payload took.
        """
        now_s = time.monotonic()
        if self._closing or now_s < self._next_probe_s:
            return
        self._next_probe_s = now_s + self._address.probe_every_s
        self._look()
        if self._probe is not None and now_s - self._probe[1] < PROBE_TIMEOUT_S:
            return
        code, mid = self._client.subscribe(**self._subscription((self._address.probe_topic,)))
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._probe = mid, now_s

    def _look(self) -> None:
        sock = self._client.socket()
        info = None if sock is None else tcp_info(sock.fileno())
        if isinstance(info, TcpInfo):
            self._tell(Looked(info=info))

    # ------------------------------------------------------------------------------- paho's callbacks

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = reason
            return
        self._connected = True
        self._next_probe_s = time.monotonic()
        client.subscribe(**self._subscription(self._address.topics))
        self._tell(Connected())

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self._dismissal is None:  # the broker's word comes first, then what paho makes of the closed socket
            self._dismissal = reason

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._tell(Arrived(topic=message.topic, payload=bytes(message.payload), retained=message.retain))

    def _on_publish(self, _client: Client, _data: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._unacknowledged -= 1
        if reason.value >= _FAILURE:
            self._tell(Denied(text=f"the broker does not take what we publish: {reason}"))

    def _on_subscribe(self, _client: Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        if self._probe is not None and self._probe[0] == mid:
            self._tell(Echoed(rtt_ms=(time.monotonic() - self._probe[1]) * 1000))
            self._probe = None
        refused = [reason for reason in reasons if reason.value >= _FAILURE]
        if refused:
            self._tell(Denied(text=f"the broker does not let us subscribe: {refused[0]}"))

    # ------------------------------------------------------------------------------- in detail

    def _make(self) -> Client:
        address = self._address
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if self._mqtt5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if self._mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.username_pw_set(address.username, address.password)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        client.will_set(
            address.will.topic, address.will.payload, qos=_QOS, retain=True, properties=self._will_properties()
        )
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def _session(self) -> dict[str, Any]:
        if not self._mqtt5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho types it partly
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = MAX_DOWN_BYTES + _ROOM_FOR_HEADERS
        return {"clean_start": False, "properties": properties}

    def _will_properties(self) -> Properties | None:
        if not self._mqtt5:
            return None
        properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho types it partly
        properties.WillDelayInterval = self._address.will.delay_s
        return properties

    def _subscription(self, topics: tuple[str, ...]) -> dict[str, Any]:
        if self._mqtt5:
            return {"topic": [(topic, SubscribeOptions(qos=_QOS)) for topic in topics]}
        return {"topic": [(topic, _QOS) for topic in topics]}

    def _end(self) -> End:
        reason = self._refusal or self._dismissal
        text = "the connection broke" if reason is None else str(reason)
        if self._refusal is not None:
            old = self._mqtt5 and self._refusal.getName() == "Unsupported protocol version"
            return End(how=Ended.OLD_BROKER if old else Ended.REFUSED, text=text, connected=False)
        if self._closing:
            return End(how=Ended.CLOSED, text="closed", connected=self._connected)
        if not self._connected and self._mqtt5:
            # Some brokers hang up on a protocol they don't know instead of saying so.
            return End(how=Ended.OLD_BROKER, text=text, connected=False)
        if reason is not None and reason.getName() == "Session taken over":
            return End(how=Ended.TAKEN_OVER, text=text, connected=True)
        return End(how=Ended.LOST, text=text, connected=self._connected)

    def _close_socket(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            os.write(self._wake_write, b"\0")


def _send_at_once(_client: Client, _data: Any, sock: Any) -> None:
    """Small messages must not wait for the acknowledgement of the one before: it would be taken for a slow network."""
    with contextlib.suppress(OSError):  # a socket of another kind
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
