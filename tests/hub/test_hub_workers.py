"""A hub of several processes: what each stores counts once, whichever is killed, and all hear of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemon_stage import until
from hub_stage import CAM, FakeDevice, HubProcess
from postgres_stage import PostgresServer
from store_stage import PostgresPlace

from edge_hub.api import EventView
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Report, Up
from edge_sdk.wire import decode

pytestmark = [pytest.mark.broker, pytest.mark.postgres]


@pytest.fixture
def hub(tmp_path: Path, database: PostgresPlace) -> Iterator[HubProcess]:
    """A hub with two workers."""
    process = HubProcess(tmp_path / "h", "--store", database.url, "--workers", "2")
    process.start()
    yield process
    process.stop()


def children(hub: HubProcess) -> list[int]:
    """The workers' process ids."""
    found = Path(f"/proc/{hub.pid}/task/{hub.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"edge_hub.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_one_of_two_workers_is_killed_and_each_message_is_a_row(hub: HubProcess, database: PostgresPlace) -> None:
    """What the broker confirmed is stored without anybody sending it again."""
    count, devices = 300, 3
    with ExitStack() as ends:
        cams = []
        for number in range(devices):
            who = DeviceId(tenant="acme", device=f"d{number}")
            cams.append(FakeDevice(hub.mqtt, hub.enrol(who), who))
            ends.callback(cams[-1].close)
        first, second = children(hub)
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
        until(lambda: database.count("log") == count * devices, "a row for each message")
        for cam in cams:
            cam.when(lambda cam=cam: len(cam.acked) == count, "the acknowledgements")
    assert second in children(hub)
    assert database.sql("SELECT count(DISTINCT (boot, seq)) FROM log")[0][0] == count * devices
    assert database.count("events") == count * devices
    slots = database.sql("SELECT slot FROM leases WHERE kind LIKE 'worker:%' ORDER BY slot")
    assert [row["slot"] for row in slots] == [0, 1]


@pytest.fixture
def cam(hub: HubProcess) -> Iterator[FakeDevice]:
    made = FakeDevice(hub.mqtt, hub.enrol())
    yield made
    made.close()


def test_a_reader_hears_of_what_a_worker_stored(hub: HubProcess, cam: FakeDevice) -> None:
    over = threading.Event()

    def happens() -> None:
        while not over.wait(0.1):
            cam.happens("the sun came out")

    happening = threading.Thread(target=happens)
    happening.start()
    try:
        with hub.client() as client:
            body = next(body for topic, body in client.news() if topic == "event")
        assert decode(body, EventView, where="test", max_bytes=len(body)).event.text == "the sun came out"
    finally:
        over.set()
        happening.join()


def test_a_command_is_answered_once_whoever_takes_the_reply(hub: HubProcess, cam: FakeDevice) -> None:
    cam.born()
    with hub.client() as client:
        sent = [client.send([CAM], Report(), expires_s=60)[str(CAM)] for _ in range(10)]
        cam.command(10)
        for command in sent:
            for _ in range(2):  # a device that is not sure says it again, under another number
                cam.reply(command)
        ended = [client.command(command, wait_s=20) for command in sent]
        assert [(one.state, one.late) for one in ended] == [("done", False)] * 10
        cam.confirmed(cam.seq)
        assert [client.command(command) for command in sent] == ended


def test_who_comes_up_is_sent_what_it_missed(hub: HubProcess) -> None:
    password = hub.enrol()
    with hub.client() as client:
        command = client.send([CAM], Report(), expires_s=60)[str(CAM)]
        until(lambda: client.command(command).published == 1, "the command to be sent to nobody")
    late = FakeDevice(hub.mqtt, password)
    try:
        late.born()
        assert late.command().id == command
    finally:
        late.close()


def test_a_hub_that_is_killed_goes_on_under_the_same_numbers(hub: HubProcess, database: PostgresPlace) -> None:
    cam = FakeDevice(hub.mqtt, hub.enrol())
    try:
        cam.confirmed(cam.happens("before"))
        workers = children(hub)
        hub.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers to end with their hub")
        hub.start()
        cam.when(lambda: cam._subscribed and cam._client.is_connected(), "the device to be connected again")
        number = cam.happens("after")

        def again() -> bool:
            cam.send(Up.EVENT, mqtt.Event(at=1.0, kind="sensor", text="after"), seq=number)
            time.sleep(0.2)
            return number in cam.acked

        until(again, "the acknowledgement")
        assert database.sql("SELECT count(*), max(slot) FROM leases WHERE kind LIKE 'worker:%'") == [(2, 1)]
        with hub.client() as client:
            assert [event.event.text for event in client.events()] == ["before", "after"]
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
    for options, says in (
        (("--workers", "2"), "--store"),
        (("--workers", "2", "--store", "postgresql://h/d", "--embedded"), "embedded"),
        (("--workers", "1000"), "64"),
        (("--store", "hub.db"), "postgresql://"),
    ):
        hub = HubProcess(tmp_path, *options)
        hub.start(ready=False)
        assert hub.wait() == 2, hub.said
        line = hub.said.splitlines()[-1]
        assert "[usage]" in line
        assert says in line
