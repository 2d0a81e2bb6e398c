"""Format 1 of the MQTT messages: what was sent once is understood for ever, what is hostile is refused."""

from __future__ import annotations

import json
import typing
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import VALUES, places, replaced

from edge_sdk import mqtt
from edge_sdk.errors import WireError
from edge_sdk.mqtt import (
    Conditions,
    DeviceId,
    Down,
    Reply,
    ReplyStatus,
    Sample,
    Tele,
    Up,
    UpEnvelope,
    down_topic,
    pack,
    parse_up_topic,
    unpack_down,
    unpack_up,
    up_topic,
)
from edge_sdk.wire import new_token

pytestmark = pytest.mark.device

GOLDEN = Path(__file__).parent.parent / "data" / "mqtt-format-1.jsonl"
MESSAGES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


def _unpack(direction: str, kind: str, payload: bytes) -> Any:
    return unpack_up(Up(kind), payload) if direction == "up" else unpack_down(Down(kind), payload)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{m['direction']}-{m['kind']}")
def test_a_message_of_format_1_is_understood_and_written_as_it_was(message: dict[str, Any]) -> None:
    payload = json.dumps(message["payload"], separators=(",", ":"), ensure_ascii=False).encode()
    envelope = _unpack(message["direction"], message["kind"], payload)
    assert json.loads(pack(envelope)) == message["payload"]


def test_the_frozen_messages_show_every_kind_every_command_and_every_field() -> None:
    shown = {(m["direction"], m["kind"]) for m in MESSAGES}
    assert shown == {("up", kind.value) for kind in Up} | {("down", kind.value) for kind in Down}
    commands = {m["payload"]["body"]["name"] for m in MESSAGES if m["kind"] == "cmd"}
    assert commands == {kind.__struct_config__.tag for kind in typing.get_args(mqtt.Command)}
    text = GOLDEN.read_text(encoding="utf-8")
    structs = [t for t in vars(mqtt).values() if isinstance(t, type) and issubclass(t, msgspec.Struct)]
    fields = {(t.__name__, field) for t in structs if t not in {mqtt.Wire, DeviceId} for field in t.__struct_fields__}
    assert {(name, field) for name, field in fields if f'"{field}":' not in text} == set()


@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{m['direction']}-{m['kind']}")
@given(data=st.data())
def test_any_value_at_any_place_of_a_message_is_taken_whole_or_refused(
    message: dict[str, Any], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from(places(message["payload"])))
    payload = json.dumps(replaced(message["payload"], place, data.draw(VALUES))).encode()
    try:
        envelope = _unpack(message["direction"], message["kind"], payload)
    except WireError as error:
        complaint = str(error)
    else:
        complaint = ""
        again = pack(envelope)
        assert _unpack(message["direction"], message["kind"], again) == envelope
        assert json.loads(json.dumps(json.loads(again), allow_nan=False))
    assert complaint.isprintable()
    assert len(complaint) < 1000


def test_a_hub_ignores_conditions_it_does_not_know_and_refuses_every_other_field() -> None:
    state = next(m["payload"] for m in MESSAGES if m["kind"] == "state")
    newer = json.dumps({**state, "body": {**state["body"], "conditions": {"temp_c": 50.0, "lux": 12.0}}})
    assert unpack_up(Up.STATE, newer.encode()).body.conditions == Conditions(temp_c=50.0)
    with pytest.raises(WireError, match="surprise"):
        unpack_up(Up.STATE, json.dumps({**state, "body": {**state["body"], "surprise": 1}}).encode())


def _tele(samples: int = 1) -> UpEnvelope[Tele]:
    one = Sample(at=1.7e9, window_s=1.0, conditions=Conditions(temp_c=50.0))
    return UpEnvelope(id=new_token(), boot=new_token(), seq=1, sent=1.7e9, body=Tele(samples=(one,) * samples))


def test_a_squeezed_batch_is_smaller_and_the_same() -> None:
    envelope = _tele(600)
    squeezed = pack(envelope, squeeze=True)
    assert len(squeezed) < len(pack(envelope)) / 5
    assert unpack_up(Up.TELE, squeezed) == envelope == unpack_up(Up.TELE, pack(envelope))


@pytest.mark.parametrize("kind", list(Up))
def test_a_zlib_bomb_is_refused_before_it_fills_the_memory(kind: Up) -> None:
    bomb = zlib.compress(b" " * 50_000_000, 9)
    assert len(bomb) < mqtt.MAX_UP_BYTES
    with pytest.raises(WireError, match="inflates to more than 1048576 bytes"):
        unpack_up(kind, bomb)


@pytest.mark.parametrize(
    "payload",
    [
        zlib.compress(pack(_tele()))[:-5],
        zlib.compress(pack(_tele())) + b"more",
        zlib.compress(pack(_tele())) * 2,
        b"\x78\x9cnot a stream",
        zlib.compress(b""),
    ],
    ids=["cut short", "followed by bytes", "twice", "garbage", "nothing inside"],
)
def test_a_damaged_zlib_stream_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        unpack_up(Up.TELE, payload)


def test_a_stream_that_inflates_to_exactly_the_limit_is_taken() -> None:
    plain = pack(_tele())
    assert unpack_up(Up.TELE, zlib.compress(plain.ljust(mqtt.MAX_INFLATED_BYTES)))
    with pytest.raises(WireError):
        unpack_up(Up.TELE, zlib.compress(plain.ljust(mqtt.MAX_INFLATED_BYTES + 1)))


def test_size_is_limited_by_direction_and_kind() -> None:
    plain = pack(_tele())
    assert unpack_up(Up.TELE, plain.ljust(mqtt.MAX_INFLATED_BYTES))
    for kind, limit in ((Up.EVENT, mqtt.MAX_UP_BYTES), (Up.TELE, mqtt.MAX_INFLATED_BYTES)):
        with pytest.raises(WireError, match=f"where at most {limit} are taken"):
            unpack_up(kind, plain.ljust(limit + 1))
    with pytest.raises(WireError, match="where at most 65536 are taken"):
        unpack_down(Down.CMD, b" " * 65_537)


ID = '"id":"0123456789abcdef","sent":1700000000'


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"format-disk"}',
        '{"name":"pin","model":"digits"}',
        '{"name":"pin","model":"../digits","variant":"int8"}',
        '{"name":"pin","model":"digits\\n","variant":"int8"}',
        '{"name":"pin","model":"digits","variant":"int8","force":true}',
        '{"name":"prefer","preference":{"mode":"ludicrous"}}',
        '{"name":"prefer","preference":{"max_latency_ms":0}}',
        '{"name":"prefer","preference":{"max_latency_ms":-1}}',
        '{"name":"prefer","preference":{"min_accuracy":101}}',
        '{"name":"configure","telemetry_every_s":0.001}',
        '{"name":"configure","sample_every_s":1e300}',
        '{"model":"digits","variant":"int8"}',
        '"pin"',
        "null",
        "[]",
        "[" * 20_000,
    ],
)
def test_a_malformed_command_is_refused(body: str) -> None:
    with pytest.raises(WireError):
        unpack_down(Down.CMD, f'{{{ID},"body":{body}}}'.encode())


@pytest.mark.parametrize(
    "envelope",
    [
        '{"id":"0123456789abcdef","body":{"name":"pause"}}',
        f'{{{ID},"surprise":1,"body":{{"name":"pause"}}}}',
        '{"id":"0123456789ABCDEF","sent":1700000000,"body":{"name":"pause"}}',
        '{"id":"0123456789abcdef\\n","sent":1700000000,"body":{"name":"pause"}}',
        '{"id":"0123456789abcdef","sent":-1,"body":{"name":"pause"}}',
        '{"id":"0123456789abcdef","sent":1e12,"body":{"name":"pause"}}',
        f'{{{ID},"expires":NaN,"body":{{"name":"pause"}}}}',
    ],
)
def test_a_malformed_envelope_is_refused(envelope: str) -> None:
    with pytest.raises(WireError):
        unpack_down(Down.CMD, envelope.encode())


@pytest.mark.parametrize("result", [None, 1, "text", [1, {"a": None}], {"decisions": []}])
def test_a_reply_carries_any_json_value(result: Any) -> None:
    body = Reply(status=ReplyStatus.DONE, result=result)
    envelope = UpEnvelope(id=new_token(), boot=new_token(), seq=1, sent=1.7e9, reply_to=new_token(), body=body)
    assert unpack_up(Up.REPLY, pack(envelope)) == envelope


@pytest.mark.parametrize("levels", [32, 33, 900])
@pytest.mark.parametrize("level", ["[{}]", '{{"a":{}}}'])
def test_a_reply_nests_no_deeper_than_everybody_can_show(level: str, levels: int) -> None:
    """A thousand levels are decoded at the top of a stack, and cannot be encoded, shown or copied further down."""
    result = "1"
    for _ in range(levels - 1):
        result = level.format(result)
    payload = f'{{{ID},"boot":"0123456789abcdef","seq":1,"body":{{"status":"done","result":{result}}}}}'.encode()
    if levels <= mqtt.MAX_RESULT_LEVELS:
        assert unpack_up(Up.REPLY, payload)
    else:
        with pytest.raises(WireError, match="nests deeper than 32 levels"):
            unpack_up(Up.REPLY, payload)


@pytest.mark.parametrize("result", ['"\\ud800"', "1e999", "NaN", "[" * 100_000])
def test_a_replys_result_is_decoded_like_all_the_rest(result: str) -> None:
    payload = f'{{{ID},"boot":"0123456789abcdef","seq":1,"body":{{"status":"done","result":{result}}}}}'
    with pytest.raises(WireError):
        unpack_up(Up.REPLY, payload.encode())


def test_an_unbounded_batch_is_refused() -> None:
    with pytest.raises(WireError):
        unpack_up(Up.TELE, pack(_tele(601)))
    with pytest.raises(WireError):
        unpack_up(Up.TELE, pack(_tele(0)))


# ------------------------------------------------------------------------------------------------------- topics

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@settings(deadline=None)
@given(names, names, st.sampled_from(Up))
def test_a_topic_says_which_device_published_what(tenant: str, name: str, kind: Up) -> None:
    device = DeviceId(tenant=tenant, device=name)
    assert parse_up_topic(up_topic(device, kind)) == (device, kind)
    assert DeviceId.parse(str(device)) == device


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edge/v1/t/d/up",
        "edge/v1/t/d/up/birth/more",
        "edge/v2/t/d/up/birth",
        "edge/v1/t/d/down/cmd",
        "edge/v1/t/d/up/cmd",
        "edge/v1/t/d/up/birth\n",
        "edge/v1/t\n/d/up/birth",
        "edge/v1/+/d/up/birth",
        "edge/v1/t/#/up/birth",
        "edge/v1//d/up/birth",
        "edge/v1/t/../up/birth",
        "/edge/v1/t/d/up/birth",
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    with pytest.raises(WireError):
        parse_up_topic(topic)


@pytest.mark.parametrize("text", ["", "t", "t/", "/d", "t/d/e", "t/d\n", "+/d", "t/" + "d" * 65])
def test_what_is_no_device_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(WireError, match="TENANT/DEVICE"):
        DeviceId.parse(text)


def test_topics_of_a_device_lie_below_its_user_name() -> None:
    device = DeviceId.parse("acme/cam-1")
    assert {up_topic(device, kind).startswith("edge/v1/acme/cam-1/up/") for kind in Up} == {True}
    assert {down_topic(device, kind).startswith("edge/v1/acme/cam-1/down/") for kind in Down} == {True}
