"""The hub as one process: what it consists of, in which order it starts, and how it ends.

Start: data directory, store, HTTP port, broker, ingest, connection, the rest. Stop: the other way round, each step
with a time limit, so that nothing is acknowledged that is not stored and nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hub.address import Endpoint, as_others_reach
from edge_hub.api import Credentials, EventView, Health
from edge_hub.auditing import Audit
from edge_hub.broker import BrokerBackend
from edge_hub.broker.external import ExternalBroker
from edge_hub.broker.iotcore import IotCore
from edge_hub.broker.mosquitto import Mosquitto, find_mosquitto
from edge_hub.census import Census
from edge_hub.commanding import Commander
from edge_hub.datadir import DataDir, Settings
from edge_hub.enrolment import enrol
from edge_hub.errors import StoreError
from edge_hub.feed import Feed, News, Topic
from edge_hub.ingest import Ingest
from edge_hub.interop.exporters import Exporters, Interop
from edge_hub.link import Link
from edge_hub.rowfeed import RowFeed
from edge_hub.store.records import Committed, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_hub.tasks import Tasks
from edge_hub.web.auth import Gate
from edge_sdk._version import __version__
from edge_sdk.address import Address, bind, refuse_unsafe
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

if TYPE_CHECKING:
    from edge_hub.store import Store

_log = logging.getLogger(__name__)

_TRIM_EVERY_S = 60.0
_ROLL_UP_EVERY_S = 5.0
_UPKEEP_PAUSE_S = 0.01  # let messages through in between
_STOP_STEP_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """How to run a hub.

    Attributes:
        data: The data directory.
        listen: Of the HTTP API.
        mqtt: Of the broker the hub starts.
        broker: A broker that runs already, instead.
        embedded: Start the embedded broker even where mosquitto is installed.
        insecure_listen: Listen beyond loopback although nothing is encrypted.
        interop: To whom else the fleet is shown.
        requests_per_s: Of one token from one address, to the API; 0 is as many as come.
    """

    data: Path
    listen: Address = field(default=Address(host="127.0.0.1", port=8080))
    mqtt: Address = field(default=Address(host="127.0.0.1", port=1883))
    broker: Endpoint | None = None
    embedded: bool = False
    insecure_listen: bool = False
    retention: Retention = field(default=Retention())
    interop: Interop = field(default=Interop())
    requests_per_s: float = 200.0


class Hub:
    """A running hub: `await start()`, then `await failure()` or anything else, then `await stop()`.

    Attributes:
        token: The administrator's, for the API.
    """

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.feed = Feed()
        self.started = time.time()
        self.token = ""
        self._tasks = Tasks()
        # What is open, the last opened first to be closed.
        self._closing: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._lock = contextlib.ExitStack()
        # Of upkeep, by what it is.
        self._troubles: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Of the HTTP API, for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.listen.host, self.config.listen.host)  # noqa: S104
        return f"http://{Address(host=host, port=self.config.listen.port)}"

    async def start(self) -> None:
        """Return once devices can connect and the API answers.

        Raises:
            EdgeError: It cannot start; nothing of it is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def failure(self) -> None:
        """Wait for ever, or raise what made a part of the hub fail that must not."""
        await self._tasks.failure()

    async def stop(self) -> None:
        """End everything in order; harmless when it runs no more."""
        while self._closing:
            name, close = self._closing.pop()
            try:
                await asyncio.wait_for(close(), _STOP_STEP_S)
            except Exception as error:  # noqa: BLE001 - the next step must come whatever this one says
                _log.warning("stopping the %s: %r", name, error)
        self._lock.close()

    async def _start(self) -> None:
        config = self.config
        refuse_unsafe(config.listen, what="the HTTP API", allowed=config.insecure_listen)
        if config.broker is None:
            refuse_unsafe(config.mqtt, what="the MQTT broker", allowed=config.insecure_listen)
        os.umask(0o077)
        data = DataDir(config.data)
        self._lock.enter_context(data.locked())
        self.token = data.secret("token")
        self.store: Store = SqliteStore(data.database)
        self._closing.append(("store", self.store.close))
        listener = bind(config.listen, what="the HTTP API", hint="stop what listens there, or choose another --listen")
        self._closing.append(("listener", _closer(listener.close)))

        self.broker: BrokerBackend = _broker(config, data)
        await self.broker.set_accounts(await self.store.accounts())
        self._closing.append(("broker", self.broker.stop))
        await self.broker.start()

        self.link = Link(
            endpoint=self.broker.endpoint,
            client_id=_client_id(data),
            # Both are made below: they publish through this link.
            on_message=lambda *message: self.ingest.take(*message),  # noqa: PLW0108
            on_up=lambda: self.commander.greet(),  # noqa: PLW0108
        )
        self.gate = Gate(self.token, self.store)
        self.audit = Audit(self.store)
        self.census = Census(self.store)
        self.rowfeed = RowFeed(census=self.census, feed=self.feed)
        self.ingest = Ingest(store=self.store, publish=self.link.publish, after=self._after)
        self.commander = Commander(store=self.store, publish=self.link.publish, feed=self.feed)
        self.exporters = Exporters(
            config.interop,
            data=data,
            broker=self.broker,
            store=self.store,
            commander=self.commander,
            audit=self.audit,
            hub=_client_id(data).removeprefix("edge-hub-"),
        )
        await self.exporters.admit()
        self._tasks.spawn("ingest", self.ingest.run())
        self._closing.append(("ingest", self._stop_ingest))
        self._tasks.spawn("births", self.commander.run_births())
        self._tasks.spawn("expiry", self.commander.run_expiry())
        self._tasks.spawn("roll-up", self._roll_up())
        self._tasks.spawn("rows", self.rowfeed.run())
        self._tasks.spawn("retention", self._retention())
        self._closing.append(("tasks", self._stop_upkeep))
        self._tasks.spawn("link", self.link.run())
        self._closing.append(("connection", lambda: self._tasks.stop("link", patience_s=_STOP_STEP_S)))
        await self.link.connected_once()
        for name, work in self.exporters.parts():
            self._tasks.spawn(name, work)
            self._closing.append((name, partial(self._tasks.stop, name, patience_s=_STOP_STEP_S)))

        from edge_hub.web.server import Server

        server = Server(self, listener)
        self._tasks.spawn("http", server.run())
        self._closing.append(("HTTP API", server.stop))
        await server.ready()
        data.write_settings(
            Settings(
                url=self.url,
                broker=self.broker.kind,
                mqtt_host=self.broker.for_devices.host,
                mqtt_port=self.broker.for_devices.port,
                mqtt_tls=self.broker.endpoint.tls,
            )
        )

    async def enrol(self, device: DeviceId, *, again: bool) -> Credentials:
        """Give a device an account at the broker; raises as `enrol_all`."""
        return (await self.enrol_all((device,), again=again))[0]

    async def enrol_all(self, devices: Sequence[DeviceId], *, again: bool) -> tuple[Credentials, ...]:
        """Give devices accounts at the broker, which then reads all of them once.

        Raises:
            EnrolledError: One has one, and `again` is false; those before it have theirs now.
            UsageError: The broker is not ours.
        """
        if not self.broker.enrols:
            raise UsageError(
                "this hub uses a broker of somebody else's, who makes its accounts",
                hint="create the user there and write the device's configuration by hand",
            )
        where = as_others_reach(self.broker.for_devices)
        try:
            return tuple(
                [
                    await enrol(
                        self.store, device, host=where.host, port=where.port, tls=self.broker.endpoint.tls, again=again
                    )
                    for device in devices
                ]
            )
        finally:
            await self.broker.set_accounts(await self.store.accounts())

    async def health(self) -> Health:
        """How it is now."""
        trouble = self.ingest.trouble or next(iter(self._troubles.values()), None)
        if not self.link.up:
            trouble = trouble or "not connected to the broker"
        counts = {}
        try:
            totals = await self.store.totals()
            counts = {
                "devices": totals.devices,
                "online": totals.online,
                "messages": totals.messages,
                "duplicates": totals.duplicates,
                "malformed": totals.malformed,
            }
        except StoreError as error:
            trouble = str(error)
        return Health(
            ok=trouble is None,
            version=__version__,
            broker=self.broker.kind,
            broker_running=self.broker.running,
            connected=self.link.up,
            trouble=trouble,
            **counts,
        )

    async def _after(self, committed: Committed) -> None:
        """Spread what a batch changed."""
        self.commander.born(committed.born)
        self.commander.finished(committed.finished)
        self.exporters.took(committed)
        if not self.feed.listeners:
            return
        for event in committed.events:
            self.feed.spread(News(topic=Topic.EVENT, id=event.id, body=EventView.of(event)))
        self.rowfeed.touch(committed.touched)

    async def _retention(self) -> None:
        retention = self.config.retention
        await self._upkeep("retention", lambda now: self.store.trim(retention, now=now), every_s=_TRIM_EVERY_S)

    async def _roll_up(self) -> None:
        await self._upkeep("roll-up", lambda now: self.store.roll_up(now=now), every_s=_ROLL_UP_EVERY_S)

    async def _upkeep(self, name: str, step: Callable[[float], Awaitable[int]], *, every_s: float) -> None:
        """Repeat a step of the store's until there is nothing to do, then wait."""
        while True:
            try:
                while await step(time.time()):  # noqa: ASYNC110 - nothing to wait for
                    await asyncio.sleep(_UPKEEP_PAUSE_S)
                self._troubles.pop(name, None)
            except StoreError as error:
                self._troubles[name] = str(error)
            await asyncio.sleep(every_s)

    async def _stop_ingest(self) -> None:
        await self._tasks.stop("ingest")
        await self.ingest.drain()

    async def _stop_upkeep(self) -> None:
        for name in ("retention", "rows", "roll-up", "expiry", "births"):
            await self._tasks.stop(name)


def _broker(config: HubConfig, data: DataDir) -> BrokerBackend:
    if config.broker is not None:
        return ExternalBroker(config.broker)
    if config.embedded or find_mosquitto() is None:
        if not config.embedded:
            _log.warning("mosquitto is not installed: the embedded broker serves this machine, without access control")
        return IotCore(address=config.mqtt, directory=data.broker)
    return Mosquitto(address=config.mqtt, directory=data.broker, hub_password=data.secret("broker-password"))


def _client_id(data: DataDir) -> str:
    """Stable, and different for each hub that may share an external broker."""
    return f"edge-hub-{hashlib.sha256(data.secret('token').encode() + b' client id').hexdigest()[:16]}"


def _closer(close: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def closing() -> None:
        close()

    return closing
