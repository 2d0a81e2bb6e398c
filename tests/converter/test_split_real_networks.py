"""Networks others trained, cut into segments."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import flatbuffer
from edge_converter.splitting import chain, stage_times
from edge_converter.splitting.chain import Link, Loaded
from edge_converter.splitting.cutting import Cuttable
from edge_sdk.segments import Segments

pytestmark = [pytest.mark.reference_data, pytest.mark.timeout(900)]
FOLDER = "models_and_labels"


def identical_at(path: Path, *, every: int) -> int:
    """Cut at every so many places, one at a time, and at all of these at once; returns how many there were."""
    model = Cuttable(flatbuffer.read(path), where=path.name)
    inputs, outputs = (tuple(map(model.name, tensors)) for tensors in (model.inputs, model.outputs))
    whole = Loaded(Link(content=path.read_bytes(), inputs=inputs, outputs=outputs), threads=1, where=path.name)
    places = [point.at for point in model.points[::every]]
    for at in [*((place,) for place in places), places]:
        spans = itertools.pairwise((0, *at, model.end))
        segments = [Loaded(stage_times.link(model, span), threads=1, where="segment") for span in spans]
        random = np.random.default_rng(0)
        assert chain.compare(whole, segments, (whole.noise(random) for _ in range(2))) == 2, at
    return len(places)


@pytest.mark.parametrize(
    ("name", "every", "count"),
    [
        (f"{FOLDER}/efficientnet_lite0_fp32.tflite", 6, 10),
        ("edgetpu/mobilenet_v1_0.25_128_quant.tflite", 3, 10),
        (f"{FOLDER}/mlperf_tiny/pretrainedResnet_quant.tflite", 1, 15),
        (f"{FOLDER}/mlperf_tiny/vww_96_int8.tflite", 3, 10),
        (f"{FOLDER}/mlperf_tiny/kws_ref_model.tflite", 1, 12),
        (f"{FOLDER}/mlperf_tiny/ad01_fp32.tflite", 1, 8),
    ],
)
def test_segments_are_bit_identical(name: str, every: int, count: int, reference_data: Path) -> None:
    assert identical_at(reference_data / name, every=every) >= count


def test_efficientnet_is_cut_in_two_that_take_alike(
    edge: Callable[..., Any], reference_data: Path, tmp_path: Path
) -> None:
    model, out = reference_data / FOLDER / "efficientnet_lite0_fp32.tflite", tmp_path / "out"
    done = edge("split", model, "--parts", 2, "-o", out)
    assert done.status == 0, done.err
    plan = Segments(out).plan
    one, two = plan.segments
    assert max(one.compute_ms, two.compute_ms) < 0.65 * plan.timing.whole_ms
    assert one.send_bytes < 1e6
    assert one.macs + two.macs == pytest.approx(388.7e6, rel=0.02)
    # The weights are in one of them each.
    assert one.size_bytes + two.size_bytes < 1.05 * model.stat().st_size


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("edgetpu/mobilenet_v1_0.25_128_quant_edgetpu.tflite", "compiled for the Edge TPU"),
        (f"{FOLDER}/wakeword/alexa.tflite", "keeps state from one call to the next"),
    ],
)
def test_what_keeps_state_or_is_compiled_is_refused(
    name: str, reason: str, edge: Callable[..., Any], reference_data: Path, tmp_path: Path
) -> None:
    done = edge("split", reference_data / name, "--parts", 2, "-o", tmp_path / "out")
    assert done.status == 2
    assert "[unsupported-model]" in done.line
    assert reason in done.line
