"""The page that says which test covers which assertion of the specification is complete, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "reference" / "sparkplug.md").read_text("utf-8")
TESTS = ("test_sparkplug.py", "test_interop_payload.py")


def covered() -> list[tuple[str, str]]:
    return re.findall(r"^\| `([a-z0-9-]+)` \| `(test_\w+)` \|$", PAGE, re.MULTILINE)


def not_ours() -> list[str]:
    return re.findall(r"^- `([a-z0-9-]+)`$", PAGE, re.MULTILINE)


def test_every_test_that_covers_an_assertion_exists() -> None:
    there = {name for file in TESTS for name in re.findall(r"^def (test_\w+)", (HERE / file).read_text(), re.MULTILINE)}
    assert {test for _, test in covered()} <= there


def test_no_assertion_stands_twice() -> None:
    ids = [*(id_ for id_, _ in covered()), *not_ours()]
    assert len(set(ids)) == len(ids)


@pytest.mark.reference_data
def test_every_assertion_of_the_specification_stands_there(reference_data: Path) -> None:
    wanted = {
        line.removeprefix("tck-id-") for line in (reference_data / "sparkplug" / "tck_ids.txt").read_text().split()
    }
    assert {id_ for id_, _ in covered()} | set(not_ours()) == wanted
