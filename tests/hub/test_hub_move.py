"""From SQLite to PostgreSQL: everything comes along or nothing, and the fleet goes on as if nothing were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import EDGE, clean_environment, until
from history_stage import CAM, NOON, OTHER, boot, rolled_up, sample, telemetry
from hub_stage import FakeDevice, HubProcess
from store_stage import AnyStore, PostgresPlace, within

from edge_hub.alerts.delivery import Delivery
from edge_hub.alerts.ways import Topic
from edge_hub.api import DesiredRequest, ExportQuery
from edge_hub.census import Census
from edge_hub.datadir import DataDir
from edge_hub.errors import MoveError, StoreError, StoreMovedError
from edge_hub.store import _move, _postgres_pool
from edge_hub.store.postgres import PostgresStore
from edge_hub.store.records import (
    AlertRecord,
    Arrival,
    AuditRecord,
    CommandRecord,
    Malformed,
    Retention,
    RuleRecord,
    TokenRecord,
)
from edge_sdk import mqtt
from edge_sdk.cli import main
from edge_sdk.mqtt import Birth, DeviceId, Event, Pin, Reply, ReplyStatus, Report, Up, UpEnvelope
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.postgres

DAY_S = 86_400.0
COMMAND, LATE, PENDING = (f"{number:032x}" for number in (1, 2, 3))
OLD = [telemetry(seq, [sample(NOON - 9 * DAY_S + 60 * seq)], of=1) for seq in range(1, 12)]


def came(kind: Up, body: Any, seq: int, *, of: int = 2, reply_to: str | None = None, at: float = NOON) -> Arrival:
    envelope = UpEnvelope(id=f"{of:016x}{seq:016x}", boot=boot(of), seq=seq, sent=at, reply_to=reply_to, body=body)
    return Arrival(device=CAM, kind=kind, envelope=envelope, payload=mqtt.pack(envelope), received=at)


def command(number: int, *, lasts_s: float) -> CommandRecord:
    order = Pin(model="digits", variant="small")
    sent = NOON + number
    return CommandRecord(id=f"{number:032x}", device=CAM, command=order, sent=sent, expires=sent + lasts_s, by="ann")


def alert(rule: str) -> AlertRecord:
    return AlertRecord(rule=rule, device=CAM, severity="warning", began=NOON, text="80 °C", value=80.0)


async def fill(store: AnyStore) -> None:
    """Something of everything; of some of it retention took the beginning, and the roll-up has not come to the end."""
    await store.enrol(CAM, "a hash", now=NOON - 9 * DAY_S, again=False)
    await store.commit(OLD)
    await store.commit([came(Up.EVENT, Event(at=NOON - 9 * DAY_S, kind="sensor", text="old"), 12, of=1, at=NOON - 9e5)])
    await rolled_up(store)
    while await store.trim(Retention(max_age_s=DAY_S), now=NOON):
        pass
    await store.commit([came(Up.BIRTH, Birth(online=True), 0)])
    await store.commit([came(Up.EVENT, Event(at=NOON, kind="switch", model="digits", text="a \0 b"), 1)])
    await store.commit([telemetry(seq, [sample(NOON + 60 * seq, temp_c=40.0 + seq)], of=2) for seq in (2, 3, 5)])
    await rolled_up(store)
    await store.commit([telemetry(seq, [sample(NOON + DAY_S + 60 * seq)], of=2) for seq in (6, 8)])
    await store.commit([telemetry(1, [sample(NOON + 5, battery_pct=80)], of=3, device=OTHER)])
    await store.commit(
        [telemetry(3, [sample(NOON)], of=2), Malformed(topic="x", payload=b"{", problem="?", received=9)]
    )
    await store.add_commands([command(number, lasts_s=lasts_s) for number, lasts_s in ((1, 3e6), (2, 10), (3, 3e6))])
    await store.published(COMMAND, LATE)
    await store.expire_commands(now=NOON + 100, grace_s=1)
    for seq, id_ in ((9, COMMAND), (10, LATE)):
        await store.commit([came(Up.REPLY, Reply(status=ReplyStatus.DONE), seq, reply_to=id_, at=NOON + 9e4)])
    await store.put_desired(CAM, preferences={}, pins={"digits": "small"}, expected_version=None, now=NOON)
    wish = {"digits": Preference(mode=Mode.BATTERY)}
    await store.put_desired(CAM, preferences=wish, pins={}, expected_version=1, now=NOON)
    await store.set_labels(CAM, {"site": "roof"})
    for name in ("hot", "group:roof", "silence:x", "state:alerts"):
        await store.put_rule(RuleRecord(name=name, body=b'{"a":"\\u0000"}', changed=NOON))
    await store.put_token(TokenRecord(name="ci", role="viewer", digest="d" * 64, created=NOON, last_used=NOON + 1))
    for rule in ("hot", "away", "gone"):
        await store.raise_alert(alert(rule))
    await store.acknowledge_alert(1, who="ann", now=NOON)
    await store.end_alert(2, now=NOON + 1)
    for target in (str(CAM), "odd \0 query"):
        await store.add_audit(AuditRecord(at=NOON, who="ann", role="admin", what="command", target=target))
    await store.lease("worker", "somebody", slots=3, now=NOON, ttl_s=15)


async def tell(store: AnyStore) -> dict[str, Any]:
    """All that a store says."""
    devices = await store.devices()
    return {
        "devices": devices,
        "outlines": await store.outlines(),
        "accounts": await store.accounts(),
        "events": await store.events(after=0, limit=1000),
        "commands": {str(one.device): await store.commands(one.device) for one in devices},
        "recent": await store.recent_commands(),
        "pending": await store.pending(),
        "desired": sorted(await store.all_desired(), key=str),
        "quarantine": await store.quarantined(),
        "tokens": await store.tokens(),
        "rules": await store.rules(),
        "alerts": await store.alerts(),
        "audit": [
            replace(one, target=one.target.replace("\0", "\\0"))  # as PostgreSQL keeps it
            for one in await store.audit()
            if one.what != "move"
        ],
        "totals": replace(await store.totals(), size_bytes=0),
        "history": [
            await store.history(one.device, since=since, until=until, step_s=step_s)
            for one in devices
            for since, until, step_s in (
                (NOON - 60, NOON + 900, 1.0),
                (NOON, NOON + DAY_S, 60.0),
                (NOON + DAY_S, NOON + 2 * DAY_S, 60.0),
                (NOON - 10 * DAY_S, NOON + 2 * DAY_S, 3600.0),
            )
        ],
    }


async def go_on(store: AnyStore) -> dict[str, Any]:
    """What comes next, much of it for the second time."""
    again = await store.commit(OLD)
    assert (again.stored, again.duplicates) == (0, len(OLD))  # retention took them, their numbers stay
    told = [telemetry(seq, [sample(NOON + 60 * seq + (DAY_S if seq > 5 else 0))], of=2) for seq in range(2, 9)]
    again = await store.commit(told)
    assert (again.stored, again.duplicates) == (2, 5)
    counted = await store.commit([came(Up.EVENT, Event(at=NOON, kind="sensor", text="next"), 90, at=NOON + 9e4)])
    assert [one.id for one in counted.events] == [3]
    await store.commit([came(Up.REPLY, Reply(status=ReplyStatus.REFUSED), 91, reply_to=PENDING, at=NOON + 9e4)])
    await store.commit([came(Up.BIRTH, Birth(online=False), 0)])
    await store.commit([telemetry(1, [sample(NOON)], of=4), Malformed(topic="y", payload=b"", problem="", received=10)])
    assert await rolled_up(store) == 3 + 2 + 2 + 1 + 1 + 1  # what was not rolled up before, and what was new
    record = await store.put_desired(CAM, preferences={}, pins={}, expected_version=2, now=NOON)
    assert record.desired.version == 3
    raised = await store.raise_alert(alert("away"))
    assert raised.id == 4
    return await tell(store)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of a hub that does not run and has something of everything."""
    directory = tmp_path / "hub"
    directory.mkdir()
    within(directory / "hub.db", fill)
    return directory


def move(data: Path, store: str) -> int:
    return main(["hub", "move", "--data", str(data), "--store", store])


def without_message(told: dict[str, Any]) -> dict[str, Any]:
    """The message of a desired document is random."""
    return {**told, "desired": [replace(one, message="") for one in told["desired"]]}


def test_every_table_comes_along_and_what_comes_next_is_taken_as_before(
    data: Path, database: PostgresPlace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_move, "_BATCH_ROWS", 3)
    before = within(data / "hub.db", tell)
    assert move(data, database.url) == 0
    shown = capfd.readouterr()
    assert re.search(r"^log +9$", shown.out, re.MULTILINE)
    assert "edge: numbers: 5 ranges" in shown.err
    assert within(database, tell) == before
    assert database.sql("SELECT first, last FROM numbers ORDER BY boot, first")[0] == (1, 12)
    (entry,) = moves(database)
    detail = json.loads(entry.detail)
    assert (entry.who, entry.role, entry.target) == ("local", "admin", str(_postgres_pool.DatabaseUrl(database.url)))
    assert (detail["from"], detail["rows"]["log"]) == (str(data / "hub.db"), 9)
    monkeypatch.undo()
    here, there = (within(place, go_on) for place in (data / "hub.db", database))
    assert without_message(there) == without_message(here)
    with pytest.raises(StoreMovedError, match="postgresql://"):
        DataDir(data).refuse_moved()
    assert move(data, database.url) == 1  # there are devices now
    assert "it is not empty: 2 devices" in capfd.readouterr().err


def test_what_a_removed_device_left_is_swept_there_and_nothing_else(data: Path, database: PostgresPlace) -> None:
    async def remove(store: AnyStore) -> None:
        await store.remove([OTHER], now=NOON)  # the last one that came, so that its number is the highest

    async def go_on(store: AnyStore) -> int:
        await store.commit(
            [telemetry(1, [sample(NOON + 6)], of=4, device=DeviceId(tenant=OTHER.tenant, device="newcomer"))]
        )
        swept = 0
        while found := await store.sweep(now=NOON + 90_000):
            swept += found
        return swept

    within(data / "hub.db", remove)
    assert move(data, database.url) == 0
    assert within(database, go_on) > 0
    left = database.sql(
        "SELECT name FROM devices JOIN boots ON boots.device = devices.id JOIN log ON log.boot = boots.id"
    )
    assert {name for (name,) in left} == {CAM.device, "newcomer"}


def moves(database: PostgresPlace) -> list[AuditRecord]:
    """What the audit log says of them."""

    async def look(store: AnyStore) -> list[AuditRecord]:
        return [one for one in await store.audit() if one.what == "move"]

    return within(database, look)


def test_every_table_of_sqlite_is_known_to_the_move(data: Path) -> None:
    with contextlib.closing(sqlite3.connect(data / "hub.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name for name in names if not name.startswith("sqlite_")} == {*_move.TABLES, "counters", "trimmed"}


async def nowhere(_topic: str, _payload: bytes) -> bool:
    """There is no broker."""
    return False


def test_a_store_that_only_ran_is_empty_and_one_that_is_used_is_not(
    data: Path, database: PostgresPlace, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ran(store: AnyStore) -> None:
        await store.put_rule(RuleRecord(name="state:alerts", body=b"{}", changed=1.0))
        await Delivery(Topic(nowhere), store=store, census=Census(store)).step()
        await store.lease("scheduler", "it", slots=1, now=1.0, ttl_s=15)
        await store.add_audit(AuditRecord(at=1.0, who="ann", role="admin", what="token", target="x"))

    async def runs() -> int:
        store = await PostgresStore.open(database.url)
        try:
            async with store.reading():  # as a hub's, a connection is open
                return await asyncio.to_thread(move, data, database.url)
        finally:
            await store.close()

    within(database, ran)
    assert asyncio.run(runs()) == 1
    assert "a hub uses it" in capfd.readouterr().err
    assert move(data, database.url) == 0
    assert database.count("leases") == 1  # those of here
    other = database.another()

    async def makes_a_token(store: AnyStore) -> None:
        await store.put_token(TokenRecord(name="x", role="viewer", digest="e" * 64, created=1.0))

    within(other, makes_a_token)
    assert move(data, other.url) == 1
    assert "it is not empty: 1 tokens" in capfd.readouterr().err
    assert other.count("devices") == 0


def test_what_cannot_be_moved_is_said_in_one_line(
    data: Path,
    database: PostgresPlace,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def says(where: Path = data, store: str = database.url) -> str:
        assert move(where, store) in (1, 2)
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "there is no database" in says(where=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    refused = says(store="mysql://u:secret@x/y")
    assert "postgresql://" in refused
    assert "secret" not in refused
    with DataDir(data).locked():
        assert "another hub uses this data directory" in says()
    monkeypatch.delenv("EDGE_HUB_STORE", raising=False)
    assert main(["hub", "move", "--data", str(data)]) == 2
    assert "no database is named" in capfd.readouterr().err
    database.sql("CREATE SCHEMA edge_hub")
    database.sql("CREATE TABLE edge_hub.theirs (a int)")
    assert "not a hub's" in says()
    assert not (data / "moved.json").exists()


def test_a_row_that_cannot_go_along_keeps_everything_where_it_is(
    data: Path, database: PostgresPlace, capfd: pytest.CaptureFixture[str]
) -> None:
    damage = "INSERT INTO log (boot, seq, kind, message, sent, received, payload) VALUES (99, 1, 'tele', '', 0, 0, x'')"
    for statement in (damage, "DELETE FROM log WHERE boot = 99"):
        with contextlib.closing(sqlite3.connect(data / "hub.db")) as connection:
            connection.execute(statement)
            connection.commit()
        assert (move(data, database.url) == 0) is (statement != damage)
    assert "the database refuses" in capfd.readouterr().err
    assert database.count("log") == 9


def test_a_table_that_did_not_take_all_rows_ends_it(data: Path, database: PostgresPlace) -> None:
    within(database, lambda store: store.totals())
    database.sql("CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    database.sql("CREATE TRIGGER lossy BEFORE INSERT ON edge_hub.rules FOR EACH ROW EXECUTE FUNCTION drop_it()")

    def note(_rows: dict[str, int]) -> AuditRecord:
        raise AssertionError

    with contextlib.closing(sqlite3.connect(data / "hub.db")) as source:
        source.row_factory = sqlite3.Row
        with pytest.raises(MoveError, match="rules has 0 rows there and 4 here"):
            asyncio.run(_move.move(source, database.url, audit=note, close=lambda: None, told=str))
    assert database.count("devices") == 0


def test_killed_halfway_it_leaves_nothing_and_can_be_repeated(
    data: Path, database: PostgresPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within(database, lambda store: store.totals())
    database.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'"
    )
    database.sql("CREATE TRIGGER slow BEFORE INSERT ON edge_hub.rules FOR EACH ROW EXECUTE FUNCTION wait()")
    sleeping = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    process = subprocess.Popen(
        [*EDGE, "hub", "move", "--data", str(data), "--store", database.url],
        stderr=subprocess.DEVNULL,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    )
    try:
        ((server,),) = until(lambda: database.sql(sleeping), "the rules to be copied")
        monkeypatch.setattr(_postgres_pool, "PATIENCE_S", 1)
        with pytest.raises(StoreError, match="another process changes its tables"):
            within(database, lambda store: store.totals())  # no hub starts meanwhile
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    database.sql("SELECT pg_terminate_backend($1)", server)  # which would notice when it has slept
    until(lambda: not database.sql("SELECT 1 FROM pg_stat_activity WHERE pid = $1", server), "the end of it")
    assert database.count("devices") == 0
    assert not (data / "moved.json").exists()
    database.sql("DROP TRIGGER slow ON edge_hub.rules")
    assert move(data, database.url) == 0
    assert within(database, tell) == within(data / "hub.db", tell)


def test_the_old_place_is_closed_before_the_new_one_counts_or_nothing_moves(
    data: Path, database: PostgresPlace, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "moved.json").mkdir()  # as a full disk: it cannot be written
    assert move(data, database.url) == 1
    assert str(data / "moved.json") in capfd.readouterr().err
    (data / "moved.json").rmdir()
    within(database, lambda store: store.totals())
    assert database.count("devices") == 0
    database.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no room''; END'")
    database.sql(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON edge_hub.rules DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    assert move(data, database.url) == 1
    assert "no room" in capfd.readouterr().err
    assert database.count("devices") == 0
    with pytest.raises(StoreMovedError, match="edge hub move"):  # as if killed there: nobody goes on with either
        DataDir(data).refuse_moved()
    database.sql("DROP TRIGGER late ON edge_hub.rules")
    assert move(data, database.url) == 0
    assert within(database, tell) == within(data / "hub.db", tell)


ASKED = (
    "/api/v1/devices",
    "/api/v1/rows",
    "/api/v1/commands",
    "/api/v1/audit",
    "/api/v1/tokens",
    "/api/v1/rules",
    "/api/v1/groups",
    "/api/v1/events?after=0",
    "/api/v1/quarantine",
    "/api/v1/devices/acme/cam1/desired",
)


def answers(hub: HubProcess, history: str) -> dict[str, Any]:
    """Of the API; without what tells of when it was asked, or of a command that is sent once more."""
    import httpx

    found = {}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{hub.http}", headers={"Authorization": f"Bearer {hub.token}"}, trust_env=False
    ) as client:
        for path in (*ASKED, history):
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            found[path] = answer.json()
    found["/api/v1/rows"].pop("at")
    for one in found["/api/v1/commands"]["commands"]:
        one.pop("published")
    found["/api/v1/audit"]["entries"] = [e for e in found["/api/v1/audit"]["entries"] if e["what"] != "move"]
    return found


@pytest.mark.broker
def test_a_fleet_goes_on_in_postgresql_as_if_nothing_were(
    hub: HubProcess, device: Callable[..., FakeDevice], database: PostgresPlace
) -> None:
    camera = device()
    hub.enrol(OTHER)
    camera.born()
    now = time.time()
    first = camera.send(Up.TELE, mqtt.Tele(samples=(sample(now - 3600), sample(now - 3500))))
    camera.confirmed(camera.happens("it began"))
    with hub.client() as client:
        client.set_desired(CAM, DesiredRequest(pins={"digits": "small"}))
        client.set_labels(CAM, {"site": "roof"})
        client.put_group("roof", "label.site = roof")
        client.make_token("ci", "viewer")
        client.send([CAM], Report(), expires_s=60.0)
        pending = client.send([OTHER], Report(), expires_s=3600.0)[str(OTHER)]
        camera.confirmed(camera.reply(camera.command().id))
        history = f"/api/v1/devices/acme/cam1/history?since={now - 7200:.0f}&until={now:.0f}&step_s=10"
    before = answers(hub, history)
    assert len(before[history]["points"]) == 2
    assert hub.stop() == 0
    assert move(hub.data, database.url) == 0
    hub.start(ready=False)
    assert hub.wait() == 1
    assert "[store-moved]" in hub.said
    hub.options = ("--store", database.url)
    hub.start()
    assert answers(hub, history) == before
    camera.close()
    again = device()
    again.boot, again.seq = camera.boot, camera.seq
    again.confirmed(again.happens("it went on"))
    again.insists(first, "the same number again")
    with hub.client() as client:
        found = client.device(CAM).device
        assert (found.messages, found.duplicates >= 1) == (
            before["/api/v1/devices"]["devices"][0]["messages"] + 1,
            True,
        )
        assert [one.event.text for one in client.events(after=0)] == ["it began", "it went on"]
        assert client.command(pending).state == "pending"
        assert client.audit()[0].what == "move"
        with (hub.directory / "events.csv").open("wb") as stream:
            client.export("events", stream, ExportQuery())
    assert "it went on" in (hub.directory / "events.csv").read_text()
