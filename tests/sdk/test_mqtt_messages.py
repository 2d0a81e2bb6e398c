"""Format 1 of the MQTT messages: what was sent once is understood for ever, what is hostile is refused."""

from __future__ import annotations

import hashlib
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
    read_up,
    unpack_down,
    unpack_up,
    up_topic,
)
from edge_sdk.wire import new_token

pytestmark = pytest.mark.device

GOLDEN = Path(__file__).parent.parent / "data" / "mqtt-1"
SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "mqtt-schema.json"
# Format 1 for ever: of each kind, so many payloads and the SHA-256 of their lines. A line may be added below; one that
# stands may not change, for devices in the field send it.
FROZEN = {
    "down-ack": (1, "029335c1d995131c44f52f308a2c5a128989b97f8f4741fed77d598180354159"),
    "down-cmd": (15, "8bb6c93f9a63a0c8d053c7febb8cf24b07dbeb01984ba40eb32a8febceb29e44"),
    "down-desired": (1, "4db849139e0ccd3ad95f34ba4d21cf223d1e1f78c1f6e9d02598efb399a69ec9"),
    "up-birth": (3, "87b98e03f28bf3509a069166893b55d1112522355c7a34eb20b35417a59e8a1b"),
    "up-event": (3, "828e7d2c61ddf83998cd4cd8e6c1a0369571fd7cbb458c8f1bb379e279da1f62"),
    "up-reply": (3, "42ae45e90ac9a05eb1519dd12e06f3dd1a48e2dc2ba0cef410a4b85796a39262"),
    "up-state": (5, "26b29ec5a4c0afaaf9e9799008d7e3479cca53fd07303029abf06078ba804433"),
    "up-tele": (1, "2ef7124a628329098574e465a4928276d855cf77f9f4f6c1d5f64792653b55f0"),
}
Frozen = tuple[str, str, bytes]


def _frozen() -> list[Frozen]:
    return [
        (*file.stem.split("-"), line)  # type: ignore[misc]  # two parts, by the names below
        for file in sorted(GOLDEN.glob("*.jsonl"))
        for line in file.read_bytes().splitlines()
    ]


MESSAGES = _frozen()
each_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{m[0]}-{m[1]}")


def _unpack(direction: str, kind: str, payload: bytes) -> Any:
    return unpack_up(Up(kind), payload) if direction == "up" else unpack_down(Down(kind), payload)


def _of(wanted: Up | Down) -> dict[str, Any]:
    """The first frozen message of a kind."""
    found: dict[str, Any] = next(json.loads(payload) for _, kind, payload in MESSAGES if kind == wanted.value)
    return found


@each_message
def test_a_message_of_format_1_is_understood_and_written_to_the_byte(message: Frozen) -> None:
    assert pack(_unpack(*message)) == message[2]


def test_the_frozen_messages_are_those_of_old() -> None:
    assert {file.stem for file in GOLDEN.glob("*.jsonl")} == set(FROZEN)
    for stem, (count, digest) in FROZEN.items():
        lines = (GOLDEN / f"{stem}.jsonl").read_bytes().splitlines(keepends=True)
        assert hashlib.sha256(b"".join(lines[:count])).hexdigest() == digest, f"{stem}: a frozen line has changed"


def test_a_compressed_message_of_format_1_is_understood() -> None:
    squeezed = (GOLDEN / "up-tele.zlib").read_bytes()
    (plain,) = [payload for _, kind, payload in MESSAGES if kind == Up.TELE.value]
    assert unpack_up(Up.TELE, squeezed) == unpack_up(Up.TELE, plain)


def test_the_frozen_messages_show_every_kind_every_command_and_every_field() -> None:
    shown = {message[:2] for message in MESSAGES}
    assert shown == {("up", kind.value) for kind in Up} | {("down", kind.value) for kind in Down}
    commands = {json.loads(payload)["body"]["name"] for _, kind, payload in MESSAGES if kind == "cmd"}
    assert commands == {kind.__struct_config__.tag for kind in typing.get_args(mqtt.Command)}
    text = b"".join(payload for _, _, payload in MESSAGES).decode()
    structs = [t for t in vars(mqtt).values() if isinstance(t, type) and issubclass(t, msgspec.Struct)]
    fields = {(t.__name__, field) for t in structs if t not in {mqtt.Wire, DeviceId} for field in t.__struct_fields__}
    assert {(name, field) for name, field in fields if f'"{field}":' not in text} == set()


@each_message
def test_the_schemas_allow_what_is_sent_and_nothing_beside_it(message: Frozen) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="a development tool")
    direction, kind, payload = message
    schemas = (
        json.loads(SCHEMAS.read_text(encoding="utf-8")) if SCHEMAS.exists() else pytest.skip("a wheel has no docs")
    )
    validator = jsonschema.Draft202012Validator({**schemas, "$ref": f"#/$defs/{direction}-{kind}"})
    plain = json.loads(payload)
    validator.validate(plain)
    wrong = [{**plain, "id": "0" * 16 + "x"}, {**plain, "sent": -1}, {**plain, "body": None}, {**plain, "more": 1}]
    for each in wrong:
        assert not validator.is_valid(each), each


@settings(deadline=None, max_examples=60)
@each_message
@given(data=st.data())
def test_any_value_at_any_place_of_a_message_is_taken_whole_or_refused(message: Frozen, data: st.DataObject) -> None:
    direction, kind, plain = message
    place = data.draw(st.sampled_from(places(json.loads(plain))))
    payload = json.dumps(replaced(json.loads(plain), place, data.draw(VALUES))).encode()
    try:
        envelope = _unpack(direction, kind, payload)
    except WireError as error:
        complaint = str(error)
    else:
        complaint = ""
        again = pack(envelope)
        assert _unpack(direction, kind, again) == envelope
        assert json.loads(json.dumps(json.loads(again), allow_nan=False))
    assert complaint.isprintable()
    assert len(complaint) < 1000


# ------------------------------------------------------------------------------------------------- newer senders


@pytest.mark.parametrize("kind", [Up.BIRTH, Up.TELE, Up.EVENT])
def test_a_hub_ignores_fields_of_a_newer_device_and_names_them(kind: Up) -> None:
    plain = _of(kind)
    newer = {**plain, "lux": 1, "body": {**plain["body"], "surprise": {"deep": [1]}}}
    envelope, ignored = read_up(kind, json.dumps(newer).encode())
    assert envelope == unpack_up(kind, json.dumps(plain).encode())
    assert ignored == ("UpEnvelope.lux", f"{type(envelope.body).__name__}.surprise")


def test_what_is_unknown_deep_within_a_state_is_ignored_too() -> None:
    plain = _of(Up.STATE)
    models = {name: {**one, "surprise": 1} for name, one in plain["body"]["models"].items()}
    newer = {**plain, "body": {**plain["body"], "models": models, "conditions": {"temp_c": 50.0, "lux": 12.0}}}
    envelope, ignored = read_up(Up.STATE, json.dumps(newer).encode())
    assert envelope.body.conditions == Conditions(temp_c=50.0)
    assert set(ignored) == {"ModelState.surprise", "Conditions.lux"}


def test_a_device_refuses_an_order_it_does_not_know_in_full() -> None:
    for kind in Down:
        plain = _of(kind)
        for newer in ({**plain, "surprise": 1}, {**plain, "body": {**plain["body"], "surprise": 1}}):
            with pytest.raises(WireError, match="surprise"):
                unpack_down(kind, json.dumps(newer).encode())


@pytest.mark.parametrize("names", [["\u202e</b>" * 99], [f"n{number}" for number in range(20_000)]])
def test_names_of_unknown_fields_are_few_short_and_safe_to_print(names: list[str]) -> None:
    plain = _of(Up.EVENT)
    _, ignored = read_up(Up.EVENT, json.dumps({**plain, **dict.fromkeys(names, 1)}).encode())
    assert 1 <= len(ignored) <= 16
    assert all(name.isascii() and name.isprintable() and len(name) < 100 for name in ignored)


def test_a_field_more_does_not_excuse_a_value_that_is_wrong() -> None:
    with pytest.raises(WireError, match="seq"):
        unpack_up(Up.EVENT, json.dumps({**_of(Up.EVENT), "surprise": 1, "seq": -1}).encode())


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
