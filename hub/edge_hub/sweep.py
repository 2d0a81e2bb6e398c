"""Sessions at the broker whose workers do not come back: emptied, and ended.

A broker gives them their share of the messages all the same. So somebody connects in their place, asks for no more,
stores what waits, and ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from edge_hub.address import Endpoint
from edge_hub.errors import BrokerError, StoreError
from edge_hub.ingest import Ingest, Release
from edge_hub.link import Link
from edge_hub.tasks import Tasks, within
from edge_hub.worker import TTL_S, client_id, shared_topics
from edge_sdk.wire import new_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge_hub.store.postgres import PostgresStore
    from edge_hub.store.records import Committed

_log = logging.getLogger(__name__)

_FIRST_S = 2.0
_EVERY_S = 30.0
# Whoever is only being restarted is back within this.
_PATIENCE_S = 10.0
_QUIET_S = 1.0
_CONNECT_S = 15.0
_MOST_S = 600.0


class Sweep:
    """Empties what is left behind, until cancelled.

    Args:
        store: Of the leases, and where messages go.
        kind: Of the leases.
        ours: Numbers below this one are of workers that this process starts again.
        alone: This process takes all messages itself; else it only begins while some worker is there to take them.
        endpoint: How the worker with a number connects.
        after: Awaited with what each batch changed.
    """

    def __init__(
        self,
        *,
        store: PostgresStore,
        kind: str,
        ours: int,
        alone: bool,
        endpoint: Callable[[int], Endpoint],
        after: Callable[[Committed], Awaitable[None]],
    ) -> None:
        self._store = store
        self._kind = kind
        self._ours = ours
        self._alone = alone
        self._endpoint = endpoint
        self._after = after

    async def run(self) -> None:
        """Look now and then."""
        while True:
            await asyncio.sleep(_FIRST_S)
            try:
                left = await self._left()
                for slot in left or ():
                    await self._empty(slot)
            except (StoreError, BrokerError, asyncio.TimeoutError) as error:
                _log.debug("what workers left behind has to wait: %r", error)
                left = []
            if left is not None:
                await asyncio.sleep(_EVERY_S)

    async def _left(self) -> list[int] | None:
        """Numbers that nobody comes back for; None while no worker is there."""
        now = time.time()
        leases = await self._store.leases(self._kind)
        if not self._alone and all(lease.until < now for lease in leases):
            return None
        return [lease.slot for lease in leases if lease.slot >= self._ours and lease.until < now - _PATIENCE_S]

    async def _empty(self, slot: int) -> None:
        holder = new_token()
        if not await self._store.take_over(self._kind, holder, slot=slot, now=time.time(), ttl_s=_MOST_S + TTL_S):
            return
        identity = await self._store.identity()
        name = client_id(identity, self._kind, slot)
        try:
            await within(self._take_all(slot, name, shared_topics(identity)), _MOST_S)
            await self._end(slot, name)
        except BaseException:
            with contextlib.suppress(StoreError):
                await self._store.release(self._kind, holder)
            raise
        await self._store.forget(self._kind, holder)
        _log.info("worker %d did not come back: what the broker had for it is stored", slot)

    async def _take_all(self, slot: int, name: str, earlier: tuple[str, ...]) -> None:
        """Store what waits, until nothing more comes for a while."""
        heard = time.monotonic()
        ingest: Ingest

        def take(topic: str, payload: bytes, retained: bool, number: int, release: Release) -> None:
            nonlocal heard
            heard = time.monotonic()
            ingest.take(topic, payload, retained, number, release)

        link = Link(
            endpoint=self._endpoint(slot),
            client_id=name,
            on_message=take,
            on_up=_nothing,
            subscriptions=(),
            earlier=earlier,
        )
        ingest = Ingest(store=self._store, publish=link.publish, after=self._after)
        tasks = Tasks()
        tasks.spawn("ingest", ingest.run())
        tasks.spawn("link", link.run())
        try:
            await within(link.connected_once(), _CONNECT_S)
            while ingest.waiting or time.monotonic() - heard < _QUIET_S:  # noqa: ASYNC110 - it is silence that is awaited
                await asyncio.sleep(_QUIET_S / 4)
        finally:
            await tasks.stop_all()
            await ingest.drain()

    async def _end(self, slot: int, name: str) -> None:
        link = Link(
            endpoint=self._endpoint(slot),
            client_id=name,
            on_message=lambda *message: message[-1]((message[-2],)),
            on_up=_nothing,
            subscriptions=(),
            clean=True,
        )
        tasks = Tasks()
        tasks.spawn("link", link.run())
        try:
            await within(link.connected_once(), _CONNECT_S)
        finally:
            await tasks.stop_all()


async def _nothing() -> None:
    """There is nobody to greet."""
