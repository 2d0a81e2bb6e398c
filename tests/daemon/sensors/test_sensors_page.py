"""The page about the sensors names what they are and what they give."""

from __future__ import annotations

import re
from pathlib import Path

from edge_daemon.sensors import desk, network, temperature, throttle
from edge_daemon.sensors.suite import SENSORS
from edge_sdk.mqtt import Conditions, Throttle

PAGE = Path(__file__).parents[3] / "docs/reference/sensors.md"


def test_every_sensor_and_every_value_is_named_and_every_link_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in SENSORS if f"| [`{name}`]" not in text] == []
    told = set(Conditions.__struct_fields__) - {"missing", "played"}
    assert [name for name in sorted(told) if f"`{name}`" not in text] == []
    headings = {"#" + h.lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert [link for link in re.findall(r"\]\((#[^)]+)\)", text) if link not in headings] == []


def test_the_numbers_are_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"hangs for {desk.PATIENCE_S:g} s" in text
    assert f"older than {desk.STALE_S:g} s" in text
    assert f"stale after {network.STALE_S:g} s" in text
    assert f"every {temperature._RESCAN_READS} readings" in text
    assert f"{throttle._PASSIVE_MARGIN_C:g} degrees below" in text
    assert f"{throttle._CRITICAL_MARGIN_C:g} degrees below a critical" in text
    assert f"at {throttle._WARM_C:g} °C" in text
    assert all(f"`{signal.value}`" in text for signal in Throttle if signal is not Throttle.NONE)
