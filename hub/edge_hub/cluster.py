"""A hub of several processes, and of several machines: what it takes beside the one process.

With a store in PostgreSQL a hub is one of any number: they elect who schedules, tell each other what changed, and may
each have workers that do the storing. Then this process stores only what the broker kept, which it gives no worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hub.address import Endpoint
from edge_hub.errors import StoreError
from edge_hub.relay import Bulletin, Relay, recall
from edge_hub.scheduler import Duty, Scheduler
from edge_hub.store.records import Committed
from edge_hub.sweep import Sweep
from edge_hub.tasks import within
from edge_hub.worker import MAX_WORKERS, WorkerConfig, worker_endpoint
from edge_hub.workers import Workers
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId

if TYPE_CHECKING:
    from edge_hub.store.postgres import PostgresStore

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What the rest of this process does for the cluster.

    Attributes:
        resend: Sends a device what it has not answered.
        connected: There is a broker to send it through.
        spread: Called with what other processes stored, while somebody here wants to know.
        wanted: Whether somebody does.
        late_wanted: Whether somebody wants telemetry of the past.
        missed: Called when something is not known to whoever listens.
    """

    resend: Callable[[DeviceId], Awaitable[None]]
    connected: Callable[[], bool]
    spread: Callable[[Committed], None]
    wanted: Callable[[], bool]
    late_wanted: Callable[[], bool]
    missed: Callable[[], None]


class Cluster:
    """This process's part in it.

    Args:
        store: Theirs together.
        holder: Who this is; the same after a restart.
        neighbours: The rest of this process.
        duties: What one process at a time does; greeting devices that came up is added.
    """

    def __init__(
        self, *, store: PostgresStore, holder: str, neighbours: Neighbours, duties: Mapping[str, Duty]
    ) -> None:
        self.relay = Relay(store.database, self._hear)
        self.scheduler = Scheduler(store=store, holder=holder, duties={**duties, "births": self._greet})
        self._store = store
        self._neighbours = neighbours
        self._came_up = asyncio.Event()

    def stored(self, committed: Committed) -> None:
        """This process stored something."""
        self.relay.tell(committed)
        if committed.born:
            self._came_up.set()

    async def _hear(self, bulletin: Bulletin) -> None:
        """Another process says that something changed."""
        if bulletin.born or bulletin.missed:
            self._came_up.set()
        if bulletin.missed:
            self._neighbours.missed()
        elif bulletin.finished or self._neighbours.wanted():
            try:
                self._neighbours.spread(await recall(self._store, bulletin, late=self._neighbours.late_wanted()))
            except EdgeError as error:
                _log.debug("news are not read: %s", error)
                self._neighbours.missed()

    async def _greet(self) -> None:
        """Send their orders to devices that came up, until cancelled. Who came up is in the store until it was sent."""
        while True:
            self._came_up.clear()
            try:
                births = await self._store.births() if self._neighbours.connected() else ()
                for device, turn in births:
                    await self._neighbours.resend(device)
                    if self._neighbours.connected():
                        await self._store.greeted(device, turn)
            except StoreError as error:
                _log.warning("orders wait: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            if not births:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._came_up.wait(), _LOOK_EVERY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How the workers of a hub share what comes from its broker.

    Attributes:
        store: URL of the database.
        endpoint: How the hub itself reaches the broker.
        own: The broker is the hub's own: then the workers are its own, too, and each has a name of its own there.
        holder: Who the hub is.
    """

    store: str
    endpoint: Endpoint
    own: bool
    holder: str

    @property
    def kind(self) -> str:
        """Of the leases: numbers are of one broker."""
        return lease_kind(self.holder if self.own else str(self.endpoint.address))

    def workers(self, count: int, *, log: str) -> Workers:
        """So many of them; `log` is the level of their logs."""
        endpoint = self.endpoint
        return Workers(
            tuple(
                WorkerConfig(
                    store=self.store,
                    host=endpoint.address.host,
                    port=endpoint.address.port,
                    username=endpoint.username,
                    password=endpoint.password,
                    tls=endpoint.tls,
                    ca=_text(endpoint.ca),
                    certificate=_text(endpoint.certificate),
                    key=_text(endpoint.key),
                    own_users=self.own,
                    kind=self.kind,
                    holder=f"{self.holder}:{number}",
                    slots=count if self.own else MAX_WORKERS,
                    log=log,
                )
                for number in range(count)
            )
        )

    def sweep(self, store: PostgresStore, workers: int, after: Callable[[Committed], Awaitable[None]]) -> Duty:
        """Emptying what workers left behind, as a duty of a hub with so many."""
        return Sweep(
            store=store,
            kind=self.kind,
            # Numbers below are started again; and somebody must be there to take what comes from now on.
            ours=workers if self.own else 0,
            alone=workers == 0,
            endpoint=lambda slot: worker_endpoint(self.endpoint, slot, own_users=self.own),
            after=after,
        ).run


def lease_kind(where: str) -> str:
    """Of the leases of the workers at one broker."""
    return f"worker:{where}"


async def known_workers(store: PostgresStore, holder: str) -> int:
    """How many workers this hub's own broker may know: those of earlier runs, too."""
    return 1 + max((lease.slot for lease in await store.leases(lease_kind(holder))), default=-1)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
