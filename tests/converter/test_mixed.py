"""Weights in 4 and 8 bits: the layers that lose least by it, found by measuring; the file as small as was asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_converter import flatbuffer, graph
from edge_converter.errors import QuantizationError
from edge_converter.labelled import data
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import compensate, mixed, quantize
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.mixed import Sensitivity
from edge_converter.quantization.quantize import Quantized
from edge_converter.request import Silent
from edge_lab import digits
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec

IMAGES = [TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32")]


@pytest.fixture(scope="module")
def samples() -> Samples:
    return data.open_samples(
        digits.directory() / "digits_train.npz", inputs=IMAGES, preprocessing=Preprocessing()
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Integers:
    return data.first_by_content(samples, 64)


@pytest.fixture(scope="module")
def source() -> Path:
    return digits.models()[1]


@pytest.fixture(scope="module")
def content(source: Path) -> bytes:
    return flatbuffer.prepare(source.read_bytes(), where=str(source))


def layers(*pairs: tuple[float, int]) -> list[Sensitivity]:
    return [
        Sensitivity(operator=n, name=str(n), error=error, saved_bytes=saved) for n, (error, saved) in enumerate(pairs)
    ]


def error(chosen: tuple[Sensitivity, ...]) -> float:
    return sum(layer.error for layer in chosen)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_saves_as_much_at_less_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    given = layers(*zip(random.gamma(0.5, 1.0, 9).tolist(), random.integers(1, 400, 9).tolist(), strict=True))
    for wanted in random.integers(1, sum(layer.saved_bytes for layer in given), 8).tolist():
        found = mixed.cheapest(given, wanted)
        assert sum(layer.saved_bytes for layer in found) >= wanted
        best = min(
            error(some)
            for count in range(1, 10)
            for some in itertools.combinations(given, count)
            if sum(layer.saved_bytes for layer in some) >= wanted
        )
        assert error(found) == pytest.approx(best)


def test_sizes_of_real_networks_are_counted_safely() -> None:
    given = layers((1.0, 1_000_003), (1.0, 999_999), (0.1, 17))
    assert sum(layer.saved_bytes for layer in mixed.cheapest(given, 1_000_003)) >= 1_000_003


def test_nothing_to_save_takes_nothing_and_too_much_takes_all() -> None:
    given = layers((1.0, 10), (2.0, 10))
    assert mixed.cheapest(given, 0) == ()
    assert mixed.cheapest(given, -5) == ()
    assert mixed.cheapest(given, 10_000) == tuple(given)


def test_every_layer_that_can_be_in_4_bits_is_measured(content: bytes, samples: Samples, rows: Integers) -> None:
    told: list[int] = []
    found = mixed.sensitivities(
        content, samples.read(rows[:48]), samples.read(rows[48:]), where="medium", advance=told.append
    )
    whole = FloatGraph(content, where="medium")
    kinds = {whole.name(int(o.outputs[0])): whole.kind(o) for o in whole.operators}
    assert {layer.name for layer in found} == {name for name, kind in kinds.items() if kind in quantize.NARROW}
    assert all(layer.error > 0 for layer in found)
    assert sum(told) == len(found)


def test_what_a_layer_saves_is_what_the_file_loses(content: bytes, samples: Samples, rows: Integers) -> None:
    found = mixed.sensitivities(content, samples.read(rows[:48]), samples.read(rows[48:]), where="medium")
    eight = len(quantize.weights(content, (), where="medium"))
    for layer in found:
        # A scale of its own for what is stored in 4 bits, and padding.
        assert eight - len(quantize.weights(content, [layer.name], where="medium")) == pytest.approx(
            layer.saved_bytes, abs=400
        )


def test_the_file_is_as_small_as_asked_and_says_what_is_in_it(
    source: Path, content: bytes, samples: Samples, rows: Integers, tmp_path: Path
) -> None:
    most = len(quantize.weights(content, (), where="medium")) - 2000
    made = mixed.make(source, samples, rows, tmp_path / "mixed.tflite", max_size=most, progress=Silent())
    assert len(flatbuffer.shorten_names(made.path.read_bytes(), where="x")) <= most
    four = [op for op in made.graph.weighted if op.precision is Precision.WEIGHT4]
    eight = [op for op in made.graph.weighted if op.precision is Precision.WEIGHT8]
    assert four
    assert len(four) + len(eight) == len(made.graph.weighted)
    assert made.compression.parameters["layers_in_4_bits"] == len(four)


def test_without_a_size_it_takes_what_makes_next_to_no_difference() -> None:
    given = layers((0.004, 5000), (0.004, 4000), (0.006, 100), (0.02, 9000), (0.0, 50))
    chosen = mixed.cheapest(given, mixed.bearable_bytes(given))
    assert [layer.name for layer in chosen] == ["0", "1", "2", "4"]
    assert error(mixed.cheapest(layers((0.1, 10)), mixed.bearable_bytes(layers((0.1, 10))))) == 0


def test_where_no_layer_bears_4_bits_none_is_made(
    source: Path, samples: Samples, rows: Integers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed, "_TOLERATED", 1e-9)
    with pytest.raises(QuantizationError, match="no layer bears 4 bits"):
        mixed.make(source, samples, rows, tmp_path / "mixed.tflite", max_size=None, progress=Silent())


def test_a_size_that_cannot_be_reached_is_refused_with_the_least(
    source: Path, samples: Samples, rows: Integers, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match=r"bytes is what weights in 4 and 8 bits come to, and at most 100 "):
        mixed.make(source, samples, rows, tmp_path / "mixed.tflite", max_size=100, progress=Silent())


def test_too_few_samples_are_refused(source: Path, samples: Samples, rows: Integers, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="12 samples are too few"):
        mixed.make(source, samples, rows[:12], tmp_path / "mixed.tflite", max_size=None, progress=Silent())


def test_4_bits_are_packed_two_to_a_byte_the_first_below() -> None:
    from edge_converter.quantization import layer

    codes = np.array([[1, -1, 7], [-7, 0, 3]], np.int8)
    packed = layer._nibbles(codes)
    assert packed.tolist() == [0xF1, 0x97, 0x30]
    assert layer._nibbles(np.array([5], np.int8)).tolist() == [0x05]


def test_what_the_runtime_reads_is_what_was_chosen(
    content: bytes, samples: Samples, rows: Integers
) -> None:  # fmt: skip
    """The values a layer was thought to have, put into the float file, answer as the packed integers do."""
    whole = FloatGraph(content, where="medium")
    names = [whole.name(int(o.outputs[0])) for o in whole.operators if whole.kind(o) in quantize.NARROW]
    four = quantize.weights(content, names[:1], where="medium")
    inputs = whole.calls(samples.read(rows))
    packed = compensate.compensate(content, four, inputs, where="medium")
    # 8-bit layers follow the first one, so its stream is the only one both walks share: compare what it alone gives.
    alone = compensate.replacements(content, four, inputs, where="medium")
    number = next(n for n, o in enumerate(whole.operators) if whole.name(int(o.outputs[0])) == names[0])
    model = flatbuffer.parse(packed.content, where="packed")
    stored = flatbuffer.unpacked(model)
    twin = next(
        o
        for o in model.subgraphs[0].operators
        if bytes(model.subgraphs[0].tensors[o.outputs[0]].name).decode() == names[0]
    )
    tensor = model.subgraphs[0].tensors[stored[int(twin.inputs[1])]]
    assert flatbuffer.TYPE_NAMES[tensor.type] == "int4"
    raw = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.uint8)
    codes = np.stack([raw & 0x0F, raw >> 4], axis=1).reshape(-1).astype(np.int8)
    codes = np.where(codes > 7, codes - 16, codes)
    weights = alone[number][int(whole.operators[number].inputs[1])]
    scales = np.asarray(tensor.quantization.scale).reshape(-1, *([1] * (weights.ndim - 1)))
    assert np.abs(codes).max() <= 7
    np.testing.assert_allclose(codes[: weights.size].reshape(weights.shape) * scales, weights, atol=1e-6)
    with Engine(packed.content) as engine:
        assert np.isfinite(engine.run([digits.held_out()[0][:4]])[0]).all()


def test_a_bundle_holds_what_is_small_enough(edge: Callable[..., object], tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.npz"
    images, labels = digits.held_out()
    np.savez(held_out, x=images, y=labels)
    calibration = digits.directory() / "digits_train.npz"
    out = tmp_path / "digits-1.edge"
    done = edge(
        "convert", digits.models()[1], "--data", held_out, "--calibration", calibration,
        "--max-size", "33kB", "--precision", "fp16", "--precision", "mixed", "--profile", "rpi4", "-o", out,
    )  # fmt: skip
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    kept = {variant.id: variant for variant in manifest.variants}
    assert "mixed" in kept
    assert kept["mixed"].precision is Precision.MIXED
    assert all(variant.size_bytes <= 33_000 for variant in kept.values() if variant.id != "fp32")
    assert "at most 33,000 are allowed" in next(one.reason for one in manifest.refused if one.id == "fp16")


@pytest.mark.parametrize("size", ["0", "-1", "3.4 MB", "1e6", "MB", "3,4MB", "3.4mb", "9" * 20 + "GB"])
def test_a_size_that_is_none_is_refused(edge: Callable[..., object], size: str, tmp_path: Path) -> None:
    done = edge("convert", "m.tflite", "--data", "d.npz", f"--max-size={size}", "-o", tmp_path / "a.edge")
    assert done.status == 2
    assert "is no size, such as 3.4MB" in done.err


def test_equal_scales_are_written_once_and_long_names_cut(content: bytes, source: Path, tmp_path: Path) -> None:
    eight = quantize.weights(content, (), where="medium")
    model = flatbuffer.parse(eight, where="medium")
    long = b"a" * 200 + b";b" * 200
    inside = int(model.subgraphs[0].operators[-2].outputs[0])
    model.subgraphs[0].tensors[inside].name = long
    named = flatbuffer.serialize(model)
    short = flatbuffer.shorten_names(named, where="medium")
    assert len(short) < len(named) - 500
    (tmp_path / "short.tflite").write_bytes(short)
    assert graph.read(tmp_path / "short.tflite").inputs == graph.read(source).inputs
    images = digits.held_out()[0][:8]
    with Engine(eight) as one, Engine(short) as other:
        np.testing.assert_array_equal(one.run([images])[0], other.run([images])[0])


def made(source: Path, precision: Precision, path: Path) -> Quantized:
    return quantize.quantize(source, precision, path)


@pytest.mark.parametrize(
    ("precision", "version"), [(Precision.FP16, 3), (Precision.WEIGHT8, 5), (Precision.WEIGHT4, 6)]
)
def test_unpacking_is_stamped_with_the_version_that_can(
    precision: Precision, version: int, source: Path, tmp_path: Path
) -> None:
    model = flatbuffer.read(made(source, precision, tmp_path / "made.tflite").path)
    versions = [
        code.version
        for code in model.operatorCodes
        if flatbuffer.OP_NAMES[code.builtinCode] == "DEQUANTIZE"
    ]  # fmt: skip
    assert max(versions) == version
