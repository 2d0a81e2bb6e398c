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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hub.address import Endpoint, as_others_reach
from edge_hub.api import Credentials, DeviceView, EventView, Health
from edge_hub.broker import BrokerBackend
from edge_hub.broker.external import ExternalBroker
from edge_hub.broker.iotcore import IotCore
from edge_hub.broker.mosquitto import Mosquitto, find_mosquitto
from edge_hub.commanding import Commander
from edge_hub.datadir import DataDir, Settings
from edge_hub.enrolment import enrol
from edge_hub.errors import StoreError
from edge_hub.feed import Feed, News, Topic
from edge_hub.ingest import Ingest
from edge_hub.interop.exporters import Exporters, Interop
from edge_hub.link import Link
from edge_hub.store.records import Committed, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_hub.tasks import Tasks
from edge_sdk._version import __version__
from edge_sdk.address import Address, bind, refuse_unsafe
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

if TYPE_CHECKING:
    from edge_hub.store import Store

_log = logging.getLogger(__name__)

_TRIM_EVERY_S = 60.0
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
    """

    data: Path
    listen: Address = field(default=Address(host="127.0.0.1", port=8080))
    mqtt: Address = field(default=Address(host="127.0.0.1", port=1883))
    broker: Endpoint | None = None
    embedded: bool = False
    insecure_listen: bool = False
    retention: Retention = field(default=Retention())
    interop: Interop = field(default=Interop())


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
        self._trouble: str | None = None

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
        self.ingest = Ingest(store=self.store, publish=self.link.publish, after=self._after)
        self.commander = Commander(store=self.store, publish=self.link.publish, feed=self.feed)
        self.exporters = Exporters(
            config.interop,
            data=data,
            broker=self.broker,
            store=self.store,
            commander=self.commander,
            hub=_client_id(data).removeprefix("edge-hub-"),
        )
        await self.exporters.admit()
        self._tasks.spawn("ingest", self.ingest.run())
        self._closing.append(("ingest", self._stop_ingest))
        self._tasks.spawn("births", self.commander.run_births())
        self._tasks.spawn("expiry", self.commander.run_expiry())
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
        """Give a device an account at the broker.

        Raises:
            EnrolledError: It has one, and `again` is false.
            UsageError: The broker is not ours.
        """
        if not self.broker.enrols:
            raise UsageError(
                "this hub uses a broker of somebody else's, who makes its accounts",
                hint="create the user there and write the device's configuration by hand",
            )
        where = as_others_reach(self.broker.for_devices)
        credentials = await enrol(
            self.store, device, host=where.host, port=where.port, tls=self.broker.endpoint.tls, again=again
        )
        await self.broker.set_accounts(await self.store.accounts())
        return credentials

    async def health(self) -> Health:
        """How it is now."""
        trouble = self.ingest.trouble or self._trouble
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
        for device in committed.touched:
            with contextlib.suppress(StoreError):
                record = await self.store.device(device)
                if record is not None:
                    self.feed.spread(News(topic=Topic.DEVICE, body=DeviceView.of(record)))

    async def _retention(self) -> None:
        while True:
            try:
                while await self.store.trim(self.config.retention, now=time.time()):  # noqa: ASYNC110 - nothing to wait for
                    await asyncio.sleep(0.01)  # let messages through in between
                self._trouble = None
            except StoreError as error:
                self._trouble = str(error)
            await asyncio.sleep(_TRIM_EVERY_S)

    async def _stop_ingest(self) -> None:
        await self._tasks.stop("ingest")
        await self.ingest.drain()

    async def _stop_upkeep(self) -> None:
        for name in ("retention", "expiry", "births"):
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
