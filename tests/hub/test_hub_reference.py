"""The reference pages name everything there is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edge_hub.commands import COMMANDS
from edge_hub.web import metrics
from edge_hub.web.app import ROUTES

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "reference" / "hub-api.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to" / "run-a-hub.md").read_text(encoding="utf-8")


def test_every_request_is_described_and_no_other() -> None:
    described = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (\S+)` \|", API, re.MULTILINE))
    assert described == {(method, path) for method, path, _ in ROUTES}


def test_every_metric_is_described() -> None:
    text = Path(metrics.__file__).read_text(encoding="utf-8")
    names = {f"edge_hub_{name}" for name in re.findall(r'one\("(\w+)"', text)} | {"edge_hub_commands"}
    assert names == set(re.findall(r"`(edge_hub_\w+)", API))


def test_every_option_of_the_hub_is_described() -> None:
    (run,) = [command for command in COMMANDS if command.path == ("hub", "run")]
    parser = argparse.ArgumentParser(add_help=False)
    run.configure(parser)
    for action in parser._actions:
        assert f"`{action.option_strings[0]}" in HOW_TO or f" {action.option_strings[0]}" in HOW_TO, action.dest
