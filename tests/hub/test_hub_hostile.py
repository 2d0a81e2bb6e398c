"""A device that means harm, or is broken, troubles nobody but itself."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from daemon_stage import until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess

from edge_sdk import mqtt
from edge_sdk.mqtt import ReplyStatus, Report, Up

pytestmark = pytest.mark.broker

Device = Callable[..., FakeDevice]


def envelope(cam: FakeDevice, seq: int, body: str, **more: Any) -> bytes:
    head = json.dumps({"id": "0" * 32, "boot": cam.boot, "seq": seq, "sent": 1.0, **more})
    return f'{head[:-1]}, "body": {body}}}'.encode()


@pytest.mark.parametrize("depth", [mqtt.MAX_RESULT_LEVELS + 2, 500, 950, 985, 5000])
def test_a_reply_that_nests_deeply_is_put_aside_before_it_reaches_anybody(
    hub: HubProcess, device: Device, depth: int
) -> None:
    cam = device()
    with hub.client() as client:
        id_ = client.send([CAM], Report(), expires_s=60.0)[str(CAM)]
        result = "[" * depth + "]" * depth
        reply = envelope(cam, 1, f'{{"status": "done", "result": {result}}}', reply_to=id_)
        cam.publish(mqtt.up_topic(CAM, Up.REPLY), reply)
        cam.confirmed(cam.send(Up.REPLY, mqtt.Reply(status=ReplyStatus.DONE), reply_to=id_, seq=2))
        found = client.device(CAM)
        assert found.commands[0].state == "done"
        assert client.health().malformed == 1


def test_a_refused_batch_is_confirmed_though_it_came_compressed(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.publish(mqtt.up_topic(CAM, Up.TELE), zlib.compress(envelope(cam, 7, '{"samples": [{"from": "the future"}]}')))
    cam.confirmed(7)
    with hub.client() as client:
        assert client.health().malformed == 1
        assert client.device(CAM).device.sample is None


def test_what_is_too_large_is_put_aside_or_refused_by_the_broker(hub: HubProcess, device: Device) -> None:
    cam, other = device(), device(OTHER)
    cam.publish(mqtt.up_topic(CAM, Up.EVENT), b"{" + b" " * mqtt.MAX_UP_BYTES)
    cam.confirmed(cam.happens("it is only put aside"))
    lost: list[Any] = []
    cam._client.on_disconnect = lambda *found: lost.append(found)
    cam._client.publish(mqtt.up_topic(CAM, Up.EVENT), b" " * 300_000, qos=1)
    until(lambda: lost, "the broker to hang up")
    cam._client.on_disconnect = None
    other.confirmed(other.happens("unharmed"))
    with hub.client() as client:
        health = client.health()
    assert (health.ok, health.malformed) == (True, 1)


def test_a_client_id_of_somebody_else_throws_nobody_off(hub: HubProcess, device: Device) -> None:
    cam = device()
    lost: list[Any] = []
    cam._client.on_disconnect = lambda *found: lost.append(found)
    other = device(OTHER, client_id=f"{CAM.tenant}:{CAM.device}")
    impostor = device(OTHER, client_id=str(CAM))
    impostor.confirmed(impostor.happens("hello"))
    cam.confirmed(cam.happens("still here"))
    cam._client.on_disconnect = None
    assert lost == []
    assert other.strangers == impostor.strangers == []


def test_topics_of_its_own_invention_are_refused(hub: HubProcess, device: Device) -> None:
    cam = device()
    topics = ("edge/v1/acme/cam1/up/diary", "edge/v1/acme/cam1/down/ack", "edge/v1/acme/cam1", "other", "$SYS/x")
    for topic in topics:
        cam.publish(topic, b"x", retain=True)
    cam.when(lambda: len(cam.denied) == len(topics), "the refusals")


def test_one_that_floods_leaves_room_for_the_others(hub: HubProcess, device: Device) -> None:
    cam, other = device(), device(OTHER)
    flood = [
        cam._client.publish(mqtt.up_topic(CAM, Up.TELE), envelope(cam, n, "{}") + b" " * 2000, qos=1)
        for n in range(1, 5001)
    ]
    other.confirmed(other.happens("and I?"))
    for each in flood:
        each.wait_for_publish(20)
    cam.confirmed(5000)
    with hub.client() as client:
        assert client.health().ok


def test_names_and_texts_of_a_device_reach_json_whole(hub: HubProcess, device: Device) -> None:
    cam = device()
    text = "</script><b>\x00\x1b[2J\u202e \U0001f525 '\"\\"
    cam.confirmed(cam.happens(text))
    with hub.client() as client:
        (event,) = client.device(CAM).events
    assert event.event.text == text
