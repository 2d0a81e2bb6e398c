"""The whole protocol, between the real daemon and the real hub, over brokers that differ in what MQTT leaves open."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from broker_stage import Door, broker_of
from daemon_stage import DEVICE, PATIENCE_S, Broker, DaemonProcess, end, reporting, serving, tiny_bundle, until
from hub_stage import HubProcess
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_hub.api import DesiredRequest, DeviceDetail
from edge_sdk import mqtt
from edge_sdk.mqtt import Birth, Down, DownEnvelope, Report, Up, UpEnvelope
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import new_token

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

other = pytest.mark.brokers
KINDS = [
    pytest.param("mosquitto", 5, marks=other, id="mosquitto-5"),
    pytest.param("mosquitto", 4, id="mosquitto-3.1.1"),
    pytest.param("iotcore", 5, marks=other, id="iotcore-5"),
    pytest.param("iotcore", 4, marks=other, id="iotcore-3.1.1"),
    pytest.param("amqtt", 4, marks=other, id="amqtt-3.1.1"),
    pytest.param("aedes", 4, marks=other, id="aedes-3.1.1"),
]


class Bystander:
    """Somebody with the rights of the hub, who says what no hub would say, and notes what devices answer."""

    def __init__(self, port: int) -> None:
        self.noted: list[tuple[Up, UpEnvelope[Any]]] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="bystander", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.username_pw_set(Broker.HUB, Broker.HUB_PASSWORD)
        self._client.on_connect = lambda client, *_: client.subscribe(f"edge/v1/{DEVICE}/up/reply", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._note
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_S)

    def close(self) -> None:
        end(self._client)

    def say(self, topic: str, envelope: UpEnvelope[Any] | DownEnvelope[Any], *, retain: bool = False) -> None:
        self._client.publish(topic, mqtt.pack(envelope), qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def replies(self, command: str) -> list[UpEnvelope[Any]]:
        return [envelope for _, envelope in self.noted if envelope.reply_to == command]

    def _note(self, _client: Any, _data: Any, message: Any) -> None:
        _, kind = mqtt.parse_up_topic(message.topic)
        self.noted.append((kind, mqtt.unpack_up(kind, message.payload)))


class Scene:
    """A broker behind a door, a hub, and a daemon that serves a model."""

    def __init__(self, kind: str, version: int, directory: Path) -> None:
        self.broker = broker_of(kind, directory / "broker")
        self.broker.start()
        self.door = Door(self.broker.port, only_old=version == 4)
        secret = "hub:of%20the%20hub@" if kind == "mosquitto" else ""
        self.hub = HubProcess(directory / "hub", "--broker", f"mqtt://{secret}127.0.0.1:{self.door.port}")
        models = serving(tiny_bundle(directory / "digits-1.edge").path)
        self.short = Path(tempfile.mkdtemp(prefix="edge-"))
        self.daemon = DaemonProcess(self.short / "d", reporting(self.door.port) + models)
        self.bystander = Bystander(self.broker.port)

    def close(self) -> None:
        self.daemon.kill()
        self.hub.stop(signal.SIGKILL)
        self.bystander.close()
        self.door.close()
        self.broker.stop()
        shutil.rmtree(self.short)

    def look(self) -> DeviceDetail:
        with self.hub.client() as client:
            return client.device(DEVICE)

    def known(self) -> bool:
        with self.hub.client() as client:
            return any(one.device == str(DEVICE) for one in client.devices())


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_the_protocol_holds(kind: str, version: int, tmp_path: Path) -> None:
    scene = Scene(kind, version, tmp_path)
    try:
        report(scene, version)
        command(scene)
        converge(scene)
        outlive(scene)
    finally:
        scene.close()


def report(scene: Scene, version: int) -> None:
    """Birth, state and telemetry; what is stored is confirmed, and leaves the spool."""
    hub, daemon, look = scene.hub, scene.daemon, scene.look
    daemon.start()
    hub.start()
    until(scene.known, "the device to be heard of")
    until(lambda: look().device.online and look().device.birth, "the birth")
    until(lambda: look().device.state and look().device.sample, "state and telemetry")
    until(lambda: daemon.status().spooled == 0, "the spool to be confirmed")
    assert version in scene.door.versions
    first = look()
    assert first.device.birth is not None
    assert [model.name for model in first.device.birth.models] == ["digits"]
    assert "started" in {one.event.kind for one in first.events}


def command(scene: Scene) -> None:
    """A command has one reply, however often it comes; one that has expired is not run."""
    hub = scene.hub
    with hub.client() as client:
        sent = client.send([DEVICE], Report(), expires_s=60.0)[str(DEVICE)]
        until(lambda: client.command(sent).state == "done", "the reply")
    now = time.time()
    again = DownEnvelope(id=sent, sent=now, expires=now + 60, body=Report())
    expired = DownEnvelope(id=new_token(), sent=now - 60, expires=now - 30, body=Report())
    down = mqtt.down_topic(DEVICE, Down.CMD)
    scene.bystander.say(down, again)
    scene.bystander.say(down, expired)
    until(lambda: len(scene.bystander.replies(sent)) >= 2, "the reply once more")
    until(lambda: scene.bystander.replies(expired.id), "the word that it has expired")
    assert len({(one.boot, one.seq) for one in scene.bystander.replies(sent)}) == 1
    assert scene.bystander.replies(expired.id)[0].body.status is mqtt.ReplyStatus.EXPIRED


def converge(scene: Scene) -> None:
    """What is desired is reached, also by a device that was away; a late will and what is retained change nothing."""
    hub, daemon, look = scene.hub, scene.daemon, scene.look
    now = time.time()
    kept = DownEnvelope(id=new_token(), sent=now, expires=now + 600, body=Report())
    with hub.client() as client:
        client.set_desired(DEVICE, DesiredRequest(preferences={"digits": Preference(mode=Mode.BATTERY)}))
    until(lambda: (s := look().device.state) is not None and s.desired_version == 1, "the first version to be applied")
    boot = look().device.boot
    daemon.kill()
    until(lambda: not look().device.online, "the will")
    with hub.client() as client:
        client.set_desired(DEVICE, DesiredRequest(pins={"digits": "quick"}))
    scene.bystander.say(mqtt.down_topic(DEVICE, Down.CMD), kept, retain=True)
    daemon.start()
    until(lambda: (s := look().device.state) is not None and s.desired_version == 2, "the second version")
    until(lambda: look().device.online, "the device to be back")
    assert look().device.boot != boot
    assert boot is not None
    will = UpEnvelope(id=new_token(), boot=boot, seq=0, sent=now, body=Birth(online=False))
    scene.bystander.say(mqtt.up_topic(DEVICE, Up.BIRTH), will)

    told = look().events
    until(lambda: look().events != told or look().device.sample is not None, "more to come")
    assert look().device.online
    # To a session that was there when it was published it is an ordinary one; what the broker kept is not run again.
    assert len({(one.boot, one.seq) for one in scene.bystander.replies(kept.id)}) <= 1


def outlive(scene: Scene) -> None:
    """While the hub is away devices keep what they have; while connections break nothing is lost or counted twice."""
    hub, daemon, look = scene.hub, scene.daemon, scene.look
    hub.stop()
    until(lambda: daemon.status().spooled > 0, "the spool to fill")
    hub.start()
    scene.door.cut()
    until(
        lambda: daemon.status().hub == "connected" and daemon.status().spooled == 0, "the spool to be confirmed again"
    )
    found = until(lambda: now if (now := look()).device.online else None, "the device to be back")
    texts = [(one.event.at, one.event.kind, one.event.text) for one in found.events]
    assert len(texts) == len(set(texts))
    with hub.client() as client:
        refused = [one for one in client.quarantine() if "/down/" not in one.topic]
        until(lambda: client.health().ok, "the hub to be connected again")
    # amqtt gives a client back what it had published itself and not got acknowledged; that goes to quarantine.
    assert refused == []
