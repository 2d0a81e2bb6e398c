"""What the hub's own link and the sessions of exporters share of one MQTT connection: gmqtt, tamed.

When to connect and what a connection is for are theirs to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import gmqtt
from gmqtt import MQTTConnectError, Subscription
from gmqtt.storage import PersistentStorage

from edge_hub.address import Endpoint
from edge_hub.errors import BrokerRefusedError, BrokerUnreachableError

# The library reports each lost connection several times over; what matters is logged by us, once.
LIBRARY_LOG = logging.getLogger(f"{__name__}.gmqtt")
LIBRARY_LOG.setLevel(logging.CRITICAL)
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

# Of each step of connecting.
CONNECT_S = 10.0
# Pauses before connecting anew, each twice the one before.
FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 15.0
_PUBLISH_S = 10.0
_KEEPALIVE_S = 30
_DISCONNECT_S = 3.0
_FAILED = 0x80  # MQTT 3.1.1 and 5, 3.9.3: codes from here on grant no subscription
# MQTT 3.1.1 code 4 and 5, MQTT 5 codes 134 and 135: user name or password, not authorised.
_REFUSALS = frozenset({4, 5, 134, 135})


class Client(gmqtt.Client):  # type: ignore[misc]  # gmqtt has no types
    """gmqtt's client without its own way of connecting again."""

    def reach(self, endpoint: Endpoint, version: int) -> Awaitable[Any]:
        """Connect, once it is awaited.

        Raises:
            StorageError: A file of the endpoint's encryption is missing or is none.
        """
        if endpoint.username is not None:
            self.set_auth_credentials(endpoint.username, endpoint.password)
        connecting: Awaitable[Any] = self.connect(
            endpoint.address.host,
            endpoint.address.port,
            ssl=endpoint.context() or False,
            keepalive=_KEEPALIVE_S,
            version=version,
        )
        return connecting

    async def part(self) -> None:
        """Say goodbye, so that no will is published, and let go."""
        with contextlib.suppress(Exception):  # whatever the library makes of a dead connection, it is over
            await asyncio.wait_for(self.disconnect(), _DISCONNECT_S)

    async def reconnect(self, delay: bool = False) -> None:
        """Never: whoever has the connection makes another."""


class Outbox(PersistentStorage):  # type: ignore[misc]  # gmqtt has no types
    """What is on the way to the broker, with a door that opens when there is room.

    Attributes:
        limit: So many at once.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._left = asyncio.Event()

    def remove_message_by_mid(self, mid: int) -> None:
        """The broker has it."""
        super().remove_message_by_mid(mid)
        self._left.set()

    @property
    def full(self) -> bool:
        """One more must wait."""
        return len(self._messages) >= self.limit

    async def room(self) -> None:
        """Return when one more may go."""
        while self.full:
            self._left.clear()
            await self._left.wait()


class Line:
    """One connection, from its birth to its loss or `close`.

    Args:
        endpoint: The broker.
        client: Not connected yet.
        outbox: Where it keeps what is on the way.

    Attributes:
        lost: There is none any more.
    """

    def __init__(self, endpoint: Endpoint, client: Client, outbox: Outbox) -> None:
        self.lost = asyncio.Event()
        self._endpoint = endpoint
        self._where = str(endpoint.address)
        self._client = client
        self._outbox = outbox
        self._granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        client.on_disconnect = lambda *_: self.lost.set()
        client.on_subscribe = self._subscribed

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, **more: Any) -> bool:
        """Write a message; with QoS 1 once there is room for it on the way.

        Args:
            topic: Of the message.
            payload: Of the message.
            qos: 0 or 1.
            retain: The broker is to keep it.
            more: Properties of MQTT 5, as gmqtt calls them.

        Returns:
            Whether there was a connection to write it to. It may still be lost with that connection.
        """
        # Receive Maximum is the broker's word on how many may be on the way; gmqtt raises beyond it.
        deadline = time.monotonic() + _PUBLISH_S
        while qos and self._outbox.full:  # again: others waited for the same room
            if not await unless_lost(self.lost, self._outbox.room(), max(0.0, deadline - time.monotonic())):
                return False
        if self.lost.is_set():
            return False
        try:
            self._client.publish(topic, payload, qos=qos, retain=retain, **more)
        except OverflowError:  # no packet number is free
            return False
        return True

    async def flush(self) -> bool:
        """Wait until the broker has taken all that was published with QoS 1; whether it has."""
        return await unless_lost(self.lost, self._outbox.wait_empty(), _PUBLISH_S)

    async def close(self) -> None:
        """Say goodbye, so that no will is published, and let go."""
        self.lost.set()
        await self._client.part()

    async def _reach(self, version: int) -> None:
        """Connect.

        Raises:
            BrokerRefusedError: The broker refuses the user name or password.
            BrokerUnreachableError: It did not come to that otherwise.
            StorageError: A file of the endpoint's encryption is missing or is none.
        """
        await self._answered(self._client.reach(self._endpoint, version))

    async def _subscribe(self, topics: Sequence[str], *, allow: str) -> None:
        """Ask for topics with QoS 1.

        Args:
            topics: With wildcards.
            allow: What the broker has to allow for it, in words for people.

        Raises:
            BrokerRefusedError: The broker does not grant them all.
            BrokerUnreachableError: It does not answer.
        """
        self._client.subscribe([Subscription(topic, qos=1) for topic in topics])
        await self._answered(self._granted)
        if any(code >= _FAILED for code in self._granted.result()):
            raise BrokerRefusedError(
                "the broker does not let the hub subscribe", where=self._where, hint=f"allow it {allow}"
            )

    async def _answered(self, asked: Awaitable[Any]) -> None:
        """Await what the broker has to answer.

        Raises:
            BrokerRefusedError: It refuses the user name or password.
            BrokerUnreachableError: There is no answer.
        """
        trouble: Exception | None = None
        try:
            if await unless_lost(self.lost, asked, CONNECT_S):
                return
        except MQTTConnectError as cause:
            refused = getattr(cause, "_code", 0) in _REFUSALS
            kind = BrokerRefusedError if refused else BrokerUnreachableError
            hint = "check user name and password" if refused else "check the broker's log"
            raise kind(f"the broker refuses the hub: {cause}", where=self._where, hint=hint) from cause
        except (OSError, UnicodeError, asyncio.TimeoutError) as cause:  # Unicode: of a name that no host can have
            trouble = cause
        silence = "it hung up" if self.lost.is_set() else f"no answer within {CONNECT_S:.0f} s"
        raise BrokerUnreachableError(
            f"no MQTT broker answers: {str(trouble or '') or silence}",
            where=self._where,
            hint="does it run, and is the address right?",
        ) from trouble

    def _subscribed(self, _client: gmqtt.Client, _mid: int, granted: tuple[int, ...], _properties: Any) -> None:
        if not self._granted.done():
            self._granted.set_result(granted)


async def unless_lost(lost: asyncio.Event, work: Awaitable[Any], patience_s: float | None = None) -> bool:
    """Await work, but not beyond the loss of a connection or the patience; whether it came about."""
    task, losing = asyncio.ensure_future(work), asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait((task, losing), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        losing.cancel()
        await asyncio.gather(task, losing, return_exceptions=True)
