"""What the README promises a newcomer is run, word for word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"<!-- example:begin -->\n```python\n(.*?)```\n<!-- example:end -->", re.DOTALL)
MAX_EXAMPLE_LINES = 20


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_is_short() -> None:
    (example,) = EXAMPLE.findall(readme())
    assert len(example.splitlines()) < MAX_EXAMPLE_LINES


def test_the_example_runs_on_a_bundle_of_the_digits(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer", reason="the converter extra is not installed")
    from edge_lab import digits

    data = str(digits.directory() / "digits_test.npz")
    sources = [str(path) for path in digits.models()[:2]]
    bundle = tmp_path / "demo" / "digits-1.edge"
    command = [sys.executable, "-m", "edge_sdk.cli", "convert", *sources, "--data", data]
    subprocess.run(
        [*command, "--profile", "x86-64", "--name", "digits", "-o", str(bundle)], check=True, timeout=240, cwd=tmp_path
    )
    (example,) = EXAMPLE.findall(readme())
    done = subprocess.run(
        [sys.executable, "-c", example], check=True, timeout=120, cwd=tmp_path, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"[\w-]+ sees a \d; it is a \d", lines[0])
    assert len(lines) > 2
    assert all(re.fullmatch(r"[\w-]+ +\d+ of 100", line) for line in lines[1:])
    assert int(lines[1].split()[1]) > 80
