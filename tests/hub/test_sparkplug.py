"""Each device as a Sparkplug edge node, on a real broker whose log has every packet.

Which assertion of the specification is covered by which test: `test_sparkplug_tck.py`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_stage import CAM, OTHER, FakeDevice, HubProcess
from interop_stage import (
    GROUP,
    Listener,
    SpbMessage,
    TellingBroker,
    born,
    measures,
    ncmd,
    reports,
    served,
    spb_messages,
)

from edge_hub.interop.edge_node import PrimaryHost
from edge_hub.interop.metrics import check_id
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId, ModelState, Pin, Unpin
from edge_sdk.wire import new_token

pytestmark = pytest.mark.broker

PINNED = "Models/digits/pinned"
HOST = "spBv1.0/STATE/scada"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TellingBroker]:
    made = TellingBroker(tmp_path_factory.mktemp("broker"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def hub(broker: TellingBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub"), "--broker", broker.url, "--sparkplug", GROUP) as process:
        yield process


class Stage:
    """Devices at the broker, and a host that listens to their edge nodes."""

    def __init__(self, broker: TellingBroker, host: Listener) -> None:
        # Every test has a device of its own: of another's, the hub remembers states and commands.
        self.who = DeviceId(tenant="acme", device=f"cam-{new_token()[:8]}")
        self.node = f"acme:{self.who.device}"
        self.ncmd = f"spBv1.0/{GROUP}/NCMD/{self.node}"
        self.broker = broker
        self.host = host
        self.devices: list[FakeDevice] = []

    def device(self, who: DeviceId | None = None) -> FakeDevice:
        # Somebody else's broker: the hub's account may write every device's topics, too.
        made = FakeDevice(
            self.broker.port, None, who or self.who, connect_as=(self.broker.HUB, self.broker.HUB_PASSWORD)
        )
        self.devices.append(made)
        return made

    def messages(self, verb: str, node: str | None = None) -> list[SpbMessage]:
        return [one for one in spb_messages(self.host.heard, node or self.node) if one.verb == verb]

    def wait(self, verb: str, number: int = 1, node: str | None = None) -> SpbMessage:
        return self.host.when(
            lambda: found[number - 1] if len(found := self.messages(verb, node)) >= number else None,
            f"{verb} {number} of {node or self.node}",
        )

    def wait_for(self, what: str, look: Callable[[SpbMessage], bool], verb: str = "NDATA") -> SpbMessage:
        return self.host.when(lambda: next((one for one in self.messages(verb) if look(one)), None), what)


@pytest.fixture
def stage(broker: TellingBroker, hub: HubProcess) -> Iterator[Stage]:
    with broker.listener("spBv1.0/#") as host:
        made = Stage(broker, host)
        yield made
        for device in made.devices:
            before = len(made.messages("NDEATH", f"{device.device.tenant}:{device.device.device}"))
            born(device, online=False)
            made.wait("NDEATH", before + 1, f"{device.device.tenant}:{device.device.device}")
            device.close()


@pytest.fixture
def alive(stage: Stage) -> tuple[Stage, FakeDevice]:
    """A device whose edge node was born."""
    device = stage.device()
    born(device)
    stage.wait("NBIRTH")
    return stage, device


def names_of(birth: SpbMessage) -> dict[str, int]:
    return {str(name): metric.alias for name, metric in birth.metrics.items() if metric.HasField("alias")}


def test_a_device_that_comes_up_is_born_with_every_metric(stage: Stage) -> None:
    device = stage.device()
    reports(device)
    born(device)
    birth = stage.wait("NBIRTH")
    assert (birth.qos, birth.retained, birth.seq) == (0, False, 0)
    assert abs(birth.body.timestamp / 1000 - time.time()) < 60
    for metric in birth.body.metrics:
        assert metric.HasField("name")
        assert metric.HasField("timestamp")
        assert metric.datatype in {4, 10, 11, 12}
        assert metric.is_null == (metric.WhichOneof("value") is None)
    aliases = list(names_of(birth).values())
    assert len(set(aliases)) == len(aliases) == len(birth.body.metrics) - 2
    control = birth.metrics["Node Control/Rebirth"]
    assert (control.datatype, control.boolean_value, control.HasField("alias")) == (11, False, False)
    assert birth.metrics["bdSeq"].datatype == 4
    assert birth.value("Conditions/temp_c") == 51.5
    assert birth.value("Device/board") == "Raspberry Pi 4"
    assert birth.value("Models/digits/active") == "exact"
    assert birth.value(PINNED) == ""
    assert birth.metrics["Models/digits/p95_ms"].is_null
    assert len({name.lower() for name in map(str, birth.metrics)}) == len(birth.metrics)


def test_its_connection_has_a_death_certificate_as_its_will_and_is_clean(alive: tuple[Stage, FakeDevice]) -> None:
    stage, _ = alive
    packets = stage.broker.packets(f"-{stage.node}")
    connects = [number for number, line in enumerate(packets) if line.startswith("New client connected")]
    now = packets[connects[-1] :]
    assert re.search(r"\(p2, c1, k\d+", now[0]), now[0]  # MQTT 3.1.1, clean session
    assert re.search(r"Will message specified \(\d+ bytes\) \(r0, q1\)", now[1]), now[1]
    assert now[2] == f"spBv1.0/{GROUP}/NDEATH/{stage.node}"
    # Commands are heard before anybody is told that there is somebody to command.
    subscribed = next(number for number, line in enumerate(now) if f"{stage.ncmd} (QoS 1)" in line)
    sent = [line for line in now if line.startswith("Received PUBLISH")]
    assert f"'spBv1.0/{GROUP}/NBIRTH/{stage.node}'" in sent[0]
    assert "(d0, q0, r0," in sent[0]
    assert subscribed < now.index(sent[0])
    assert f"{HOST} (QoS 1)" not in "\n".join(now)


def test_data_is_what_changed_by_alias_and_counts_on(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    aliases = names_of(stage.wait("NBIRTH"))
    reports(device)
    first = stage.wait("NDATA")
    assert (first.qos, first.retained, first.seq) == (0, False, 1)
    assert first.value(aliases["Conditions/temp_c"]) == 51.5
    assert aliases["Device/board"] not in first.metrics
    assert aliases["Conditions/load_pct"] not in first.metrics
    for metric in first.body.metrics:
        assert not metric.HasField("name")
        assert not metric.HasField("datatype")
        assert metric.HasField("timestamp")
        assert not metric.is_historical
    times = [metric.timestamp for metric in first.body.metrics]
    assert times == sorted(times)
    reports(device, digits=ModelState(active="quick"))
    second = stage.wait("NDATA", 2)
    assert second.seq == 2
    assert [second.value(which) for which in second.metrics] == ["quick"]


def test_what_did_not_change_is_not_said_again(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    reports(device)
    stage.wait("NDATA")
    for _ in range(3):
        reports(device)
    reports(device, digits=ModelState(active="quick"))
    stage.wait("NDATA", 2)
    assert len(stage.messages("NDATA")) == 2


def test_the_sequence_goes_on_at_zero_after_255(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    now = time.time()
    ats = [now - 1000 + number for number in range(258)]
    measures(device, *ats, now)
    stage.wait("NDATA", 257)
    numbers = [one.seq for one in stage.messages("NDATA")]
    assert numbers[:257] == [*range(1, 256), 0, 1]


def test_telemetry_of_the_past_is_told_as_history(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    aliases = names_of(stage.wait("NBIRTH"))
    now = time.time()
    device.seq = 1  # the first is in the device's spool still
    measures(device, now, temp_c=60.0)
    stage.wait_for("what is now", lambda one: one.value(aliases["Conditions/temp_c"]) == 60.0)
    measures(device, now - 500, now - 400, temp_c=40.0, seq=1)
    past = stage.wait("NDATA", 3)
    assert {metric.timestamp for metric in past.body.metrics} == {int((now - 400) * 1000)}
    assert all(metric.is_historical and not metric.HasField("name") for metric in past.body.metrics)
    assert past.value(aliases["Conditions/temp_c"]) == 40.0
    assert past.value(aliases["Models/digits/late_pct"]) == 1.0
    measures(device, now - 500, now - 400, temp_c=40.0, seq=1)  # a spool sends again what was not confirmed in time
    measures(device, now + 1, temp_c=61.0)
    after = stage.wait("NDATA", 4)
    assert [after.value(which) for which in after.metrics] == [61.0]


def test_what_came_before_the_birth_is_told_after_it(stage: Stage) -> None:
    device = stage.device()
    now = time.time()
    device.seq = 1
    measures(device, now, temp_c=60.0)
    measures(device, now - 500, temp_c=40.0, seq=1)
    device.confirmed(1)
    born(device)
    aliases = names_of(stage.wait("NBIRTH"))
    assert stage.wait("NBIRTH").value("Conditions/temp_c") == 60.0
    past = stage.wait("NDATA")
    assert past.value(aliases["Conditions/temp_c"]) == 40.0
    assert past.metrics[aliases["Conditions/temp_c"]].is_historical


def test_a_host_that_asks_gets_a_rebirth_in_the_same_session(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    reports(device)
    stage.wait("NDATA")
    stage.host.say(stage.ncmd, ncmd(("Node Control/Rebirth", True)), qos=0)
    again = stage.wait("NBIRTH", 2)
    assert again.seq == 0
    assert again.value("bdSeq") == stage.wait("NBIRTH").value("bdSeq")
    assert again.value("Conditions/temp_c") == 51.5
    reports(device, digits=ModelState(active="quick"))
    after = stage.wait("NDATA", 2)
    assert after.seq == 1
    assert not stage.messages("NDEATH")


def test_a_rebirth_that_is_not_asked_for_does_not_come(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    stage.host.say(stage.ncmd, ncmd(("Node Control/Rebirth", False)), qos=0)
    stage.host.say(stage.ncmd, b"\xff no payload", qos=0)
    stage.host.say(stage.ncmd, ncmd(("Node Control/Reboot", True), (9999, "x")), qos=0)
    reports(device)
    stage.wait("NDATA")
    assert len(stage.messages("NBIRTH")) == 1


def test_a_model_that_comes_later_is_in_a_new_birth_before_its_data(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    born(device, served(), served("faces"))
    again = stage.wait("NBIRTH", 2)
    assert "Models/faces/active" in again.metrics
    assert again.value("bdSeq") == stage.wait("NBIRTH").value("bdSeq")
    assert again.seq == 0


def test_what_a_host_writes_is_a_command_of_sparkplugs(alive: tuple[Stage, FakeDevice], hub: HubProcess) -> None:
    stage, device = alive
    aliases = names_of(stage.wait("NBIRTH"))
    stage.host.say(stage.ncmd, ncmd((PINNED, "quick")), qos=0)
    assert device.command(1).body == Pin(model="digits", variant="quick")
    told = stage.wait_for("what holds", lambda one: aliases[PINNED] in one.metrics)
    assert told.value(aliases[PINNED]) == ""  # not done yet, and so not said to be
    reports(device, digits=ModelState(active="quick", pinned="quick", pinned_by="hub"))
    stage.wait_for("the pin", lambda one: aliases[PINNED] in one.metrics and one.value(aliases[PINNED]) == "quick")
    stage.host.say(stage.ncmd, ncmd((aliases[PINNED], "")), qos=0)
    assert device.command(2).body == Unpin(model="digits")
    stage.host.say(stage.ncmd, ncmd(("Models/nothing/pinned", "quick")), qos=0)
    stage.host.say(stage.ncmd, ncmd((PINNED, None)), qos=0)
    assert device.command(3).body == Unpin(model="digits")


def test_a_command_that_the_broker_kept_is_nobodys_wish(stage: Stage) -> None:
    stage.host.say(stage.ncmd, ncmd((PINNED, "quick")), retain=True)
    try:
        device = stage.device()
        born(device)
        stage.wait("NBIRTH")
        stage.host.say(stage.ncmd, ncmd((PINNED, "")), qos=0)
        assert device.command(1).body == Unpin(model="digits")
    finally:
        stage.host.say(stage.ncmd, b"", retain=True)


def test_a_device_that_goes_takes_its_edge_node_along(alive: tuple[Stage, FakeDevice]) -> None:
    stage, device = alive
    birth = stage.wait("NBIRTH")
    born(device, online=False)
    death = stage.wait("NDEATH")
    assert (death.qos, death.retained, death.seq) == (1, False, None)
    assert list(death.metrics) == ["bdSeq"]
    assert death.metrics["bdSeq"].datatype == 4
    assert death.value("bdSeq") == birth.value("bdSeq")
    born(device)
    again = stage.wait("NBIRTH", 2)
    assert again.value("bdSeq") == (birth.value("bdSeq") + 1) % 256
    lines = stage.broker.packets(f"-{stage.node}")
    gone = next(n for n, line in reversed(list(enumerate(lines))) if line.startswith("Received DISCONNECT"))
    assert any("NDEATH" in line for line in lines[gone - 3 : gone])
    assert len(stage.messages("NDEATH")) == 1


def test_each_device_is_an_edge_node_of_its_own(stage: Stage, hub: HubProcess) -> None:
    others = [DeviceId(tenant=tenant, device=stage.who.device) for tenant in ("beta", "BETA", "beta.2")]
    for who in (stage.who, *others):
        born(stage.device(who))
    assert {stage.wait("NBIRTH", node=f"{who.tenant}:{who.device}").seq for who in (stage.who, *others)} == {0}
    connected = [line for line in stage.broker.packets(f":{stage.who.device}") if " as edge-hub-" in line]
    assert len({line.split(" as ")[1].split(" ")[0] for line in connected}) == 4
    assert "differ in case alone" in hub.said


def test_nothing_of_an_edge_node_is_kept_by_the_broker(alive: tuple[Stage, FakeDevice]) -> None:
    stage, _ = alive
    with stage.broker.listener(f"spBv1.0/{GROUP}/#", "proof") as late:
        late.say("proof", b"1")
        late.when(lambda: late.heard, "a message")
        assert [each.topic for each in late.heard] == ["proof"]


# ------------------------------------------------------------------------------------------------- its own process


@pytest.fixture
def own(broker: TellingBroker, tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Hubs of a test's own, each with a group of its own: the others' does not see them."""
    made: list[HubProcess] = []

    def make(*options: str) -> HubProcess:
        process = HubProcess(tmp_path / f"hub{len(made)}", "--broker", broker.url, *options)
        made.append(process)
        process.start()
        return process

    yield make
    for process in made:
        process.stop()


def test_a_hub_that_is_killed_lets_the_broker_publish_the_deaths(
    broker: TellingBroker, own: Callable[..., HubProcess]
) -> None:
    hub = own("--sparkplug", "killed")
    with broker.listener("spBv1.0/killed/#") as host:
        device = FakeDevice(broker.port, None, CAM, connect_as=(broker.HUB, broker.HUB_PASSWORD))
        born(device)
        host.when(lambda: host.last("spBv1.0/killed/NBIRTH/acme:cam1"), "the birth")
        import signal

        hub.stop(signal.SIGKILL)
        host.when(lambda: host.last("spBv1.0/killed/NDEATH/acme:cam1"), "the death")
        hub.start()
        host.when(lambda: len([each for each in host.heard if "NBIRTH" in each.topic]) == 2, "the next birth")
        first, second = ((each.topic, each.payload) for each in host.heard if "NBIRTH" in each.topic)
        assert json.loads((hub.data / "sparkplug.json").read_text()) == {"acme/cam1": 1}
        assert first != second
        born(device, online=False)
        device.close()
        hub.stop()
        host.when(lambda: len(host.heard) >= 4, "the last word")
        assert [each.topic.split("/")[2] for each in host.heard] == ["NBIRTH", "NDEATH", "NBIRTH", "NDEATH"]


def test_no_more_edge_nodes_than_allowed(broker: TellingBroker, own: Callable[..., HubProcess]) -> None:
    hub = own("--sparkplug", "few", "--sparkplug-max", "1")
    with broker.listener("spBv1.0/few/#") as host:
        devices = [
            FakeDevice(broker.port, None, who, connect_as=(broker.HUB, broker.HUB_PASSWORD)) for who in (CAM, OTHER)
        ]
        born(devices[0])
        host.when(lambda: host.last("spBv1.0/few/NBIRTH/acme:cam1"), "the birth")
        born(devices[1])
        host.when(lambda: "--sparkplug-max" in hub.said, "the hub to say so")
        born(devices[0], online=False)
        host.when(lambda: host.last("spBv1.0/few/NDEATH/acme:cam1"), "the death")
        born(devices[1])
        host.when(lambda: host.last("spBv1.0/few/NBIRTH/acme:cam2"), "the place that became free")
        for device in devices:
            born(device, online=False)
            device.close()


def test_with_a_primary_host_nothing_is_said_until_it_is_there(
    broker: TellingBroker, own: Callable[..., HubProcess]
) -> None:
    def state(online: bool, at: int) -> bytes:
        return json.dumps({"online": online, "timestamp": at}).encode()

    own("--sparkplug", "hosted", "--sparkplug-host", "scada")
    with broker.listener("spBv1.0/hosted/#") as host:
        device = FakeDevice(broker.port, None, CAM, connect_as=(broker.HUB, broker.HUB_PASSWORD))

        def verbs() -> list[str]:
            return [each.topic.split("/")[2] for each in host.heard]

        try:
            born(device)
            host.when(lambda: any(f"{HOST} (QoS 1)" in line for line in broker.packets("-acme:cam1")), "it to listen")
            host.say("spBv1.0/STATE/another", state(True, 100))
            host.say(HOST, state(False, 50), retain=True)
            host.say(HOST, b"ONLINE", retain=False)
            assert verbs() == []
            host.say(HOST, state(True, 100), retain=True)
            host.when(lambda: verbs() == ["NBIRTH"], "the birth")
            host.say(HOST, state(False, 99))  # the will of a session before
            reports(device)
            host.when(lambda: verbs() == ["NBIRTH", "NDATA"], "data")
            host.say(HOST, state(False, 100), retain=True)
            host.when(lambda: verbs()[2:] == ["NDEATH"], "the death")
            reports(device, digits=ModelState(active="quick"))
            host.say(HOST, state(True, 101), retain=True)
            # With what was reported, or before it. The death may be told twice: a goodbye that meets what the broker
            # sends just then is lost, and the broker publishes the will, too.
            host.when(lambda: [verb for verb in verbs()[3:] if verb != "NDEATH"][:1] == ["NBIRTH"], "the next birth")
        finally:
            for name in ("scada", "another"):
                host.say(f"spBv1.0/STATE/{name}", b"", retain=True)
            born(device, online=False)
            device.close()


@pytest.mark.parametrize(
    ("told", "online"),
    [
        ([], None),
        ([(True, 5)], True),
        ([(False, 5)], False),
        ([(True, 5), (False, 4)], True),
        ([(True, 5), (False, 5)], False),
        ([(True, 5), (False, 9), (True, 8)], False),
        ([(True, 5), (False, 9), (True, 9)], True),
        ([(False, 5), (False, 4)], False),
        ([(True, 5), (True, 4), (False, 4)], True),
    ],
)
def test_an_old_word_of_the_primary_host_changes_nothing(told: list[tuple[bool, int]], online: bool | None) -> None:
    host = PrimaryHost()
    for is_online, at in told:
        host.told(json.dumps({"online": is_online, "timestamp": at, "more": 1}).encode())
    for noise in (b"", b"\xff", b"[]", b'{"online": 1, "timestamp": 99}', b'{"online": true}', b" " * 2000):
        host.told(noise)
    assert host.online is online


@pytest.mark.parametrize("text", ["", "a/b", "+", "a#", " a", "a\n", "a\0b", "x" * 65])
def test_a_group_or_host_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_id(text, "group id")
    assert check_id("Plant 1", "group id") == "Plant 1"


# ------------------------------------------------------------------------------------------------ the hub's broker


def test_at_the_hubs_own_broker_a_host_has_an_account_and_devices_do_not_touch_it(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "h", "--sparkplug", GROUP)
    hub.start()
    try:
        password = (hub.data / "sparkplug-host-password").read_text().strip()
        with Listener(hub.mqtt, "spBv1.0/#", user=("sparkplug-host", password)) as host:
            cam = FakeDevice(hub.mqtt, hub.enrol())
            other = FakeDevice(hub.mqtt, hub.enrol(OTHER), OTHER)
            born(cam)
            host.when(lambda: spb_messages(host.heard, "acme:cam1"), "the birth")
            other.publish(f"spBv1.0/{GROUP}/NDEATH/acme:cam1", b"forged")
            other.publish(f"spBv1.0/{GROUP}/NCMD/acme:cam1", ncmd((PINNED, "forged")))
            host.say(f"spBv1.0/{GROUP}/NCMD/acme:cam1", ncmd((PINNED, "quick")), qos=0)
            assert cam.command(1).body == Pin(model="digits", variant="quick")
            born(cam, online=False)
            host.when(lambda: [one.verb for one in spb_messages(host.heard)][-1:] == ["NDEATH"], "the death")
            assert not any(b"forged" in each.payload for each in host.heard)
            cam.close()
            other.close()
    finally:
        hub.stop()
    assert hub.said.count("WARNING") == hub.said.count("running as root")
