"""The fleet as Sparkplug edge nodes, one for each device that is there: it is born and dies with its device."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from edge_hub.interop.edge_node import MOST_LATE, EdgeNode
from edge_hub.interop.numbers import BirthNumbers
from edge_hub.interop.orders import Choose
from edge_hub.interop.session import Connect
from edge_hub.interop.view import View, view_of
from edge_hub.store.records import DeviceRecord
from edge_hub.tasks import begun
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Sample

_log = logging.getLogger(__name__)

# Edge nodes that come up together are let in together, and the broker is given a moment to read who they are.
_GATHER_S = 0.1
_LET_IN_S = 0.1
_RETRY_S = 5.0

# Lets the edge nodes of exactly these devices in at the broker.
Admit = Callable[[Collection[DeviceId]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the fleet is shown.

    Attributes:
        group: The group id of all edge nodes.
        host: The primary host's id; None waits for nobody.
        most: Edge nodes at once, each of which is a connection to the broker.
    """

    group: str
    host: str | None = None
    most: int = 200


@dataclass(slots=True)
class _Running:
    """An edge node and its task, which waits until the broker knows the node."""

    node: EdgeNode
    task: asyncio.Task[None] | None = None


class Sparkplug:
    """An `Exporter` of every device that is online.

    Args:
        settings: See there.
        numbers: Counts their connections.
        connect: Makes the sessions of a device's edge node.
        admit: Lets them in at the broker.
        choose: Takes what a host writes.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        numbers: BirthNumbers,
        connect: Callable[[DeviceId], Connect],
        admit: Admit,
        choose: Choose,
    ) -> None:
        self._settings = settings
        self._numbers = numbers
        self._connect = connect
        self._admit = admit
        self._choose = choose
        self._nodes: dict[DeviceId, _Running] = {}
        # Telemetry of the past of devices whose edge node is about to be.
        self._early: dict[DeviceId, deque[Sample]] = {}
        self._fresh = asyncio.Event()
        self._full = False

    async def run(self) -> None:
        """Start edge nodes as devices come, until cancelled; then all die in an orderly way."""
        try:
            while True:
                await self._fresh.wait()
                await asyncio.sleep(_GATHER_S)
                self._fresh.clear()
                try:
                    await self._admit(tuple(self._nodes))
                except EdgeError as error:  # of a full disk, say: the fleet itself goes on meanwhile
                    _log.warning("Sparkplug: edge nodes cannot be let in: %s; trying again", error)
                    await asyncio.sleep(_RETRY_S)
                    self._fresh.set()
                    continue
                await asyncio.sleep(_LET_IN_S)
                for running in self._nodes.values():
                    if running.task is None:
                        running.task = begun(running.node.run(), name=f"hub-sparkplug-{running.node.name}")
        finally:
            await self._end(tuple(self._nodes))

    async def show(self, record: DeviceRecord) -> None:
        """A device as it is now."""
        device = record.device
        running = self._nodes.get(device)
        if not record.online:
            await self._end((device,))
        elif running is not None:
            running.node.show(view_of(record))
        elif len(self._nodes) < self._settings.most:
            self._begin(view_of(record))
        elif not self._full:
            self._full = True
            _log.warning(
                "Sparkplug: %d edge nodes are as many as there may be; %s and others are not shown. Raise it by "
                "--sparkplug-max",
                self._settings.most,
                device,
            )

    async def gone(self, device: DeviceId) -> None:
        """End its edge node, which says so."""
        await self._end((device,))
        self._early.pop(device, None)

    async def only(self, devices: Collection[DeviceId]) -> None:
        """End the edge nodes of any other device."""
        await self._end([device for device in self._nodes if device not in devices])
        self._early.clear()  # of devices that did not come up since the last time

    def late(self, device: DeviceId, samples: Sequence[Sample]) -> None:
        """Telemetry of the past came only now."""
        running = self._nodes.get(device)
        if running is not None:
            running.node.late(samples)
        elif device in self._early or len(self._early) < self._settings.most:
            self._early.setdefault(device, deque(maxlen=MOST_LATE)).extend(samples)

    def _begin(self, view: View) -> None:
        alike = [other for other in self._nodes if str(other).lower() == str(view.device).lower()]
        if alike:
            _log.warning("Sparkplug: %s and %s differ in case alone; hosts may take them for one", view.device, *alike)
        node = EdgeNode(
            group=self._settings.group,
            view=view,
            host=self._settings.host,
            connect=self._connect(view.device),
            numbers=self._numbers,
            choose=self._choose,
        )
        node.late(self._early.pop(view.device, ()))
        self._nodes[view.device] = _Running(node=node)
        self._fresh.set()

    async def _end(self, devices: Collection[DeviceId]) -> None:
        ending = [running for device in devices if (running := self._nodes.pop(device, None)) is not None]
        tasks = [running.task for running in ending if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if ending:
            self._full = False
