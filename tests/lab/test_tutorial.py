"""The tutorial's commands exist as they are written, and its example runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lab_trial import Demonstrated

from edge_sdk.cli.main import build_parser

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)


def commands() -> list[str]:
    lines = (line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("edge ")]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_tutorial_is_understood(line: str) -> None:
    args = build_parser().parse_args(shlex.split(line, comments=True)[1:])
    assert args.command.path


def test_the_tutorial_shows_every_step() -> None:
    told = " ".join(commands())
    for step in ("convert", "inspect", "hub run", "hub enroll", "daemon run", "daemon explain", "hub send", "hub show"):
        assert f"edge {step} " in f"{told} ", step


@pytest.mark.e2e
def test_its_first_example_runs_on_the_bundle_of_the_demonstration(demonstrated: Demonstrated) -> None:
    example = blocks("python")[0]
    ran = subprocess.run(
        [sys.executable, "-c", example], cwd=demonstrated.out, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"\S+ \d \d\n", ran.stdout)
