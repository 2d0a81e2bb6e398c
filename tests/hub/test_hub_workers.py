"""A hub of several processes: what each stores counts once, whichever is killed, and all hear of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from daemon_stage import until
from hub_stage import FakeDevice, HubProcess
from postgres_stage import PostgresServer
from store_stage import PostgresPlace, postgres_place

from edge_hub.api import EventView
from edge_hub.config import HubConfig, check_workers
from edge_hub.errors import AnswerError
from edge_hub.link import SUBSCRIPTIONS
from edge_hub.rows import Gone
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId, Report
from edge_sdk.wire import decode

pytestmark = [pytest.mark.broker, pytest.mark.postgres]


@contextmanager
def two_workers(directory: Path, database: PostgresPlace) -> Iterator[HubProcess]:
    process = HubProcess(directory, "--store", database.url, "--workers", "2")
    process.start()
    try:
        yield process
    finally:
        process.stop()
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
def happening(cam: FakeDevice, text: str) -> Iterator[None]:
    """The same event again and again, for whoever begins to listen some time."""
    over = threading.Event()

    def happens() -> None:
        while not over.wait(0.1):
            cam.happens(text)

    thread = threading.Thread(target=happens)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
    with enrolled(crowd, "heard") as cam, happening(cam, "the sun came out"), crowd.client() as client:
        body = next(body for topic, body in client.news() if topic == "event")
    assert decode(body, EventView, where="test", max_bytes=len(body)).event.text == "the sun came out"


def test_a_reader_hears_of_what_a_process_of_another_hub_stored(
    crowd: HubProcess, crowded: PostgresPlace, tmp_path: Path
) -> None:
    """Two hubs, each with a broker of its own, and one store: as on two machines."""
    other = HubProcess(tmp_path, "--store", crowded.url)
    other.start()
    try:
        with enrolled(crowd, "far-away") as cam, happening(cam, "on another machine"), other.client() as client:
            heard = (
                decode(body, EventView, where="test", max_bytes=len(body))
                for topic, body in client.news()
                if topic == "event"
            )
            assert next(event for event in heard if event.device == str(cam.device)).event.text == "on another machine"
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
            with enrolled(crowd, "noisy") as noisy, happening(noisy, "something"):
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
