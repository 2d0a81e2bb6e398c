"""What others make of what we tell them: Home Assistant itself, and a Sparkplug library, in their own environments."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import PATIENCE_S, until
from hub_stage import CAM, FakeDevice, HubProcess
from interop_stage import Listener, TellingBroker, born, measures, reports, served, spb_messages
from venvs import environment

from edge_sdk.mqtt import (
    Because,
    Conditions,
    Decision,
    ModelState,
    Pin,
    State,
    Unpin,
    Up,
    UpEnvelope,
    pack,
    up_topic,
)
from edge_sdk.wire import new_token

pytestmark = [pytest.mark.interop, pytest.mark.broker, pytest.mark.timeout(900)]

TESTS = Path(__file__).resolve().parents[1]
# The newest release that each Python takes; newer ones need 3.14, and read discovery messages by the same schemas.
HOME_ASSISTANT = {
    "3.13": ("homeassistant==2025.4.4", "paho-mqtt==2.1.0"),
    "3.12": ("homeassistant==2025.1.4", "paho-mqtt==2.1.0"),
}
# It pins paho-mqtt below 2, so that it cannot live beside ours.
SPARKPLUG = dict.fromkeys(("3.13", "3.12", "3.11", "3.10"), ("pysparkplug==0.6.1",))
PINNED = "select.cam1_digits_pinned_variant"


class Child:
    """A program that answers each line with one."""

    def __init__(self, *command: object) -> None:
        words = [str(word) for word in command]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self.line()

    def line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait(PATIENCE_S)}"
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "h", "--home-assistant", "--sparkplug", "plant") as process:
        yield process


@pytest.fixture
def cam(hub: HubProcess) -> Iterator[FakeDevice]:
    made = FakeDevice(hub.mqtt, hub.enrol())
    yield made
    with contextlib.suppress(RuntimeError, ValueError):
        made.close()


def decided(device: FakeDevice) -> None:
    """A state whose last decision took the board to draw 4.5 W, and which a board of a newer daemon sends."""
    because = Because(code="battery", text="battery 80 % must last until 18:30", numbers={"board_w": 4.5})
    model = ModelState(
        active="exact", decision=Decision(model="digits", variant="exact", because=because, at=time.time())
    )
    seen = Conditions(temp_c=51.5, battery_pct=80.0)
    envelope = UpEnvelope(
        id=new_token(),
        boot=device.boot,
        seq=0,
        sent=time.time(),
        body=State(at=time.time(), conditions=seen, models={"digits": model, "a.b-c": ModelState(active=None)}),
    )
    device.publish(up_topic(device.device, Up.STATE), pack(envelope), retain=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TellingBroker]:
    made = TellingBroker(tmp_path / "broker")
    made.start()
    yield made
    made.stop()


def test_home_assistant_shows_what_we_mean(broker: TellingBroker, tmp_path: Path) -> None:
    python = environment("interop-homeassistant", HOME_ASSISTANT)
    who = (broker.HUB, broker.HUB_PASSWORD)
    hub = HubProcess(tmp_path / "h", "--broker", broker.url, "--home-assistant")
    hub.start()
    cam = FakeDevice(broker.port, None, connect_as=who)
    born(cam, served(), served("a.b-c", ("one",)))
    measures(cam, time.time())
    decided(cam)
    directory = tmp_path / "homeassistant"
    directory.mkdir()
    home = Child(python, TESTS / "home_assistant_child.py", broker.port, *who, directory)
    try:
        assert home.line() == {"ready": True}

        def shown() -> dict[str, Any]:
            told: dict[str, Any] = home.ask(states=True)
            assert told["complaints"] == []
            return told

        def value(entity: str) -> dict[str, str]:
            found: dict[str, str] = shown()["states"].get(entity, {})
            return found

        until(lambda: value("sensor.cam1_battery").get("state") == "80.0", "the battery", 60)
        told = shown()
        assert told["devices"] == {
            "Edge hub": {"model": None, "sw_version": "0.1.0", "via": None},
            "cam1": {"model": "Raspberry Pi 4", "sw_version": "0.1.0", "via": "Edge hub"},
        }
        states = {name: each["state"] for name, each in told["states"].items()}
        assert states == {
            "sensor.edge_hub_devices": "1",
            "sensor.edge_hub_devices_online": "1",
            "sensor.cam1_temperature": "51.5",
            "sensor.cam1_battery": "80.0",
            "sensor.cam1_power_estimated": "4.5",
            "binary_sensor.cam1_throttled": "off",
            "binary_sensor.cam1_connected": "on",
            "sensor.cam1_digits_variant": "exact",
            "sensor.cam1_digits_latency_p95": "3.25",
            "sensor.cam1_digits_late": "1.0",
            "select.cam1_digits_pinned_variant": "(automatic)",
            "sensor.cam1_a_b_c_variant": "unknown",
            "sensor.cam1_a_b_c_latency_p95": "unknown",
            "sensor.cam1_a_b_c_late": "unknown",
            "select.cam1_a_b_c_pinned_variant": "(automatic)",
        }
        assert value("sensor.cam1_power_estimated")["estimated"] == "True"
        assert value("sensor.cam1_power_estimated")["unit_of_measurement"] == "W"
        assert value("sensor.cam1_digits_variant")["why"] == "battery 80 % must last until 18:30"

        # Somebody chooses, the device does it, somebody takes it back.
        home.ask(select=PINNED, option="quick")
        assert cam.command(1).body == Pin(model="digits", variant="quick")
        assert value(PINNED)["state"] == "(automatic)"
        reports(cam, digits=ModelState(active="quick", pinned="quick", pinned_by="hub"))
        until(lambda: value(PINNED)["state"] == "quick", "the pin")
        home.ask(select=PINNED, option="(automatic)")
        assert cam.command(2).body == Unpin(model="digits")

        # A model goes, then the device is away, then it is not shown any more.
        born(cam, served())
        until(lambda: not any("a_b_c" in name for name in shown()["states"]), "the other model to go")
        born(cam, online=False)
        until(lambda: value("binary_sensor.cam1_connected")["state"] == "off", "the device to be away")
        until(lambda: value("sensor.cam1_temperature")["state"] == "unavailable", "its sensors to be unavailable")
        until(lambda: value("sensor.edge_hub_devices_online")["state"] == "0", "the hub to count")
        hub.stop()
        until(lambda: value("binary_sensor.cam1_connected")["state"] == "unavailable", "the hub to be away")
        hub = HubProcess(hub.directory, "--broker", broker.url)
        hub.start()
        until(lambda: shown()["devices"] == {} and shown()["entities"] == [], "everything to be taken back")
    finally:
        home.close()
        cam.close()
        hub.stop()


def test_home_assistants_schemas_have_nothing_against_our_messages(
    hub: HubProcess, cam: FakeDevice, tmp_path: Path
) -> None:
    python = environment("interop-homeassistant", HOME_ASSISTANT)
    password = (hub.data / "home-assistant-password").read_text().strip()
    with Listener(hub.mqtt, "homeassistant/#", user=("home-assistant", password)) as ear:
        born(cam, served(), served("a.b-c", ("one",)))
        reports(cam)
        ear.when(lambda: any(b'"temperature"' in each.payload for each in ear.heard), "the device")
        ear.when(lambda: any(b"Edge hub" in each.payload for each in ear.heard), "the hub")
        messages = {f"{number} {each.topic}": each.payload.decode() for number, each in enumerate(ear.heard)}
    directory = tmp_path / "homeassistant"
    directory.mkdir()
    home = Child(python, TESTS / "home_assistant_child.py", hub.mqtt, "home-assistant", password, directory)
    try:
        home.line()
        assert home.ask(check=messages) == {}
        broken = {"x": next(iter(messages.values())).replace('"sensor"', '"nonsense"')}
        assert home.ask(check=broken) != {}
    finally:
        home.close()


def test_a_sparkplug_library_of_others_reads_us_and_is_understood(hub: HubProcess, cam: FakeDevice) -> None:
    python = environment("interop-sparkplug", SPARKPLUG)
    password = (hub.data / "sparkplug-host-password").read_text().strip()
    library = Child(python, TESTS / "sparkplug_child.py")
    try:
        with Listener(hub.mqtt, "spBv1.0/#", user=("sparkplug-host", password)) as host:
            born(cam)
            host.when(lambda: spb_messages(host.heard), "the birth")
            cam.seq = 1
            now = time.time()
            measures(cam, now)
            reports(cam)
            host.when(lambda: len(spb_messages(host.heard)) >= 2, "data")
            measures(cam, now - 100, temp_c=30.0, seq=1)
            host.when(lambda: any(one.body.metrics[0].is_historical for one in spb_messages(host.heard)), "the past")
            command = library.ask(write="Models/digits/pinned", value="quick")
            host.say(f"spBv1.0/plant/NCMD/{CAM.tenant}:{CAM.device}", base64.b64decode(command["payload"]), qos=0)
            assert cam.command(1).body == Pin(model="digits", variant="quick")
            command = library.ask(write="Node Control/Rebirth", value=True)
            host.say(f"spBv1.0/plant/NCMD/{CAM.tenant}:{CAM.device}", base64.b64decode(command["payload"]), qos=0)
            host.when(lambda: [one.verb for one in spb_messages(host.heard)].count("NBIRTH") == 2, "a rebirth")
            born(cam, online=False)
            host.when(lambda: spb_messages(host.heard)[-1].verb == "NDEATH", "the death")
            messages = [each for each in host.heard if "/NCMD/" not in each.topic and "/STATE/" not in each.topic]
        for message in messages:
            verb = message.topic.split("/")[2]
            ours = spb_messages([message])[0]
            read = library.ask(verb=verb, payload=base64.b64encode(message.payload).decode())
            assert read["seq"] == ours.seq
            assert len(read["metrics"]) == len(ours.body.metrics)
            assert all(
                each[2] == metric.is_historical
                for each, metric in zip(read["metrics"].values(), ours.body.metrics, strict=True)
            )
            if verb == "NBIRTH":
                assert read["metrics"]["Device/board"] == ["STRING", "Raspberry Pi 4", False]
                assert read["metrics"]["bdSeq"] == ["INT64", 0, False]
                assert read["metrics"]["Node Control/Rebirth"] == ["BOOLEAN", False, False]
            if verb == "NDEATH":
                assert read["metrics"] == {"bdSeq": ["INT64", 0, False]}
    finally:
        library.close()
