"""The page about the policy says what the code's tables say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_daemon.policies.contract import MAX_LATENCIES
from edge_daemon.policy import tables
from edge_daemon.switcher import SLOW_STEP_S
from edge_sdk.mqtt import Because, Throttle

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/explanation/policy.md"


def allows(share: float) -> str:
    return f"{share * 100:g} %" if share else "the cheapest"


ROWS = {"low": "the mode counts as `battery`", "critical": "the cheapest"}


@pytest.mark.parametrize(("bands", "unit"), [(tables.HEAT, "°C"), (tables.CHARGE, "%")])
def test_each_band_is_a_row(bands: Sequence[tables.Band], unit: str) -> None:
    rows = [f"| {b.name} | {b.enter:g} {unit} | {b.leave:g} {unit} | {ROWS[b.name]} |" for b in bands]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")


def test_each_throttle_signal_is_a_row() -> None:
    rows = [f"| {throttle.value} | {allows(tables.THROTTLE_SHARE[throttle])} |" for throttle in Throttle]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("dwell", f"{tables.DWELL_S:g} s"),
        ("throttle clears", f"{tables.THROTTLE_CLEAR_S:g} s"),
        ("charger clears", f"{tables.CHARGER_CLEAR_S:g} s"),
        ("a silent sensor holds", f"{tables.SENSOR_HOLD_S:g} s"),
        ("stale", f"{tables.STALE_S:g} s"),
        ("policy asked again", f"{tables.PLUGIN_AGAIN_S:g} s"),
        ("failures", f"{tables.FAILURES_TO_QUARANTINE}"),
        ("quarantine", f"{tables.QUARANTINE_S:g} s"),
    ],
)
def test_each_number_is_a_row(what: str, number: str) -> None:
    assert f"| {what} | {number} |" in PAGE.read_text(encoding="utf-8")


def test_the_numbers_within_sentences() -> None:
    text = PAGE.read_text(encoding="utf-8")
    priced = tables.CHARGE_PRICED[-1]
    assert f"critical is {priced.enter:g} % (left at {priced.leave:g} %)" in text
    assert f"up to {tables.QUARANTINE_MAX_S / 3600:g} hours" in text
    assert f"longer than {SLOW_STEP_S * 1000:g} ms for a step" in text
    assert f"({MAX_LATENCIES} at most)" in text


def test_each_code_of_the_protocol_has_a_row() -> None:
    assert Because.__doc__ is not None
    named = [word for word in Because.__doc__.split("text:")[0].split("`")[1::2] if word != "code"]
    assert len(named) == 16
    text = PAGE.read_text(encoding="utf-8")
    assert [code for code in named if f"| `{code}` |" not in text] == []


BANDS = (tables.HEAT, tables.CHARGE, tables.CHARGE_PRICED)


@pytest.mark.parametrize("bands", BANDS)
def test_bands_get_stricter_and_are_left_later_than_entered(bands: Sequence[tables.Band]) -> None:
    assert all(band.enter < band.leave for band in bands)
    assert [b.enter for b in bands] == sorted((b.enter for b in bands), reverse=True)


@given(level=st.integers(0, 2), value=st.floats(-50, 150), better=st.floats(0, 50))
def test_a_better_value_never_leads_to_a_stricter_band(level: int, value: float, better: float) -> None:
    for bands in BANDS:
        before = min(level, len(bands))
        assert tables.follow(bands, before, value + better) <= tables.follow(bands, before, value)


@given(level=st.integers(0, 2), value=st.floats(-50, 150))
def test_a_value_that_stays_is_settled_at_once(level: int, value: float) -> None:
    for bands in BANDS:
        settled = tables.follow(bands, min(level, len(bands)), value)
        assert tables.follow(bands, settled, value) == settled
