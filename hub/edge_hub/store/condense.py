"""Telemetry summed up over time: samples to minutes and hours, and those to points. Pure.

Sums are kept in whole thousandths, so that they come out the same in whatever order and portions samples arrive: a
spool may be replayed a week later, and a step of the roll-up may be cut anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from edge_hub.errors import StoreError
from edge_hub.store.records import Point
from edge_sdk.mqtt import ModelStats, Sample

MINUTE_S = 60
HOUR_S = 3600
REST = "other"
"""Stands for what a device names beyond `MAX_VARIANTS`; no name of a variant, for it has no slash."""

MAX_VARIANTS = 64
# What MessagePack holds; only a device that lies gets there, and a sum that stops there is still the same in any order.
_MOST = 2**63 - 1
# A clock is called ahead only beyond what a network and a busy hub explain.
_AHEAD_S = 5.0
_MILLI = 1000

K = TypeVar("K")


class Stat(msgspec.Struct, frozen=True, array_like=True):
    """A measured value over several samples, in thousandths of its unit."""

    count: int
    total: int
    least: int
    most: int


class Span(msgspec.Struct, frozen=True, array_like=True):
    """What samples said, summed up; `merged` of two is the span of both. New fields go to the end, with a default.

    Attributes:
        battery: When it was last told, in milliseconds since 1970, and thousandths of a percent.
        p50: Calls, and the sum of the medians of each, in microseconds.
        p95_us: The most.
        variants: Milliseconds by `model/variant`: the first `MAX_VARIANTS` by name, and `REST`.
    """

    samples: int = 0
    temp: Stat | None = None
    power: Stat | None = None
    rtt: Stat | None = None
    load: Stat | None = None
    battery: tuple[int, int] | None = None
    calls: int = 0
    late: int = 0
    failed: int = 0
    p50: tuple[int, int] | None = None
    p95_us: int | None = None
    variants: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Span)


def encode_span(span: Span) -> bytes:
    """The `body` of a row of `condensed`."""
    return _encoder.encode(span)


def decode_span(body: bytes) -> Span:
    """Of a row of `condensed`.

    Raises:
        StoreError: It is damaged.
    """
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as cause:
        raise StoreError(f"condensed telemetry cannot be read: {cause}", hint="was another version here?") from cause


def begin(at: float, step_s: float) -> float:
    """Of the step in which a moment lies."""
    return math.floor(at / step_s) * step_s


def moments(samples: Sequence[Sample], *, received: float) -> list[float]:
    """The moment at which each sample of one message counts: the middle of its window, in seconds since 1970.

    Nothing was sampled after it was received: a clock that says so is ahead, and what it says is moved back by that
    much. (A clock that is behind looks like a spool that was replayed late.)

    Args:
        samples: Of one message.
        received: When it came, by the hub's clock.
    """
    ahead_s = max((one.at for one in samples), default=received) - received
    back_s = ahead_s if ahead_s > _AHEAD_S else 0.0
    return [max(0.0, one.at - back_s - one.window_s / 2) for one in samples]


def of_sample(sample: Sample, *, moment: float) -> Span:
    """One sample as a span; `moment` says which of several is the last."""
    seen = sample.conditions
    window_ms = round(sample.window_s * _MILLI)
    calls = late = failed = 0
    busiest: ModelStats | None = None
    variants: dict[str, int] = {}
    for name in sorted(sample.models):
        model = sample.models[name]
        calls += model.calls
        late += model.late
        failed += model.failed
        if busiest is None or model.calls > busiest.calls:
            busiest = model
        if model.variant is not None:
            variants[f"{name}/{model.variant}"] = window_ms
    worked = busiest is not None and busiest.calls > 0
    return Span(
        samples=1,
        temp=_stat(seen.temp_c),
        power=_stat(seen.power_w),
        rtt=_stat(seen.rtt_ms),
        load=_stat(seen.load_pct),
        battery=None if seen.battery_pct is None else (round(moment * _MILLI), round(seen.battery_pct * _MILLI)),
        calls=_capped(calls),
        late=_capped(late),
        failed=_capped(failed),
        p50=_p50(busiest) if busiest is not None and worked else None,
        p95_us=round(busiest.p95_ms * _MILLI)
        if busiest is not None and worked and busiest.p95_ms is not None
        else None,
        variants=_bounded(variants),
    )


def merged(one: Span, other: Span) -> Span:
    """Both together; in which order does not matter, nor does what was merged before."""
    return Span(
        samples=_capped(one.samples + other.samples),
        temp=_both(one.temp, other.temp),
        power=_both(one.power, other.power),
        rtt=_both(one.rtt, other.rtt),
        load=_both(one.load, other.load),
        battery=max(one.battery, other.battery)
        if one.battery is not None and other.battery is not None
        else one.battery or other.battery,
        calls=_capped(one.calls + other.calls),
        late=_capped(one.late + other.late),
        failed=_capped(one.failed + other.failed),
        p50=(_capped(one.p50[0] + other.p50[0]), _capped(one.p50[1] + other.p50[1]))
        if one.p50 is not None and other.p50 is not None
        else one.p50 or other.p50,
        p95_us=one.p95_us if other.p95_us is None else max(one.p95_us or 0, other.p95_us),
        variants=_together(one.variants, other.variants),
    )


def gather(into: dict[K, Span], key: K, span: Span) -> None:
    """Merge a span into the one under a key."""
    present = into.get(key)
    into[key] = span if present is None else merged(present, span)


def condense(samples: Sequence[Sample], *, received: float, step_s: float = MINUTE_S) -> dict[float, Span]:
    """One message's samples by the begin of the step they belong to."""
    spans: dict[float, Span] = {}
    for moment, sample in zip(moments(samples, received=received), samples, strict=True):
        gather(spans, begin(moment, step_s), of_sample(sample, moment=moment))
    return spans


def widened(spans: Iterable[tuple[float, Span]], *, step_s: float) -> dict[float, Span]:
    """Spans by their begin, merged into longer steps."""
    wide: dict[float, Span] = {}
    for at, span in spans:
        gather(wide, begin(at, step_s), span)
    return wide


def points(spans: Mapping[float, Span]) -> tuple[Point, ...]:
    """Spans by their begin as the hub shows them, in ascending order."""
    return tuple(_point(at, spans[at]) for at in sorted(spans))


def _point(at: float, span: Span) -> Point:
    return Point(
        at=at,
        samples=span.samples,
        temp_c=_told(span.temp),
        power_w=_told(span.power),
        rtt_ms=_told(span.rtt),
        load_pct=_told(span.load),
        battery_pct=None if span.battery is None else span.battery[1] / _MILLI,
        calls=span.calls,
        late=span.late,
        failed=span.failed,
        p50_ms=None if span.p50 is None else span.p50[1] / span.p50[0] / _MILLI,
        p95_ms=None if span.p95_us is None else span.p95_us / _MILLI,
        variants={name: ms / _MILLI for name, ms in span.variants.items()},
    )


def _told(stat: Stat | None) -> tuple[float, float, float] | None:
    if stat is None:
        return None
    return stat.least / _MILLI, stat.total / stat.count / _MILLI, stat.most / _MILLI


def _stat(value: float | None) -> Stat | None:
    if value is None:
        return None
    milli = round(value * _MILLI)
    return Stat(1, milli, milli, milli)


def _both(one: Stat | None, other: Stat | None) -> Stat | None:
    if one is None or other is None:
        return one or other
    return Stat(
        _capped(one.count + other.count),
        _capped(one.total + other.total),
        min(one.least, other.least),
        max(one.most, other.most),
    )


def _p50(busiest: ModelStats) -> tuple[int, int] | None:
    if busiest.p50_ms is None:
        return None
    return _capped(busiest.calls), _capped(busiest.calls * round(busiest.p50_ms * _MILLI))


def _together(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    if not one or not other:
        return one or other
    total = dict(one)
    for name, ms in other.items():
        total[name] = _capped(total.get(name, 0) + ms)
    return _bounded(total)


def _bounded(variants: dict[str, int]) -> dict[str, int]:
    """The first names by the alphabet, the others as one.

    A name that is among the first of everything is among the first of each part, so this does not depend on the order
    in which parts are put together.
    """
    if len(variants) <= MAX_VARIANTS:
        return variants
    named = sorted(name for name in variants if name != REST)
    kept = {name: variants[name] for name in named[:MAX_VARIANTS]}
    rest = variants.get(REST, 0) + sum(variants[name] for name in named[MAX_VARIANTS:])
    return {**kept, REST: _capped(rest)} if rest else kept


def _capped(value: int) -> int:
    return min(value, _MOST)
