"""What devices send is stored once, confirmed when it is durable, and survives whatever is killed."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Callable

import pytest
from daemon_stage import until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess

from edge_sdk import mqtt
from edge_sdk.mqtt import Conditions, Sample, Tele, Up

pytestmark = pytest.mark.broker

Device = Callable[..., FakeDevice]


def tele(count: int = 3) -> Tele:
    return Tele(samples=tuple(Sample(at=time.time(), window_s=1.0, conditions=Conditions()) for _ in range(count)))


def test_a_message_is_stored_and_confirmed(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.confirmed(cam.happens("the sun came out"))
    cam.confirmed(cam.send(Up.TELE, tele()))
    with hub.client() as client:
        found = client.device(CAM)
        assert [event.event.text for event in found.events] == ["the sun came out"]
        assert found.device.messages == 2
        assert found.device.sample is not None


def test_what_comes_twice_counts_once_and_is_confirmed_again(hub: HubProcess, device: Device) -> None:
    cam = device()
    number = cam.happens("once")
    cam.confirmed(number)
    cam.acked.clear()
    cam.send(Up.EVENT, mqtt.Event(at=1.0, kind="sensor", text="once"), seq=number)
    cam.confirmed(number)
    with hub.client() as client:
        found = client.device(CAM)
        assert (found.device.messages, found.device.duplicates) == (1, 1)
        assert len(found.events) == 1


def test_the_same_number_of_another_boot_is_another_message(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.confirmed(cam.happens("before the restart"))
    cam.boot, cam.seq = "f" * 32, 0
    cam.acked.clear()
    cam.confirmed(cam.happens("after it"))
    assert hub.messages() == 2


def test_a_birth_and_a_will_tell_who_is_there_and_a_late_will_changes_nothing(hub: HubProcess, device: Device) -> None:
    cam = device()

    def online() -> bool:
        with hub.client() as client:
            return client.device(CAM).device.online

    old = "0" * 32
    cam.born(boot=old)
    until(online, "the device to be online")
    cam.born()
    cam.born(online=False, boot=old)  # the broker tells the will of the old connection only now
    cam.confirmed(cam.happens("still here"))
    assert online()
    cam.born(online=False)
    until(lambda: not online(), "the device to be offline")


def test_a_killed_hub_confirms_nothing_it_did_not_keep(hub: HubProcess, device: Device) -> None:
    cam = device()
    sent = [cam.happens(f"event {number}") for number in range(200)]
    hub.kill()
    kept_for_sure = set(cam.acked)
    hub.start()
    stored = hub.messages()
    assert stored >= len(kept_for_sure)
    cam.when(lambda: cam._subscribed and cam._client.is_connected(), "the device to be connected again")
    for number in sent:
        if number not in cam.acked:
            cam.send(Up.EVENT, mqtt.Event(at=1.0, kind="sensor", text=f"event {number - 1}"), seq=number)
    for number in sent:
        cam.confirmed(number)
    assert hub.messages() == len(sent)
    with hub.client() as client:
        events = client.events(limit=1000)
    assert sorted(event.event.text or "" for event in events) == sorted(f"event {n}" for n in range(200))


def test_a_killed_broker_comes_back_with_the_same_accounts(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.confirmed(cam.happens("before"))
    old = hub.broker_pid()
    os.kill(old, signal.SIGKILL)

    def restarted() -> bool:
        try:
            return hub.broker_pid() != old
        except (ValueError, FileNotFoundError):
            return False

    until(restarted, "the broker to be restarted")
    cam.when(cam._client.is_connected, "the device to be connected again")
    cam.insists(cam.happens("after"), "after")
    assert hub.messages() == 2


def test_nobody_can_pose_as_another_or_listen_to_it(hub: HubProcess, device: Device) -> None:
    cam, other = device(), device(OTHER, topics=("edge/v1/#", mqtt.down_topic(OTHER, mqtt.Down.ACK)))
    envelope = mqtt.UpEnvelope(id="0" * 32, boot=other.boot, seq=1, sent=1.0, body=mqtt.Event(at=1.0, kind="lie"))
    other.publish(mqtt.up_topic(CAM, Up.EVENT), mqtt.pack(envelope))
    other.publish(mqtt.down_topic(CAM, mqtt.Down.CMD), b"{}")
    other.when(lambda: len(other.denied) == 2, "the broker to refuse both")
    cam.confirmed(cam.happens("a secret"))
    other.confirmed(other.happens("heard nothing"))
    with hub.client() as client:
        assert [event.event.text for event in client.device(CAM).events] == ["a secret"]
        assert client.health().malformed == 0
    assert cam.commands == []
    assert other.strangers == []


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password_is_refused(hub: HubProcess, password: str | None) -> None:
    hub.enrol()
    stranger = FakeDevice(hub.mqtt, password)
    stranger.close()
    assert stranger.refused is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"{}",
        b"[" * 100_000,
        b'{"id":"' + b"0" * 32 + b'","boot":"' + b"0" * 32 + b'","seq":1,"sent":1e999,"body":{}}',
        zlib.compress(b" " * 50_000_000),
        b"\x78\x9c torn",
        b"\xff\xfe\x00",
    ],
    ids=["empty", "text", "object", "deep", "infinite", "bomb", "torn", "binary"],
)
def test_what_is_malformed_is_put_aside_and_the_rest_goes_on(hub: HubProcess, device: Device, payload: bytes) -> None:
    cam = device()
    cam.publish(mqtt.up_topic(CAM, Up.TELE), payload)
    cam.confirmed(cam.happens("unharmed"))
    with hub.client() as client:
        health = client.health()
    assert health.ok
    assert health.malformed == 1


def test_a_malformed_message_with_a_number_is_confirmed_so_that_the_device_forgets_it(
    hub: HubProcess, device: Device
) -> None:
    cam = device()
    text = f'{{"id":"{"0" * 32}","boot":"{cam.boot}","seq":7,"sent":1.0,"body":{{"unknown":1}}}}'
    cam.publish(mqtt.up_topic(CAM, Up.EVENT), text.encode())
    cam.confirmed(7)
