"""The daemon's side of the connection, where what happens at a broker cannot be timed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

pytest.importorskip("paho")

from edge_daemon import uplink as uplinks
from edge_daemon.clock import SystemClock
from edge_daemon.config import MqttSection
from edge_daemon.lanes import Lane
from edge_daemon.link import Arrived, Link
from edge_daemon.spool import Limits
from edge_daemon.store import Store
from edge_daemon.uplink import Uplink
from edge_sdk.errors import StorageError
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Down, State, down_topic
from edge_sdk.wire import new_token

pytestmark = pytest.mark.device

DEVICE = DeviceId(tenant="acme", device="board-1")


async def nothing(_payload: bytes, _retained: bool) -> None:
    pass


def made(kind: type[Uplink] = Uplink, **options: Any) -> Uplink:
    return kind(
        MqttSection(host="127.0.0.1"),
        DEVICE,
        new_token(),
        store=Store(None, boot=new_token(), limits=Limits(max_bytes=100_000, max_age_s=1e6)),
        store_lane=Lane("store"),
        clock=SystemClock(),
        birth=lambda online: Birth(online=online),
        state=lambda: State(at=1.0, conditions=Conditions()),
        on_round_trip=lambda _: None,
        on_look=lambda _: None,
        **{"on_command": nothing, "on_desired": nothing} | options,
    )


def ended(uplink: Uplink) -> None:
    assert uplink._lane.close(5.0)
    assert uplink._store_lane.close(5.0)
    uplink._store.close()


async def two_desired(uplink: Uplink, until: asyncio.Event) -> asyncio.Task[None]:
    """Two documents arrive; returns who works through them, once that has come to pass."""
    receiving = asyncio.ensure_future(uplink._receive())
    for payload in (b"1", b"2"):
        uplink._inbox.put_nowait(Arrived(topic=down_topic(DEVICE, Down.DESIRED), payload=payload, retained=True))
    await asyncio.wait_for(until.wait(), 30)
    return receiving


def test_a_connection_that_breaks_while_the_last_is_sent_does_not_disturb_the_end() -> None:
    class Broken(Uplink):
        async def _send_due(self, _link: Link) -> None:
            self._link = None

    class Gone:
        def publish(self, *_: object, **__: object) -> None:
            pass

        def close(self) -> None:
            pass

    async def scene() -> None:
        uplink = made(Broken)
        uplink._link, uplink.status = Gone(), "connected"  # type: ignore[assignment]  # a link that has ended
        await uplink.close(2.0)
        ended(uplink)

    asyncio.run(scene())


def test_what_is_desired_is_tried_again_where_the_disk_did_not_take_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uplinks, "_AGAIN_S", 0.01)
    seen: list[bytes] = []

    async def scene() -> None:
        applied = asyncio.Event()

        async def desired(payload: bytes, _retained: bool) -> None:
            seen.append(payload)
            if len(seen) < 4:
                raise StorageError("the disk is full")
            applied.set()

        uplink = made(on_desired=desired)
        receiving = await two_desired(uplink, applied)
        receiving.cancel()
        await asyncio.wait({receiving})
        ended(uplink)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scene())
    assert seen == [b"1", b"2", b"2", b"2"], "the newest"
    assert len(caplog.records) == 1


def test_what_was_desired_before_is_not_tried_again_once_the_hub_desires_another() -> None:
    async def scene() -> None:
        came = asyncio.Event()

        async def desired(payload: bytes, _retained: bool) -> None:
            if payload == b"1":
                raise StorageError("the disk is full")
            came.set()

        uplink = made(on_desired=desired)
        receiving = await two_desired(uplink, came)
        assert uplink._again is not None
        assert uplink._again.cancelled()
        receiving.cancel()
        await asyncio.wait({receiving})
        ended(uplink)

    asyncio.run(scene())
