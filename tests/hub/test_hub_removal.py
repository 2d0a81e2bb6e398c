"""A device is taken out of the fleet: out of the store, the broker, and the sight of everybody who looks."""

from __future__ import annotations

import http.client
import json
import os
import pty
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import PATIENCE_S, until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess, again_and_again, hub_command
from interop_stage import TellingBroker
from store_stage import within

from edge_hub.alerts.views import SilenceRequest
from edge_hub.api import DesiredRequest
from edge_hub.errors import AnswerError
from edge_hub.removal import NOT_OURS
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Down, Report, Up
from edge_sdk.preference import Preference
from edge_sdk.wire import new_token

pytestmark = pytest.mark.broker

Device = Callable[..., FakeDevice]


def fleet(hub: HubProcess) -> list[str]:
    with hub.client() as client:
        return [row.device for row in client.rows()]


def heard_anew(hub: HubProcess) -> list[str]:
    """Whom a hub hears of by what its broker kept, when it has forgotten everything."""
    hub.stop()
    with closing(sqlite3.connect(hub.data / "hub.db")) as base:
        for table in ("devices", "removed"):
            base.execute(f"DELETE FROM {table}")  # noqa: S608
        base.commit()
    hub.start()
    until(lambda: fleet(hub), "what the broker kept")
    return fleet(hub)


def reporting(cam: FakeDevice) -> AbstractContextManager[None]:
    """It sends events as fast as it can, and waits for nothing."""

    def report() -> None:
        cam.seq += 1
        body = mqtt.Event(at=time.time(), kind="sensor")
        envelope = mqtt.UpEnvelope(id=new_token(), boot=cam.boot, seq=cam.seq, sent=time.time(), body=body)
        cam._client.publish(mqtt.up_topic(cam.device, Up.EVENT), mqtt.pack(envelope), qos=1)

    return again_and_again(report, every_s=0.002)


def edge(hub: HubProcess, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return hub_command(hub.directory, *words, "--data", str(hub.data), **more)


def test_a_device_that_reports_is_removed_and_nothing_of_it_is_left_anywhere(hub: HubProcess, device: Device) -> None:
    cam, other = device(), device(OTHER)
    for one in (cam, other):
        one.born()
        one.confirmed(one.happens("hello"))
    news: list[tuple[str, dict[str, Any]]] = []
    gone = threading.Event()

    def read() -> None:
        with hub.client() as client:
            for topic, body in client.news():
                news.append((topic, json.loads(body)))
                if topic == "gone":
                    gone.set()
                    return

    waiting = http.client.HTTPConnection("127.0.0.1", hub.http, timeout=PATIENCE_S)
    with hub.client() as client, closing(waiting):
        client.set_desired(CAM, DesiredRequest(preferences={"digits": Preference()}))
        client.silence(SilenceRequest(query=f"device = {CAM}", for_s=3600))
        client.silence(SilenceRequest(query="tenant = acme", for_s=3600))
        (command,) = client.send((CAM,), Report(), expires_s=3600).values()
        cam.command()
        path = f"/api/v1/commands/{command}?wait_s={PATIENCE_S}"
        waiting.request("GET", path, headers={"Authorization": f"Bearer {hub.token}"})
        reading = threading.Thread(target=read)
        reading.start()
        with reporting(cam):
            until(lambda: news, "the stream")
            removed = client.remove(CAM)
            assert (removed.devices, removed.left) == ((str(CAM),), ())
            assert gone.wait(PATIENCE_S)
            cam.when(lambda: cam.refused, "the device not to be let in again")
        reading.join(PATIENCE_S)
        assert news[-1][1]["devices"] == [str(CAM)]
        assert ("command", "cancelled") in {(topic, body.get("state")) for topic, body in news}
        assert json.loads(waiting.getresponse().read())["state"] == "cancelled"
        assert [one.query for one in client.silences()] == ["tenant = acme"]
        with pytest.raises(AnswerError) as caught:
            client.remove(CAM)
        assert (caught.value.status, caught.value.code) == (404, "unknown-device")
        assert [one.target for one in client.audit() if one.what == "remove"] == [str(CAM)]
    other.confirmed(other.happens("unharmed"))
    assert fleet(hub) == [str(OTHER)]
    # Enrolled again it starts afresh.
    again = FakeDevice(hub.mqtt, hub.enrol())
    try:
        again.born()
        again.confirmed(again.happens("anew"))
        assert (hub.messages(), again.desired, again.commands) == (1, [], [])
    finally:
        again.close()
    with hub.client() as client:
        client.remove(CAM)
    assert heard_anew(hub) == [str(OTHER)]


def test_a_hub_that_was_killed_in_the_middle_finishes(hub: HubProcess, device: Device) -> None:
    cam, other = device(), device(OTHER)
    for one in (cam, other):
        one.born()
        one.confirmed(one.happens("hello"))
    hub.kill()
    # As far as it came: the store knows, the broker does not, and has kept what would bring the device back.
    within(hub.data / "hub.db", lambda store: store.remove((CAM,), now=time.time()))
    hub.start()
    cam.when(lambda: cam.refused, "the device not to be let in again")
    until(lambda: "out of the broker" in hub.said, "the broker to keep nothing of it")

    def is_swept() -> bool:
        with closing(sqlite3.connect(hub.data / "hub.db")) as base:
            return base.execute("SELECT count(*) FROM boots").fetchone() == (1,)

    until(is_swept, "what hung on it to go")
    assert fleet(hub) == [str(OTHER)]
    assert heard_anew(hub) == [str(OTHER)]


def test_the_command_line_asks_and_where_it_cannot_it_refuses(hub: HubProcess) -> None:
    many = [DeviceId(tenant="acme", device=f"cam{number}") for number in range(30)]
    with hub.client() as client:
        client.enrol_all(many, again=False)
    refused = edge(hub, "remove", str(CAM))
    assert refused.returncode == 2
    assert refused.stderr.startswith("edge: 1 device would be removed for good: acme/cam1")
    assert edge(hub, "remove", "--query", "tenant = acme").returncode == 2
    assert edge(hub, "remove").returncode == edge(hub, "remove", str(CAM), "--query", "online").returncode == 2
    assert edge(hub, "remove", "--yes", "--query", "online").returncode == 2
    unknown = edge(hub, "remove", "--yes", str(CAM), "acme/nobody")
    assert (unknown.returncode, "unknown" in unknown.stderr or "no such device" in unknown.stderr) == (1, True)
    assert len(fleet(hub)) == 30
    for word, status, left in (("no\n", 2, 30), ("yes\n", 0, 29)):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, word.encode())
            told = edge(hub, "remove", str(CAM), stdin=theirs)
        finally:
            os.close(ours)
            os.close(theirs)
        assert (told.returncode, len(fleet(hub))) == (status, left), told.stderr
        assert "acme/cam1\nRemove? Type yes: " in told.stderr
    told = edge(hub, "remove", "--yes", "--json", "--query", "tenant = acme")
    assert told.returncode == 0, told.stderr
    assert len(json.loads(told.stdout)["devices"]) == 29
    assert fleet(hub) == []


def test_only_an_administrator_removes(hub: HubProcess) -> None:
    hub.enrol()
    with hub.client() as client:
        token = client.make_token("op", "operator").token
    with hub.client(token=token) as client:
        for remove in (lambda: client.remove(CAM), lambda: client.remove_all([CAM])):
            with pytest.raises(AnswerError) as caught:
                remove()
            assert caught.value.code == "forbidden"
    assert fleet(hub) == [str(CAM)]


def test_of_somebody_elses_broker_it_says_what_is_left_to_do(tmp_path: Path) -> None:
    broker = TellingBroker(tmp_path / "b")
    broker.start()
    hub = HubProcess(tmp_path / "h", "--broker", broker.url, "--sparkplug", "fleet")
    cam = None
    try:
        hub.start()
        # What is desired is cleared before its eyes, too.
        acks = (mqtt.down_topic(CAM, Down.ACK),)
        cam = FakeDevice(broker.port, None, topics=acks, connect_as=(broker.HUB, broker.HUB_PASSWORD))
        with broker.listener("spBv1.0/#") as host:
            cam.born()
            cam.confirmed(cam.happens("hello"))
            verbs = lambda: [one.topic.split("/")[2] for one in host.heard]  # noqa: E731
            host.when(lambda: "NBIRTH" in verbs(), "its edge node")
            with hub.client() as client:
                assert client.remove(CAM).left == (NOT_OURS,)
            host.when(lambda: "NDEATH" in verbs(), "the death of its edge node")
        with broker.listener(f"edge/v1/{CAM}/#") as ear:
            cam.confirmed(cam.happens("it reports on"))  # confirmed, and dropped
            ear.when(lambda: ear.last(f"edge/v1/{CAM}/up/event"), "what it sent")
            assert ear.last(f"edge/v1/{CAM}/up/birth") is None
        assert fleet(hub) == []
    finally:
        if cam is not None:
            cam.close()
        hub.stop()
        broker.stop()
