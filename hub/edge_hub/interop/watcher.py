"""Keeps exporters up to date: they are shown each device that changed, and from time to time all of them.

Exporters keep no device in memory that the store has; one that lost its connection asks to be shown everything anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Protocol

from edge_hub.errors import StoreError
from edge_hub.store import Store
from edge_hub.store.records import Committed, DeviceRecord
from edge_hub.tasks import within
from edge_sdk.mqtt import DeviceId, Sample

_log = logging.getLogger(__name__)

# A device that reports in a burst is shown once.
_SETTLE_S = 0.2
# What another process of the hub stored, and devices that it took out, are seen then.
_SWEEP_S = 60.0


class Exporter(Protocol):
    """Shows the fleet to others. Its methods raise nothing; what it cannot tell now it asks for later."""

    async def show(self, record: DeviceRecord) -> None:
        """A device as it is now."""

    async def gone(self, device: DeviceId) -> None:
        """A device is not in the fleet any more: what was shown of it is to be taken back."""

    async def only(self, devices: Collection[DeviceId]) -> None:
        """These are all; what was shown of any other is to be taken back."""

    def late(self, device: DeviceId, samples: Sequence[Sample]) -> None:
        """Telemetry of the past came only now."""


class Watcher:
    """Reads what changed and shows it to every exporter.

    Args:
        store: Where it reads.
    """

    def __init__(self, store: Store) -> None:
        self.exporters: list[Exporter] = []
        self._store = store
        self._changed: set[DeviceId] = set()
        self._news = asyncio.Event()
        self._all = True

    def took(self, committed: Committed) -> None:
        """A batch was stored."""
        for late in committed.late:
            for exporter in self.exporters:
                exporter.late(late.device, late.samples)
        if committed.touched:
            self._changed.update(committed.touched)
            self._news.set()

    def everything(self) -> None:
        """Show all devices, soon."""
        self._all = True
        self._news.set()

    async def run(self) -> None:
        """Show what changes, until cancelled."""
        while True:
            try:
                if self._all:
                    self._all = False
                    await self._sweep()
                await self._show_changed()
            except StoreError as error:
                _log.warning("others are not shown the fleet: %s", error)
                self._all = True
                await asyncio.sleep(_SETTLE_S)
            try:
                await within(self._news.wait(), _SWEEP_S)
                await asyncio.sleep(_SETTLE_S)
            except asyncio.TimeoutError:
                self._all = True
            self._news.clear()

    async def _sweep(self) -> None:
        self._changed.clear()  # before it is read: what changes from now on is shown after it
        records = await self._store.devices()
        everyone = {record.device for record in records}
        for exporter in self.exporters:
            await exporter.only(everyone)
        for record in records:
            for exporter in self.exporters:
                await exporter.show(record)

    async def _show_changed(self) -> None:
        changed, self._changed = self._changed, set()
        for device in changed:
            record = await self._store.device(device)
            for exporter in self.exporters:
                await (exporter.gone(device) if record is None else exporter.show(record))
