"""The pages name every metric and every option of the hub; `tests/law/test_documented.py` looks for its requests."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edge_hub.commands import COMMANDS
from edge_hub.web import fleet_metrics, metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "reference" / "hub-api.md").read_text(encoding="utf-8")
HOW_TO = "\n".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "how-to").glob("*.md")))
_MADE = re.compile(r'\b(?:one|_one|_many|_spread)\(\s*"(\w+)"|name="edge_hub_(\w+)"')


def test_every_metric_is_described() -> None:
    text = "".join(Path(each.__file__).read_text(encoding="utf-8") for each in (metrics, fleet_metrics))
    names = {f"edge_hub_{plain or named}" for plain, named in _MADE.findall(text)}
    assert names == set(re.findall(r"`(edge_hub_\w+)", API))


def test_every_option_of_the_hub_is_described() -> None:
    (run,) = [command for command in COMMANDS if command.path == ("hub", "run")]
    parser = argparse.ArgumentParser(add_help=False)
    run.configure(parser)
    for action in parser._actions:
        assert f"`{action.option_strings[0]}" in HOW_TO or f" {action.option_strings[0]}" in HOW_TO, action.dest
