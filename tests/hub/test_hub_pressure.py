"""A store that is slow makes the broker wait, not the hub grow; and why messages are refused is counted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import termios
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import Broker, until
from hub_stage import till

from edge_hub import link as linking
from edge_hub.address import Endpoint
from edge_hub.ingest import Ingest
from edge_hub.link import RECEIVE_MAXIMUM, Link
from edge_hub.store.records import Arrival, Committed, Malformed
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import mqtt
from edge_sdk.address import Address
from edge_sdk.mqtt import DeviceId, Event, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
PATIENCE_S = 20.0
MUCH_BYTES = 2 * 2**16  # beyond what asyncio's reader holds before it lets the socket wait


class GatedStore(SqliteStore):
    """Stores nothing until it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = asyncio.Event()

    async def commit(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        await self.gate.wait()
        return await super().commit(batch)


async def nothing(*_: object) -> None:
    """After a batch, or a connection."""


async def published(*_: object, **__: object) -> bool:
    """Instead of a broker."""
    return True


async def joined(store: SqliteStore, port: int, work: Callable[[Link, Ingest, list[str]], Awaitable[None]]) -> None:
    """A link and an ingest at a broker, with everything that is taken noted."""
    taken: list[str] = []
    endpoint = Endpoint(address=Address(host="127.0.0.1", port=port), username=Broker.HUB, password=Broker.HUB_PASSWORD)

    def take(topic: str, payload: bytes, retained: bool, number: int, release: Callable[..., None]) -> None:
        taken.append(topic)
        ingest.take(topic, payload, retained, number, release)

    link = Link(endpoint=endpoint, client_id="hub", on_message=take, on_up=nothing)
    ingest = Ingest(store=store, publish=link.publish, after=nothing)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(ingest.run())]
    try:
        await link.connected_once()
        await work(link, ingest, taken)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


def event(seq: int, text: str = "x") -> bytes:
    body = Event(at=1.0, kind="sensor", text=text)
    return mqtt.pack(UpEnvelope(id=new_token(), boot="b" * 32, seq=seq, sent=1.0, body=body))


def unread(sock: Any) -> int:
    """Bytes that the kernel has for us."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
    return int(waiting)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    made = Broker(tmp_path / "broker")
    with (tmp_path / "broker" / "conf").open("a") as conf:
        conf.write("max_inflight_messages 0\nmax_queued_messages 100000\n")
    return made


@pytest.mark.broker
@pytest.mark.parametrize("most", [None, 64], ids=["by the window", "by not reading"])
def test_while_the_store_takes_nothing_the_broker_keeps_what_comes(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    """The second way is for brokers that know no window: here a smaller bound than the window stands for that."""
    if most is not None:
        monkeypatch.setattr(linking, "_MOST_WAITING", most)
    count, text = 3000, "x" * 800

    async def play() -> None:
        store = GatedStore(tmp_path / "hub.db")

        async def work(link: Link, ingest: Ingest, taken: list[str]) -> None:
            topic = mqtt.up_topic(CAM, Up.EVENT)
            # So much that the reader between us and the socket has to wait as well, and reads on when it thinks fit.
            assert link._session is not None
            transport = link._session._client._connection._transport
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
            for seq in range(1, count + 1):
                assert await link.publish(topic, event(seq, text))
            if most is not None:
                until(lambda: unread(sock) > MUCH_BYTES, "it to be there")  # without a turn for the reader
            # What was read in one go is taken whole: asyncio reads 256 KiB, and buffers half of that again.
            least, bound = (RECEIVE_MAXIMUM, RECEIVE_MAXIMUM) if most is None else (most, most + 500)
            await till(lambda: ingest.waiting >= least, "the hub to take what it can")
            await asyncio.sleep(0.3)
            assert ingest.waiting <= bound
            assert len(taken) <= bound
            store.gate.set()
            await till(lambda: ingest.waiting == 0 and len(taken) >= count, "the rest to come")
            record = await store.device(CAM)
            assert record is not None
            assert (record.messages, record.duplicates) == (count, 0)

        await joined(store, broker.port, work)

    broker.start()
    try:
        asyncio.run(play())
    finally:
        broker.stop()


def test_what_is_not_stored_when_the_time_is_over_is_not_confirmed(tmp_path: Path) -> None:
    async def play() -> None:
        store = GatedStore(tmp_path / "hub.db")
        ingest = Ingest(store=store, publish=published, after=nothing)
        released: list[int] = []
        ingest.take(mqtt.up_topic(CAM, Up.EVENT), event(1), False, 1, released.extend)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ingest.drain(), 0.05)
        assert released == []
        await store.close()

    asyncio.run(play())


BAD = {
    "topic": ("edge/v1/acme/cam1/up/diary", event(1)),
    "size": ("event", event(2).ljust(mqtt.MAX_UP_BYTES + 1)),
    "compression": ("tele", zlib.compress(event(3))[:-4]),
    "syntax": ("event", event(4)[:-1]),
    "content": ("event", event(5).replace(b'"sensor"', b'"no name"')),
    "number": ("event", event(100)),
}
SYNTAX = [
    b"",
    b"\xff\xfe",
    b'{"id":',
    event(6).replace(b'"x"', b'"\xff"'),
    event(7).replace(b"1.0", b"NaN"),
]


def test_why_messages_are_refused_is_counted_and_newer_ones_are_too(tmp_path: Path) -> None:
    given = [(kind if "/" in kind else f"edge/v1/acme/cam1/up/{kind}", payload) for kind, payload in BAD.values()]
    given += [("edge/v1/acme/cam1/up/event", payload) for payload in SYNTAX]
    newer = json.dumps({**json.loads(event(100)), "lux": 1}).encode()

    async def play() -> None:
        store = SqliteStore(tmp_path / "hub.db")
        ingest = Ingest(store=store, publish=published, after=nothing)
        released: list[int] = []
        for number, (topic, payload) in enumerate([("edge/v1/acme/cam1/up/event", newer), *given]):
            ingest.take(topic, payload, False, number, released.extend)
        await ingest.drain()
        assert released == list(range(len(given) + 1))
        totals = await store.totals()
        assert totals.refused == {**dict.fromkeys(BAD, 1), "syntax": 1 + len(SYNTAX)}
        assert (totals.malformed, totals.newer, totals.messages) == (len(given), 1, 1)
        assert len(await store.quarantined()) == len(given)
        await store.close()

    asyncio.run(play())
