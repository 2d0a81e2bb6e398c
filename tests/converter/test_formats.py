"""Each number format is what it says, checked on the file that comes out."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge_converter import evaluate, flatbuffer, graph
from edge_converter.errors import QuantizationError
from edge_converter.labelled import data
from edge_converter.labelled.data import Samples
from edge_converter.quantization import quantize
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec

IMAGES = [TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32")]
TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"
DERIVED = pytest.mark.parametrize("precision", quantize.DERIVED[:-1], ids=lambda precision: precision.value)


@pytest.fixture(scope="module")
def samples(few_digits: Path) -> Samples:
    return data.open_samples(few_digits, inputs=IMAGES, preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def ranges(convolutions: Path, samples: Samples) -> dict[str, object]:
    return quantize.calibrate(convolutions, samples, data.first_by_content(samples, 32), threads=1)


@DERIVED
def test_every_convolution_and_dense_layer_is_in_the_format_asked_for(
    precision: Precision, convolutions: Path, ranges: dict[str, object], tmp_path: Path
) -> None:
    made = quantize.quantize(convolutions, precision, tmp_path / "made.tflite", ranges=ranges)
    kinds = Counter(op.op for op in made.graph.weighted)
    assert kinds == Counter(op.op for op in graph.read(convolutions).weighted)
    assert {"CONV_2D", "FULLY_CONNECTED"} <= kinds.keys()
    assert {op.precision for op in made.graph.weighted} == {precision}
    assert made.exceptions == ()
    assert made.graph.precision is precision


@DERIVED
def test_apps_give_and_take_float_whatever_is_inside(
    precision: Precision, convolutions: Path, ranges: dict[str, object], tmp_path: Path
) -> None:
    made = quantize.quantize(convolutions, precision, tmp_path / "made.tflite", ranges=ranges)
    model = flatbuffer.read(made.path)
    borders = [*model.subgraphs[0].inputs, *model.subgraphs[0].outputs]
    assert {flatbuffer.TYPE_NAMES[model.subgraphs[0].tensors[i].type] for i in borders} == {"float32"}
    with Engine(made.path) as engine:
        (scores,) = engine.run([np.zeros((1, 8, 8, 1), np.float32)])
    assert scores.dtype == np.float32
    assert scores.sum() == pytest.approx(1, abs=0.05)


@DERIVED
def test_it_answers_as_the_float_file_does(
    precision: Precision, convolutions: Path, ranges: dict[str, object], samples: Samples, tmp_path: Path
) -> None:
    made = quantize.quantize(convolutions, precision, tmp_path / "made.tflite", ranges=ranges)
    rows = data.as_rows(range(len(samples.labels)))
    before, after = (
        evaluate.answers(path, samples, rows, advance=lambda _: None) for path in (convolutions, made.path)
    )
    assert (before == samples.labels).mean() > 0.93
    # Sixteen levels, rounded to the nearest: compensation comes afterwards.
    assert (before == after).mean() > (0.8 if precision is Precision.WEIGHT4 else 0.96)


@DERIVED
def test_the_same_file_comes_out_twice(
    precision: Precision, convolutions: Path, ranges: dict[str, object], tmp_path: Path
) -> None:
    made = [quantize.quantize(convolutions, precision, tmp_path / name, ranges=ranges).path for name in ("a", "b")]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in made}) == 1


@DERIVED
def test_a_file_from_before_signatures_and_long_operator_codes_is_understood(
    precision: Precision, convolutions: Path, samples: Samples, tmp_path: Path
) -> None:
    model = flatbuffer.read(convolutions)
    model.signatureDefs = []
    for code in model.operatorCodes:  # until TensorFlow 2.3 the newer field did not exist, which reads as 0: ADD
        code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
    old = tmp_path / "old.tflite"
    old.write_bytes(flatbuffer.serialize(model))
    rows = data.first_by_content(samples, 8)
    found = quantize.calibrate(old, samples, rows, threads=1) if quantize.needs_ranges(precision) else None
    made = quantize.quantize(old, precision, tmp_path / "made.tflite", ranges=found)
    assert made.graph.precision is precision


@pytest.mark.parametrize(
    ("precision", "versions"),
    [
        (Precision.FP16, {"DEQUANTIZE": 3}),
        (Precision.DYNAMIC, {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 3}),
        (Precision.INT8, {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}),
        (Precision.INT16X8, {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7}),
    ],
    ids=lambda value: value.value if isinstance(value, Precision) else "",
)
def test_operators_are_stamped_with_the_version_their_format_needs(
    precision: Precision, versions: dict[str, int], convolutions: Path, ranges: dict[str, object], tmp_path: Path
) -> None:
    model = flatbuffer.read(quantize.quantize(convolutions, precision, tmp_path / "made", ranges=ranges).path)
    operators = model.subgraphs[0].operators
    used = {flatbuffer.op_name(model, op): model.operatorCodes[op.opcodeIndex].version for op in operators}
    expected = {name: version for name, version in versions.items() if name in used}
    assert expected
    assert {name: used[name] for name in expected} == expected


def test_a_model_without_weights_cannot_be_quantized(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="no layer could be made fp16"):
        quantize.quantize(TINY / "two_by_two.tflite", Precision.FP16, tmp_path / "made.tflite")


def test_what_the_quantizer_raises_has_our_name(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="cannot be quantized"):
        quantize.quantize(tiny, Precision.INT8, tmp_path / "made.tflite", ranges={})


def test_weights_keep_the_alignment_that_memory_mapping_wants(
    convolutions: Path, ranges: dict[str, object], tmp_path: Path
) -> None:
    path = quantize.quantize(convolutions, Precision.INT8, tmp_path / "made.tflite", ranges=ranges).path
    content = path.read_bytes()
    buffers = [bytes(b.data) for b in flatbuffer.read(path).buffers if b.data is not None and len(b.data) > 64]
    assert buffers
    assert all(content.find(buffer) % 16 == 0 for buffer in buffers)
