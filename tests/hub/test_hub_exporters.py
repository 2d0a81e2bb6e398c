"""Exporters are shown each change, also one that comes at a bad moment, and their troubles are their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S, free_port
from hub_stage import CAM, OTHER, till

from edge_hub.address import Endpoint
from edge_hub.interop import sparkplug
from edge_hub.interop.home_assistant import HomeAssistant, remembered
from edge_hub.interop.numbers import BirthNumbers
from edge_hub.interop.session import Connect, Heard, Session, Will
from edge_hub.interop.sparkplug import Settings, Sparkplug
from edge_hub.interop.watcher import Watcher
from edge_hub.store.records import Committed, DeviceRecord
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import atomic
from edge_sdk.address import Address
from edge_sdk.errors import StorageError
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


async def nobody(_device: DeviceId, _model: str, _variant: str | None) -> None:
    """Nothing is chosen."""


@contextlib.asynccontextmanager
async def edge_nodes(
    tmp_path: Path,
    connect: Callable[[DeviceId], Connect],
    admit: Callable[[Collection[DeviceId]], Awaitable[None]],
) -> AsyncIterator[tuple[Sparkplug, asyncio.Task[None]]]:
    """An exporter that nobody steers, and its task."""
    nodes = Sparkplug(
        settings=Settings(group="plant"),
        numbers=BirthNumbers(tmp_path / "sparkplug.json"),
        connect=connect,
        admit=admit,
        choose=nobody,
    )
    running = asyncio.create_task(nodes.run())
    try:
        yield nodes, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_edge_nodes_that_cannot_be_let_in_are_let_in_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "_RETRY_S", 0.01)
    nowhere = Endpoint(address=Address(host="127.0.0.1", port=free_port()))

    def connector(_device: DeviceId) -> Connect:
        def connect(will: Will | None, topics: Sequence[str], heard: Heard) -> Session:
            return Session(endpoint=nowhere, client_id="node", will=will, topics=topics, heard=heard)

        return connect

    async def play() -> None:
        asked: list[tuple[DeviceId, ...]] = []
        is_let_in = asyncio.Event()

        async def admit(devices: Collection[DeviceId]) -> None:
            asked.append(tuple(devices))
            if len(asked) == 1:
                raise StorageError("no room", where="passwords")
            is_let_in.set()

        async with edge_nodes(tmp_path, connector, admit) as (nodes, running):
            await nodes.show(record(CAM))
            await asyncio.wait_for(is_let_in.wait(), PATIENCE_S)
            assert asked == [(CAM,), (CAM,)]
            assert not running.done()

    asyncio.run(play())


def test_an_edge_node_that_fails_is_heard_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def connector(_device: DeviceId) -> Connect:
        def connect(_will: Will | None, _topics: Sequence[str], _heard: Heard) -> Session:
            raise LookupError("a mistake of ours")

        return connect

    async def admit(_devices: Collection[DeviceId]) -> None:
        """Everybody."""

    async def play() -> None:
        async with edge_nodes(tmp_path, connector, admit) as (nodes, _):
            await nodes.show(record(CAM))
            await till(lambda: "hub-sparkplug-acme:cam1 failed" in caplog.text, "the failure")

    asyncio.run(play())


def test_of_what_home_assistant_is_shown_the_newest_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_written, write = tmp_path / "home-assistant.json", threading.Event(), atomic.write_bytes

    def write_slowly(path: Path, content: bytes, *, mode: int) -> None:
        if str(OTHER).encode() in content:
            is_written.wait(0.3)
        write(path, content, mode=mode)
        is_written.set()

    monkeypatch.setattr(atomic, "write_bytes", write_slowly)

    def connect(_will: Will | None, _topics: Sequence[str], _heard: Heard) -> Session:
        raise AssertionError

    async def play() -> None:
        shown = HomeAssistant(hub="h", prefix="ha", memory=path, connect=connect, choose=nobody, again=lambda: None)
        shown._components = {str(OTHER): {}}
        first = asyncio.create_task(shown._save())
        await asyncio.sleep(0)  # it is being written
        shown._components = {str(CAM): {}}
        await asyncio.gather(first, shown._save())

    asyncio.run(play())
    memory = remembered(path)
    assert memory is not None
    assert memory.devices == {str(CAM): {}}


def record(device: DeviceId) -> DeviceRecord:
    """It is there, and says nothing of itself."""
    return DeviceRecord(
        device=device,
        enrolled=None,
        first_seen=None,
        last_seen=None,
        online=True,
        boot=None,
        birth=None,
        state=None,
        sample=None,
        messages=0,
        duplicates=0,
        desired_version=0,
    )
