"""int8 whose integers are chosen by what comes out: the file stays what it is, and answers closer to the float file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_converter import flatbuffer, graph
from edge_converter.labelled import data
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import answers, compensate, layerwise, quantize
from edge_converter.quantization.follower import Twin
from edge_converter.quantization.layerwise import FloatGraph, OneOperator
from edge_converter.quantization.quantize import Quantized
from edge_lab import digits
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec

IMAGES = [TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32")]
TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"


@pytest.fixture(scope="module")
def samples() -> Samples:
    path = digits.directory() / "digits_train.npz"
    return data.open_samples(path, inputs=IMAGES, preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Integers:
    return data.first_by_content(samples, 64)


@pytest.fixture(scope="module")
def medium(samples: Samples, rows: Integers, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """The medium network of the digits in int8, rounded to the nearest."""
    source = digits.models()[1]
    ranges = quantize.calibrate(source, samples, rows, threads=1)
    return quantize.quantize(source, Precision.INT8, tmp_path_factory.mktemp("int8") / "made.tflite", ranges=ranges)


def distance(one: bytes, other: bytes) -> float:
    """Between the scores before the softmax, on images nothing has seen."""
    images = [digits.held_out()[0]]
    return answers.distance(one, images, answers.scores(other, images))


@pytest.mark.parametrize("source", digits.models(), ids=lambda path: path.stem)
def test_operator_by_operator_it_computes_what_the_whole_computes(source: Path) -> None:
    content = flatbuffer.prepare(source.read_bytes(), where=str(source))
    whole = FloatGraph(content, where=str(source))
    images = digits.held_out()[0][:3]
    values = {whole.inputs[0]: images[:, np.newaxis]}
    for operator in whole.operators:
        one = OneOperator(whole, operator)
        values[int(operator.outputs[0])] = one.run([values[tensor] for tensor in one.computed])
    with Engine(content) as engine:
        np.testing.assert_allclose(values[whole.outputs[0]][:, 0], engine.run([images])[0], atol=1e-6)


def test_the_answers_come_closer_to_the_float_files(
    samples: Samples, rows: Integers, medium: Quantized, tmp_path: Path
) -> None:
    source = digits.models()[1]
    content = flatbuffer.prepare(source.read_bytes(), where=str(source))
    plain = medium.path.read_bytes()
    inputs = FloatGraph(content, where="medium").calls(samples.read(rows))
    chosen = compensate.compensate(content, plain, inputs, where="medium")
    assert chosen.layers == len(medium.graph.weighted)
    assert distance(chosen.content, content) < distance(plain, content)
    (tmp_path / "chosen.tflite").write_bytes(chosen.content)
    found = graph.read(tmp_path / "chosen.tflite")
    assert found.precision is Precision.INT8
    assert found.operators == medium.graph.operators
    assert len(chosen.content) == len(plain)


def test_mending_biases_alone_leaves_the_integers_and_helps(
    samples: Samples, rows: Integers, medium: Quantized
) -> None:  # fmt: skip
    source = digits.models()[1]
    content = flatbuffer.prepare(source.read_bytes(), where=str(source))
    plain = medium.path.read_bytes()
    inputs = FloatGraph(content, where="medium").calls(samples.read(rows))
    (mended,) = compensate.compensate_all(content, [Twin(content=plain, rounds=False)], inputs, where="medium")
    assert distance(mended.content, content) < distance(plain, content)
    before, after = (flatbuffer.parse(one, where="x") for one in (plain, mended.content))
    for one, other in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        if flatbuffer.TYPE_NAMES[one.type] == "int8" and before.buffers[one.buffer].data is not None:
            assert np.array_equal(before.buffers[one.buffer].data, after.buffers[other.buffer].data)


def test_a_large_network_is_looked_at_through_fewer_samples() -> None:
    graph_ = FloatGraph(flatbuffer.prepare(digits.models()[2].read_bytes(), where="large"), where="large")
    assert layerwise.samples_that_fit(graph_, 128) == 128
    for tensor in graph_.graph.tensors:
        if tensor.shape is not None and len(tensor.shape) == 4:
            tensor.shape = np.array([1, 4096, 4096, 64], np.int32)
    assert layerwise.samples_that_fit(graph_, 128) == 8


def test_a_file_whose_layers_have_other_names_is_left_as_it_is(samples: Samples, rows: Integers) -> None:
    small, medium = (flatbuffer.prepare(path.read_bytes(), where="x") for path in digits.models()[:2])
    renamed = flatbuffer.parse(medium, where="x")
    for number, tensor in enumerate(renamed.subgraphs[0].tensors):
        tensor.name = f"other {number}".encode()
    inputs = FloatGraph(small, where="x").calls(samples.read(rows[:8]))
    content = flatbuffer.serialize(renamed)
    assert compensate.compensate(small, content, inputs, where="x").content == content
