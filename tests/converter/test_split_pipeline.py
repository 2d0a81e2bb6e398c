"""What `edge split` wrote computes in a pipeline what the whole does, in every number format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_converter.labelled import data
from edge_converter.quantization import quantize
from edge_converter.splitting.split import SplitRequest, split
from edge_sdk import Engine, Pipeline
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec
from edge_sdk.parallel import cpu
from edge_sdk.segments import Segments

FORMATS = (Precision.FP32, Precision.FP16, Precision.DYNAMIC, Precision.INT8, Precision.INT16X8, Precision.WEIGHT4)


@pytest.fixture(scope="module")
def wholes(convolutions: Path, few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """The digit classifier in every number format."""
    inputs = (TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32"),)
    samples = data.open_samples(few_digits, inputs=inputs, preprocessing=Preprocessing())
    folder = tmp_path_factory.mktemp("wholes")
    ranges = quantize.calibrate(convolutions, samples, data.first_by_content(samples, 32), threads=1)
    made = {
        precision: quantize.quantize(convolutions, precision, folder / f"{precision.value}.tflite", ranges=ranges).path
        for precision in FORMATS[1:]
    }
    return {Precision.FP32: convolutions, **made}


@pytest.mark.parametrize("precision", FORMATS, ids=lambda precision: precision.value)
def test_a_pipeline_is_bit_identical_to_the_whole(
    precision: Precision, wholes: dict[Precision, Path], tmp_path: Path
) -> None:
    split(SplitRequest(model=wholes[precision], parts=3, profile="rpi4"), tmp_path / "split")
    batch = np.random.default_rng(2).random((33, 8, 8, 1)).astype(np.float32)
    with Engine(wholes[precision]) as whole, Pipeline(tmp_path / "split") as pipeline:
        assert pipeline.inputs == whole.inputs
        assert pipeline.outputs == whole.outputs
        for got, should in zip(pipeline.run([batch]), whole.run([batch]), strict=True):
            np.testing.assert_array_equal(got, should, strict=True)


def test_a_boundary_of_integers_carries_a_byte_a_value(wholes: dict[Precision, Path], tmp_path: Path) -> None:
    plan = split(SplitRequest(model=wholes[Precision.INT8], parts=2, profile="rpi4"), tmp_path / "split")
    with Pipeline(tmp_path / "split") as pipeline:
        pipeline.run([np.zeros((2, 8, 8, 1), np.float32)])
        assert pipeline.reports()[0].handed_on_bytes == plan.segments[0].send_bytes


def test_many_segments_are_planned_onto_few_places(wholes: dict[Precision, Path], tmp_path: Path) -> None:
    split(SplitRequest(model=wholes[Precision.FP32], parts=4, profile="rpi4"), tmp_path / "split")
    batch = np.random.default_rng(2).random((5, 8, 8, 1)).astype(np.float32)
    with (
        Engine(wholes[Precision.FP32]) as whole,
        Pipeline.planned(tmp_path / "split", [cpu("one"), cpu("two")]) as pipeline,
    ):
        assert pipeline.assignment is not None
        assert len(pipeline.assignment.stages) <= 2
        computed = [number for each in pipeline.reports() for number in each.segments]
        assert computed == [segment.number for segment in Segments(tmp_path / "split").plan.segments]
        np.testing.assert_array_equal(pipeline.run([batch])[0], whole.run([batch])[0])
