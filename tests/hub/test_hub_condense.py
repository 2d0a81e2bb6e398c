"""Telemetry summed up: the same in any order and in any portions."""

from __future__ import annotations

import random
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hub.errors import StoreError
from edge_hub.store import condense
from edge_hub.store.condense import (
    HOUR_S,
    MAX_VARIANTS,
    MINUTE_S,
    REST,
    Span,
    decode_span,
    encode_span,
    gather,
    merged,
    of_sample,
    points,
    widened,
)
from edge_sdk.conditions import Conditions
from edge_sdk.mqtt import ModelStats, Sample

NOON = 1_790_000_000 // 86_400 * 86_400 + 43_200.0

maybe = lambda low, high: st.none() | st.floats(low, high)  # noqa: E731 - a strategy by its bounds
STATS = st.builds(
    ModelStats,
    variant=st.sampled_from(["small", "large", None]),
    calls=st.integers(0, 2**53),
    late=st.integers(0, 9),
    failed=st.integers(0, 9),
    p50_ms=maybe(0, 86_400_000),
    p95_ms=maybe(0, 86_400_000),
)
SAMPLES = st.builds(
    Sample,
    at=st.floats(NOON, NOON + 3 * HOUR_S),
    window_s=st.floats(0, 86_400),
    conditions=st.builds(
        Conditions,
        temp_c=maybe(-100, 250),
        battery_pct=maybe(0, 100),
        power_w=maybe(0, 10_000),
        load_pct=maybe(0, 100),
        rtt_ms=maybe(0, 86_400_000),
    ),
    models=st.dictionaries(st.sampled_from(["digits", "faces", "words"]), STATS, max_size=3),
)


def summed(samples: list[Sample]) -> dict[float, Span]:
    """By minute, one after the other."""
    spans: dict[float, Span] = {}
    for one in samples:
        for at, span in condense.condense([one], received=one.at).items():
            gather(spans, at, span)
    return spans


@given(samples=st.lists(SAMPLES, max_size=20), seed=st.integers(0, 2**32), cut=st.integers(0, 20))
def test_neither_order_nor_portions_matter(samples: list[Sample], seed: int, cut: int) -> None:
    shuffled = random.Random(seed).sample(samples, len(samples))
    late = max((one.at for one in samples), default=NOON)
    portions: dict[float, Span] = {}
    for part in (shuffled[:cut], shuffled[cut:]):
        for at, span in condense.condense(part, received=late).items():
            gather(portions, at, decode_span(encode_span(span)))
    assert portions == summed(samples)
    assert {at: encode_span(span) for at, span in portions.items()} == {
        at: encode_span(span) for at, span in summed(samples).items()
    }


@given(samples=st.lists(SAMPLES, max_size=20))
def test_hours_are_the_same_from_samples_and_from_minutes(samples: list[Sample]) -> None:
    late = max((one.at for one in samples), default=NOON)
    minutes = condense.condense(samples, received=late)
    assert widened(minutes.items(), step_s=HOUR_S) == condense.condense(samples, received=late, step_s=HOUR_S)
    assert sum(span.samples for span in minutes.values()) == len(samples)


@given(samples=st.lists(SAMPLES, min_size=1, max_size=20))
def test_a_point_says_least_mean_and_most_of_what_was_told(samples: list[Sample]) -> None:
    whole = reduce(merged, (of_sample(one, moment=one.at) for one in samples))
    (point,) = points({NOON: whole})
    told = [one.conditions.temp_c for one in samples if one.conditions.temp_c is not None]
    assert (point.temp_c is None) is (not told)
    if point.temp_c is not None:
        least, mean, most = point.temp_c
        assert least == pytest.approx(min(told), abs=1e-3)
        assert mean == pytest.approx(sum(told) / len(told), abs=1e-3)
        assert most == pytest.approx(max(told), abs=1e-3)
    assert point.samples == len(samples)
    last = max(samples, key=lambda one: one.at)
    if last.conditions.battery_pct is not None:
        assert point.battery_pct is not None


@given(names=st.lists(st.integers(0, 200), max_size=150), seed=st.integers(0, 2**32))
def test_names_without_end_are_counted_within_bounds(names: list[int], seed: int) -> None:
    spans = [Span(samples=1, variants={f"m/v{name}": 1000}) for name in names]
    shuffled = random.Random(seed).sample(spans, len(spans))
    one, other = reduce(merged, spans, Span()), reduce(merged, shuffled, Span())
    assert encode_span(one) == encode_span(other)
    assert len(one.variants) <= MAX_VARIANTS + 1
    assert sum(one.variants.values()) == 1000 * len(names)


def test_latencies_are_of_the_model_that_works_most() -> None:
    one = Sample(
        at=NOON,
        window_s=10,
        conditions=Conditions(),
        models={
            "digits": ModelStats(variant="small", calls=10, p50_ms=1.0, p95_ms=2.0),
            "faces": ModelStats(variant="large", calls=30, p50_ms=5.0, p95_ms=8.0),
        },
    )
    two = Sample(
        at=NOON,
        window_s=10,
        conditions=Conditions(),
        models={"digits": ModelStats(variant="small", calls=10, p50_ms=1.0)},
    )
    (point,) = points({NOON: merged(of_sample(one, moment=0), of_sample(two, moment=1))})
    assert (point.p50_ms, point.p95_ms, point.calls) == (4.0, 8.0, 50)
    assert point.variants == {"digits/small": 20.0, "faces/large": 10.0}


def test_a_window_counts_where_its_middle_lies() -> None:
    one = Sample(at=NOON + 60.0, window_s=10, conditions=Conditions())
    assert list(condense.condense([one], received=NOON + 61)) == [NOON]


def test_a_clock_that_is_ahead_does_not_put_samples_into_the_future() -> None:
    told = [Sample(at=NOON + 86_400 + n * 60, window_s=0, conditions=Conditions()) for n in range(3)]
    spans = condense.condense(told, received=NOON + 120)
    assert sorted(spans) == [NOON, NOON + 60, NOON + 120]


def test_damage_is_said() -> None:
    assert decode_span(encode_span(Span(samples=3))).samples == 3
    with pytest.raises(StoreError, match="cannot be read"):
        decode_span(b"\xc1")


def test_a_shorter_body_of_an_older_version_is_read() -> None:
    assert decode_span(b"\x91\x03") == Span(samples=3)
    assert REST not in Span().variants
    assert MINUTE_S * 60 == HOUR_S
