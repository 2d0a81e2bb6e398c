"""What is read from a `.tflite` file: borders, number formats, work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_converter import flatbuffer, graph
from edge_converter.errors import SourceError, UnsupportedModelError
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"


def test_the_work_of_a_dense_layer_is_counted() -> None:
    found = graph.read(TINY / "dense_fp32.tflite")
    assert found.cost.macs == 12
    assert found.cost.parameters == 15
    assert found.work.dense_macs == 12
    assert found.work.conv_macs == 0
    assert found.operators == {"FULLY_CONNECTED": 1, "SOFTMAX": 1}


def test_the_work_of_convolutions_is_counted_by_kind(convolutions: Path) -> None:
    work = graph.read(convolutions).work
    assert work.conv_macs > 0
    assert (
        work.conv_macs + work.conv1x1_macs + work.depthwise_macs + work.dense_macs == graph.read(convolutions).cost.macs
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [("dense_fp32", Precision.FP32), ("dense_int8", Precision.INT8), ("dense_int8_io", Precision.INT8)],
)
def test_the_number_format_is_read_from_the_layers(name: str, precision: Precision) -> None:
    assert graph.read(TINY / f"{name}.tflite").precision is precision


def test_quantized_borders_are_float_to_an_app() -> None:
    found = graph.read(TINY / "dense_int8_io.tflite")
    assert {spec.dtype for spec in (*found.inputs, *found.outputs)} == {"float32"}


def test_layers_in_another_format_are_named() -> None:
    (line,) = graph.read(TINY / "dense_fp32.tflite").exceptions(Precision.INT8)
    assert line == "FULLY_CONNECTED logits: float32 activations, float32 weights"


def test_borders_have_the_names_an_engine_gives_them(convolutions: Path) -> None:
    found = graph.read(convolutions)
    with Engine(convolutions) as engine:
        assert [spec.name for spec in found.inputs] == [spec.name for spec in engine.inputs]
        assert [spec.name for spec in found.outputs] == [spec.name for spec in engine.outputs]


def test_a_free_batch_is_free() -> None:
    assert graph.read(TINY / "dense_free_batch.tflite").inputs[0].shape == (-1, 4)


def test_the_lowest_runtime_is_the_one_that_knows_every_operator() -> None:
    assert graph.read(TINY / "dense_fp32.tflite").min_runtime == "1.5.0"
    assert graph.read(TINY / "dense_int8.tflite").min_runtime == "1.14.0"
    assert graph.read(TINY / "newer_op.tflite").min_runtime is None


def test_several_subgraphs_are_refused(tmp_path: Path) -> None:
    model = flatbuffer.read(TINY / "dense_fp32.tflite")
    model.subgraphs = [model.subgraphs[0], model.subgraphs[0]]
    path = tmp_path / "two.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    with pytest.raises(UnsupportedModelError, match="2 subgraphs"):
        graph.read(path)


def test_a_file_cut_anywhere_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    content = (TINY / "dense_fp32.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    refused = []
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            graph.read(path)
        except SourceError as error:
            refused.append(error.where)
    assert len(refused) > 50
    assert set(refused) == {str(path)}
