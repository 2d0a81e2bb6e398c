"""Every key of a device profile is documented, and the examples of the how-to are profiles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import inspect

from edge_sdk import physics
from edge_sdk import profile as profiles
from edge_sdk.facts import Fact, Profile

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOW_TO = DOCS / "how-to" / "site-profiles.md"


def keys(kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a schema, those of facts left out."""
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        name = f"{prefix}{field.encode_name}"
        yield name
        types = getattr(field.type, "types", (field.type,))
        for each in types:
            of_map = getattr(each, "value_type", None)
            inner = of_map if isinstance(of_map, inspect.StructType) else each
            if isinstance(inner, inspect.StructType) and getattr(inner.cls, "__origin__", inner.cls) is not Fact:
                yield from keys(inner.cls, f"{name}.")


def documented() -> set[str]:
    """The keys of the tables: in a cell `a.b` and `.c`, the latter belongs to the former's table."""
    found: set[str] = set()
    for line in (DOCS / "reference" / "profiles.md").read_text("utf-8").partition("## The file")[2].splitlines():
        table = ""
        for word in re.findall(r"`([A-Za-z_.0-9]+)`", line.split("|")[1]) if line.startswith("| `") else ():
            name = f"{table}{word}" if word.startswith(".") else word
            table = name.rpartition(".")[0]
            found.add(name)
    return {name.replace(".NAME", "") for name in found}


def test_every_key_of_a_profile_is_documented() -> None:
    tables = {key for key in keys(Profile) if any(other.startswith(f"{key}.") for other in keys(Profile))}
    leaves = {key for key in keys(Profile) if key not in tables}
    # The two scales of a latency model are told together.
    leaves = {key for key in leaves if not key.startswith(("latency.int8.", "latency.fp32."))}
    assert "board.throttle.clocks" in leaves
    assert leaves - documented() == set()


def test_every_key_that_is_documented_is_one() -> None:
    assert documented() - set(keys(Profile)) == set()


def test_what_the_page_says_of_a_board_without_figures_is_what_is_assumed() -> None:
    text = (DOCS / "reference" / "profiles.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `board\.(\w+)` \| [^|]*\| ([^|]*?) \|", text, re.MULTILINE))
    assumed = physics.STANDARD
    for name in ("r_c_per_w", "c_j_per_c"):
        assert rows[name] == ", ".join(f"{number:g}" for number in getattr(assumed, name))
    for name in ("cpu_w", "clock_power", "radio_w", "switch_j"):
        assert float(rows[name]) == getattr(assumed, name)
    assert f"stay below {assumed.max_temp_c:g} C and draws {assumed.cpu_w:g} W above idle" in text


@pytest.mark.parametrize("block", [0, 1])
def test_the_examples_of_the_how_to_are_profiles(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    id_ = ("rpi4", "camera")[block]
    (tmp_path / f"{id_}.toml").write_text(blocks[block], "utf-8")
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    found = profiles.load(id_)
    assert found.extends == "rpi4"
    model = physics.of(found)
    assert model.r_c_per_w != physics.of(profiles.read(profiles.directories()[-1] / "rpi4.toml")).r_c_per_w
    if block == 0:
        assert model.battery is not None
        assert model.battery.percent(3.86) == 40
        assert "r_c_per_w" not in model.estimated
