"""Sparkplug payloads written by hand are what the library of protocol buffers reads, and the other way round."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as some
from interop_stage import SpbPayload, ncmd

from edge_hub.interop.metrics import wanted
from edge_hub.interop.payload import MAX_BYTES, MAX_METRICS, DataType, Metric, Payload, decode, encode
from edge_sdk.errors import WireError

_U64 = some.integers(0, 2**64 - 1)
_TEXT = some.text("az/ é漢😀\0", max_size=20)
_FIELDS = {
    DataType.INT64: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
}
_VALUES: dict[DataType, some.SearchStrategy[Any]] = {
    DataType.INT64: some.integers(-(2**63), 2**63 - 1),
    DataType.DOUBLE: some.floats(allow_nan=False),
    DataType.BOOLEAN: some.booleans(),
    DataType.STRING: _TEXT,
}


@some.composite
def metrics(draw: some.DrawFn) -> Metric:
    datatype = draw(some.sampled_from(DataType))
    return Metric(
        name=draw(some.none() | _TEXT),
        alias=draw(some.none() | _U64),
        at_ms=draw(some.none() | _U64),
        datatype=datatype,
        value=draw(some.none() | _VALUES[datatype]),
        historical=draw(some.booleans()),
    )


payloads = some.builds(
    Payload,
    at_ms=some.none() | _U64,
    seq=some.none() | some.integers(0, 255),
    metrics=some.lists(metrics(), max_size=5).map(tuple),
)


@settings(deadline=None)
@given(payload=payloads)
def test_what_we_write_others_read(payload: Payload) -> None:
    read = SpbPayload.FromString(encode(payload, with_types=True))
    assert (read.seq if read.HasField("seq") else None) == payload.seq
    assert (read.timestamp if read.HasField("timestamp") else None) == payload.at_ms
    assert len(read.metrics) == len(payload.metrics)
    for ours, theirs in zip(payload.metrics, read.metrics, strict=True):
        assert theirs.datatype == ours.datatype
        assert theirs.is_historical == ours.historical
        assert (theirs.name if theirs.HasField("name") else None) == ours.name
        kind = theirs.WhichOneof("value")
        assert theirs.is_null == (ours.value is None) == (kind is None)
        if ours.value is not None:
            assert kind == _FIELDS[DataType(ours.datatype or 0)]
            signed = ours.value % 2**64 if ours.datatype == DataType.INT64 else ours.value  # type: ignore[operator]
            assert getattr(theirs, kind) == signed


@settings(deadline=None)
@given(payload=payloads)
def test_what_we_write_we_read(payload: Payload) -> None:
    assert decode(encode(payload, with_types=True), where="here") == payload


@settings(deadline=None)
@given(content=some.binary(max_size=300))
def test_hostile_bytes_are_refused_or_read_as_the_library_does(content: bytes) -> None:
    try:
        ours = decode(content, where="here")
    except WireError:
        return
    try:
        theirs = SpbPayload.FromString(content)
    except DecodeError:  # the library is stricter about what neither of us uses
        return
    assert len(ours.metrics) == len(theirs.metrics)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 20,
        b"\x12\x05ab",  # cut short
        b"\x12\xff\xff\xff\xff\x0f",  # a length of four gigabytes
        b"\x0b",  # a group
        b"\x12\x03\x0a\x01\xff",  # a name that is no UTF-8
        b"\x08" + b"\x80" * 12,
        b"\x00" * (MAX_BYTES + 1),
        b"\x12\x00" * (MAX_METRICS + 1),
    ],
)
def test_what_is_no_payload_is_refused(content: bytes) -> None:
    with pytest.raises(WireError):
        decode(content, where="here")


@pytest.mark.parametrize(
    ("asked", "rebirth", "pins"),
    [
        ((("Node Control/Rebirth", True),), True, {}),
        ((("Node Control/Rebirth", False),), False, {}),
        ((("Node Control/Rebirth", "yes"),), False, {}),
        ((("Models/digits/pinned", "quick"),), False, {"digits": "quick"}),
        (((7, "quick"),), False, {"digits": "quick"}),
        (((8, "quick"),), False, {}),
        ((("Models/digits/pinned", ""), ("Models/b/c/pinned", None)), False, {"digits": None, "b/c": None}),
        ((("Models/digits/active", "quick"), ("Models//pinned", "x"), ("Reboot", True)), False, {}),
    ],
)
def test_a_command_is_read_by_name_or_alias(asked: tuple[Any, ...], rebirth: bool, pins: dict[str, Any]) -> None:
    assert wanted(decode(ncmd(*asked), where="here"), {7: "Models/digits/pinned"}) == (rebirth, pins)


def test_a_variant_that_is_no_text_is_refused() -> None:
    with pytest.raises(WireError):
        wanted(decode(ncmd(("Models/digits/pinned", True)), where="here"), {})
