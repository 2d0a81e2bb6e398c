"""Exporters are shown each change, also one that comes at a bad moment, and their troubles are their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from daemon_stage import PATIENCE_S
from hub_stage import CAM, OTHER

from edge_hub.interop.watcher import Watcher
from edge_hub.store.records import Committed, DeviceRecord
from edge_hub.store.sqlite import SqliteStore
from edge_sdk.mqtt import DeviceId, Sample


class Shown:
    """An exporter that notes what it is shown."""

    def __init__(self) -> None:
        self.devices: list[DeviceId] = []
        self.changed = asyncio.Event()

    async def show(self, record: DeviceRecord) -> None:
        self.devices.append(record.device)
        self.changed.set()

    async def gone(self, device: DeviceId) -> None:
        self.devices.remove(device)

    async def only(self, devices: Collection[DeviceId]) -> None:
        self.devices = [device for device in self.devices if device in devices]

    def late(self, device: DeviceId, samples: Sequence[Sample]) -> None:
        """Of no interest here."""


class Busy(SqliteStore):
    """Something happens between its looking at all devices and its telling of them."""

    meanwhile: Callable[[], Awaitable[None]]

    async def devices(self) -> tuple[DeviceRecord, ...]:
        found = await super().devices()
        await self.meanwhile()
        return found


def test_what_changes_while_all_devices_are_read_is_shown_after_them(tmp_path: Path) -> None:
    async def play() -> None:
        store, shown = Busy(tmp_path / "hub.db"), Shown()
        watcher = Watcher(store)
        watcher.exporters = [shown]

        async def comes() -> None:
            await store.enrol(OTHER, "hash", now=1.0, again=True)
            watcher.took(Committed(touched=(OTHER,)))

        store.meanwhile = comes
        await store.enrol(CAM, "hash", now=1.0, again=False)
        watching = asyncio.create_task(watcher.run())
        try:
            while shown.devices != [CAM, OTHER]:
                shown.changed.clear()
                await asyncio.wait_for(shown.changed.wait(), PATIENCE_S)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await store.close()

    asyncio.run(play())
