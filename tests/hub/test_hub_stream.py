"""Who watches: nothing is missed by one who keeps up, and one who does not costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from daemon_stage import until
from hub_stage import CAM, FakeDevice, HubProcess, is_stuck, listens, till

from edge_hub.alerts.rules import Rule
from edge_hub.alerts.views import SilenceRequest
from edge_hub.census import Census
from edge_hub.feed import Feed, News, Topic
from edge_hub.rowfeed import RowFeed
from edge_hub.store.records import Arrival
from edge_hub.store.sqlite import SqliteStore
from edge_hub.web.stream import stream
from edge_sdk import mqtt
from edge_sdk.mqtt import Event, Up, UpEnvelope
from edge_sdk.wire import new_token

Device = Callable[..., FakeDevice]


def news(number: int) -> News:
    return News(topic=Topic.EVENT, id=number, body={"number": number})


async def frames(source: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(source) for _ in range(count)]


def test_a_reader_that_does_not_read_is_told_so_and_cut_off() -> None:
    async def play() -> None:
        hub: Any = SimpleNamespace(feed=Feed())
        reader = stream(hub, after=None, stopping=asyncio.Event())
        assert (await frames(reader, 1))[0].startswith(b"retry:")
        for number in range(5000):
            hub.feed.spread(news(number))
        (listener,) = hub.feed._listeners
        assert (listener.missed, listener._queue.qsize()) == (1, 0)  # what waits for one who may never come is let go
        assert await frames(reader, 1) == [b"event: missed\ndata: {}\n\n"]
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert hub.feed.listeners == 0

    asyncio.run(play())


def test_rows_that_wait_for_a_reader_are_bounded_by_their_size() -> None:
    async def play() -> None:
        feed = Feed()
        with feed.listen() as listener:
            rows = News(topic=Topic.ROWS, body=msgspec.Raw(b" " * 1_000_000))
            for _ in range(8):
                feed.spread(rows)
                assert await listener.next(1.0) is rows
            for _ in range(8):
                feed.spread(rows)
            assert (listener.missed, listener._queue.qsize()) == (0, 8)
            feed.spread(rows)
            assert (listener.missed, listener._queue.qsize()) == (1, 0)

    asyncio.run(play())


def test_rows_that_cannot_be_read_are_said_to_be_missed(tmp_path: Path) -> None:
    async def play() -> None:
        store, feed = SqliteStore(tmp_path / "hub.db"), Feed()
        rows = RowFeed(census=Census(store), feed=feed)
        await store.close()  # it refuses, then
        running = asyncio.create_task(rows.run())
        try:
            with feed.listen() as listener:
                rows.touch((CAM,))
                await till(lambda: listener.missed, "the rows to be missed")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(play())


def test_one_token_does_not_take_all_streams(hub: HubProcess) -> None:
    with hub.client() as client, contextlib.ExitStack() as ends:
        viewer = client.make_token("viewer", role="viewer").token
        url = f"http://127.0.0.1:{hub.http}/api/v1/stream"
        with httpx.Client(limits=httpx.Limits(max_connections=200), timeout=20) as http:

            def status(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                return ends.enter_context(http.stream("GET", url, headers=headers)).status_code

            assert [status(viewer) for _ in range(101)] == [200] * 100 + [429]
            assert status(hub.token) == 200


def test_a_reader_that_comes_back_is_sent_what_it_missed_and_nothing_twice(tmp_path: Path) -> None:
    async def play() -> None:
        store = SqliteStore(tmp_path / "hub.db")
        boot = new_token()

        async def happen(first: int, last: int) -> None:
            arrivals = []
            for seq in range(first, last + 1):
                envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=1.0, body=Event(at=1.0, kind="sensor"))
                payload = mqtt.pack(envelope)
                arrivals.append(Arrival(device=CAM, kind=Up.EVENT, envelope=envelope, payload=payload, received=1.0))
            committed = await store.commit(arrivals)
            for event in committed.events:
                hub.feed.spread(News(topic=Topic.EVENT, id=event.id, body={"id": event.id}))

        hub: Any = SimpleNamespace(feed=Feed(), store=store)
        try:
            await happen(1, 5)
            reader = stream(hub, after=2, stopping=asyncio.Event())
            (_, third) = await frames(reader, 2)
            await happen(6, 7)  # both stored and spread while the reader is still at the stored ones
            rest = await frames(reader, 2)
            newest = await frames(reader, 2)
            ids = [int(frame.split(b"\n")[0][4:]) for frame in [third, *rest, *newest]]
            assert ids == [3, 4, 5, 6, 7]
            await reader.aclose()
        finally:
            await store.close()

    asyncio.run(play())


def test_a_stream_ends_when_the_hub_does() -> None:
    async def play() -> None:
        stopping = asyncio.Event()
        hub: Any = SimpleNamespace(feed=Feed())
        reader = stream(hub, after=None, stopping=stopping)
        await frames(reader, 1)
        stopping.set()
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    asyncio.run(play())


@contextlib.contextmanager
def watching(
    hub: HubProcess, *, window: int | None = None, after: int | None = None, token: str | None = None
) -> Iterator[socket.socket]:
    """A connection on which the stream was asked for."""
    with socket.socket() as connection:
        if window is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", hub.http))
        query = "" if after is None else f"?after={after}"
        bearer = token or hub.token
        request = f"GET /api/v1/stream{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
        yield connection


def test_a_viewer_hears_what_kind_of_thing_others_changed_and_no_more(hub: HubProcess) -> None:
    with hub.client() as client:
        viewer = client.make_token("viewer", role="viewer").token
        changes: dict[str, Callable[[], object]] = {
            "rule": lambda: client.put_rule("mine", Rule(when="online")),
            "rule-deleted": lambda: client.delete_rule("mine"),
            "silence": lambda: client.silence(SilenceRequest(for_s=60)),
            "group": lambda: client.put_group("ours", "online"),
            "token": lambda: client.make_token("other", role="admin"),
            "token-withdrawn": lambda: client.withdraw_token("other"),
        }
        with watching(hub, token=viewer) as connection:
            for what, change in changes.items():
                change()
                expected = f'event: audit\ndata: {{"what":"{what}"}}\n\n'
                assert expected in read_until(connection, expected)


@pytest.mark.broker
def test_a_watcher_that_sleeps_holds_up_neither_devices_nor_others(hub: HubProcess, device: Device) -> None:
    cam = device()
    with watching(hub, window=4096) as sleeper, watching(hub) as other:
        last = 0
        for last in range(1, 4001):
            cam.send(Up.EVENT, mqtt.Event(at=1.0, kind="sensor", text="x" * 900), seq=last)
            if last % 100 == 0:
                assert f"\nid: {last}\n" in read_until(other, f"\nid: {last}\n")
        cam.confirmed(last)
        assert "event: missed" in read_until(sleeper, "event: missed")
    assert hub.messages() == last


def read_until(connection: socket.socket, text: str) -> str:
    """What comes, up to this."""
    heard = ""
    while text not in heard:
        block = connection.recv(65536)
        assert block, "it hung up"
        heard = heard[-100:] + block.decode().replace("\r\n", "\n")
    return heard


@pytest.mark.broker
def test_a_stream_that_nobody_reads_leaves_no_traceback_where_the_hub_ends(hub: HubProcess) -> None:
    hub.enrol()
    event = b'{"at":1.0,"kind":"sensor","text":"' + b"x" * 900 + b'"}'
    with contextlib.closing(sqlite3.connect(hub.data / "hub.db", timeout=30)) as base, base:
        base.executemany("INSERT INTO events (device, received, body) VALUES (1, 1, ?)", [(event,)] * 10_000)
    with watching(hub, window=4096, after=0) as sleeper:
        until(lambda: is_stuck(sleeper.fileno()), "the hub to wait for its reader")
        assert hub.stop() == 0
    assert "Traceback" not in hub.said


@pytest.mark.broker
def test_an_open_stream_does_not_keep_the_hub_from_ending(hub: HubProcess, device: Device) -> None:
    cam = device()
    with watching(hub), watching(hub, window=4096):
        cam.confirmed(cam.happens("hello"))
        began = time.monotonic()
        cam.close()
        assert hub.stop() == 0
        assert time.monotonic() - began < 30
    assert not listens(hub.http)
