"""What a hub keeps, as files: of a hub that runs and of one that does not, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_stage import EDGE, clean_environment, until
from history_stage import CAM, NOON, OTHER, boot, rolled_up, sample, telemetry
from hub_stage import FakeDevice, HubProcess
from hypothesis import given
from hypothesis import strategies as st
from store_stage import AnyStore, Place, PostgresPlace, SqlitePlace, within

from edge_hub import commands
from edge_hub.errors import ExportLibraryError, StoreError
from edge_hub.export import files, sources, tables
from edge_hub.export.files import FORMULA, iso, write_csv
from edge_hub.export.sources import Source, open_source
from edge_hub.export.tables import TABLES, Kind, Wanted
from edge_hub.keeping import moment
from edge_hub.store.records import AlertRecord, Arrival, AuditRecord, CommandRecord, Point, Retention
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import mqtt
from edge_sdk.cli import main
from edge_sdk.errors import StorageError, UsageError
from edge_sdk.mqtt import Because, Event, Pin, Reply, ReplyStatus, Up, UpEnvelope

HOSTILE = '=HYPERLINK("http://x")\r\n,"\''


def event(seq: int, at: float, text: str, *, of: int = 7) -> Arrival:
    envelope = UpEnvelope(
        id=f"{of:016x}{seq:016x}",
        boot=boot(of),
        seq=seq,
        sent=at,
        body=Event(at=at, kind="switch", model="digits", because=Because(code="thermal", text=text)),
    )
    return Arrival(device=CAM, kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=at + 1)


async def fill(store: AnyStore) -> None:
    """Everything happens once."""
    for start in range(0, 300, 3):
        told = [sample(NOON + 10 * (start + n), temp_c=(start + n) % 100) for n in range(3)]
        await store.commit([telemetry(start // 3 + 1, told)])
    await store.commit([telemetry(1, [sample(NOON + 5, temp_c=-5.5, battery_pct=80)], of=2, device=OTHER)])
    await store.commit([event(1, NOON, "it got hot"), event(2, NOON + 60, HOSTILE)])
    await store.add_commands(
        [
            CommandRecord(
                id=f"{1:032x}",
                device=CAM,
                command=Pin(model="digits", variant="small"),
                sent=NOON,
                expires=NOON + 60,
            )
        ]
    )
    reply = UpEnvelope(
        id=f"{99:032x}",
        boot=boot(7),
        seq=3,
        sent=NOON + 2,
        reply_to=f"{1:032x}",
        body=Reply(status=ReplyStatus.DONE, text="-1+1", result={"a": 1}),
    )
    await store.commit(
        [Arrival(device=CAM, kind=Up.REPLY, envelope=reply, payload=mqtt.pack(reply), received=NOON + 2)]
    )
    await store.add_audit(
        AuditRecord(at=NOON, who="ann", role="admin", what="command", target=str(CAM), detail=b'{"a":1}')
    )
    await store.raise_alert(
        AlertRecord(rule="hot", device=CAM, severity="warning", began=NOON, text="80 °C", value=80.0)
    )
    await rolled_up(store)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory in which everything happened once, and no hub runs."""
    directory = tmp_path / "hub"
    directory.mkdir()
    within(directory / "hub.db", fill)
    return directory


def export(data: Path, what: str, *options: str, name: str = "out.csv") -> Path:
    target = data.parent / name
    assert main(["hub", "export", "--data", str(data), "--what", what, "-o", str(target), *options]) == 0
    return target


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_telemetry_is_a_row_for_each_sample_and_model(data: Path) -> None:
    target = export(data, "telemetry")
    assert target.stat().st_mode & 0o777 == 0o600
    found = read(target)
    assert len(found) == 301
    assert tuple(found[0]) == tuple(TABLES["telemetry"].columns)
    assert (found[0]["at"], found[0]["device"], found[0]["temp_c"]) == (iso(NOON), "acme/cam1", "0.0")
    assert (found[0]["model"], found[0]["variant"], found[0]["calls"], found[0]["charging"]) == (
        "digits",
        "small",
        "10",
        "",
    )
    assert found[-1]["temp_c"] == "-5.5"
    assert found[0]["at"].endswith("Z")


def test_only_what_is_asked_for_is_written(data: Path) -> None:
    late = str(NOON + 1000)
    found = read(export(data, "telemetry", "--since", late, "--until", iso(NOON + 2000), "--times", "unix"))
    assert [float(row["at"]) for row in found] == [NOON + 1000 + 10 * n for n in range(100)]
    one = read(export(data, "telemetry", "--device", str(CAM), "--since", late, "--times", "unix"))
    assert [float(row["at"]) for row in one] == [NOON + 1000 + 10 * n for n in range(200)]
    assert len(read(export(data, "telemetry", "--query", "battery_pct > 50"))) == 1
    assert len(read(export(data, "telemetry", "--query", "device = cam1 and alerts > 0", "--device", str(CAM)))) == 300
    assert read(export(data, "telemetry", "--query", "battery_pct > 50", "--device", str(CAM))) == []
    assert read(export(data, "events", "--device", str(OTHER))) == []
    assert len(read(export(data, "events", "--query", "switches_h >= 0"))) == 2


def test_minutes_and_hours_say_what_the_history_says_when_the_messages_are_gone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE_ROWS", 7)
    day = ("--times", "unix", "--since", str(NOON - 60), "--until", str(NOON + 3600))

    async def forget(store: AnyStore) -> tuple[Point, ...]:
        while await store.trim(Retention(max_age_s=1.0), now=NOON + 80_000):
            pass
        return await store.history(CAM, since=NOON - 60, until=NOON + 3600, step_s=60)

    points = within(data / "hub.db", forget)
    assert read(export(data, "telemetry")) == []
    minutes = read(export(data, "minutes", *day, "--device", str(CAM)))
    assert tuple(minutes[0]) == tuple(TABLES["minutes"].columns)
    assert [float(row["at"]) for row in minutes] == [point.at for point in points]
    for row, point in zip(minutes, points, strict=True):
        assert point.temp_c is not None
        assert tuple(float(row[f"temp_{which}_c"]) for which in ("min", "mean", "max")) == point.temp_c
        assert (row["device"], int(row["samples"]), int(row["calls"])) == ("acme/cam1", point.samples, point.calls)
        assert (float(row["p50_ms"]), float(row["p95_ms"]), row["power_mean_w"]) == (4.0, 9.0, "")
        assert json.loads(row["variants"]) == {"digits/small": 10.0 * point.samples}
    assert sum(int(row["samples"]) for row in minutes) == 300
    hours = read(export(data, "hours", *day, "--query", "device = cam1"))
    assert [(float(row["at"]), row["samples"]) for row in hours] == [(NOON, "299")]  # the hour before began earlier
    everyone = read(export(data, "hours"))
    assert {(row["device"], row["samples"], row["battery_pct"]) for row in everyone} == {
        ("acme/cam1", "1", ""),
        ("acme/cam1", "299", ""),
        ("acme/cam2", "1", "80.0"),
    }


def test_the_other_kinds_say_who_when_and_what(data: Path) -> None:
    events = read(export(data, "events", "--times", "unix"))
    assert [row["because"] for row in events] == ["it got hot", f"'{HOSTILE}"]
    assert events[0]["received"] == str(NOON + 1)
    (command,) = read(export(data, "commands"))
    assert json.loads(command["command"]) == {"name": "pin", "model": "digits", "variant": "small"}
    assert (command["state"], command["text"], command["result"], command["late"]) == (
        "done",
        "'-1+1",
        '{"a":1}',
        "false",
    )
    (alert,) = read(export(data, "alerts"))
    assert (alert["rule"], alert["device"], alert["ended"], alert["text"]) == ("hot", "acme/cam1", "", "80 °C")
    (audit,) = read(export(data, "audit", "--device", str(CAM)))
    assert (audit["who"], audit["detail"]) == ("ann", '{"a":1}')


def test_parquet_has_the_same_with_types(data: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(export(data, "telemetry", "--format", "parquet", name="out.parquet"), use_threads=False)
    assert table.num_rows == 301
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    first = table.slice(0, 1).to_pylist()[0]
    assert first["at"].timestamp() == NOON
    assert (first["temp_c"], first["calls"], first["charging"], first["played"]) == (0.0, 10, None, False)
    events = parquet.read_table(
        export(data, "events", "--format", "parquet", "--times", "unix", name="out.parquet"), use_threads=False
    ).to_pylist()
    assert [(row["at"], row["because"]) for row in events] == [(NOON, "it got hot"), (NOON + 60, HOSTILE)]
    for what, rows in (("hours", 3), ("commands", 1), ("alerts", 1), ("audit", 1)):
        path = export(data, what, "--format", "parquet", name="out.parquet")
        assert parquet.read_table(path, use_threads=False).num_rows == rows


def test_little_of_long_rows_lies_in_memory_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PAGE_ROWS", 2)
    asked: list[int] = []
    order = Pin(model="digits", variant="small")

    async def send(store: AnyStore) -> None:
        await store.commit([telemetry(1, [sample(NOON)])])
        await store.add_commands(
            [
                CommandRecord(id=f"{number:032x}", device=CAM, command=order, sent=sent, expires=NOON + 60)
                for number, sent in (
                    (5, NOON),
                    (1, NOON + 2),
                    (4, NOON + 1),
                    (3, NOON + 1),
                    (2, NOON + 1),
                    (6, NOON - 1),
                )
            ]
        )

    within(place, send)
    path = place.path if isinstance(place, SqlitePlace) else Path("none")
    with open_source(path, place.url if isinstance(place, PostgresPlace) else None) as source:
        rows = TABLES["commands"].read(source, Wanted(since=NOON, until=NOON + 2.5))
        assert [int(row[0], 16) for row in rows] == [5, 2, 3, 4, 1]
    monkeypatch.setattr(files, "_CHUNK_CHARS", 1000)

    def long() -> Iterator[tuple[str | None, int]]:
        for number in range(10):
            asked.append(stream.tell())
            yield (None if number == 3 else "x" * 400), number

    stream = io.BytesIO()
    assert files.write_parquet(stream, {"text": Kind.TEXT, "number": Kind.WHOLE}, long(), unix=False) == 10
    assert len(set(asked)) == 3  # a part was written before the next was asked for


def test_without_pyarrow_parquet_is_refused_in_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportLibraryError, match=r"adaptive-edge-sdk\[export\]"):
        files.write_parquet(io.BytesIO(), {"a": Kind.TEXT}, [], unix=False)
    target = data.parent / "out.parquet"
    assert (
        main(["hub", "export", "--data", str(data), "--what", "audit", "--format", "parquet", "-o", str(target)]) == 1
    )
    assert not target.exists()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_no_cell_of_text_is_a_formula_and_each_can_be_read_back(text: str) -> None:
    stream = io.BytesIO()
    assert write_csv(stream, {"text": Kind.TEXT, "number": Kind.REAL}, [(text, -1.5)], unix=False) == 1
    _, (cell, number) = csv.reader(io.StringIO(stream.getvalue().decode(), newline=""))
    assert not cell.startswith(FORMULA)
    assert text in (cell, cell[1:])
    assert number == "-1.5"


def test_an_export_that_breaks_off_leaves_what_was_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = data.parent / "out.csv"
    target.write_text("of last week")
    with sqlite3.connect(data / "hub.db") as connection:
        connection.execute("UPDATE events SET body = x'00' WHERE id = 2")
    connection.close()
    assert main(["hub", "export", "--data", str(data), "--what", "events", "-o", str(target)]) == 1
    assert target.read_text() == "of last week"
    assert sorted(path.name for path in data.parent.iterdir()) == ["hub", "out.csv"]


def test_what_cannot_be_exported_is_said(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def says(*more: str, where: Path = data) -> str:
        words = ["hub", "export", "--data", str(where), "--what", "events", "-o", str(tmp_path / "x.csv"), *more]
        assert main(words) in (1, 2)
        return capfd.readouterr().err

    assert "there is no database" in says(where=tmp_path)
    assert "no moment" in says("--since", "yesterday")
    assert "not before" in says("--since", "2026-01-02", "--until", "2026-01-01")
    assert "TENANT/DEVICE" in says("--device", "cam1")
    assert "temp" in says("--query", "temp > 3")
    with sqlite3.connect(data / "hub.db") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert "format 1" in says()
    assert not (tmp_path / "x.csv").exists()


def test_every_kind_can_be_asked_for() -> None:
    assert set(commands._KINDS) == set(TABLES)


def test_moments_are_read_as_people_and_programs_write_them() -> None:
    assert moment("2026-11-27") == moment("2026-11-27T00:00Z") == moment("2026-11-27T01:00+01:00") == 1795737600.0
    assert moment("1795737600.5") == 1795737600.5
    for text in ("nan", "-1", "18:30", "1e999", ""):
        with pytest.raises(UsageError):
            moment(text)


def test_an_export_reads_beside_a_store_that_is_written_to(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAGE_ROWS", 7)

    async def play() -> int:
        store = SqliteStore(data / "hub.db")
        exporting = asyncio.create_task(asyncio.to_thread(export, data, "telemetry"))
        seq = 1
        while not exporting.done():
            seq += 1
            await store.commit([telemetry(seq, [sample(NOON + seq)], of=2, device=OTHER)])
        rows = len(read(await exporting))
        await store.close()
        return rows

    assert asyncio.run(play()) >= 301


@pytest.mark.postgres
def test_from_postgresql_comes_the_same(data: Path, database: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAGE_ROWS", 7)
    within(database, fill)

    def rows(*options: str) -> list[list[str]]:
        return sorted(list(row.values()) for row in read(export(data, *options)))

    query = ("--query", "alerts > 0 and switches_h = 0", "--since", str(NOON + 30))
    for what in TABLES:
        for choice in ((), ("--device", str(CAM)), query):
            assert rows(what, *choice, "--store", database.url) == rows(what, *choice), (what, choice)
    words = ["hub", "export", "--data", str(data), "--what", "audit", "-o", str(data / "x"), "--store", "mysql://x/y"]
    assert main(words) == 2


@pytest.mark.postgres
def test_a_database_that_goes_away_under_an_export_is_said_in_one_line(
    data: Path, database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE_ROWS", 7)
    within(database, fill)

    def rows(source: Source) -> Iterator[None]:
        for _ in TABLES["telemetry"].read(source, Wanted()):
            database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edge-hub'")
            yield

    with pytest.raises(StoreError, match="the database refuses"), open_source(data, database.url) as source:
        list(rows(source))
    with pytest.raises(StoreError, match="division by zero"), open_source(data, database.url) as source:
        source.fetch("SELECT 1 / 0")
    with pytest.raises(UsageError), open_source(data, database.url):
        raise UsageError("of who reads")
    with open_source(data, database.url) as source:
        assert source.fetch("SHOW idle_in_transaction_session_timeout")[0][0] == "10min"  # of who reads slowly


@pytest.mark.broker
def test_a_hub_that_runs_is_read_and_copied_beside_it(
    hub: HubProcess, device: Callable[..., FakeDevice], tmp_path: Path
) -> None:
    camera = device()
    now = time.time()
    camera.confirmed(camera.send(Up.TELE, mqtt.Tele(samples=(sample(now - 3600), sample(now - 3590)))))
    assert len(read(export(hub.data, "telemetry"))) == 2
    assert main(["hub", "backup", "--data", str(hub.data), "-o", str(tmp_path / "copy.db")]) == 0
    camera.confirmed(camera.send(Up.TELE, mqtt.Tele(samples=(sample(now - 3580),))))

    def summed() -> bool:  # by the hub's own upkeep
        with contextlib.closing(sqlite3.connect(hub.data / "hub.db")) as connection:
            return connection.execute("SELECT count(*) FROM condensed").fetchone()[0] >= 2

    until(summed, "the roll-up")
    restored = tmp_path / "again"
    restored.mkdir()
    (tmp_path / "copy.db").rename(restored / "hub.db")
    assert len(read(export(restored, "telemetry"))) == 2
    assert len(read(export(hub.data, "telemetry"))) == 3


@pytest.mark.parametrize(
    "words",
    [("export", "--what", "events"), ("backup",), ("enroll", "a/b")],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("name", ["hub.db", "hub.db-wal", "elsewhere/link"])
def test_nothing_is_written_over_the_database_of_a_hub(
    words: tuple[str, ...], name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    (own / "elsewhere").mkdir(parents=True)
    before = (data / "hub.db").read_bytes()
    (own / "hub.db").write_bytes(before)
    (own / "elsewhere" / "link").symlink_to("../hub.db")
    assert main(["hub", *words, "--data", str(own), "-o", str(own / name)]) == 2
    assert "is the hub's own database" in capsys.readouterr().err
    assert (own / "hub.db").read_bytes() == before


def test_an_export_does_not_make_a_file_that_is_called_by_a_dash(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["hub", "export", "--data", str(data), "--what", "events", "-o", "-"]) == 2
    assert not (tmp_path / "-").exists()


def test_a_back_up_is_made_by_command_while_nothing_runs(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    told = subprocess.run(
        [*EDGE, "hub", "backup", "--data", str(data), "-o", str(target), "--json"],
        check=True,
        capture_output=True,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    )
    assert json.loads(told.stdout) == {"file": str(target), "size_bytes": target.stat().st_size}
    restored = tmp_path / "again"
    restored.mkdir()
    target.rename(restored / "hub.db")
    assert read(export(restored, "telemetry")) == read(export(data, "telemetry"))
    assert main(["hub", "backup", "--data", str(tmp_path / "no"), "-o", str(tmp_path / "x.db")]) == 1
    assert issubclass(StoreError, StorageError)
