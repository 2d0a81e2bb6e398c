"""A hub of several processes: what each stores counts once, whichever is killed, and all hear of it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import EDGE, PATIENCE_S, clean_environment, until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess
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
    until(lambda: process.said.count("takes its share") == 2, "the workers")
    yield process
    process.stop()


def children(hub: HubProcess) -> list[int]:
    """The workers' process ids."""
    found = Path(f"/proc/{hub.pid}/task/{hub.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"edge_hub.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_one_of_two_workers_is_killed_and_each_message_is_a_row(hub: HubProcess, database: PostgresPlace) -> None:
    """What the broker confirmed is stored without anybody sending it again."""
    count, devices = 500, 4
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


def test_a_reader_hears_of_what_a_worker_stored(hub: HubProcess) -> None:
    cam = FakeDevice(hub.mqtt, hub.enrol())
    heard: list[str] = []
    try:
        with hub.client() as client:
            for topic, body in client.news():
                if not heard:
                    threading.Thread(target=lambda: cam.confirmed(cam.happens("the sun came out"))).start()
                heard.append(topic)
                if topic == "event":
                    event = decode(body, EventView, where="test", max_bytes=len(body))
                    assert event.event.text == "the sun came out"
                    break
    finally:
        cam.close()
