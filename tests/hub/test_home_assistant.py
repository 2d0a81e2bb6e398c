"""The fleet in Home Assistant's words; what Home Assistant makes of them is in `test_interop_others`."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess
from interop_stage import Listener, TellingBroker, born, measures, reports, served

from edge_hub.interop import discovery
from edge_sdk.errors import UsageError, WireError
from edge_sdk.mqtt import DeviceId, ModelState, Pin, Unpin, Up, up_topic

pytestmark = pytest.mark.broker

BASE = "edge/v1/hub/ha"
STATUS, STATE = f"{BASE}/{CAM}/status", f"{BASE}/{CAM}/state"
CHOICE = f"{BASE}/{CAM}/select/digits"
HEARS = ("homeassistant/#", f"{BASE}/#")


class Stage:
    """A hub that shows its fleet, a device that is there, and one who has Home Assistant's account."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.cam = FakeDevice(hub.mqtt, hub.enrol())

    def listener(self, *topics: str) -> Listener:
        return Listener(self.hub.mqtt, *(topics or HEARS), user=self.account)

    @property
    def account(self) -> tuple[str, str]:
        return ("home-assistant", (self.hub.data / "home-assistant-password").read_text().strip())


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    hub = HubProcess(tmp_path / "h", "--home-assistant")
    hub.start()
    made = Stage(hub)
    yield made
    made.cam.close()
    made.hub.stop()


def config_of(ear: Listener, device: str = "cam1", prefix: str = "homeassistant") -> dict[str, Any] | None:
    found = [each for each in ear.heard if each.topic.startswith(f"{prefix}/device/") and each.payload]
    configs = [json.loads(each.payload) for each in found]
    return next((config for config in reversed(configs) if config["device"]["name"] == device), None)


def _configs(ear: Listener) -> set[str]:
    """The topics of devices' configurations, the hub's aside."""
    found = [each for each in ear.heard if each.topic.startswith("homeassistant/device/") and each.payload]
    return {each.topic for each in found if json.loads(each.payload)["device"]["name"] != "Edge hub"}


def state_of(ear: Listener) -> dict[str, Any]:
    return json.loads(ear.last(STATE) or b"{}")


def test_a_device_appears_with_its_sensors_and_a_choice_of_variants(stage: Stage) -> None:
    with stage.listener() as ear:
        born(stage.cam)
        reports(stage.cam)
        ear.when(lambda: state_of(ear).get("temp_c") == 51.5, "the state")
        config = config_of(ear)
        assert config is not None
        hub = ear.when(lambda: config_of(ear, "Edge hub"), "the hub itself")
        assert config["device"]["via_device"] == hub["device"]["identifiers"][0]
        assert config["device"]["model"] == "Raspberry Pi 4"
        assert config["device"]["sw_version"] == "0.1.0"
        assert {name: each["platform"] for name, each in config["components"].items()} == {
            "temperature": "sensor",
            "battery": "sensor",
            "throttled": "binary_sensor",
            "connected": "binary_sensor",
            "p95:digits": "sensor",
            "late:digits": "sensor",
            "active:digits": "sensor",
            "select:digits": "select",
        }
        assert config["components"]["select:digits"]["options"] == ["(automatic)", "exact", "quick"]
        assert [each["topic"] for each in config["availability"]] == [f"{BASE}/status", STATUS]
        assert config["availability_mode"] == "all"
        uniques = [each["unique_id"] for each in (*config["components"].values(), *hub["components"].values())]
        assert len(set(uniques)) == len(uniques)
        ear.when(lambda: ear.last(STATUS) == b"online", "its status")
        assert state_of(ear)["throttled"] is True
        assert state_of(ear)["models"]["digits"]["chosen"] == "(automatic)"
        assert ear.last(f"{BASE}/status") == b"online"
        ear.when(lambda: json.loads(ear.last(f"{BASE}/state") or b"{}") == {"devices": 1, "online": 1}, "the counts")


def test_what_it_shows_follows_the_device(stage: Stage) -> None:
    import time

    with stage.listener() as ear:
        born(stage.cam)
        measures(stage.cam, time.time(), temp_c=33.0)
        ear.when(lambda: state_of(ear).get("temp_c") == 33.0, "the telemetry")
        assert state_of(ear)["models"]["digits"]["p95_ms"] == 3.25
        assert state_of(ear)["models"]["digits"]["late_pct"] == 1.0
        born(stage.cam, online=False)
        ear.when(lambda: ear.last(STATUS) == b"offline", "the device to be gone")
        assert state_of(ear)["online"] is False
        with stage.hub.client() as client:
            client.remove(CAM)
        ear.when(lambda: ear.last(STATUS) == b"", "what was shown to be taken back")
        assert [ear.last(topic) for topic in (STATE, *_configs(ear))] == [b"", b""]


def test_what_somebody_chooses_is_a_command_of_home_assistants(stage: Stage) -> None:
    with stage.listener() as ear:
        born(stage.cam)
        ear.when(lambda: state_of(ear).get("models"), "the device")
        ear.say(CHOICE, b"quick")
        assert stage.cam.command(1).body == Pin(model="digits", variant="quick")
        assert state_of(ear)["models"]["digits"]["chosen"] == "(automatic)"  # not done yet
        reports(stage.cam, digits=ModelState(active="quick", pinned="quick", pinned_by="hub"))
        ear.when(lambda: state_of(ear)["models"]["digits"]["chosen"] == "quick", "the pin")
        for noise in (b"../x", b"\xff", b"x" * 5000, b""):
            ear.say(CHOICE, noise)
        ear.say(f"{BASE}/{OTHER}/select/digits", b"quick")  # no such device
        ear.say(CHOICE, b"(automatic)")
        assert stage.cam.command(2).body == Unpin(model="digits")
    with closing(sqlite3.connect(stage.hub.data / "hub.db")) as base:
        assert base.execute("SELECT DISTINCT by FROM commands").fetchall() == [("home-assistant",)]
        noted = base.execute("SELECT DISTINCT who, what, target FROM audit").fetchall()
        assert ("home-assistant", "command", str(CAM)) in noted


def test_when_home_assistant_starts_it_is_told_everything_again(stage: Stage) -> None:
    with stage.listener() as ear:
        born(stage.cam)
        ear.when(lambda: config_of(ear), "the device")
        ear.when(lambda: ear.last(STATUS), "its status")

        def told() -> int:
            return sum(each.topic == STATE for each in ear.heard)

        before = told()
        ear.say("homeassistant/status", b"offline")
        ear.say("homeassistant/status", b"online")
        ear.when(lambda: told() > before, "the state again")


def test_a_hub_that_goes_is_said_to_be_away(stage: Stage) -> None:
    with stage.listener() as ear:
        ear.when(lambda: ear.last(f"{BASE}/status") == b"online", "the hub")
        stage.hub.stop(signal.SIGTERM)
        ear.when(lambda: ear.last(f"{BASE}/status") == b"offline", "its goodbye")


def test_a_model_that_is_gone_is_taken_away_and_a_silent_sensor_is_not(stage: Stage) -> None:
    with stage.listener() as ear:
        born(stage.cam, served(), served("faces"))
        reports(stage.cam)
        ear.when(lambda: (config_of(ear) or {}).get("components", {}).get("temperature"), "the temperature")
        born(stage.cam, served("faces"))
        reports(stage.cam, faces=ModelState(active="exact"))

        def components() -> dict[str, Any]:
            return (config_of(ear) or {})["components"]

        def is_gone() -> bool:
            """It is said once that it goes; after that it is not spoken of."""
            found = (json.loads(each.payload) for each in ear.heard if each.topic.endswith("/config") and each.payload)
            return any(config["components"].get("select:digits") == {"platform": "select"} for config in found)

        ear.when(is_gone, "the model to go")
        assert "unique_id" in components()["select:faces"]
        assert "unique_id" in components()["temperature"]


def test_turned_off_at_its_own_broker_it_waits_for_home_assistant_to_hear_of_it(stage: Stage, tmp_path: Path) -> None:
    with stage.listener() as ear:
        born(stage.cam)
        ear.when(lambda: ear.last(STATUS) == b"online", "the device")
    stage.cam.close()
    stage.hub.stop()
    stage.hub = HubProcess(tmp_path / "h")
    stage.hub.start()
    with stage.listener() as ear:
        ear.when(lambda: ear.last(STATE), "what is there still")
        ear.say("homeassistant/status", b"online")
        ear.when(lambda: ear.last(STATE) == b"", "it to be taken back")
        ear.when(lambda: ear.last(f"{BASE}/status") == b"", "the rest")
        assert all(ear.last(each.topic) in {b"", b"online"} for each in ear.heard)
    until(lambda: not (stage.hub.data / "home-assistant.json").exists(), "it to be forgotten")


def test_no_device_touches_what_is_home_assistants(stage: Stage) -> None:
    other = FakeDevice(stage.hub.mqtt, stage.hub.enrol(OTHER), OTHER)
    try:
        with stage.listener() as ear:
            born(stage.cam)
            ear.when(lambda: ear.last(STATUS) == b"online", "the device")
            other.publish(CHOICE, b"quick")
            other.publish("homeassistant/device/forged/config", b"{}", retain=True)
            other.publish(STATUS, b"forged", retain=True)
            ear.say(CHOICE, b"exact")
            assert stage.cam.command(1).body == Pin(model="digits", variant="exact")
            assert ear.last(STATUS) == b"online"
            assert not any("forged" in each.topic for each in ear.heard)
            # Nor may Home Assistant's account touch what is a device's.
            ear.say(f"edge/v1/{CAM}/down/cmd", b"{}")
            ear.say(CHOICE, b"quick")
            assert stage.cam.command(2).body == Pin(model="digits", variant="quick")
    finally:
        other.close()


# --------------------------------------------------------------------------------------------- somebody else's broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TellingBroker]:
    made = TellingBroker(tmp_path / "broker")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def run(broker: TellingBroker, tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """One hub after the other, in the same directory and on the same broker."""
    running: list[HubProcess] = []

    def again(*options: str) -> HubProcess:
        for hub in running:
            hub.stop()
        made = HubProcess(tmp_path / "h", "--broker", broker.url, *options)
        running.append(made)
        made.start()
        return made

    yield again
    for hub in running:
        hub.stop()


def kept(broker: TellingBroker) -> dict[str, bytes]:
    """What the broker keeps, but for what devices said."""
    with broker.listener("#") as ear:
        ear.say("proof", b"1")
        ear.when(lambda: ear.last("proof"), "a message")
        return {each.topic: each.payload for each in ear.heard if each.retained and "/up/" not in each.topic}


def test_a_choice_that_the_broker_kept_is_nobodys_wish(broker: TellingBroker, run: Callable[..., HubProcess]) -> None:
    with broker.listener(f"{BASE}/#") as ear:
        ear.say(CHOICE, b"exact", retain=True)
        cam = FakeDevice(broker.port, None, connect_as=(broker.HUB, broker.HUB_PASSWORD))
        try:
            run("--home-assistant")
            born(cam)
            ear.when(lambda: ear.last(STATUS) == b"online", "the device")
            ear.say(CHOICE, b"quick")
            assert cam.command(1).body == Pin(model="digits", variant="quick")
        finally:
            cam.close()


def test_what_is_not_shown_any_more_leaves_nothing_behind(
    broker: TellingBroker, run: Callable[..., HubProcess], tmp_path: Path
) -> None:
    def discovered(prefix: str) -> set[str]:
        return {topic.split("_")[-2] for topic in kept(broker) if topic.startswith(f"{prefix}/device/edge_acme")}

    who = (broker.HUB, broker.HUB_PASSWORD)
    devices = [FakeDevice(broker.port, None, each, connect_as=who) for each in (CAM, OTHER)]
    memory = tmp_path / "h" / "hub" / "home-assistant.json"
    try:
        hub = run("--home-assistant")
        for device in devices:
            born(device)
        until(lambda: discovered("homeassistant") == {"cam1", "cam2"} and STATUS in kept(broker), "the devices")
        # A device is taken out.
        hub.stop()
        devices[0].publish(up_topic(CAM, Up.BIRTH), b"", retain=True)
        with closing(sqlite3.connect(hub.data / "hub.db")) as base:
            base.execute("DELETE FROM devices WHERE name = 'cam1'")
            base.commit()
        hub.start()
        until(lambda: discovered("homeassistant") == {"cam2"}, "the first to be gone")
        until(
            lambda: not [topic for topic in kept(broker) if topic.startswith(f"{BASE}/{CAM}/")], "the rest of it to go"
        )
        # Another prefix.
        run("--home-assistant", "other")
        until(lambda: discovered("other") == {"cam2"} and not discovered("homeassistant"), "the other prefix")
        # The setting turned off.
        run()
        until(lambda: not memory.exists(), "it to be taken back")
        assert kept(broker) == {}
    finally:
        for device in devices:
            device.close()


# ------------------------------------------------------------------------------------------------------------ pure


def test_no_two_devices_share_an_object() -> None:
    pairs = [("a", "b_c"), ("a_b", "c"), ("a.b", "c"), ("a", "b.c"), ("a", "b-c"), ("A", "b_c")]
    made = {discovery.object_id("hub", DeviceId(tenant=tenant, device=device)) for tenant, device in pairs}
    assert len(made | {discovery.object_id("hub", None), discovery.object_id("other", None)}) == len(pairs) + 2
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for name in made)


@pytest.mark.parametrize("prefix", ["", "/x", "x/", "a b", "a/+", "#", "a\n", "a/b/c/d/e", "x" * 65])
def test_a_prefix_that_cannot_be_one_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError):
        discovery.check_prefix(prefix)


@pytest.mark.parametrize(
    "topic",
    [f"{BASE}/acme/cam1/state", f"{BASE}/acme/cam1/select/a/b", f"{BASE}/a b/c/select/m", f"{BASE}/a/c/select/"],
)
def test_a_topic_that_is_no_choice_is_refused(topic: str) -> None:
    with pytest.raises(WireError):
        discovery.parse_order(topic, b"quick")
