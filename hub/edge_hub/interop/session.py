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

from gmqtt import Message
from gmqtt.mqtt.constants import MQTTv311

from edge_hub.address import Endpoint
from edge_hub.connecting import FIRST_BACKOFF_S, LAST_BACKOFF_S, LIBRARY_LOG, Client, Line, Outbox
from edge_sdk.errors import EdgeError

_log = logging.getLogger(__name__)

# mosquitto's default of `max_inflight_messages` is 20; it holds back what is beyond, so this only bounds our memory.
_MOST_UNDER_WAY = 100

# Takes topic, payload, and whether the broker had kept the message. It must not block.
Heard = Callable[[str, bytes, bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes, with QoS 1, when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = False


class Session(Line):
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
        outbox = Outbox(_MOST_UNDER_WAY)
        client = Client(
            client_id,
            clean_session=True,
            will_message=None if will is None else Message(will.topic, will.payload, qos=1, retain=will.retain),
            persistent_storage=outbox,
            logger=LIBRARY_LOG,
        )
        super().__init__(endpoint, client, outbox)
        self._topics = tuple(topics)
        self._heard = heard
        client.on_message = self._take

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            BrokerError: It did not come to that; nothing is left open.
            StorageError: A file of the endpoint's encryption is missing or is none.
        """
        try:
            await self._reach(MQTTv311)
            if self._topics:
                await self._subscribe(self._topics, allow=", ".join(self._topics))
        except BaseException:
            await self.close()
            raise

    def _take(self, _client: Client, topic: str | bytes, payload: bytes, _qos: int, properties: dict[str, Any]) -> int:
        if isinstance(topic, str):  # one that is no UTF-8 comes as bytes, and is none of ours
            self._heard(topic, payload, bool(properties.get("retain")))
        return 0


# Makes a session that is not open yet, from its will, its topics and who hears them.
Connect = Callable[[Will | None, Sequence[str], Heard], Session]


async def again_and_again(what: str, once: Callable[[], Awaitable[None]]) -> None:
    """Call `once` for ever: it returns when its connection is over, and the next follows after a growing pause.

    Args:
        what: Whose connection, for the log.
        once: Raises a `BrokerError` where it comes to no connection; each different reason is logged once in a row.
    """
    backoff_s, said = FIRST_BACKOFF_S, ""
    while True:
        begun = time.monotonic()
        try:
            await once()
            said = ""
        except EdgeError as error:  # of the broker, or of a certificate's file
            if str(error) != said:
                _log.warning("%s: %s; trying again until it answers", what, error)
                said = str(error)
        if time.monotonic() - begun > LAST_BACKOFF_S:
            backoff_s = FIRST_BACKOFF_S
        await asyncio.sleep(backoff_s)
        backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
