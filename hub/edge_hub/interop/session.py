"""One MQTT connection of an exporter, with a will, and the way to have another once it is lost.

The hub's own link keeps a session at the broker and acknowledges after commit; an exporter wants the opposite: a clean
session that dies with its connection, whose will says so. gmqtt does the protocol, MQTT 3.1.1, which every broker
speaks; connecting anew is ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gmqtt import Message, MQTTConnectError, Subscription
from gmqtt.mqtt.constants import MQTTv311

from edge_hub.address import Endpoint
from edge_hub.connecting import LIBRARY_LOG, Client, Outbox, unless_lost
from edge_hub.errors import BrokerRefusedError, BrokerUnreachableError
from edge_sdk.errors import EdgeError

_log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_PUBLISH_S = 10.0
# mosquitto's default of `max_inflight_messages` is 20; it holds back what is beyond, so this only bounds our memory.
_MOST_UNDER_WAY = 100
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 15.0
_FAILED = 0x80  # MQTT 3.1.1, 3.9.3: the broker grants no such subscription

# Takes topic, payload, and whether the broker had kept the message. It must not block.
Heard = Callable[[str, bytes, bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes, with QoS 1, when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = False


class Session:
    """One connection, from `open` to its loss or `close`.

    Args:
        endpoint: The broker.
        client_id: Of this connection alone: a second one with the same throws it off.
        will: Published by the broker if the connection is lost.
        topics: Subscribed with QoS 1.
        heard: Called with each message.
    """

    def __init__(
        self, *, endpoint: Endpoint, client_id: str, will: Will | None, topics: Sequence[str], heard: Heard
    ) -> None:
        self.lost = asyncio.Event()
        self._endpoint = endpoint
        self._topics = tuple(topics)
        self._heard = heard
        self._granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._outbox = Outbox(_MOST_UNDER_WAY)
        self._client = Client(
            client_id,
            clean_session=True,
            will_message=None if will is None else Message(will.topic, will.payload, qos=1, retain=will.retain),
            persistent_storage=self._outbox,
            logger=LIBRARY_LOG,
        )
        self._client.on_message = self._take
        self._client.on_disconnect = lambda *_: self.lost.set()
        self._client.on_subscribe = self._subscribed

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            BrokerError: It did not come to that; nothing is left open.
        """
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> bool:
        """Write a message; with QoS 1 once fewer than a hundred are on the way.

        Returns:
            Whether there was a connection to write it to. It may still be lost with that connection.
        """
        if qos and self._outbox.full and not await unless_lost(self.lost, self._outbox.room(), _PUBLISH_S):
            return False
        if self.lost.is_set():
            return False
        try:
            self._client.publish(topic, payload, qos=qos, retain=retain)
        except OverflowError:  # no packet number is free
            return False
        return True

    async def flush(self) -> bool:
        """Wait until the broker has taken all that was published with QoS 1; whether it has."""
        return await unless_lost(self.lost, self._outbox.wait_empty(), _PUBLISH_S)

    async def close(self) -> None:
        """Say goodbye, so that the will is not published, and let go."""
        self.lost.set()
        await self._client.part()

    async def _open(self) -> None:
        endpoint, where = self._endpoint, str(self._endpoint.address)
        connecting = self._client.reach(endpoint, MQTTv311)
        try:
            there = await unless_lost(self.lost, connecting, _CONNECT_S)
            if there and self._topics:
                self._client.subscribe([Subscription(topic, qos=1) for topic in self._topics])
                there = await unless_lost(self.lost, self._granted, _CONNECT_S)
        except MQTTConnectError as cause:
            raise BrokerRefusedError(
                f"the broker refuses the hub: {cause}", where=where, hint="check user name and password"
            ) from cause
        except OSError as cause:
            raise BrokerUnreachableError(f"no MQTT broker answers: {cause}", where=where) from cause
        if not there:
            raise BrokerUnreachableError("the broker does not answer, or hung up", where=where)
        if self._topics and any(code >= _FAILED for code in self._granted.result()):
            raise BrokerRefusedError(
                "the broker does not let the hub subscribe", where=where, hint=f"allow it {', '.join(self._topics)}"
            )

    def _take(self, _client: Client, topic: str | bytes, payload: bytes, _qos: int, properties: dict[str, Any]) -> int:
        if isinstance(topic, str):  # one that is no UTF-8 comes as bytes, and is none of ours
            self._heard(topic, payload, bool(properties.get("retain")))
        return 0

    def _subscribed(self, _client: Client, _mid: int, granted: tuple[int, ...], _properties: Any) -> None:
        if not self._granted.done():
            self._granted.set_result(granted)


# Makes a session that is not open yet, from its will, its topics and who hears them.
Connect = Callable[[Will | None, Sequence[str], Heard], Session]


async def again_and_again(what: str, once: Callable[[], Awaitable[None]]) -> None:
    """Call `once` for ever: it returns when its connection is over, and the next follows after a growing pause.

    Args:
        what: Whose connection, for the log.
        once: Raises a `BrokerError` where it comes to no connection; each different reason is logged once in a row.
    """
    backoff_s, said = _FIRST_BACKOFF_S, ""
    while True:
        begun = time.monotonic()
        try:
            await once()
            said = ""
        except EdgeError as error:  # of the broker, or of a certificate's file
            if str(error) != said:
                _log.warning("%s: %s; trying again until it answers", what, error)
                said = str(error)
        if time.monotonic() - begun > _LAST_BACKOFF_S:
            backoff_s = _FIRST_BACKOFF_S
        await asyncio.sleep(backoff_s)
        backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
