"""The hub's own MQTT connection: kept up for ever, acknowledging a message only when it is told that it is stored.

gmqtt does the protocol. Connecting anew is ours: its own way gives up on refusals that pass (a broker whose password
file is just being replaced) and hangs where a broker closes before it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from edge_hub.address import Endpoint
from edge_hub.connecting import FIRST_BACKOFF_S, LAST_BACKOFF_S, LIBRARY_LOG, Client, Line, Outbox, unless_lost
from edge_hub.errors import BrokerUnreachableError
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import ROOT, Up

_log = logging.getLogger(__name__)

SUBSCRIPTIONS = tuple(f"{ROOT}/+/+/up/{kind.value}" for kind in Up)
RETAINED = tuple(f"{ROOT}/+/+/up/{kind.value}" for kind in (Up.BIRTH, Up.STATE))
# Two batches of the ingest, so that one can fill while the other is stored: the broker keeps the rest, and sends on as
# we acknowledge.
RECEIVE_MAXIMUM = 1000
_SESSION_EXPIRY_S = 14 * 86_400
_MAX_EXPIRY_S = 0xFFFF_FFFF

_PUBACK = 0x40
# Until a broker says how many it takes at once: nearly all that packets have numbers for.
_MOST_UNDER_WAY = 65_000
# An MQTT 3.1.1 broker knows no Receive Maximum; beyond this we stop reading until some are acknowledged.
_MOST_WAITING = 4 * RECEIVE_MAXIMUM
# Takes topic, payload, whether the broker had kept the message, its number on this connection, and what is to be called
# with such numbers once their messages are taken.
Handler = Callable[[str, bytes, bool, int, Callable[[Sequence[int]], None]], None]


def shared(group: str) -> tuple[str, ...]:
    """`SUBSCRIPTIONS`, of which a broker gives each message to one of those who ask under the same name of a group.

    It gives none of what it keeps (MQTT 5, section 4.8.2). mosquitto lets anybody subscribe to anything and looks at
    the access rules only when it delivers: a device that knew the name would be given a share, which is then dropped.
    So it must be a secret.
    """
    return tuple(f"$share/{group}/{topic}" for topic in SUBSCRIPTIONS)


class Link:
    """One connection at a time, until `run` is cancelled.

    Args:
        endpoint: The broker.
        client_id: Stable over restarts: the broker keeps what arrives meanwhile under this name.
        on_message: Called for each message; the broker is told that it was taken when this says so.
        on_up: Awaited after each connection, until that is lost; a failure of it is one of `run`.
        subscriptions: Topics with wildcards; none, to take what waits and no more.
        earlier: What an earlier run under this name may have asked for, which the broker remembers.
        clean: End what the broker keeps under this name, at once.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        client_id: str,
        on_message: Handler,
        on_up: Callable[[], Coroutine[Any, Any, None]],
        subscriptions: Sequence[str] = SUBSCRIPTIONS,
        earlier: Sequence[str] = SUBSCRIPTIONS,
        clean: bool = False,
    ) -> None:
        self.connections = 0
        self._endpoint = endpoint
        self._client_id = client_id
        self._on_message = on_message
        self._on_up = on_up
        self._subscriptions = subscriptions
        self._unwanted = tuple(topic for topic in earlier if topic not in subscriptions)
        self._clean = clean
        self._session: _Session | None = None
        self._version = MQTTv50
        self._first: asyncio.Future[None] | None = None

    @property
    def up(self) -> bool:
        """Connected and subscribed."""
        return self._session is not None and not self._session.lost.is_set()

    async def connected_once(self) -> None:
        """Return when the first connection stands.

        Raises:
            BrokerRefusedError: The broker refuses the user name or password.
            BrokerUnreachableError: It could not be reached.
            StorageError: A file of its encryption is missing or is none.
        """
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
        if not self.up:
            await self._first

    async def run(self) -> None:
        """Connect, and connect again, for ever."""
        backoff_s = FIRST_BACKOFF_S
        said = ""
        while True:
            try:
                session = await self._connect()
            except EdgeError as error:  # of the broker, or of a certificate's file
                if self._first is not None and not self._first.done():
                    self._first.set_exception(error)
                if str(error) != said:
                    _log.warning("%s; trying again until it answers", error)
                    said = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)
                continue
            self._session = session
            self.connections += 1
            if self.connections > 1:
                _log.warning("connected to the broker again")
            backoff_s, said = FIRST_BACKOFF_S, ""
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
            try:
                await unless_lost(session.lost, self._on_up())
                await session.lost.wait()
                _log.warning("the connection to the broker is lost")
            finally:
                self._session = None
                await session.close()

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, expires_in_s: float | None = None
    ) -> bool:
        """Hand a message to the broker with QoS 1; waits while too many are on the way.

        Returns:
            Whether there was a connection to write it to. It may still be lost with that connection.
        """
        session = self._session
        if session is None or session.lost.is_set():
            return False
        more: dict[str, Any] = {}
        if expires_in_s is not None:
            more["message_expiry_interval"] = min(max(int(expires_in_s), 1), _MAX_EXPIRY_S)
        return await session.publish(topic, payload, qos=1, retain=retain, **more)

    async def _connect(self) -> _Session:
        """A session, in the version spoken last or, where the broker does not answer that, in the other.

        A broker of MQTT 3.1.1 only says so by a code, or by hanging up.
        """
        try:
            return await self._connect_by(self._version)
        except BrokerUnreachableError as error:
            other = MQTTv311 if self._version == MQTTv50 else MQTTv50
            try:
                session = await self._connect_by(other)
            except BrokerUnreachableError:
                raise error from None
            self._version = other
            return session

    async def _connect_by(self, version: int) -> _Session:
        session = _Session(self._endpoint, self._client_id, self._on_message, clean=self._clean)
        try:
            await session.connect(version, self._subscriptions, self._unwanted)
        except BaseException:
            await session.close()
            raise
        return session


class _Session(Line):
    """One connection, whose messages are acknowledged when they are taken."""

    _client: _Client

    def __init__(self, endpoint: Endpoint, client_id: str, on_message: Handler, *, clean: bool) -> None:
        outbox = Outbox(_MOST_UNDER_WAY)
        client = _Client(
            client_id,
            self._take,
            clean_session=clean,
            persistent_storage=outbox,
            logger=LIBRARY_LOG,
            session_expiry_interval=0 if clean else _SESSION_EXPIRY_S,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        super().__init__(endpoint, client, outbox)
        self._handler = on_message
        self._waiting = 0

    async def connect(self, version: int, subscriptions: Sequence[str], unwanted: Sequence[str]) -> None:
        """Connect, and subscribe to what is wanted alone.

        Raises:
            BrokerRefusedError: The broker refuses the user name or password, or to subscribe.
            BrokerUnreachableError: It did not come to that otherwise.
            StorageError: A file of the endpoint's encryption is missing or is none.
        """
        await self._reach(version)
        self._outbox.limit = max(self._client.inflight_limit, 1)
        if unwanted:
            self._client.unsubscribe(list(unwanted))
        if subscriptions:
            await self._subscribe(subscriptions, allow=f"{ROOT}/#")

    def _take(self, topic: str, payload: bytes, retained: bool, number: int) -> None:
        self._waiting += 1
        # Again with each: the reader between us and the socket lets it read on by itself after it had much at once.
        if self._waiting >= _MOST_WAITING:
            self._client.read_no_more()
        self._handler(topic, payload, retained, number, self._release)

    def _release(self, numbers: Sequence[int]) -> None:
        """Tell the broker that these are taken, where it is still there."""
        before, self._waiting = self._waiting, self._waiting - len(numbers)
        if self.lost.is_set():
            return
        self._client.acknowledge(numbers)
        if self._waiting < _MOST_WAITING <= before:
            self._client.read_on()


class _Client(Client):
    """A client without gmqtt's own way of acknowledging.

    It would start a task for each message and write each acknowledgement alone, which costs as much as all the rest of
    the ingest; here a message is handed over as it is read, and a batch is acknowledged with one write.
    """

    def __init__(self, client_id: str, take: Callable[[str, bytes, bool, int], None], **more: Any) -> None:
        super().__init__(client_id, **more)

        def publish(number: int, payload: bytes, topic: str | bytes, properties: dict[str, Any]) -> None:
            # A topic that is no UTF-8 comes as bytes.
            take(topic if isinstance(topic, str) else ascii(topic), payload, bool(properties["retain"]), number)

        self._package_handler._handle_qos_1_publish_packet = publish  # noqa: SLF001 - see above
        # What a device sends with QoS 0 is taken as well; there is nothing to acknowledge.
        self.on_message = lambda _client, topic, payload, _qos, properties: publish(0, payload, topic, properties)

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Write acknowledgements of messages of QoS 1, in the order given: MQTT 5, section 3.4."""
        packets = bytearray()
        for number in filter(None, numbers):
            packets += bytes((_PUBACK, 2, number >> 8, number & 0xFF))
        if packets:
            self._connection.send_package(packets)

    def read_no_more(self) -> None:
        """Leave what comes in the kernel's buffer, so that the broker waits."""
        self._connection._transport.pause_reading()  # noqa: SLF001 - it has no public name

    def read_on(self) -> None:
        """Read again."""
        self._connection._transport.resume_reading()  # noqa: SLF001 - it has no public name

    @property
    def inflight_limit(self) -> int:
        """How many may be on the way to the broker."""
        return int(self._package_handler.id_generator._max) - 2  # noqa: SLF001 - it has no public name
