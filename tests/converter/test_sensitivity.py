"""What each layer alone costs, and int8 with the costliest of them in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import flatbuffer, graph
from edge_converter.errors import QuantizationError
from edge_converter.labelled import data
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import answers, partial, quantize, sensitivity
from edge_converter.quantization.bench import Bench, open_bench
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
    content = flatbuffer.prepare(SOURCE.read_bytes(), where="x")
    images = [digits.held_out()[0][:100]]
    told: list[int] = []
    plain = quantize.quantize(
        SOURCE, Precision.INT8, tmp_path / "plain", ranges=quantize.calibrate(SOURCE, samples, rows, threads=1)
    )
    found = sensitivity.int8(content, plain.path.read_bytes(), images, where="x", advance=told.append)
    assert [layer.name for layer in found] == [op.name for op in plain.graph.weighted]
    assert sum(told) == len(found)
    assert all(layer.error > 0 and layer.weights > 0 for layer in found)
    whole = answers.distance(plain.path.read_bytes(), images, answers.scores(content, images))
    assert all(layer.error < 1.5 * whole for layer in found)


@pytest.fixture(scope="module")
def content() -> bytes:
    return flatbuffer.prepare(SOURCE.read_bytes(), where="x")


@pytest.fixture(scope="module")
def bench(content: bytes, samples: Samples, rows: Integers) -> Bench:
    return open_bench(content, samples, rows, where="x")


@pytest.fixture(scope="module")
def found_ranges(samples: Samples, rows: Integers) -> dict[str, Any]:
    return quantize.calibrate(SOURCE, samples, rows, threads=1)


def in_float(content: bytes) -> set[str]:
    return {op.name for op in graph.parsed(content, where="x").weighted if op.precision is Precision.FP32}


def test_where_int8_will_do_no_layer_stays_float(
    content: bytes, bench: Bench, found_ranges: dict[str, Any], tmp_path: Path
) -> None:
    found = partial.make(content, found_ranges, bench, tmp_path, accepts=lambda _: True, where="x")
    assert (found.others, found.layers, found.tries) == ((), (), 1)
    assert in_float(found.content) == set()


def test_as_few_layers_stay_float_as_the_bound_needs(
    content: bytes, bench: Bench, found_ranges: dict[str, Any], tmp_path: Path
) -> None:
    found = partial.make(
        content, found_ranges, bench, tmp_path, accepts=lambda made: len(in_float(made)) >= 2, where="x", most=0.9
    )
    assert len(found.others) == 2
    costliest = sorted(found.layers, key=lambda layer: -layer.error)[:2]
    assert set(found.others) == {layer.name for layer in costliest} == in_float(found.content)
    assert np.isfinite(answers.scores(found.content, [digits.held_out()[0][:50]])[0]).all()


def test_what_is_never_good_enough_is_refused(
    content: bytes, bench: Bench, found_ranges: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match="not good enough"):
        partial.make(content, found_ranges, bench, tmp_path, accepts=lambda _: False, where="x")
