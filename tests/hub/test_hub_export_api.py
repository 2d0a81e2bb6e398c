"""Exports from a hub that runs, over HTTP: the same rows, no faster than they are read, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, get_args

import pytest
from daemon_stage import until
from history_stage import CAM, OTHER, sample
from hub_stage import FakeDevice, HubProcess, is_stuck
from store_stage import Place, PostgresPlace, SqlitePlace, within

from edge_hub.api import ExportQuery, Kept
from edge_hub.errors import AnswerError
from edge_hub.export.sources import open_source
from edge_hub.export.tables import TABLES
from edge_hub.store._backup import StoppedError
from edge_hub.web import exports
from edge_hub.web.exports import MAX_EXPORTS, Pipe
from edge_sdk import mqtt
from edge_sdk.cli import main
from edge_sdk.mqtt import Up


def export(hub: HubProcess, what: str, *options: str, remote: bool, token: Path | None = None) -> bytes | None:
    """The file's content; None where there is none."""
    target = hub.directory / "out"
    where = ("--hub", f"http://127.0.0.1:{hub.http}", "--data", str(token or hub.data)) if remote else ()
    words = ["hub", "export", "--data", str(hub.data), *where, "--what", what, "-o", str(target), *options]
    if main(words) != 0:
        assert not target.exists()
        return None
    content = target.read_bytes()
    target.unlink()
    return content


def write(hub: HubProcess, sql: str, rows: list[tuple[Any, ...]]) -> None:
    """Into the database of a hub that runs."""
    with contextlib.closing(sqlite3.connect(hub.data / "hub.db", timeout=30)) as connection, connection:
        connection.executemany(sql, rows)


@contextlib.contextmanager
def asking(hub: HubProcess, path: str) -> Iterator[http.client.HTTPResponse]:
    """An answer that is not read yet."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.http, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {hub.token}"})
        yield connection.getresponse()
    finally:
        connection.close()


@pytest.mark.broker
def test_over_http_comes_what_lies_in_the_database_and_only_administrators_get_it(
    hub: HubProcess, device: Callable[..., FakeDevice], capfd: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    for camera in (device(CAM), device(OTHER)):
        camera.send(Up.TELE, mqtt.Tele(samples=(sample(now - 3600), sample(now - 3500, battery_pct=70.0))))
        camera.confirmed(camera.happens("=odd"))
    late = ("--since", str(now - 3550), "--times", "unix")
    for what, options in (
        ("telemetry", ()),
        ("telemetry", (*late, "--query", "battery_pct > 60", "--device", str(CAM), "--device", "acme/no")),
        ("telemetry", ("--format", "parquet", "--until", str(now - 3550))),
        ("events", late),
        ("commands", ()),
    ):
        here = export(hub, what, *options, remote=False)
        assert here
        assert export(hub, what, *options, remote=True) == here
    elsewhere = hub.directory / "elsewhere"
    elsewhere.mkdir()
    with hub.client() as client:
        entries = [(one.who, one.target) for one in client.audit() if one.what == "export"]
        assert entries == [("admin", what) for what in ("commands", "events", "telemetry", "telemetry", "telemetry")]
        (elsewhere / "token").write_text(client.make_token("reader", "operator").token)
        for asked in (
            ExportQuery(query="temp >"),
            ExportQuery(devices="cam1"),
            ExportQuery(devices=","),
            ExportQuery(since=2.0, until=1.0),
        ):
            with pytest.raises(AnswerError), (hub.directory / "x").open("wb") as stream:
                client.export("events", stream, asked)
    capfd.readouterr()
    assert export(hub, "events", remote=True, token=elsewhere) is None
    assert "[forbidden]" in capfd.readouterr().err
    assert export(hub, "events", "--store", "postgresql://x/y", remote=True) is None
    with asking(hub, "/api/v1/export/passwords") as answer:
        assert answer.status == 400


@pytest.mark.broker
def test_who_does_not_read_holds_up_nobody_and_what_breaks_off_is_not_whole(
    hub: HubProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = "INSERT INTO audit (at, who, role, what, target, detail) VALUES (1, 'a', 'admin', 'x', 'y', ?)"
    write(hub, entry, [(b"x" * 60_000,)] * 300)  # more than lies in the sockets between
    path = "/api/v1/export/audit"
    with contextlib.ExitStack() as readers:
        for _ in range(MAX_EXPORTS):
            assert readers.enter_context(asking(hub, path)).status == 200
        with asking(hub, path) as refused:
            assert (refused.status, refused.headers["retry-after"] is not None) == (429, True)

    def let_in() -> bool:
        with asking(hub, path) as answer:
            return answer.status == 200

    until(let_in, "those who went away to be forgotten")
    body = b'{"at":1.0,"kind":"sensor","text":"' + b"x" * 900 + b'"}'
    with hub.client() as client:
        client.enrol(CAM, again=False)
    write(hub, "INSERT INTO events (device, received, body) VALUES (1, 1, ?)", [(body,)] * 200 + [(b"damage",)])
    until(lambda: export(hub, "commands", remote=True) is not None, "an export that is let in")
    capfd.readouterr()
    assert export(hub, "events", remote=True) is None
    assert "the answer broke off" in capfd.readouterr().err
    until(lambda: "an export broke off" in hub.said, "the hub to say why")
    with asking(hub, path) as answer:
        assert answer.status == 200
        until(lambda: is_stuck(answer.fileno()), "the hub to wait for its reader")
        assert hub.stop() == 0  # though somebody does not read on
    assert "Traceback" not in hub.said


class Endless:
    """A job that writes for ever."""

    def __init__(self) -> None:
        self.chunks = 0

    def write(self, stream: BinaryIO, *, stopped: Callable[[], bool]) -> None:
        while not stopped():
            self.chunks += 1
            stream.write(b"x" * exports._CHUNK_BYTES)


def test_a_job_is_a_few_chunks_ahead_of_its_reader_and_ends_with_it() -> None:
    async def play() -> None:
        pipe, job = Pipe(), Endless()
        writing = asyncio.create_task(asyncio.to_thread(pipe.fill, job))
        ahead = exports._AHEAD + 1  # one is being put
        for read in range(3):
            while job.chunks < ahead + read:  # noqa: ASYNC110 - of a thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert job.chunks == ahead + read
            assert len(await pipe.next(()) or b"") == exports._CHUNK_BYTES
        pipe.stop()
        with pytest.raises(StoppedError):
            await asyncio.wait_for(writing, 30)

    asyncio.run(play())


FOREVER = {
    "sqlite": "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    "postgres": "SELECT pg_sleep(3600)",
}


def test_a_database_that_looks_for_rows_without_finding_any_ends_when_nobody_wants_them(place: Place) -> None:
    within(place, lambda store: store.totals())
    over = threading.Event()
    threading.Timer(0.3, over.set).start()
    path = place.path if isinstance(place, SqlitePlace) else Path("none")
    url = place.url if isinstance(place, PostgresPlace) else None
    with pytest.raises(StoppedError), open_source(path, url, stopped=over.is_set) as source:
        source.fetch(FOREVER["sqlite" if url is None else "postgres"])
    assert over.is_set()


def test_each_table_has_a_path() -> None:
    assert get_args(Kept) == tuple(TABLES)
