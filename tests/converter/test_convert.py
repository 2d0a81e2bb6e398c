"""From `.tflite` files and labelled data to a bundle, by the command a user types."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edge_lab import digits
from edge_sdk.bundle import Bundle
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Origin, Precision

FORMATS = ("fp32", "fp16", "dynamic", "int8", "int16x8", "weight8", "weight4")


def test_one_model_becomes_a_bundle_of_every_format(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    out = tmp_path / "points-2.edge"
    done = edge("convert", tiny, "--data", points, "--profile", "rpi4", "--max-drop", 20, "-o", out, "--json")
    assert done.status == 0, done.err
    bundle = Bundle(out)
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("points", "2")
    assert tuple(variant.id for variant in manifest.variants) == FORMATS
    assert manifest.reference == "fp32"
    assert [spec.shape for spec in manifest.inputs] == [(-1, 4)]
    assert set(manifest.fronts) == {"rpi4"}
    for variant in manifest.variants:
        assert variant.precision is Precision(variant.id)
        assert variant.quality.samples == 60 - 60 // 4
        assert variant.transfer_bytes <= variant.size_bytes + 32
        assert variant.cost.macs == 12
    printed = json.loads(done.out)
    assert printed["manifest_sha256"] == bundle.manifest_sha256
    assert [v["id"] for v in printed["manifest"]["variants"]] == list(FORMATS)


def test_the_reference_loses_nothing_against_itself(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    assert edge("convert", tiny, "--data", points, "-o", tmp_path / "a.edge").status == 0
    quality = Bundle(tmp_path / "a.edge").manifest.variants[0].quality
    assert (quality.value, quality.drop, quality.agreement, quality.source_drop) == (100.0, 0.0, 100.0, 0.0)
    assert quality.interval > 0


def test_every_variant_is_timed_on_the_machine_that_is_named(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    assert edge("convert", tiny, "--data", points, "--profile", "rpi4", "-o", tmp_path / "a.edge").status == 0
    bundle = Bundle(tmp_path / "a.edge")
    measured = [entry for entry in bundle.evidence().latency if entry.origin is Origin.MEASURED]
    assert {entry.variant for entry in measured} == {variant.id for variant in bundle.manifest.variants}
    for entry in measured:
        assert entry.machine == machine_name()
        assert entry.samples >= 20
        assert entry.p95_ms is not None
        assert 0 < entry.median_ms <= entry.p95_ms
    predicted = [entry for entry in bundle.evidence().latency if entry.origin is Origin.PREDICTED]
    assert {entry.profile for entry in predicted} == {"rpi4"}
    assert all(entry.band is not None and entry.source for entry in predicted)


def test_what_loses_more_than_max_drop_is_refused_with_its_measured_accuracy(
    edge: Callable[..., object], dense: Callable[..., Path], answered: Callable[..., Path], tmp_path: Path
) -> None:
    # Two numbers of very different size, of which the small one decides: 8 bits cannot hold both.
    model = dense("steep", [[0, 1, 0, 0], [0, -1, 0, 0], [0, 0, 0, -9]])
    x = np.random.default_rng(0).normal(0, 1, (80, 4))
    x[:, 0] *= 1000
    x[:, 3] = 1
    out = tmp_path / "steep.edge"
    done = edge("convert", model, "--data", answered(model, points=x), "--profile", "rpi4", "-o", out)
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    (refused,) = [one for one in manifest.refused if one.id == "int8"]
    assert refused.quality is not None
    assert refused.quality.value < 90
    assert refused.reason.startswith(f"accuracy {refused.quality.value:.2f} %: ")
    assert "where at most 2 are allowed" in refused.reason
    assert manifest.variant("int8") is None
    assert manifest.variant("int16x8") is not None
    assert "int8: accuracy" in done.out
    assert "int8" not in manifest.fronts["rpi4"]
    assert len(list((out / "blobs" / "sha256").iterdir())) == len({v.blob for v in manifest.variants})
    report = (out / "report.html").read_text()
    assert "<h2>Refused</h2>" in report
    assert "refused</text>" in report


def test_a_family_shares_one_bundle_and_the_small_member_is_not_refused_for_being_small(
    edge: Callable[..., object], few_digits: Path, tmp_path: Path
) -> None:
    small, medium, _ = digits.models()
    out = tmp_path / "digits-1.edge"
    words = (
        "--precision",
        "int8",
        "--precision",
        "fp16",
        "--max-drop",
        0.9,
        "--profile",
        "rpi4",
        "--profile",
        "x86-64",
    )
    done = edge("convert", small, medium, "--data", few_digits, *words, "-o", out)
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    assert [source.name for source in manifest.sources] == ["small", "medium"]
    assert {"small-fp32", "small-int8", "medium-fp32", "medium-int8"} <= {v.id for v in manifest.variants}
    assert {v.source for v in manifest.variants} == {"small", "medium"}
    assert set(manifest.fronts) == {"rpi4", "x86-64"}
    best = max((v for v in manifest.variants if v.precision is Precision.FP32), key=lambda v: v.quality.value)
    assert manifest.reference == best.id


def test_a_model_that_is_quantized_already_is_taken_as_it_is(
    edge: Callable[..., object], points: Path, tmp_path: Path
) -> None:
    given = Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_int8.tflite"
    assert edge("convert", given, "--data", points, "-o", tmp_path / "a.edge").status == 0
    bundle = Bundle(tmp_path / "a.edge")
    (variant,) = bundle.manifest.variants
    assert (variant.id, variant.quality.source_drop) == ("int8", None)
    assert bundle.blob(variant).read_bytes() == given.read_bytes()


def test_the_same_input_gives_the_same_manifest_and_blobs(
    edge: Callable[..., object], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = []
    for place in ("one", "other"):
        out = tmp_path / place / "digits-1.edge"
        words = ("--precision", "int8", "--precision", "dynamic", "--profile", "x86-64", "--profile", "rpi4")
        done = edge("convert", digits.models()[0], "--data", few_digits, *words, "-o", out)
        assert done.status == 0, done.err
        found.append(((out / "manifest.json").read_bytes(), {p.name for p in (out / "blobs" / "sha256").iterdir()}))
    assert found[0] == found[1]
    assert Bundle(tmp_path / "one" / "digits-1.edge").manifest.created == 1_700_000_000


def test_calibration_given_apart_leaves_all_data_to_count(
    edge: Callable[..., object], tiny: Path, answered: Callable[..., Path], tmp_path: Path
) -> None:
    counted = answered(tiny)
    apart = answered(tiny, name="apart", seed=2)
    out = tmp_path / "a.edge"
    assert edge("convert", tiny, "--data", counted, "--calibration", apart, "-o", out).status == 0
    assert {v.quality.samples for v in Bundle(out).manifest.variants} == {60}


def test_calibrating_on_what_counts_is_said(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    done = edge("convert", tiny, "--data", points, "--calibration", points, "-o", tmp_path / "a.edge")
    assert done.status == 0
    assert "60 samples are in --calibration and in --data: quality is flattered by them" in done.err


def test_labels_that_cannot_be_those_of_the_model_are_doubted(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    with np.load(points) as arrays:
        np.savez(points, x=arrays["x"], y=(arrays["y"] + 1) % 3)
    done = edge("convert", tiny, "--data", points, "-o", tmp_path / "a.edge")
    assert done.status == 0
    assert "fp32 has accuracy 0.0 %, and knowing nothing 33.3 %" in done.err


def test_a_bundle_that_stands_is_replaced(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a-1.edge"
    assert edge("convert", tiny, "--data", points, "-o", out).status == 0
    assert edge("convert", tiny, "--data", points, "--precision", "fp16", "--version", "7", "-o", out).status == 0
    manifest = Bundle(out).manifest
    assert manifest.version == "7"
    assert [v.id for v in manifest.variants] == ["fp32", "fp16"]
    assert sorted(p.name for p in tmp_path.iterdir() if "edge" in p.name) == ["a-1.edge"]


class _Outside(HTMLParser):
    """Collects what a page would load from elsewhere, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in {"src", "href", "srcset", "data"}]


def test_the_report_is_complete_in_itself(edge: Callable[..., object], few_digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits-1.edge"
    assert edge("convert", *digits.models()[:1], "--data", few_digits, "--profile", "rpi4", "-o", out).status == 0
    page = (out / "report.html").read_text()
    found = _Outside()
    found.feed(page)
    assert found.loads == []
    assert "script" not in found.tags
    assert "@import" not in page
    assert "url(" not in page
    assert str(tmp_path) not in page
    assert found.tags.count("svg") == 3  # against latency and size, and of the board
    assert "prefers-color-scheme:dark" in page
    for variant in Bundle(out).manifest.variants:
        assert variant.id in page
    assert "predicted</span>" in page
    assert "Raspberry Pi 4" in page


def test_start_up_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, edge_converter.commands; print([m for m in ('numpy','rich','tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_converting_tflite_files_never_imports_tensorflow(tiny: Path, points: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from edge_sdk.cli import main; status = main(sys.argv[1:]);"
        "assert status == 0; print([m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules])"
    )
    words = ["convert", str(tiny), "--data", str(points), "-o", str(tmp_path / "a.edge")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1] == "[]"
