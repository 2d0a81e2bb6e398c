"""`edge inspect A B`: what changed from one bundle to another, like compared with like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_stage import CONTENTS, write_bundle

from edge_sdk import bundle as bundles
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.manifest import Latency, Origin
from edge_sdk.wire import canonical

pytestmark = pytest.mark.device


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Bundle, Callable[..., Bundle]]:
    """A bundle, and what writes a second one whose manifest was edited."""
    first = write_bundle(tmp_path, "digits-1.edge")

    def second(edit: Callable[[dict[str, Any]], object], contents: dict[str, bytes] | None = None) -> Bundle:
        made = write_bundle(tmp_path, "digits-2.edge", contents)
        plain = json.loads((made.path / "manifest.json").read_bytes())
        edit(plain)
        (made.path / "manifest.json").write_bytes(canonical(plain))
        return Bundle(made.path)

    return first, second


def compared(capsys: pytest.CaptureFixture[str], a: Bundle, b: Bundle) -> dict[str, Any]:
    assert main(["inspect", str(a.path), str(b.path), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["a"]["manifest_sha256"] == a.manifest_sha256
    assert told["b"]["manifest_sha256"] == b.manifest_sha256
    found: dict[str, Any] = told["comparison"]
    return found


def shown(capsys: pytest.CaptureFixture[str], a: Bundle, b: Bundle) -> str:
    assert main(["inspect", str(a.path), str(b.path)]) == 0
    return "\n".join(" ".join(line.split()) for line in capsys.readouterr().out.splitlines())


def test_a_bundle_is_like_itself(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = pair
    found = compared(capsys, first, first)
    assert found["identical"]
    assert {change["fate"] for change in found["variants"]} == {"same"}
    assert found["choices"] == []
    assert found["notes"] == []
    text = shown(capsys, first, first)
    assert "The manifests are the same to the byte." in text
    assert "2 variants of the same file and worth." in text


def test_variants_are_added_removed_and_changed(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair

    def edit(plain: dict[str, Any]) -> None:
        plain["variants"][0]["quality"] |= {"value": 95.5, "interval": 0.5, "drop": 0.0}
        plain["variants"][0]["target"] = {"isa": ["asimddp"]}

    new = second(edit, {"float": CONTENTS["float"], "weight8": b"a new one" * 30})
    found = {change["id"]: change for change in compared(capsys, first, new)["variants"]}
    assert {id_: change["fate"] for id_, change in found.items()} == {
        "float": "changed", "weight8": "added", "int8": "removed",
    }  # fmt: skip
    assert found["float"]["gained"] == pytest.approx(-2.5)
    assert not found["float"]["within_interval"]
    assert found["float"]["same_file"]
    assert found["float"]["what"] == ["CPU features: none -> asimddp"]
    assert found["int8"]["after"] is None
    text = shown(capsys, first, new)
    assert (
        "float changed 98.00 -> 95.50 -2.50 100.0 % 0.6 kB 0.6 kB CPU features: none -> asimddp; the same file" in text
    )
    assert "weight8 added" in text
    assert "int8 removed" in text


def test_what_samples_cannot_tell_from_nothing_is_marked(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair
    new = second(lambda plain: plain["variants"][1]["quality"].update(value=97.4))
    (change,) = [c for c in compared(capsys, first, new)["variants"] if c["fate"] == "changed"]
    assert change["within_interval"]
    assert "+0.40 (within its interval)" in shown(capsys, first, new)


def test_other_samples_metrics_and_inputs_are_noted(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair

    def edit(plain: dict[str, Any]) -> None:
        plain |= {"metric": "mAP", "name": "letters", "labels": ["a"], "reference": "int8"}
        plain["sources"][0]["sha256"] = "1" * 64
        for variant in plain["variants"]:
            variant["quality"]["samples"] = 90

    new = second(edit)
    found = compared(capsys, first, new)
    assert {change["gained"] for change in found["variants"]} == {None}
    text = " ".join(found["notes"])
    for word in ("different models", "not comparable", "360 and on 90 samples", "another reference", "other source",
                 "labels differ"):  # fmt: skip
        assert word in text


def test_compression_is_told_by_the_parameters_that_differ(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair

    def quantized(plain: dict[str, Any], samples: int) -> None:
        step = {"name": "quantize", "parameters": {"samples": samples, "bits": 8}}
        plain["variants"][1]["compression"] = [step]

    old = json.loads((first.path / "manifest.json").read_bytes())
    quantized(old, 25)
    (first.path / "manifest.json").write_bytes(canonical(old))
    new = second(lambda plain: quantized(plain, 96))
    found = {c["id"]: c["what"] for c in compared(capsys, Bundle(first.path), new)["variants"]}
    assert found["int8"] == ["compression: quantize samples=25 -> samples=96"]


def test_latencies_are_compared_only_like_with_like(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair
    new = second(lambda plain: plain.update(version="2"))

    def told(median_ms: float, **words: Any) -> Latency:
        facts = {"variant": "int8", "origin": Origin.MEASURED, "machine": "a Pi", "runtime": "r 1", "threads": 4}
        return Latency(median_ms=median_ms, **(facts | words))

    first.add_latencies((told(10), told(4, origin=Origin.PUBLISHED), told(20, threads=1)))
    new.add_latencies((told(5), told(1, machine="another Pi"), told(2, runtime="r 2"), told(20, threads=1)))
    found = compared(capsys, first, new)["latencies"]
    mine = [(c["threads"], c["before_ms"], c["after_ms"]) for c in found if c["machine"] == "a Pi"]
    assert mine == [(1, 20, 20), (4, 10, 5)]
    text = shown(capsys, first, new)
    assert "int8 10 ms 5 ms 0.50 x measured on a Pi, r 1, 4 threads" in text
    assert "20 ms" not in text, "what did not change is not told"


def test_boards_whose_choice_changed_are_told(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair
    choice = {"recommended": [{"id": "float", "why": "w"}]}

    def edit(plain: dict[str, Any]) -> None:
        plain["fronts"] = {"rpi4": ["int8"], "rpi5": ["float"]}
        plain["selection"] = {"rpi4": choice}

    new = second(edit)
    found = {c["profile"]: c for c in compared(capsys, first, new)["choices"]}
    assert found["rpi4"]["front_removed"] == ["float"]
    assert found["rpi4"]["recommended_added"] == [], "the older bundle recommended nothing"
    assert found["rpi5"]["front_added"] == ["float"]
    assert "rpi4 -float as before" in shown(capsys, first, new)


def test_packed_and_damaged_bundles_are_told_apart(
    pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = pair
    packed = bundles.pack(first, tmp_path / "digits-1.edgebundle")
    assert main(["inspect", str(packed), str(first.path)]) == 0
    assert "same to the byte" in capsys.readouterr().out
    assert main(["inspect", str(first.path), str(tmp_path / "none.edge")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"edge: {tmp_path / 'none.edge'}: ")
