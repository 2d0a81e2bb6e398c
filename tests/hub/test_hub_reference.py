"""The reference pages name everything there is."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

from edge_hub.commands import COMMANDS
from edge_hub.web import fleet_metrics, metrics
from edge_hub.web.app import ROUTES

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "reference" / "hub-api.md").read_text(encoding="utf-8")
HOW_TO = "".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "how-to").glob("*.md")))


def test_every_request_is_described_and_no_other() -> None:
    described = re.findall(r"^\| `(GET|POST|PUT|DELETE) (\S+)` \|", API, re.MULTILINE)
    assert sorted(described) == sorted({(route.method, route.path) for route in ROUTES})


def test_what_counts_as_more_than_one_request_is_described() -> None:
    table = API[API.index("| counts as | request |") :].partition("\n\n")[0]
    described = {}
    for row in table.splitlines()[2:]:
        _, counts, requests, _ = row.split("|")
        described |= {
            tuple(one.split()): int(re.match(r" (\d+)", counts)[1]) for one in re.findall("`([^`]+)`", requests)
        }
    none = {"since": 0.0, "until": 1.0, "step_s": 1.0}  # of a history, a point
    assert described == {(route.method, route.path): route.weight(none) for route in ROUTES if route.weight({}) > 1}


def test_every_metric_is_described() -> None:
    text = "".join(inspect.getsource(module) for module in (metrics, fleet_metrics))
    names = {f"edge_hub_{name}" for name in re.findall(r'\b_?(?:one|many|spread)\(\s*"(\w+)"', text)}
    names |= set(re.findall(r'name="(edge_hub_\w+)"', text))
    assert names == set(re.findall(r"`(edge_hub_\w+)", API))


def test_every_option_of_the_hub_is_described() -> None:
    (run,) = [command for command in COMMANDS if command.path == ("hub", "run")]
    parser = argparse.ArgumentParser(add_help=False)
    run.configure(parser)
    for action in parser._actions:
        option = action.option_strings[0]
        assert any(f"{before}{option}" in HOW_TO + API for before in "` "), option
