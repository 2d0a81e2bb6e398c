"""Networks others trained, on data others labelled."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.bundle import Bundle

pytestmark = [pytest.mark.reference_data, pytest.mark.timeout(900)]


@pytest.fixture
def images(reference_data: Path, tmp_path: Path) -> Path:
    """Every fourth of 500 labelled photographs."""
    given, folder = reference_data / "models_and_labels" / "imagenet_500", tmp_path / "images"
    folder.mkdir()
    with (given / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    kept = rows[1::4]
    for name, _ in kept:
        shutil.copyfile(given / name, folder / name)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *kept])
    return folder


def test_efficientnet_lite0_on_photographs(
    edge: Callable[..., object], reference_data: Path, images: Path, tmp_path: Path
) -> None:
    model = reference_data / "models_and_labels" / "efficientnet_lite0_fp32.tflite"
    out = tmp_path / "eff-1.edge"
    words = ("--mean", 127, "--std", 128, "--max-drop", 100, "--precision", "int8", "--precision", "dynamic")
    done = edge("convert", model, "--data", images, *words, "--profile", "rpi4", "-o", out)
    assert done.status == 0, done.err  # type: ignore[attr-defined]
    bundle = Bundle(out)
    float_, int8 = bundle.variant("fp32"), bundle.variant("int8")
    assert float_.quality.value > 80
    assert float_.cost.macs == pytest.approx(388.7e6, rel=0.01)
    assert int8.exceptions == ()
    assert int8.quality.agreement > 80
    assert int8.size_bytes < 0.3 * float_.size_bytes
    (predicted,) = [e for e in bundle.evidence().latency if e.profile == "rpi4" and e.variant == "int8"]
    assert 5 < predicted.median_ms < 100


def test_a_resnet_that_was_quantized_elsewhere_shares_a_bundle_with_its_float_file(
    edge: Callable[..., object], reference_data: Path, tmp_path: Path
) -> None:
    folder = reference_data / "models_and_labels"
    with np.load(folder / "cifar10" / "cifar10_8000train_2000test.npz") as arrays:
        np.savez(tmp_path / "test.npz", x=arrays["x_test"][:500], y=arrays["y_test"][:500])
    models = [folder / "mlperf_tiny" / name for name in ("pretrainedResnet.tflite", "pretrainedResnet_quant.tflite")]
    out = tmp_path / "resnet-1.edge"
    words = ("--precision", "int8", "--max-drop", 100, "-o", out)
    done = edge("convert", *models, "--data", tmp_path / "test.npz", *words)
    assert done.status == 0, done.err  # type: ignore[attr-defined]
    manifest = Bundle(out).manifest
    assert manifest.reference == "pretrainedResnet-fp32"
    for id_ in ("pretrainedResnet-fp32", "pretrainedResnet-int8", "pretrainedResnet_quant-int8"):
        variant = manifest.variant(id_)
        assert variant is not None, id_
        assert 68 < variant.quality.value < 82
