"""One worker of a hub that outgrew its process: takes its share of what devices send, and stores it.

Nothing that matters is in its memory. The broker keeps what was not acknowledged under the worker's client id, which
comes from a lease; the store knows each number; so after a kill the next process with that lease goes on where this one
stopped. It ends when it is asked to, when the process that started it is gone, and when its lease is another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_hub.address import Endpoint
from edge_hub.broker.accounts import worker_user
from edge_hub.errors import StoreError
from edge_hub.ingest import Ingest
from edge_hub.link import Link, shared
from edge_hub.pulse import PULSE_S, Pulse, teller
from edge_hub.relay import Relay
from edge_hub.store.postgres import PostgresStore
from edge_hub.store.records import Committed
from edge_hub.tasks import Tasks, within
from edge_sdk.address import Address
from edge_sdk.cli.output import say
from edge_sdk.errors import EdgeError
from edge_sdk.wire import Count, Text, Wire, decode

_log = logging.getLogger(__name__)

MAX_WORKERS = 64
TTL_S = 15.0
RENEW_S = 4.0
_ASK_EVERY_S = 0.5
# One stores, one renews the lease, one tells the others.
_CONNECTIONS = 3
_STOP_S = 6.0
_MAX_CONFIG_BYTES = 64 * 1024


class WorkerConfig(Wire, frozen=True, kw_only=True):
    """What a worker is started with; it comes through its standard input, for it holds passwords.

    Attributes:
        store: URL of the database.
        ca, certificate, key: As in `Endpoint`.
        own_users: The broker is the hub's own, which knows each worker by a user name of its own.
        kind: Of the lease: numbers are of one broker.
        holder: Who it is, for the lease.
        slots: How many workers there may be.
        log: Level of its log.
    """

    store: Text
    host: Text
    port: Count
    username: Text | None = None
    password: Text | None = None
    tls: bool = False
    ca: Text | None = None
    certificate: Text | None = None
    key: Text | None = None
    own_users: bool = False
    kind: Text
    holder: Text
    slots: Count
    log: Text = "info"

    def endpoint(self, slot: int) -> Endpoint:
        """How the worker with this number connects."""
        endpoint = Endpoint(
            address=Address(host=self.host, port=self.port),
            username=self.username,
            password=self.password,
            tls=self.tls,
            ca=_path(self.ca),
            certificate=_path(self.certificate),
            key=_path(self.key),
        )
        return worker_endpoint(endpoint, slot, own_users=self.own_users)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def worker_endpoint(endpoint: Endpoint, slot: int, *, own_users: bool) -> Endpoint:
    """How the worker with this number connects, where the hub itself connects like that."""
    return replace(endpoint, username=worker_user(slot)) if own_users else endpoint


def client_id(identity: str, kind: str, slot: int) -> str:
    """Under which the broker keeps what a worker did not acknowledge: the same for whoever has this number next."""
    digest = hashlib.sha256(f"{identity} {kind}".encode()).hexdigest()[:12]
    return f"edge-hub-{digest}-{slot}"


def shared_topics(identity: str) -> tuple[str, ...]:
    """What all workers of a store subscribe to together, under a name that is nobody else's to know."""
    return shared("hub-" + hashlib.sha256(f"{identity} share".encode()).hexdigest()[:32])


class Worker:
    """A running worker.

    Args:
        config: What to do.
        tell: Called with how it is, when that changes for the better and every few seconds.
    """

    def __init__(self, config: WorkerConfig, tell: Callable[[Pulse], None]) -> None:
        self._config = config
        self._tell = tell
        self._tasks = Tasks()
        self._ends = asyncio.Event()
        self._slot: int | None = None
        self._link: Link | None = None
        self._ingest: Ingest | None = None
        self._not_renewed: str | None = None

    def end(self) -> None:
        """Store what is under way, and end."""
        self._ends.set()

    async def run(self) -> None:
        """Work until it is to end.

        Raises:
            EdgeError: It cannot go on; whoever started it starts it again.
        """
        self._tasks.spawn("pulse", self._beat())
        try:
            store = await PostgresStore.open(self._config.store, connections=_CONNECTIONS)
            try:
                slot = await self._lease(store)
                if slot is not None:
                    await self._work(store, slot)
            finally:
                await store.close()
        finally:
            await self._tasks.stop_all()

    def pulse(self) -> Pulse:
        """How it is now."""
        if self._link is None or self._ingest is None:
            return Pulse.of(None, "it has no number yet", 0)
        trouble = self._ingest.trouble
        if not self._link.up:
            trouble = trouble or "not connected to the broker"
        return Pulse.of(self._slot, trouble or self._not_renewed, self._ingest.waiting)

    async def _beat(self) -> None:
        while True:
            self._tell(self.pulse())
            await asyncio.sleep(PULSE_S)

    async def _lease(self, store: PostgresStore) -> int | None:
        """A number, as soon as one is free; None where the end came first."""
        config = self._config
        while not self._ends.is_set():
            slot = await store.lease(config.kind, config.holder, slots=config.slots, now=time.time(), ttl_s=TTL_S)
            if slot is not None:
                return slot
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._ends.wait(), _ASK_EVERY_S)
        return None

    async def _work(self, store: PostgresStore, slot: int) -> None:
        relay = Relay(store.database)
        self._slot = slot

        async def after(committed: Committed) -> None:
            relay.tell(committed)

        async def on_up() -> None:
            _log.info("worker %d takes its share", slot)
            self._tell(self.pulse())

        identity = await store.identity()
        link = self._link = Link(
            endpoint=self._config.endpoint(slot),
            client_id=client_id(identity, self._config.kind, slot),
            on_message=lambda *message: ingest.take(*message),  # noqa: PLW0108 - it is made below
            on_up=on_up,
            subscriptions=shared_topics(identity),
        )
        ingest = self._ingest = Ingest(store=store, publish=link.publish, after=after)
        self._tasks.spawn("relay", relay.run())
        self._tasks.spawn("ingest", ingest.run())
        self._tasks.spawn("lease", self._keep(store, slot))
        self._tasks.spawn("link", link.run())
        # What the one before told nobody of, for it was killed in between, is not known.
        relay.tell_missed()
        ending = asyncio.ensure_future(self._ends.wait())
        failing = asyncio.ensure_future(self._tasks.failure())
        try:
            await asyncio.wait({ending, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
        finally:
            for each in (ending, failing):
                each.cancel()
            await asyncio.gather(ending, failing, return_exceptions=True)
            # No more comes, what is there is stored, and then the number is somebody else's.
            await self._tasks.stop("link", patience_s=_STOP_S)
            await self._tasks.stop("ingest")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ingest.drain(), _STOP_S)
            await self._tasks.stop_all()
            with contextlib.suppress(StoreError):
                await store.release(self._config.kind, self._config.holder)

    async def _keep(self, store: PostgresStore, slot: int) -> None:
        """Renew the lease; end where it is lost, for then another process is this worker."""
        config = self._config
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                got = await store.lease(config.kind, config.holder, slots=config.slots, now=time.time(), ttl_s=TTL_S)
            except StoreError as error:
                # Who cannot ask can't store either, and acknowledges nothing; nobody else gets the number meanwhile.
                _log.debug("the lease is not renewed: %s", error)
                self._not_renewed = f"its number is not renewed: {error}"
                continue
            self._not_renewed = None
            if got != slot:
                _log.warning("worker %d lost its number to another process", slot)
                self.end()
                return


def main() -> None:
    """Run one, as configured by the first line of standard input, until that is closed or a signal comes."""
    try:
        line = sys.stdin.buffer.readline(_MAX_CONFIG_BYTES)
        config = decode(line, WorkerConfig, where="standard input", max_bytes=_MAX_CONFIG_BYTES)
        logging.basicConfig(
            level=config.log.upper(),
            stream=sys.stderr,
            format="%(asctime)s %(levelname)-7s %(message)s",
            datefmt="%H:%M:%S",
        )
        asyncio.run(_run(config))
    except EdgeError as error:
        say(f"edge: a worker cannot go on: {error}")
        sys.exit(1)


async def _run(config: WorkerConfig) -> None:
    worker = Worker(config, teller(sys.stdout.fileno()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.end)
    # The pipe ends with the hub, however that ends.
    threading.Thread(target=_await_end_of_input, args=(loop, worker.end), daemon=True).start()
    await worker.run()


def _await_end_of_input(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    # Not through `sys.stdin`: at the end of the interpreter nobody may be holding its lock.
    while os.read(0, 1):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: then the end is here already
        loop.call_soon_threadsafe(end)
