"""A hub of several processes: what each stores counts once, whichever is killed, and all hear of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from daemon_stage import Broker, free_port, until
from hub_stage import FakeDevice, HubProcess, again_and_again, till
from postgres_stage import PostgresServer
from store_stage import PostgresPlace, postgres_place

from edge_hub.alerts.rules import Rule
from edge_hub.alerts.views import AlertView
from edge_hub.api import EventView
from edge_hub.config import HubConfig, check_workers
from edge_hub.errors import AnswerError
from edge_hub.link import SUBSCRIPTIONS
from edge_hub.pulse import MAX_BYTES, Pulse, teller
from edge_hub.rows import Gone
from edge_hub.service import Hub
from edge_hub.worker import WorkerConfig
from edge_hub.workers import Workers
from edge_sdk.address import Address
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId, Report
from edge_sdk.wire import decode, encode

pytestmark = [pytest.mark.broker, pytest.mark.postgres]


@contextmanager
def two_workers(directory: Path, database: PostgresPlace) -> Iterator[HubProcess]:
    with HubProcess(directory, "--store", database.url, "--workers", "2") as process:
        yield process
    assert "Traceback" not in process.said
    assert "Fatal" not in process.said


@pytest.fixture(scope="module")
def crowded(postgres: PostgresServer) -> Iterator[PostgresPlace]:
    """The database of `crowd`."""
    with postgres_place(postgres) as place:
        yield place


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, crowded: PostgresPlace) -> Iterator[HubProcess]:
    """A hub with two workers that tests share, each with devices of its own."""
    with two_workers(tmp_path_factory.mktemp("crowd"), crowded) as process:
        yield process


@pytest.fixture
def hub(tmp_path: Path, database: PostgresPlace) -> Iterator[HubProcess]:
    """A hub with two workers that a test may end."""
    with two_workers(tmp_path / "h", database) as process:
        yield process


@contextmanager
def enrolled(hub: HubProcess, name: str) -> Iterator[FakeDevice]:
    """A device that is connected."""
    who = DeviceId(tenant="acme", device=name)
    made = FakeDevice(hub.mqtt, hub.enrol(who), who)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def refusing(database: PostgresPlace) -> Iterator[None]:
    """The database has no room for messages, and for all else it has."""
    database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$"
    )
    database.sql("CREATE TRIGGER refused BEFORE INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION refuse()")
    try:
        yield
    finally:
        database.sql("DROP FUNCTION refuse CASCADE")


def metric(hub: HubProcess, name: str) -> str:
    """Its value, as Prometheus reads it."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    page = httpx.get(f"http://127.0.0.1:{hub.http}/metrics", headers=headers, trust_env=False).text
    return next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[1]


def test_a_worker_that_cannot_store_is_the_hubs_trouble(crowd: HubProcess, crowded: PostgresPlace) -> None:
    def trouble() -> str:
        with crowd.client() as client:
            return client.health().trouble or ""

    with enrolled(crowd, "refused") as cam:
        with refusing(crowded):
            number = cam.happens("into a full disk")
            until(lambda: trouble().startswith("worker "), "the hub to say so")
            assert "no space left on device" in trouble()
            assert metric(crowd, "edge_hub_workers_unwell") == "1"
            assert number not in cam.acked
        cam.confirmed(number)
    until(lambda: not trouble(), "the hub to be well again")
    assert metric(crowd, "edge_hub_workers_unwell") == "0"
    assert metric(crowd, "edge_hub_workers_running") == "2"


def test_a_worker_that_is_silent_or_has_lost_its_broker_is_in_trouble_and_one_that_ends_is_replaced(
    tmp_path: Path, database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path / "broker")
    config = WorkerConfig(
        store=database.url,
        host="127.0.0.1",
        port=broker.port,
        username=Broker.HUB,
        password=Broker.HUB_PASSWORD,
        kind="worker:test",
        holder="test:0",
        slots=1,
    )

    async def play() -> None:
        workers = Workers((config,), silent_s=4.0)
        await workers.start()
        try:
            await till(lambda: workers.trouble is None, "the worker to be well")
            process = workers._processes[0]
            process.send_signal(signal.SIGSTOP)
            await till(lambda: "said nothing" in (workers.trouble or ""), "its silence to be noticed")
            process.send_signal(signal.SIGCONT)
            await till(lambda: workers.trouble is None, "the worker to speak again")
            broker.stop()
            await till(lambda: "not connected to the broker" in (workers.trouble or ""), "the loss to be told")
            assert workers.running == 1
            broker.start()
            await till(lambda: workers.trouble is None, "the worker to be connected again")
            monkeypatch.setattr(sys, "executable", str(tmp_path))  # as where no memory is left for a process
            process.kill()
            await till(lambda: workers.restarts >= 2, "another to be tried twice")
            assert workers.trouble == "0 of 1 workers run"
            monkeypatch.undo()
            await till(lambda: workers.trouble is None, "another to take its place")
        finally:
            await workers.stop()

    broker.start()
    try:
        asyncio.run(play())
    finally:
        broker.stop()


def test_workers_end_with_a_hub_that_is_asked_to_end_while_they_start(
    tmp_path: Path, database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "umask", lambda _: 0)  # of this process
    here, broker = (Address(host="127.0.0.1", port=free_port()) for _ in range(2))

    async def play() -> list[int | None]:
        hub = Hub(HubConfig(data=tmp_path / "hub", listen=here, mqtt=broker, store=database.url, workers=1))
        starting = asyncio.ensure_future(hub.start())
        await till(lambda: hub.workers is not None and hub.workers._processes, "a worker")
        assert hub.workers is not None
        processes = list(hub.workers._processes.values())
        assert not starting.done()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return [process.returncode for process in processes]

    (status,) = asyncio.run(play())
    assert status is not None


def test_a_pulse_that_finds_no_room_is_left_out_whole() -> None:
    reader, writer = os.pipe()
    try:
        tell = teller(writer)
        pulse = Pulse.of(7, "\x00" * 10_000, 3)
        assert len(encode(pulse)) < MAX_BYTES
        for _ in range(1000):
            tell(pulse)
        os.close(writer)
        with os.fdopen(reader, "rb", closefd=False) as stream:
            lines = stream.read().splitlines()
        assert 0 < len(lines) < 1000
        assert {decode(line, Pulse, where="test") for line in lines} == {pulse}
    finally:
        os.close(reader)


def test_a_device_that_asks_for_a_share_takes_nothing_from_the_workers(crowd: HubProcess) -> None:
    """Its broker lets anybody subscribe, and gives a share to whoever asks by its name, if only to drop it."""
    who = DeviceId(tenant="acme", device="greedy")
    topics = tuple(f"$share/hub/{topic}" for topic in SUBSCRIPTIONS)
    with enrolled(crowd, "robbed") as cam:
        greedy = FakeDevice(crowd.mqtt, crowd.enrol(who), who, topics=topics)
        try:
            for number in range(30):
                cam.happens(str(number))
            cam.when(lambda: len(cam.acked) == 30, "the acknowledgement of each")
        finally:
            greedy.close()


def test_one_of_two_workers_is_killed_and_each_message_is_a_row(crowd: HubProcess, crowded: PostgresPlace) -> None:
    """What the broker confirmed is stored without anybody sending it again."""
    count, devices = 300, 3
    with ExitStack() as ends:
        cams = [ends.enter_context(enrolled(crowd, f"killed-{number}")) for number in range(devices)]
        first, second = crowd.workers()
        killed = threading.Event()

        def send(cam: FakeDevice) -> None:
            for number in range(count):
                cam.happens(str(number))
                if number == count // 3 and not killed.is_set():
                    killed.set()
                    os.kill(first, signal.SIGKILL)

        sending = [threading.Thread(target=send, args=(cam,)) for cam in cams]
        for one in sending:
            one.start()
        for one in sending:
            one.join()
        rows = (
            "SELECT count(*), count(DISTINCT (log.boot, seq)) FROM log JOIN boots ON boots.id = log.boot"
            " WHERE boots.boot = ANY($1)"
        )
        boots = [cam.boot for cam in cams]
        until(lambda: crowded.sql(rows, boots)[0][0] == count * devices, "a row for each message")
        for cam in cams:
            cam.when(lambda cam=cam: len(cam.acked) == count, "the acknowledgements")
        assert crowded.sql(rows, boots)[0] == (count * devices, count * devices)
    assert second in crowd.workers()
    until(lambda: len(crowd.workers()) == 2, "the worker to be started again")
    slots = crowded.sql("SELECT slot FROM leases WHERE kind LIKE 'worker:%' ORDER BY slot")
    assert [row["slot"] for row in slots] == [0, 1]


@pytest.mark.parametrize(
    "path",
    ["rows", "fleet", "models", "alerts", "audit", "devices", "devices/acme/seen/history?since=0&until=1e9&step_s=1e6"],
)
def test_the_api_answers_from_postgresql(crowd: HubProcess, path: str) -> None:
    with crowd.client() as client, suppress(AnswerError):
        client.enrol(DeviceId(tenant="acme", device="seen"), again=False)
    answer = httpx.get(
        f"http://127.0.0.1:{crowd.http}/api/v1/{path}",
        headers={"Authorization": f"Bearer {crowd.token}"},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text


def test_a_reader_hears_of_what_a_worker_stored(crowd: HubProcess) -> None:
    with (
        enrolled(crowd, "heard") as cam,
        again_and_again(lambda: cam.happens("the sun came out")),
        crowd.client() as client,
    ):
        body = next(body for topic, body in client.news() if topic == "event")
    assert decode(body, EventView, where="test", max_bytes=len(body)).event.text == "the sun came out"


def test_a_reader_hears_of_what_a_process_of_another_hub_stored(
    crowd: HubProcess, crowded: PostgresPlace, tmp_path: Path
) -> None:
    """Two hubs, each with a broker of its own, and one store: as on two machines."""
    other = HubProcess(tmp_path, "--store", crowded.url)
    other.start()
    try:
        with (
            enrolled(crowd, "far-away") as cam,
            again_and_again(lambda: cam.happens("on another machine")),
            other.client() as client,
        ):
            heard = (
                decode(body, EventView, where="test", max_bytes=len(body))
                for topic, body in client.news()
                if topic == "event"
            )
            assert next(event for event in heard if event.device == str(cam.device)).event.text == "on another machine"
        with enrolled(crowd, "ringing") as cam, crowd.client() as here, other.client() as there:
            cam.born()
            here.put_rule("rings", Rule(when="online", text="it is there"))
            # One of the two looks at the rules; both are told, and of what people do about it as well.
            (alert,) = until(lambda: there.alerts(device=cam.device), "the alert to begin")
            for acting, listening in ((here, there), (there, here)):
                with again_and_again(lambda acting=acting: acting.acknowledge(alert.id)):
                    rung = (
                        decode(body, AlertView, where="test", max_bytes=len(body))
                        for topic, body in listening.news()
                        if topic == "alert"
                    )
                    told = next(one for one in rung if one.acknowledged)  # its beginning may come first
                assert (told.id, told.rule, told.acknowledged) == (alert.id, "rings", "admin")
            with again_and_again(lambda: here.put_rule("rings", Rule(when="online", enabled=False))):
                assert ("audit", b'{"what":"rule"}') in there.news()
            here.delete_rule("rings")
    finally:
        other.stop()
    holders = crowded.sql("SELECT count(*) FROM leases WHERE kind = 'scheduler'")
    assert holders[0][0] == 1


def test_a_device_is_let_in_no_more_whichever_hub_removes_it(
    crowd: HubProcess, crowded: PostgresPlace, tmp_path: Path
) -> None:
    other = HubProcess(tmp_path, "--store", crowded.url)
    other.start()
    try:
        with enrolled(crowd, "sold") as cam, other.client() as far, crowd.client() as near:
            cam.born()
            cam.confirmed(cam.happens("hello"))
            news = near.news()
            with enrolled(crowd, "noisy") as noisy, again_and_again(lambda: noisy.happens("something")):
                next(news)
            far.remove(cam.device)
            gone = next(body for topic, body in news if topic == "gone")
            assert decode(gone, Gone, where="test").devices == (str(cam.device),)
            cam.when(lambda: cam.refused, "the device not to be let in again")
            until(lambda: crowded.sql("SELECT FROM boots WHERE boot = $1", cam.boot) == [], "its rows to go")
    finally:
        other.stop()


def test_a_command_is_answered_once_whoever_takes_the_reply(crowd: HubProcess) -> None:
    with enrolled(crowd, "answering") as cam, crowd.client() as client:
        cam.born()
        sent = [client.send([cam.device], Report(), expires_s=60)[str(cam.device)] for _ in range(10)]
        cam.command(10)
        for command in sent:
            for _ in range(2):  # a device that is not sure says it again, under another number
                cam.reply(command)
        ended = [client.command(command, wait_s=20) for command in sent]
        assert [(one.state, one.late) for one in ended] == [("done", False)] * 10
        cam.confirmed(cam.seq)
        assert [client.command(command) for command in sent] == ended


def test_who_comes_up_is_sent_what_it_missed(crowd: HubProcess) -> None:
    who = DeviceId(tenant="acme", device="late")
    password = crowd.enrol(who)
    with crowd.client() as client:
        command = client.send([who], Report(), expires_s=60)[str(who)]
        until(lambda: client.command(command).published == 1, "the command to be sent to nobody")
    late = FakeDevice(crowd.mqtt, password, who)
    try:
        late.born()
        assert late.command().id == command
    finally:
        late.close()


def test_a_hub_that_is_killed_goes_on_under_the_same_numbers(hub: HubProcess, database: PostgresPlace) -> None:
    cam = FakeDevice(hub.mqtt, hub.enrol())
    try:
        cam.confirmed(cam.happens("before"))
        workers = hub.workers()
        hub.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers to end with their hub")
        hub.start()
        cam.when(lambda: cam._subscribed and cam._client.is_connected(), "the device to be connected again")
        cam.insists(cam.happens("after"), "after")
        assert database.sql("SELECT count(*), max(slot) FROM leases WHERE kind LIKE 'worker:%'") == [(2, 1)]
        with hub.client() as client:
            assert [event.event.text for event in client.events()] == ["before", "after"]
    finally:
        cam.close()


def test_what_a_worker_that_does_not_come_back_was_given_is_stored(hub: HubProcess, database: PostgresPlace) -> None:
    cam = FakeDevice(hub.mqtt, hub.enrol())
    try:
        cam.confirmed(cam.happens("to one of two"))
        hub.stop()
        hub.options = ("--store", database.url, "--workers", "1")
        hub.start()
        cam.when(lambda: cam._subscribed and cam._client.is_connected(), "the device to be connected again")
        for number in range(10):  # the broker still gives half of them to the second, who is not there
            cam.happens(str(number))
        until(lambda: database.count("log") == 11, "all to be stored")
        slots = "SELECT slot FROM leases WHERE kind LIKE 'worker:%'"
        until(lambda: [row["slot"] for row in database.sql(slots)] == [0], "the second to be forgotten")
        numbers = [cam.happens(f"after {number}") for number in range(10)]
        for number in numbers:
            cam.confirmed(number)
    finally:
        cam.close()


def test_a_database_that_vanishes_and_returns_loses_nothing(tmp_path: Path) -> None:
    server = PostgresServer()
    hub = HubProcess(tmp_path / "h", "--store", server.url(), "--workers", "1")
    try:
        server.start()
        hub.start()
        cam = FakeDevice(hub.mqtt, hub.enrol())
        try:
            cam.confirmed(cam.happens("before"))
            server.stop(signal.SIGQUIT)
            numbers = [cam.happens(str(number)) for number in range(20)]

            def unwell() -> bool:
                with hub.client() as client:
                    return not client.health().ok

            until(unwell, "the hub to say so")
            assert not cam.acked & set(numbers)
            server.start()
            for number in numbers:
                cam.confirmed(number)
            until(lambda: not unwell(), "the hub to be well")
            assert hub.messages() == 21
        finally:
            cam.close()
    finally:
        hub.stop()
        server.close()
    assert "Traceback" not in hub.said


def test_workers_take_a_database_that_several_can_write(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path, "--workers", "2")
    hub.start(ready=False)
    assert hub.wait() == 2, hub.said
    (line,) = hub.said.splitlines()
    assert "[usage]" in line
    assert "--store" in line
    with pytest.raises(UsageError, match="embedded"):
        check_workers(HubConfig(data=tmp_path, workers=2, store="postgresql://h/d", embedded=True))
