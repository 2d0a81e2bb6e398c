"""Shows each device to Home Assistant, and takes what somebody chooses there.

Everything it publishes is kept by the broker, so that Home Assistant has it when it starts. What the broker keeps must
be taken back one day: a file remembers each topic's owner before it is published, so that a device that is taken out,
another prefix, or the setting turned off leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from edge_hub.datadir import PRIVATE_FILE, read_kept
from edge_hub.interop import discovery
from edge_hub.interop.discovery import HUB_STATE, HUB_STATUS, OFFLINE, ONLINE, ORDERS, Order
from edge_hub.interop.orders import Choose
from edge_hub.interop.session import Connect, Session, Will, again_and_again
from edge_hub.interop.view import view_of
from edge_hub.store.records import DeviceRecord
from edge_hub.tasks import within
from edge_sdk import atomic
from edge_sdk.errors import StorageError, WireError
from edge_sdk.mqtt import DeviceId, Sample
from edge_sdk.wire import Text, Wire, encode

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_WAITING_ORDERS = 100
_MAX_MEMORY_BYTES = 64 * 1024 * 1024

_Device = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]


class Memory(Wire, frozen=True, kw_only=True):
    """What the broker keeps for us.

    Attributes:
        hub: Its id, which is part of the topics.
        prefix: Of the discovery topics.
        devices: By `tenant/device`, the platform of each component by its id.
    """

    hub: Text
    prefix: Text
    devices: dict[_Device, dict[Text, Text]] = {}


def remembered(path: Path) -> Memory | None:
    """What an earlier run left at the broker, or None.

    Raises:
        StorageError: The file cannot be read.
    """
    return read_kept(path, Memory, max_bytes=_MAX_MEMORY_BYTES)


class HomeAssistant:
    """An `Exporter` of the whole fleet.

    Args:
        hub: The hub's id.
        prefix: Of the discovery topics; None takes back what an earlier run published, and shows nothing.
        memory: The file that remembers what is published.
        connect: Makes its sessions.
        choose: Takes what somebody chose.
        again: Asks to be shown every device.
        patience_s: How long Home Assistant is waited for before everything is taken back, so that it hears of it.
    """

    def __init__(
        self,
        *,
        hub: str,
        prefix: str | None,
        memory: Path,
        connect: Connect,
        choose: Choose,
        again: Callable[[], None],
        patience_s: float = 0.0,
    ) -> None:
        self._hub = hub
        self._prefix = prefix
        self._path = memory
        self._connect = connect
        self._choose = choose
        self._again = again
        self._patience_s = patience_s
        self._greeted = asyncio.Event()
        self._left = remembered(memory)
        told_at = prefix or (self._left.prefix if self._left is not None else discovery.DEFAULT_PREFIX)
        self._births = discovery.birth_topics(told_at)
        known = self._left.devices if self._left is not None and self._left.hub == hub else {}
        self._components: dict[str, dict[str, str]] = dict(known)
        self._unsaved = False
        self._saving = asyncio.Lock()
        self._session: Session | None = None
        # Digests of what was published in this session, by topic.
        self._published: dict[str, int] = {}
        self._online: dict[DeviceId, bool] = {}
        self._orders: asyncio.Queue[Order] = asyncio.Queue(_WAITING_ORDERS)

    async def run(self) -> None:
        """Keep a connection and what is shown over it, until cancelled."""
        parts = [
            asyncio.ensure_future(again_and_again("Home Assistant's discovery", self._once)),
            asyncio.ensure_future(self._obey()),
        ]
        try:
            await asyncio.gather(*parts)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def show(self, record: DeviceRecord) -> None:
        """A device as it is now."""
        self._online[record.device] = record.online
        if self._session is None or self._prefix is None:
            return
        view = view_of(record)
        name = str(record.device)
        before = self._components.get(name)
        config = discovery.device_config(self._hub, view, before=before or {})
        after = discovery.platforms(config)
        if before is None:
            self._components[name] = after
            await self._save()
        elif after != before:
            self._components[name] = after
            self._unsaved = True
        object_id = discovery.object_id(self._hub, record.device)
        await self._publish(discovery.config_topic(self._prefix, object_id), encode(config))
        await self._publish(discovery.state_topic(record.device), encode(discovery.device_state(view)))
        await self._publish(discovery.status_topic(record.device), ONLINE if record.online else OFFLINE)

    async def gone(self, device: DeviceId) -> None:
        """Take back what was shown of it."""
        self._online.pop(device, None)
        session, name = self._session, str(device)
        if session is None or self._prefix is None or name not in self._components:
            return
        await self._take_back(device, self._hub, self._prefix)
        if await session.flush():
            self._components.pop(name, None)
            self._unsaved = True

    async def only(self, devices: Collection[DeviceId]) -> None:
        """Take back what was shown of any other device, and remember those that are to be shown."""
        names = {str(device) for device in devices}
        self._online = {device: online for device, online in self._online.items() if device in devices}
        if self._session is None or self._prefix is None:
            return
        gone = [name for name in self._components if name not in names]
        for name in gone:
            await self._take_back(DeviceId.parse(name), self._hub, self._prefix)
        if gone and await self._session.flush():
            for name in gone:
                del self._components[name]
            self._unsaved = True
        fresh = names.difference(self._components)
        if fresh:
            self._components.update({name: {} for name in fresh})
            await self._save()

    def late(self, device: DeviceId, samples: Sequence[Sample]) -> None:
        """Home Assistant knows no past: what comes by MQTT is now."""

    async def _once(self) -> None:
        will = None if self._prefix is None else Will(topic=HUB_STATUS, payload=OFFLINE, retain=True)
        topics = self._births if self._prefix is None else (ORDERS, *self._births)
        session = self._connect(will, topics, self._heard)
        await session.open()
        try:
            if self._prefix is None and self._left is not None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._greeted.wait(), self._patience_s)
            await self._clear_leftovers(session)
            if self._prefix is None:
                await asyncio.Event().wait()  # nothing more to do in this run
            await self._shown(session)
        finally:
            self._session = None
            await session.close()

    async def _shown(self, session: Session) -> None:
        self._session = session
        self._published.clear()
        await self._save()
        await self._publish(HUB_STATUS, ONLINE)
        try:
            await self._upkeep()  # the hub first: devices say that they are connected through it
            self._again()
            while not session.lost.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(session.lost.wait(), _TICK_S)
                await self._upkeep()
        finally:
            # The will is not for this: a goodbye keeps the broker from publishing it.
            if await session.publish(HUB_STATUS, OFFLINE, qos=1, retain=True):
                await session.flush()
            await self._save()

    async def _upkeep(self) -> None:
        if self._prefix is not None:
            object_id = discovery.object_id(self._hub, None)
            await self._publish(
                discovery.config_topic(self._prefix, object_id), encode(discovery.hub_config(self._hub))
            )
            counts = {"devices": len(self._online), "online": sum(self._online.values())}
            await self._publish(HUB_STATE, encode(counts))
        if self._unsaved:
            await self._save()

    async def _clear_leftovers(self, session: Session) -> None:
        """Take back what was published under another prefix or id, or all of it where the setting is off."""
        left = self._left
        if left is None or (left.prefix == self._prefix and left.hub == self._hub):
            return
        for name in left.devices:
            await self._take_back(DeviceId.parse(name), left.hub, left.prefix, session=session)
        hub_topics = (discovery.config_topic(left.prefix, discovery.object_id(left.hub, None)), HUB_STATE, HUB_STATUS)
        for topic in hub_topics:
            await session.publish(topic, b"", qos=1, retain=True)
        if not await session.flush():
            return  # the connection is lost; the next one tries again
        self._left = None
        if self._prefix is None:
            self._path.unlink(missing_ok=True)
            _log.info("what was shown to Home Assistant is taken back: %d devices", len(left.devices))
        else:
            self._components.clear()
            await self._save()

    async def _take_back(self, device: DeviceId, hub: str, prefix: str, *, session: Session | None = None) -> None:
        session = session or self._session
        topics = (
            discovery.config_topic(prefix, discovery.object_id(hub, device)),
            discovery.state_topic(device),
            discovery.status_topic(device),
        )
        for topic in topics:
            self._published.pop(topic, None)
            if session is not None:
                await session.publish(topic, b"", qos=1, retain=True)

    async def _publish(self, topic: str, payload: bytes) -> None:
        """Publish it, unless the broker has it."""
        digest = hash(payload)
        session = self._session
        if session is None or self._published.get(topic) == digest:
            return
        if await session.publish(topic, payload, qos=1, retain=True):
            self._published[topic] = digest

    async def _save(self) -> None:
        if self._prefix is None:
            return
        async with self._saving:  # one after the other, or an older one may be the last
            self._unsaved = False
            self._left = Memory(hub=self._hub, prefix=self._prefix, devices=self._components)
            content = encode(self._left)
            try:
                await asyncio.to_thread(atomic.write_bytes, self._path, content, mode=PRIVATE_FILE)
            except StorageError as error:
                self._unsaved = True
                _log.warning("what is shown to Home Assistant cannot be remembered: %s", error)

    def _heard(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic in self._births:
            if payload == ONLINE and not retained:
                self._greeted.set()
                self._published.clear()
                self._again()
            return
        if retained:
            return  # an order is for now: one that a broker kept is nobody's wish any more
        try:
            self._orders.put_nowait(discovery.parse_order(topic, payload))
        except WireError as error:
            _log.warning("Home Assistant: %s", error)
        except asyncio.QueueFull:
            _log.warning("Home Assistant: too many choices at once; one is not heard")

    async def _obey(self) -> None:
        while True:
            order: Any = await self._orders.get()
            await self._choose(order.device, order.model, order.variant)
