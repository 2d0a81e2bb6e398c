"""What the hub's own link and the sessions of exporters share of one MQTT connection: gmqtt, tamed.

When to connect and what a connection is for are theirs to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

import gmqtt
from gmqtt.storage import PersistentStorage

from edge_hub.address import Endpoint

# The library reports each lost connection several times over; what matters is logged by us, once.
LIBRARY_LOG = logging.getLogger(f"{__name__}.gmqtt")
LIBRARY_LOG.setLevel(logging.CRITICAL)
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

_KEEPALIVE_S = 30
_DISCONNECT_S = 3.0


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
