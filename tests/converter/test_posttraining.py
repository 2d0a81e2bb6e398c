"""All number formats of one float file made together: what each is, what it loses, and what could not be done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_converter import answers, data, flatbuffer, graph, posttraining, quantize, rounding, transfer
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.posttraining import Want
from edge_converter.quantize import Granularity, Quantized
from edge_lab import digits
from edge_sdk.manifest import Precision, Preprocessing

FORMATS = (Precision.FP16, Precision.DYNAMIC, Precision.INT8, Precision.INT16X8, Precision.WEIGHT8, Precision.WEIGHT4)


@pytest.fixture(scope="module")
def samples() -> Samples:
    path = digits.directory() / "digits_train.npz"
    return data.open_samples(path, inputs=graph.read(digits.models()[0]).inputs, preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Integers:
    return data.first_by_content(samples, 64)


def error(path: Path, source: Path) -> float:
    images = [digits.held_out()[0]]
    wanted = answers.scores(flatbuffer.prepare(source.read_bytes(), where="x"), images)
    return answers.distance(path.read_bytes(), images, wanted)


def made(found: list[Quantized | QuantizationError]) -> list[Quantized]:
    assert not [one for one in found if isinstance(one, QuantizationError)]
    return [one for one in found if isinstance(one, Quantized)]


def test_every_format_is_made_and_says_what_was_done(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    source = digits.models()[1]
    wants = [Want(precision=each, into=tmp_path / each.value) for each in FORMATS]
    found = made(posttraining.make(source, samples, rows, wants))
    assert [one.graph.precision for one in found] == list(FORMATS)
    told = {one.graph.precision: one.compression.parameters for one in found}
    assert told[Precision.INT8]["ranges"] in {method.value for method in posttraining.METHODS}
    assert "equalized_channels" in told[Precision.INT8]
    for precision in (Precision.INT8, Precision.WEIGHT8, Precision.WEIGHT4):
        assert float(told[precision]["error"]) < 0.1
    ranges = quantize.calibrate(source, samples, rows, threads=1)
    plain = quantize.quantize(source, Precision.INT8, tmp_path / "plain", ranges=ranges)
    assert error(tmp_path / "int8", source) < error(plain.path, source)


def test_one_scale_a_layer_is_what_the_file_has(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    source = digits.models()[1]
    want = Want(precision=Precision.INT8, into=tmp_path / "made", granularity=Granularity.TENSOR)
    (one,) = made(posttraining.make(source, samples, rows, [want]))
    file = flatbuffer.read(one.path)
    for operator in file.subgraphs[0].operators:
        if flatbuffer.op_name(file, operator) in {*quantize.NARROW, "DEPTHWISE_CONV_2D"}:
            assert len(file.subgraphs[0].tensors[operator.inputs[1]].quantization.scale) == 1
    assert one.compression.parameters["weights"] == "tensorwise"
    ranges = quantize.calibrate(source, samples, rows, threads=1)
    plain = quantize.quantize(
        source, Precision.INT8, tmp_path / "plain", ranges=ranges, granularity=Granularity.TENSOR
    )  # fmt: skip
    assert error(one.path, source) < 0.7 * error(plain.path, source)


def test_a_file_travels_in_as_few_bytes_as_asked(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    source = digits.models()[1]
    whole, light = tmp_path / "whole", tmp_path / "light"
    made(posttraining.make(source, samples, rows, [Want(precision=Precision.INT8, into=whole)]))
    most = int(0.8 * transfer.transfer_bytes(flatbuffer.shorten_names(whole.read_bytes(), where="x")))
    want = Want(precision=Precision.INT8, into=light, max_transfer=most)
    (one,) = made(posttraining.make(source, samples, rows, [want]))
    assert 0.85 * most < transfer.transfer_bytes(light.read_bytes()) <= most
    assert one.graph.precision is Precision.INT8
    assert float(one.compression.parameters["price"]) > 0


def test_a_size_that_cannot_be_is_refused_and_the_rest_is_made(
    samples: Samples, rows: Integers, tmp_path: Path
) -> None:  # fmt: skip
    wants = [
        Want(precision=Precision.INT8, into=tmp_path / "tiny", max_transfer=1000),
        Want(precision=Precision.WEIGHT8, into=tmp_path / "weight8"),
    ]
    refused, kept = posttraining.make(digits.models()[0], samples, rows, wants)
    assert isinstance(refused, QuantizationError)
    assert "1,000 are allowed" in refused.what
    assert isinstance(kept, Quantized)


def test_too_few_samples_leave_the_quantizers_integers_and_say_so(
    samples: Samples, rows: Integers, tmp_path: Path
) -> None:  # fmt: skip
    wants = [
        Want(precision=Precision.INT8, into=tmp_path / "int8"),
        Want(precision=Precision.INT8, into=tmp_path / "light", price=1e-7),
    ]
    plain, light = posttraining.make(digits.models()[0], samples, rows[:8], wants)
    assert isinstance(plain, Quantized)
    assert plain.compression.parameters["rounding"] == "nearest"
    assert "too few" in str(plain.compression.parameters["because"])
    assert isinstance(light, QuantizationError)


def test_the_same_samples_give_the_same_bytes(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    for name in ("a", "b"):
        want = Want(precision=Precision.INT8, into=tmp_path / name, price=1e-7)
        made(posttraining.make(digits.models()[0], samples, rows, [want]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_integers_that_are_paid_for_take_fewer_bits_for_the_same_error() -> None:
    random = np.random.default_rng(0)
    weights, inputs = random.laplace(size=(64, 32)), random.normal(size=(1024, 64))
    moments = inputs.T @ inputs / len(inputs)
    price = np.full(32, 1e-2)
    scales = rounding.steps_for(moments, price)

    def bits(codes: np.ndarray) -> float:
        share = np.unique(codes, return_counts=True)[1] / codes.size
        return float(-(share * np.log2(share)).sum())

    def lost(codes: np.ndarray, scales: np.ndarray) -> float:
        off = weights - codes * scales
        return float(np.einsum("ic,ij,jc->", off, moments, off))

    paid = rounding.compensated(weights, moments, scales, most=127, price=price)
    coarse = [
        (bits(codes), lost(codes, scales * factor))
        for factor in (1.0, 1.1, 1.2, 1.3, 1.5)
        for codes in [rounding.compensated(weights, moments, scales * factor, most=127)]
    ]
    alike = [off for entropy, off in coarse if entropy >= bits(paid)]
    assert bits(paid) < coarse[0][0]
    assert lost(paid, scales) < 1.1 * max(alike)
