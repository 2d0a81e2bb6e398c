"""The hub as one process: what it consists of, in which order it starts, and how it ends.

Start: data directory, store, HTTP port, broker, ingest, connection, the rest. Stop: the other way round, each step
with a time limit, so that nothing is acknowledged that is not stored and nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edge_hub.address import Endpoint, as_others_reach, as_we_reach
from edge_hub.alerts.alerting import Alerting, Hands
from edge_hub.alerts.delivery import Delivery, Way
from edge_hub.alerts.views import AlertView
from edge_hub.alerts.ways import Topic as AlertTopic
from edge_hub.alerts.ways import Webhook
from edge_hub.api import Credentials, EventView, Health
from edge_hub.api_admin import AuditNews
from edge_hub.auditing import Audit
from edge_hub.broker import BrokerBackend
from edge_hub.broker.accounts import ALERTS_USER, hash_password
from edge_hub.census import Census
from edge_hub.commanding import Commander
from edge_hub.config import HubConfig, broker_of, check_workers, client_id
from edge_hub.datadir import DataDir, Settings
from edge_hub.enrolment import enrol_all, revoke
from edge_hub.errors import StoreError
from edge_hub.feed import Feed, News, Topic
from edge_hub.ingest import Ingest, Release, spare_the_collector
from edge_hub.interop.exporters import Exporters
from edge_hub.link import RETAINED, SUBSCRIPTIONS, Link
from edge_hub.removal import Removals
from edge_hub.rowfeed import RowFeed
from edge_hub.store.choose import open_postgres, open_sqlite
from edge_hub.store.records import AlertRecord, CommandRecord, Committed, Removed
from edge_hub.tasks import Tasks
from edge_hub.web.auth import Gate
from edge_hub.web.certificate import ServerCertificate
from edge_sdk._version import __version__
from edge_sdk.address import bind, refuse_unsafe
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

if TYPE_CHECKING:
    from edge_hub.cluster import Cluster
    from edge_hub.store import Store
    from edge_hub.store.postgres import PostgresStore
    from edge_hub.workers import Workers

_log = logging.getLogger(__name__)

_TRIM_EVERY_S = 60.0
_ROLL_UP_EVERY_S = 5.0
_CLEAR_EVERY_S = 5.0
_UPKEEP_PAUSE_S = 0.01
_UPKEEP_LITTLE = 100  # rows or messages
_UPKEEP_LONG_S = 0.1
_STOP_STEP_S = 8.0
_HTTPS_HINT = "encrypt with --https; or use a TLS proxy or VPN, or say --insecure-listen in a network you trust"
_TLS_HINT = "encrypt with --tls; or use a VPN, or say --insecure-listen in a network you trust"

Duty = Callable[[], Coroutine[Any, Any, None]]


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
        self.cluster: Cluster | None = None
        self.workers: Workers | None = None
        self.certificate: ServerCertificate | None = None
        self._tasks = Tasks()
        self._telling = asyncio.Lock()
        # What is open, the last opened first to be closed.
        self._closing: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._lock = contextlib.ExitStack()
        # Of upkeep, by what it is.
        self._troubles: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Of the HTTP API, for a client on this machine."""
        return f"{'http' if self.config.https is None else 'https'}://{as_we_reach(self.config.listen)}"

    async def start(self) -> None:
        """Return once devices can connect and the API answers.

        Raises:
            EdgeError: It cannot start; nothing of it is left running.
        """
        try:
            await self._start()
            spare_the_collector()
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
        check_workers(config)
        if config.https is None:
            refuse_unsafe(config.listen, what="the HTTP API", allowed=config.insecure_listen, hint=_HTTPS_HINT)
        if config.broker is None and config.encryption is None:
            refuse_unsafe(config.mqtt, what="the MQTT broker", allowed=config.insecure_listen, hint=_TLS_HINT)
        os.umask(0o077)
        data = DataDir(config.data)
        webhooks = [Webhook(url, data.secret("webhook-secret")) for url in config.alert_webhooks]
        self._lock.enter_context(data.locked())
        self.token = data.secret("token")
        if config.https is not None:
            self.certificate = ServerCertificate(config.https, data, config.listen)
        shared = None if config.store is None else await open_postgres(config.store)
        self.store: Store = _in_file(data) if shared is None else shared
        self._closing.append(("store", self.store.close))
        listener = bind(config.listen, what="the HTTP API", hint="stop what listens there, or choose another --listen")
        self._closing.append(("listener", _closer(listener.close)))

        self._alerts_password = data.secret("alerts-password")
        workers = config.workers
        if shared is not None:
            from edge_hub.cluster import known_workers

            workers = max(workers, await known_workers(shared, client_id(data)))
        self.broker: BrokerBackend = broker_of(config, data, workers)
        await self._tell_accounts()
        self._closing.append(("broker", self.broker.stop))
        await self.broker.start()

        self.link = Link(
            endpoint=self.broker.endpoint,
            client_id=client_id(data),
            # Both are made below: they publish through this link.
            on_message=self._take,
            on_up=lambda: self.commander.greet(),  # noqa: PLW0108
            subscriptions=RETAINED if config.workers else SUBSCRIPTIONS,
        )
        self.gate = Gate(self.token, self.store, secure=config.https is not None)
        self.audit = Audit(self.store, told=self._noted)
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
            hub=client_id(data).removeprefix("edge-hub-"),
        )
        self._tasks.spawn("ingest", self.ingest.run())
        self._closing.append(("ingest", self._stop_ingest))
        self._alert_duties = self._alerts(webhooks)
        self._start_upkeep(shared, data)
        self._closing.append(("tasks", self._stop_upkeep))
        await self._connect()
        if self.workers is not None:
            self._closing.append(("workers", self.workers.stop))
            await self.workers.start()
        self._closing += await self.exporters.begin(self._tasks)
        await self._open(listener, data)

    async def _open(self, listener: socket.socket, data: DataDir) -> None:
        """Let the API be asked, and commands know where."""
        from edge_hub.web.server import Server

        server = Server(self, listener, self.certificate)
        self._tasks.spawn("http", server.run())
        self._closing.append(("HTTP API", server.stop))
        await server.ready()
        self._write_settings(data)
        if self.certificate is not None:
            self._tasks.spawn("certificate", self.certificate.keep(lambda: self._write_settings(data)))
            self._closing.append(("certificate", lambda: self._tasks.stop("certificate")))

    def _write_settings(self, data: DataDir) -> None:
        """What commands on this machine go by."""
        data.write_settings(
            Settings(
                url=self.url,
                broker=self.broker.kind,
                mqtt_host=self.broker.for_devices.host,
                mqtt_port=self.broker.for_devices.port,
                mqtt_tls=self.broker.endpoint.tls,
                certificate=self.certificate.pem if self.certificate is not None and self.certificate.given else None,
            )
        )

    async def enrol(self, device: DeviceId, *, again: bool) -> Credentials:
        """Give a device an account at the broker; raises as `enrol_all`."""
        return (await self.enrol_all((device,), again=again))[0]

    async def enrol_all(self, devices: Sequence[DeviceId], *, again: bool) -> tuple[Credentials, ...]:
        """Give devices accounts at the broker, which then reads all of them once.

        Raises:
            EnrolledError: Names the first that has one, and `again` is false; nothing has changed.
            UsageError: The broker is not ours.
        """
        self._check_accounts_are_ours()
        endpoint = Endpoint(address=as_others_reach(self.broker.for_devices), tls=self.broker.endpoint.tls)
        made = await enrol_all(
            self.store, dict.fromkeys(devices), endpoint=endpoint, papers=self.broker.papers, again=again
        )
        await self._tell_accounts()
        return made

    async def _tell_accounts(self) -> None:
        """Let devices into the broker, and who is to hear of alerts; what is read first is written first."""
        alerts = {ALERTS_USER: hash_password(self._alerts_password)}
        async with self._telling:
            await self.broker.set_accounts({**await self.store.accounts(), **alerts})

    async def revoke(self, device: DeviceId) -> None:
        """Let a device in no more, until it is enrolled again.

        Raises:
            UnknownDeviceError: It has no credentials.
            UsageError: The broker is not ours.
        """
        self._check_accounts_are_ours()
        await revoke(self.store, device)
        await self.broker.revoke(str(device))
        await self._tell_accounts()

    def _ended(self, removed: Removed, devices: Sequence[DeviceId]) -> None:
        """Devices were taken out of the fleet: tell whom what ended with them concerns."""
        self.census.forget_devices(devices)
        self.census.forget_alerts()
        self.commander.finished(removed.commands)
        for alert in removed.alerts:
            self.feed.spread(News(topic=Topic.ALERT, body=AlertView.of(alert)))
        for delivery in self.deliveries:
            delivery.tell()
        self.touch(devices)
        self.exporters.took(Committed(touched=tuple(devices)))

    def _check_accounts_are_ours(self) -> None:
        if not self.broker.enrols:
            raise UsageError(
                "this hub uses a broker of somebody else's, who makes its accounts",
                hint="create the user there and write the device's configuration by hand",
            )

    async def health(self) -> Health:
        """How it is now."""
        trouble = self.ingest.trouble or next(iter(self._troubles.values()), None)
        if not self.link.up:
            trouble = trouble or "not connected to the broker"
        if self.workers is not None:
            trouble = trouble or self.workers.trouble
        if self.certificate is not None:
            trouble = trouble or self.certificate.trouble
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

    async def _connect(self) -> None:
        """Begin to hear devices, and to take those out of the broker that the store has removed."""
        self._tasks.spawn("link", self.link.run())
        self._closing.append(("connection", lambda: self._tasks.stop("link", patience_s=_STOP_STEP_S)))
        await self.link.connected_once()
        self.removals = Removals(
            store=self.store,
            broker=self.broker,
            publish=self.link.publish,
            tell_accounts=self._tell_accounts,
            ended=self._ended,
            since=self.started,
        )
        self._tasks.spawn("removals", self.removals.run())

    def _start_upkeep(self, shared: PostgresStore | None, data: DataDir) -> None:
        self._tasks.spawn("rows", self.rowfeed.run())
        duties = {
            "expiry": self.commander.run_expiry,
            "roll-up": self._roll_up,
            "retention": self._retention,
            "clearing": self._clear,
            **self._alert_duties,
        }
        if shared is None:
            self._tasks.spawn("births", self.commander.run_births())
            for name, duty in duties.items():
                self._tasks.spawn(name, duty())
            return
        from edge_hub.cluster import Cluster, Neighbours, Shares

        holder = client_id(data)
        shares = Shares(
            store=self.config.store or "",
            endpoint=self.broker.endpoint,
            own=self.config.broker is None,
            holder=holder,
        )
        cluster = self.cluster = Cluster(
            store=shared,
            holder=holder,
            neighbours=Neighbours(
                resend=self.commander.resend,
                connected=lambda: self.link.up,
                spread=self._spread,
                wanted=lambda: self.feed.listeners > 0 or self.exporters.there,
                late_wanted=lambda: self.exporters.tells_late,
                missed=self.feed.miss,
            ),
            duties={**duties, "sweep": shares.sweep(shared, self.config.workers, self._after)},
        )
        self.commander.told = self._tell
        self._tasks.spawn("relay", cluster.relay.run())
        self._tasks.spawn("listening", cluster.relay.run_listening())
        self._tasks.spawn("scheduler", cluster.scheduler.run())
        if self.config.workers:
            self.workers = shares.workers(self.config.workers, log=self.config.log)

    def _take(self, topic: str, payload: bytes, retained: bool, number: int, release: Release) -> None:
        """A message came. What workers store, they are sent as well; but not what the broker had kept."""
        if retained or not self.config.workers:
            self.ingest.take(topic, payload, retained, number, release)
        else:
            release((number,))

    async def _after(self, committed: Committed) -> None:
        """Spread what a batch changed, here and to the other processes."""
        if self.cluster is not None:
            self.cluster.stored(committed)
        else:
            self.commander.born(committed.born)
        self._spread(committed)

    def _spread(self, committed: Committed) -> None:
        """Tell who listens here."""
        self.commander.finished(committed.finished)
        self.exporters.took(committed)
        if committed.alerts:
            self.census.forget_alerts()
        if not self.feed.listeners:
            return
        for alert in committed.alerts:
            self.feed.spread(News(topic=Topic.ALERT, body=AlertView.of(alert)))
        for event in committed.events:
            self.feed.spread(News(topic=Topic.EVENT, id=event.id, body=EventView.of(event)))
        for what in committed.noted:
            self.feed.spread(News(topic=Topic.AUDIT, body=AuditNews(what=what)))
        self.rowfeed.touch(committed.touched)

    def _alerts(self, webhooks: Sequence[Webhook]) -> dict[str, Duty]:
        """What one process at a time does about alerts, by name."""
        ways: list[Way] = [AlertTopic(self.link.publish), *webhooks]
        self.deliveries = [Delivery(way, store=self.store, census=self.census) for way in ways]

        def tell() -> None:
            for delivery in self.deliveries:
                delivery.tell()

        hands = Hands(spread=self.spread_alerts, tell=tell)
        self.alerting = Alerting(store=self.store, census=self.census, hands=hands)
        telling = {f"telling-{number}": delivery.run for number, delivery in enumerate(self.deliveries)}
        return {"alerts": self.alerting.run, **telling}

    def spread_alerts(self, alerts: Sequence[AlertRecord]) -> None:
        """These began, ended, or were acknowledged: who listens is to hear of them, here and elsewhere."""
        self._share(Committed(alerts=tuple(alerts), touched=tuple(dict.fromkeys(alert.device for alert in alerts))))

    def _noted(self, what: str) -> None:
        """The audit log has grown: who shows that, or what was changed, is to read it anew, here and elsewhere."""
        self._share(Committed(noted=(what,)))

    def _share(self, changed: Committed) -> None:
        self._spread(changed)
        if self.cluster is not None:
            self.cluster.stored(changed)

    def touch(self, devices: Iterable[DeviceId]) -> None:
        """These changed otherwise than by what they sent: who looks at them is to see it, here and elsewhere."""
        touched = tuple(devices)
        self.rowfeed.touch(touched)
        if self.cluster is not None:
            self.cluster.stored(Committed(touched=touched))

    def _tell(self, ended: Sequence[CommandRecord]) -> None:
        """Tell the other processes of commands that ended here."""
        if self.cluster is not None:
            self.cluster.stored(Committed(finished=tuple(ended)))

    async def _retention(self) -> None:
        retention = self.config.retention
        await self._upkeep("retention", lambda now: self.store.trim(retention, now=now), every_s=_TRIM_EVERY_S)

    async def _clear(self) -> None:
        await self._upkeep("clearing", lambda now: self.store.sweep(now=now), every_s=_CLEAR_EVERY_S)

    async def _roll_up(self) -> None:
        await self._upkeep("roll-up", lambda now: self.store.roll_up(now=now), every_s=_ROLL_UP_EVERY_S)

    async def _upkeep(self, name: str, step: Callable[[float], Awaitable[int]], *, every_s: float) -> None:
        """Repeat a step of the store's until there is little to do, then wait."""
        while True:
            try:
                while True:
                    began = time.monotonic()
                    done = await step(time.time())
                    took_s = time.monotonic() - began
                    if not done or (done < _UPKEEP_LITTLE and took_s < _UPKEEP_LONG_S):
                        break  # under load there is always a little: with what comes until the next time it is cheaper
                    await asyncio.sleep(max(_UPKEEP_PAUSE_S, took_s))  # half of the store's time is the messages'
                self._troubles.pop(name, None)
            except StoreError as error:
                self._troubles[name] = str(error)
            await asyncio.sleep(every_s)

    async def _stop_ingest(self) -> None:
        await self._tasks.stop("ingest")
        await self.ingest.drain()

    async def _stop_upkeep(self) -> None:
        alone = ("retention", "clearing", *self._alert_duties, "roll-up", "expiry", "births", "removals")
        for name in ("scheduler", "listening", "relay", *alone, "rows"):
            await self._tasks.stop(name)


def _in_file(data: DataDir) -> Store:
    """The store in the data directory, unless it was moved elsewhere."""
    data.refuse_moved()
    return open_sqlite(data.database)


def _closer(close: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def closing() -> None:
        close()

    return closing
