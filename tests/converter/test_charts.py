"""Drawings: whole SVG, every mark there, no label on top of another."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_converter.reporting import chart
from edge_converter.reporting.chart import Axis, Point, Span, Track


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - it is our own


def drawn(points: list[Point], **words: object) -> ET.Element:
    x = chart.around([p.x for p in points], title="x, ms", logarithmic=True)
    y = chart.around([p.y for p in points], title="y, %", least=1)
    return parsed(chart.scatter(points, x=x, y=y, title="t", description="d", **words))  # type: ignore[arg-type]


def labels(svg: ET.Element) -> list[tuple[str, tuple[float, float, float, float]]]:
    found = []
    for text in svg.iter("text"):
        if text.get("class") == "label":
            x, y = float(text.get("x", "")), float(text.get("y", ""))
            words = text.text or ""
            found.append((words, (x, y - 9, x + 5.5 * len(words), y + 1)))
    return found


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


POINTS = st.lists(
    st.builds(
        Point,
        x=st.floats(min_value=0.01, max_value=1000),
        y=st.floats(min_value=0, max_value=100),
        weight=st.floats(min_value=0, max_value=1e9),
        label=st.text("abcdefgh-0123456789", min_size=1, max_size=24),
        series=st.integers(min_value=0, max_value=20),
        hollow=st.booleans(),
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_every_point_is_there_and_no_label_covers_another(points: list[Point]) -> None:
    svg = drawn(points, legend=("a", "b"), weight_note="area: bytes")
    discs = [c for c in svg.iter("circle") if c.find("title") is not None]
    assert len(discs) == len(points)
    for disc in discs:
        assert 0 <= float(disc.get("cx", "")) <= 920
        assert 0 <= float(disc.get("cy", "")) <= 480
        assert math.isfinite(float(disc.get("r", "")))
    for (_, one), (_, other) in itertools.combinations(labels(svg), 2):
        assert not overlap(one, other)


def test_a_family_of_fifteen_has_all_its_labels() -> None:
    noise = np.random.default_rng(0)
    points = [
        Point(x=base * noise.uniform(0.5, 1.2), y=97 + member, weight=base, label=f"{name}-{precision}", series=member)
        for member, (name, base) in enumerate((("small", 0.1), ("medium", 0.7), ("large", 5.0)))
        for precision in ("fp32", "fp16", "dynamic", "int8", "int16x8")
    ]  # fmt: skip
    assert len(labels(drawn(points, weight_note="area"))) == 15


def test_the_same_numbers_at_every_point_are_drawn() -> None:
    svg = drawn([Point(x=1, y=50, label=f"v{number}") for number in range(5)])
    assert len(labels(svg)) == 5


def test_it_can_be_read_without_seeing_it() -> None:
    svg = drawn([Point(x=1, y=50, label="one", note="one: 50 %")])
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "t"
    assert [child.tag for child in svg][:2] == ["title", "desc"]
    assert "one: 50 %" in [title.text for title in svg.iter("title")]


def test_names_cannot_break_out() -> None:
    evil = '<script>alert("x")</script>&'
    svg = drawn([Point(x=1, y=50, label=evil, note=evil)], legend=(evil,), weight_note=evil)
    assert list(svg.iter("script")) == []
    assert evil in [text.text for text in svg.iter("text")]


@pytest.mark.parametrize("axis", [
    Axis(title="", low=0.05, high=150, logarithmic=True), Axis(title="", low=3, high=4, logarithmic=True),
    Axis(title="", low=96.1, high=99.9), Axis(title="", low=0, high=1e-6), Axis(title="", low=-5, high=1e6),
])  # fmt: skip
def test_ticks_are_few_and_on_the_axis(axis: Axis) -> None:
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 10
    assert all(axis.low - 1e-9 <= tick <= axis.high * (1 + 1e-9) for tick in ticks)
    assert ticks == sorted(ticks)


def test_a_timeline_shows_lines_spans_limits_and_events() -> None:
    spans = [Span(start_s=0, end_s=12, label="large-int8"), Span(start_s=12, end_s=20, label="small-fp32", series=1)]
    tracks = [
        Track(label="temperature, °C", points=[(0, 40), (10, 70), (11, math.nan), (20, 50)], limit=75),
        Track(label="latency, ms", points=[(0, 0.1), (5, 50), (9, 0.0), (20, 1)], logarithmic=True, stepped=True),
        Track(label="variant", spans=spans),
        Track(label="nothing"),
    ]  # fmt: skip
    text = chart.timeline(
        tracks, end_s=20, title="t", description="d", events=[(5, "battery below 20 %"), (5.1, "hot"), (15, "pinned")]
    )
    svg = parsed(text)
    lines = [path.get("d", "") for path in svg.iter("path") if (path.get("class") or "").startswith("line")]
    assert len(lines) == 2
    assert [line.count("M") for line in lines] == [2, 2]  # a value that is none breaks the line
    assert "nan" not in text
    assert len([rect for rect in svg.iter("rect") if (rect.get("class") or "").startswith("span")]) == 2
    assert len([line for line in svg.iter("line") if line.get("class") == "limit"]) == 1
    assert "battery below 20 %" in [title.text for title in svg.iter("title")]
    shown = [text.text for text in svg.iter("text") if text.get("class") == "label"]
    assert "large-int8" in shown
    assert "1" in shown
    assert "2" not in shown  # it would lie on top of the first


def test_a_timeline_of_no_time_is_drawn() -> None:
    parsed(chart.timeline([Track(label="a", points=[(0, 1)])], end_s=0, title="t", description="d"))
