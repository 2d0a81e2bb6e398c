"""Sparkplug B payloads as bytes, and back: protocol buffers written by hand. Pure.

Field numbers and data types of the specification 3.0, "Google Protocol Buffer Schema" and "Data Types". What an edge
node needs is small (numbers, truth, text; no templates, data sets or properties), so there is no library and no
generated code for it (ADR 129). What arrives is bounded before it is believed.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edge_sdk.errors import WireError

MAX_BYTES = 64 * 1024
MAX_METRICS = 1000
_MOST_VARINT_BYTES = 10
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_SIGN_BIT = 1 << 63

Value = bool | int | float | str | None


class DataType(enum.IntEnum):
    """Those that we send."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One value.

    Attributes:
        at_ms: Since 1970, when it was taken.
        datatype: As its birth says; a decoded metric has None where it did not say.
        value: None is null; a decoded metric of a kind that we do not read is null, too.
        historical: It says nothing about now.
    """

    name: str | None = None
    alias: int | None = None
    at_ms: int | None = None
    datatype: int | None = None
    value: Value = None
    historical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A message. `seq` is None in the messages that must not have one."""

    at_ms: int | None
    metrics: tuple[Metric, ...]
    seq: int | None = None


# ------------------------------------------------------------------------------------------------------ writing


def encode(payload: Payload, *, with_types: bool) -> bytes:
    """The bytes of a payload.

    Args:
        payload: Every metric has its datatype, which says how the value is written.
        with_types: Write the datatypes, too: births do, data need not.
    """
    out = bytearray()
    if payload.at_ms is not None:
        _put_number(out, 1, payload.at_ms)
    for metric in payload.metrics:
        _put_bytes(out, 2, _encoded(metric, with_types=with_types))
    if payload.seq is not None:
        _put_number(out, 3, payload.seq)
    return bytes(out)


def _encoded(metric: Metric, *, with_types: bool) -> bytes:
    out = bytearray()
    if metric.name is not None:
        _put_bytes(out, 1, metric.name.encode())
    if metric.alias is not None:
        _put_number(out, 2, metric.alias)
    if metric.at_ms is not None:
        _put_number(out, 3, metric.at_ms)
    if with_types and metric.datatype is not None:
        _put_number(out, 4, metric.datatype)
    if metric.historical:
        _put_number(out, 5, 1)
    value = metric.value
    if value is None:
        _put_number(out, 7, 1)
    elif metric.datatype == DataType.BOOLEAN:
        _put_number(out, 14, int(bool(value)))
    elif metric.datatype == DataType.STRING:
        _put_bytes(out, 15, str(value).encode())
    elif metric.datatype == DataType.DOUBLE:
        _put_varint(out, 13 << 3 | 1)
        out += struct.pack("<d", float(value))
    else:
        _put_number(out, 11, int(value) & _U64)
    return bytes(out)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_number(out: bytearray, field: int, value: int) -> None:
    _put_varint(out, field << 3)
    _put_varint(out, value)


def _put_bytes(out: bytearray, field: int, value: bytes) -> None:
    _put_varint(out, field << 3 | 2)
    _put_varint(out, len(value))
    out += value


# ------------------------------------------------------------------------------------------------------ reading


def decode(content: bytes, *, where: str) -> Payload:
    """A payload as it came.

    Raises:
        WireError: Too large, or no payload.
    """
    if len(content) > MAX_BYTES:
        raise WireError(f"{len(content)} bytes where at most {MAX_BYTES} are taken", where=where)
    at_ms, seq = None, None
    metrics: list[Metric] = []
    try:
        for field, value in _fields(content):
            if field == 1 and isinstance(value, int):
                at_ms = value
            elif field == 2 and isinstance(value, bytes):  # noqa: PLR2004 - a field's number
                metrics.append(_metric(value))
            elif field == 3 and isinstance(value, int):  # noqa: PLR2004
                seq = value
    except (ValueError, IndexError, struct.error) as cause:
        raise WireError(f"no Sparkplug payload: {cause}", where=where) from cause
    if len(metrics) > MAX_METRICS:
        raise WireError(f"{len(metrics)} metrics where at most {MAX_METRICS} are taken", where=where)
    return Payload(at_ms=at_ms, metrics=tuple(metrics), seq=seq)


def _metric(content: bytes) -> Metric:
    known = dict(_fields(content))  # of a field that comes twice the last one counts, as protocol buffers have it
    name, datatype = known.get(1), _whole(known.get(4))
    return Metric(
        name=name.decode() if isinstance(name, bytes) else None,
        alias=_whole(known.get(2)),
        at_ms=_whole(known.get(3)),
        datatype=datatype,
        historical=bool(_whole(known.get(5))),
        value=None if _whole(known.get(7)) else _value(known, datatype),
    )


def _value(known: dict[int, int | bytes], datatype: int | None) -> Value:
    value: Value = None
    for field, raw in known.items():
        if field in {10, 11} and isinstance(raw, int):
            signed = datatype == DataType.INT64 and raw & _SIGN_BIT
            value = raw - (1 << 64) if signed else raw
        elif field in _FLOATS and isinstance(raw, bytes):
            (value,) = struct.unpack(_FLOATS[field], raw)
        elif field == 14 and isinstance(raw, int):  # noqa: PLR2004 - a field's number
            value = bool(raw)
        elif field == 15 and isinstance(raw, bytes):  # noqa: PLR2004
            value = raw.decode()
    return value


_FLOATS = {12: "<f", 13: "<d"}


def _whole(value: int | bytes | None) -> int | None:
    return value if isinstance(value, int) else None


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field; eight and four bytes come as they are."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield field, value
            continue
        if kind not in _SIZES:
            raise ValueError(f"wire type {kind}")
        size = _SIZES[kind]
        if size is None:
            size, at = _varint(content, at)
        if size > len(content) - at:
            raise ValueError("cut short")
        yield field, content[at : at + size]
        at += size


_SIZES: dict[int, int | None] = {1: 8, 2: None, 5: 4}


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MOST_VARINT_BYTES):
        byte = content[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value & _U64, at + index + 1
    raise ValueError("a number without an end")
