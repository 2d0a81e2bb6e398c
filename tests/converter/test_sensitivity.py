"""What each layer alone costs, and int8 with the costliest of them in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_converter import answers, data, flatbuffer, graph, partial, posttraining, quantize, sensitivity
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.posttraining import Want
from edge_converter.quantize import Quantized
from edge_lab import digits
from edge_sdk.manifest import Precision, Preprocessing

SOURCE = digits.models()[0]


@pytest.fixture(scope="module")
def samples() -> Samples:
    path = digits.directory() / "digits_train.npz"
    return data.open_samples(path, inputs=graph.read(digits.models()[0]).inputs, preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Integers:
    return data.first_by_content(samples, 64)


def test_every_layer_alone_costs_less_than_all_together(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    want = Want(precision=Precision.INT8, into=tmp_path / "int8")
    (made,) = posttraining.make(SOURCE, samples, rows, [want])
    assert isinstance(made, Quantized)
    content = flatbuffer.prepare(SOURCE.read_bytes(), where="x")
    images = [digits.held_out()[0][:100]]
    told: list[int] = []
    plain = quantize.quantize(
        SOURCE, Precision.INT8, tmp_path / "plain", ranges=quantize.calibrate(SOURCE, samples, rows, threads=1)
    )  # fmt: skip
    found = sensitivity.int8(content, plain.path.read_bytes(), images, where="x", advance=told.append)
    assert [layer.name for layer in found] == [op.name for op in made.graph.weighted]
    assert sum(told) == len(found)
    assert all(layer.error > 0 and layer.weights > 0 for layer in found)
    whole = answers.distance(plain.path.read_bytes(), images, answers.scores(content, images))
    assert all(layer.error < 1.5 * whole for layer in found)


def test_where_int8_will_do_no_layer_stays_float(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    found = partial.make(SOURCE, samples, rows, tmp_path / "made", accepts=lambda _: True)
    assert (found.floats, found.layers, found.tries) == ((), (), 1)
    assert found.quantized.graph.precision is Precision.INT8


def test_as_few_layers_stay_float_as_the_bound_needs(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    def in_float(path: Path) -> int:
        names = {op.name for op in graph.read(path).weighted if op.precision is Precision.FP32}
        return len(names)

    found = partial.make(SOURCE, samples, rows, tmp_path / "made", accepts=lambda path: in_float(path) >= 2, most=0.9)
    assert len(found.floats) == 2
    assert in_float(found.quantized.path) == 2
    costliest = sorted(found.layers, key=lambda layer: -layer.error)[:2]
    assert set(found.floats) == {layer.name for layer in costliest}
    assert len(found.quantized.exceptions) == 2
    images = [digits.held_out()[0][:50]]
    assert np.isfinite(answers.scores(found.quantized.path.read_bytes(), images)[0]).all()


def test_what_is_never_good_enough_is_refused(samples: Samples, rows: Integers, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="not good enough"):
        partial.make(SOURCE, samples, rows, tmp_path / "made", accepts=lambda _: False)
    assert not (tmp_path / "made").exists()
