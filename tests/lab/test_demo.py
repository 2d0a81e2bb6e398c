"""The whole story runs, tells the truth about itself, and leaves nothing behind, whenever it is stopped."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lab_trial import Demonstrated, Trial

from edge_sdk.bundle import Bundle

pytestmark = pytest.mark.e2e
CONVERTED_S = 120.0
STARTED_S = 60.0


@pytest.fixture
def told(demonstrated: Demonstrated) -> dict[str, Any]:
    assert demonstrated.status == 0, demonstrated.trial.said
    return dict(json.loads(demonstrated.trial.printed))


def test_it_ends_well_and_leaves_nothing_running_and_no_temporary_file(demonstrated: Demonstrated) -> None:
    assert demonstrated.status == 0, demonstrated.trial.said
    assert demonstrated.leftovers == []


def test_no_call_failed_and_most_digits_were_right(told: dict[str, Any]) -> None:
    assert told["failed"] == 0
    assert told["inferences"] > 24 * 5
    assert told["accuracy"] > 90


def test_it_switched_for_at_least_four_distinct_reasons(told: dict[str, Any]) -> None:
    switches = told["switches"]
    assert len({switch["code"] for switch in switches}) >= 4, switches
    assert all(switch["because"].startswith(f"{switch['code']}: ") for switch in switches)
    assert [switch["at_s"] for switch in switches] == sorted(switch["at_s"] for switch in switches)
    # Each begins where the last one ended.
    assert [switch["to"] for switch in switches[:-1]] == [switch["from"] for switch in switches[1:]]
    known = {variant["id"] for variant in told["variants"]}
    assert {switch["to"] for switch in switches} | set(told["by_variant"]) <= known


def test_every_command_was_replied_to(told: dict[str, Any]) -> None:
    commands = told["commands"]
    assert len(commands) >= 3
    assert {command["status"] for command in commands} == {"done"}, commands
    assert {"prefer", "pin", "unpin", "explain", "report"} <= {command["command"].split()[0] for command in commands}


def test_the_hub_saw_the_device_and_stored_what_it_said(told: dict[str, Any]) -> None:
    assert told["hub"]["devices"] == 1
    assert told["hub"]["messages"] >= len(told["switches"]) + len(told["commands"])


def test_the_bundle_it_leaves_is_whole_and_made_for_the_boards(
    demonstrated: Demonstrated, told: dict[str, Any]
) -> None:
    assert Path(told["bundle"]) == demonstrated.bundle
    bundle = Bundle(demonstrated.bundle)
    assert {source.name for source in bundle.manifest.sources} == {"small", "medium", "large"}
    assert {"rpi4", "jetson-orin-nano", "x86-64", "coral-usb"} == set(bundle.manifest.fronts)
    assert [variant.id for variant in bundle.manifest.variants] == [variant["id"] for variant in told["variants"]]


def test_its_page_is_complete_in_itself_and_says_what_was_played(
    demonstrated: Demonstrated, told: dict[str, Any]
) -> None:
    page = (demonstrated.out / "report.html").read_text("utf-8")
    assert not re.search(r"<(script|link|img|iframe)\b|https?://|url\(|@import", page)
    assert page.count("<svg") == 1
    assert "played" in page
    for switch in told["switches"]:
        assert switch["to"] in page
    assert str(demonstrated.out) not in page


def test_it_says_on_stderr_what_it_plays_and_keeps_stdout_for_the_result(demonstrated: Demonstrated) -> None:
    assert "The battery drains to 6 % (played)" in demonstrated.trial.said
    assert demonstrated.trial.printed.lstrip().startswith(b"{")


# What it says when it has come so far, and the signals it then gets.
MOMENTS = {
    "at once": ("1 of 3", (signal.SIGINT,)),
    "while it converts": ("edge: evaluate", (signal.SIGTERM,)),
    "while it starts": ("2 of 3", (signal.SIGINT,)),
    "while it plays": ("switch ", (signal.SIGINT, signal.SIGINT)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_at_any_moment_it_leaves_no_process_and_no_temporary_file_and_what_stood_stands(
    moment: str, demonstrated: Demonstrated, tmp_path: Path, scratch: Path
) -> None:
    words, numbers = MOMENTS[moment]
    out = tmp_path / "demo"
    trial = Trial(out, scratch, "--seconds", "20")
    trial.wait_until_said(words, CONVERTED_S + STARTED_S)
    for number in numbers:
        trial.interrupt(number)
        time.sleep(0.1)  # so that two signals are two, not one pending twice
    assert trial.finish(60) == 128 + numbers[0], trial.said
    assert trial.leftovers() == []
    assert f"stopped by {numbers[0].name}; nothing is left running" in trial.said
    assert "Traceback" not in trial.said
    if out.exists():  # the conversion was over: then its bundle is whole
        assert sorted(path.name for path in out.iterdir()) == [".edge-demo", "digits-1.edge"]
        Bundle(out / "digits-1.edge")
    else:
        assert words != "2 of 3"
