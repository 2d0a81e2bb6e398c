"""Models with several inputs and outputs, with a fixed or free batch, and with integers at the border."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_graphs
from small_graphs import Input, Output

from edge_converter import batches, flatbuffer
from edge_converter.errors import DataError
from edge_converter.labelled import data
from edge_converter.quantization import quantize
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec

RANDOM = np.random.default_rng(5)
W_WIDE, W_NARROW = RANDOM.normal(0, 1, (3, 4)), RANDOM.normal(0, 1, (3, 2))
PLAIN = Preprocessing()


def two_inputs(path: Path, *, batch: int = 1) -> Path:
    """Scores from two inputs, in an order that is not the alphabet's, and a far larger second output."""
    inputs = [Input(name="wide", shape=(4,), batch=batch), Input(name="narrow", shape=(2,), batch=batch)]
    scores = Output(name="scores", weights={"wide": W_WIDE, "narrow": W_NARROW})
    return small_graphs.write(path, inputs, [scores, Output(name="huge", weights={"wide": 500 * W_WIDE})])


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples for that model, labelled by what it answers."""

    def write(count: int = 60, *, names: tuple[str, str] = ("x0", "x1")) -> Path:
        random = np.random.default_rng(0)
        wide, narrow = random.normal(0, 1, (count, 4)), random.normal(0, 1, (count, 2))
        labels = (wide @ W_WIDE.T + narrow @ W_NARROW.T).argmax(axis=1)
        arrays = dict(zip(names, (wide.astype(np.float32), narrow.astype(np.float32)), strict=True))
        np.savez(tmp_path / "two.npz", **arrays, y=labels)
        return tmp_path / "two.npz"

    return write


@pytest.mark.parametrize("names", [("x0", "x1"), ("wide", "narrow")], ids=["numbered", "named"])
def test_two_inputs_and_two_outputs_are_converted_calibrated_and_evaluated(
    edge: Callable[..., object], measured: Callable[..., Path], tmp_path: Path, names: tuple[str, str]
) -> None:
    out = tmp_path / "two.edge"
    words = ("--data", measured(names=names), "--max-drop", 50, "-o", out)
    done = edge("convert", two_inputs(tmp_path / "m.tflite"), *words)
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    assert [spec.name for spec in manifest.inputs] == ["wide", "narrow"]
    assert [spec.shape for spec in manifest.outputs] == [(-1, 3), (-1, 3)]
    by_id = {variant.id: variant for variant in manifest.variants}
    assert {"fp32", "int8", "int16x8", "weight8"} <= set(by_id)
    assert by_id["fp32"].quality.value == 100
    assert by_id["int8"].quality.agreement > 60


@pytest.mark.parametrize("batch", [4, -1], ids=["of 4", "free"])
def test_a_batch_that_is_fixed_or_free_gives_the_answers_of_single_samples(
    edge: Callable[..., object], measured: Callable[..., Path], tmp_path: Path, batch: int
) -> None:
    # 46 samples count, which is no multiple of 4.
    one, many = two_inputs(tmp_path / "one.tflite"), two_inputs(tmp_path / "many.tflite", batch=batch)
    found = []
    for model in (one, many):
        out = tmp_path / model.stem
        words = ("--precision", "int8", "--max-drop", 50)
        done = edge("convert", model, "--data", measured(61), *words, "-o", out)
        assert done.status == 0, done.err
        found.append({v.id: v.quality for v in Bundle(out).manifest.variants})
    assert found[0]["fp32"] == found[1]["fp32"]
    assert found[0]["fp32"].samples == 46
    assert set(found[0]) == set(found[1])
    assert Bundle(tmp_path / "many").manifest.inputs[0].shape[0] == batch


def test_a_variant_that_the_runtime_refuses_is_listed_and_the_rest_is_made(
    edge: Callable[..., object], tmp_path: Path
) -> None:
    # Where all scales of a sum in 16 bits are powers of two, the runtime takes none that is coarser than the output's.
    inputs = [Input(name=name, shape=(2,)) for name in ("a", "b")]
    sums = Output(name="y", weights={"a": np.eye(2), "b": -0.5 * np.eye(2)})
    x = np.where(np.random.default_rng(0).random((80, 2)) < 0.5, -1.0, 1.0).astype(np.float32)
    np.savez(tmp_path / "d.npz", a=x, b=x, y=(x[:, 1] > x[:, 0]).astype(np.int64))
    model, out = small_graphs.write(tmp_path / "m.tflite", inputs, [sums]), tmp_path / "m-1.edge"
    done = edge("convert", model, "--data", tmp_path / "d.npz", "-o", out)
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    assert {"fp32", "fp16", "int8"} <= {variant.id for variant in manifest.variants}
    refused = {one.id: one.reason for one in manifest.refused}
    assert "failed to prepare" in refused["int16x8"]


def test_calls_are_filled_up_with_the_last_sample() -> None:
    one, other = batches.calls([np.arange(5), np.arange(10).reshape(5, 2)], 4)
    assert one.tolist() == [[0, 1, 2, 3], [4, 4, 4, 4]]
    assert other.shape == (2, 4, 2)


def test_an_output_without_a_batch_is_answered_sample_by_sample(tmp_path: Path) -> None:
    path = small_graphs.write(
        tmp_path / "m.tflite",
        [Input(name="a", shape=(2,))],
        [Output(name="s", weights={"a": np.eye(2)}), Output(name="t", weights={"a": np.eye(2)})],
    )
    model = flatbuffer.read(path)
    model.subgraphs[0].tensors[model.subgraphs[0].outputs[1]].shape = [2]
    samples = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    with Engine(path) as engine:
        assert batches.run(engine, [samples])[0].tolist() == samples.tolist()


def test_outputs_of_very_different_range_keep_their_own_scales(measured: Callable[..., Path], tmp_path: Path) -> None:
    source = two_inputs(tmp_path / "m.tflite")
    inputs = [TensorSpec(name=name, shape=(1, size), dtype="float32") for name, size in (("wide", 4), ("narrow", 2))]
    samples = data.open_samples(measured(), inputs=inputs, preprocessing=PLAIN)
    rows = data.as_rows(range(40))
    ranges = quantize.calibrate(source, samples, rows, threads=1)
    made = quantize.quantize(source, Precision.INT8, tmp_path / "int8.tflite", ranges=ranges)
    model = flatbuffer.read(made.path)
    tensors = model.subgraphs[0].tensors
    (small,), (huge,) = (
        tensors[operator.inputs[0]].quantization.scale
        for operator in model.subgraphs[0].operators
        if flatbuffer.op_name(model, operator) == "DEQUANTIZE"
    )
    assert 250 < huge / small < 500


def test_token_numbers_and_raw_bytes_reach_the_model_as_integers(edge: Callable[..., object], tmp_path: Path) -> None:
    inputs = [Input(name="tokens", shape=(4,), dtype="int32"), Input(name="pixels", shape=(2, 1), dtype="uint8")]
    scores = Output(name="scores", weights={"tokens": W_WIDE, "pixels": W_NARROW})
    model = small_graphs.write(tmp_path / "m.tflite", inputs, [scores])
    random = np.random.default_rng(0)
    tokens, pixels = random.integers(0, 9, (60, 4)), random.integers(0, 9, (60, 2, 1))
    labels = (tokens @ W_WIDE.T + pixels[:, :, 0] @ W_NARROW.T).argmax(axis=1)
    np.savez(tmp_path / "d.npz", tokens=tokens, pixels=pixels, y=labels)
    words = ("--data", tmp_path / "d.npz", "--precision", "int8", "-o", tmp_path / "out.edge")
    done = edge("convert", model, *words)
    assert done.status == 0, done.err
    manifest = Bundle(tmp_path / "out.edge").manifest
    assert [spec.dtype for spec in manifest.inputs] == ["int32", "uint8"]
    assert manifest.variants[0].quality.value == 100


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x0": np.zeros((12, 4))}, r"needs the arrays x0 and x1 and y, and holds x0, y"),
        ({"x0": np.zeros((12, 4)), "x1": np.zeros((12, 5))}, r"the samples in x1 are \[5\], the model takes \[2\]"),
        ({"x0": np.zeros((12, 4)), "x1": np.zeros((9, 2))}, "holds 9 samples and 12 labels"),
        ({"x0": np.zeros((12, 4)), "x1": np.full((12, 2), np.nan)}, "sample 0 holds NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit_two_inputs(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays, y=np.zeros(12))
    inputs = [TensorSpec(name="a", shape=(1, 4), dtype="float32"), TensorSpec(name="b", shape=(1, 2), dtype="float32")]
    with pytest.raises(DataError, match=says):
        data.open_samples(tmp_path / "d.npz", inputs=inputs, preprocessing=PLAIN)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((12, 1)), "x holds float64, and the model takes int32"),
        (np.full((12, 1), 2**40), "sample 0 holds a number that is no int32"),
    ],
)
def test_numbers_that_are_no_tokens(tmp_path: Path, x: np.ndarray, says: str) -> None:
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(12))
    with pytest.raises(DataError, match=says):
        data.open_samples(
            tmp_path / "d.npz", inputs=[TensorSpec(name="t", shape=(1, 1), dtype="int32")], preprocessing=PLAIN
        )
