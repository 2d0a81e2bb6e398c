"""Channels brought to one scale: the network answers as before, and one grid fits them better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.quantization import answers, equalize, ranges
from edge_converter.quantization.equalize import Aim
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.ranges import Observed
from edge_lab import digits


def prepared(path: Path) -> bytes:
    return flatbuffer.prepare(path.read_bytes(), where=path.stem)


def observed(content: bytes) -> dict[str, Observed]:
    images = digits.held_out()[0][:64]
    return ranges.observe(content, {FloatGraph(content, where="x").inputs[0]: images[:, np.newaxis]}, where="x")


def largest(content: bytes) -> dict[str, np.ndarray]:
    return {name: one.channels for name, one in observed(content).items()}


def unclipped(path: Path) -> bytes:
    """The same network with ReLU for ReLU6."""
    model = flatbuffer.parse(prepared(path), where="x")
    for operator in model.subgraphs[0].operators:
        if getattr(operator.builtinOptions, "fusedActivationFunction", 0) == schema.ActivationFunctionType.RELU6:
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return flatbuffer.serialize(model)


@pytest.mark.parametrize("source", digits.models()[:2], ids=lambda path: path.stem)
@pytest.mark.parametrize("aim", Aim)
def test_the_network_answers_as_before(source: Path, aim: Aim) -> None:
    content = unclipped(source)
    made = equalize.equalize(content, largest(content), aim, where="x")
    images = [digits.held_out()[0]]
    assert made.groups
    assert answers.distance(made.content, images, answers.scores(content, images)) < 1e-9


def test_channels_reach_equally_far_afterwards() -> None:
    content = unclipped(digits.models()[1])
    made = equalize.equalize(content, largest(content), Aim.ACTIVATIONS, where="x")
    before, after = largest(content), largest(made.content)

    def unevenness(channels: np.ndarray) -> float:
        return float(np.log(channels[channels > 0]).std())

    moved = [name for name in before if not np.allclose(before[name], after[name], rtol=1e-3)]
    assert moved
    assert sum(unevenness(after[name]) for name in moved) < 0.6 * sum(unevenness(before[name]) for name in moved)


def test_what_relu6_clips_keeps_its_scale() -> None:
    content = prepared(digits.models()[1])
    images = [digits.held_out()[0]]
    wanted = answers.scores(content, images)
    made = equalize.equalize(content, largest(content), Aim.ACTIVATIONS, where="x", margin=4.0)
    assert answers.distance(made.content, [images[0][:64]], [one[:64] for one in wanted]) < 1e-9
    assert equalize.equalize(content, largest(content), Aim.ACTIVATIONS, where="x").groups == 0


def test_channels_nobody_has_seen_are_left_alone() -> None:
    content = prepared(digits.models()[0])
    assert equalize.equalize(content, {}, Aim.BOTH, where="x").content == content


def test_four_methods_give_four_ranges_that_hold_zero() -> None:
    seen = observed(prepared(digits.models()[1]))
    by_method = {method: ranges.chosen(seen, method) for method in ranges.Method}
    for found in by_method.values():
        assert all(one["min"].max() <= 0 <= one["max"].min() for one in found.values())
    for name, one in by_method[ranges.Method.MIN_MAX].items():
        assert one["max"].item() == pytest.approx(max(seen[name].high, 0.0))
        for found in by_method.values():
            assert found[name]["max"].item() <= one["max"].item() + 1e-6
    spread = {sum(one["max"].item() for one in found.values()) for found in by_method.values()}
    assert len(spread) == len(ranges.Method)


def test_what_is_asked_and_what_the_answer_is_read_from_are_covered_whole() -> None:
    seen = observed(prepared(digits.models()[1]))
    decides = [name for name, one in seen.items() if one.is_whole]
    assert decides
    for method in ranges.Method:
        found = ranges.chosen(seen, method)
        assert all(found[name]["max"].item() >= seen[name].high - 1e-6 for name in decides)


def test_the_zeros_of_a_rectifier_do_not_narrow_the_range_by_entropy() -> None:
    values = np.maximum(np.random.default_rng(0).normal(0.0, 1.5, 200_000), 0.0)  # half of them are 0
    counts, _ = np.histogram(values, bins=2048, range=(0.0, values.max()))
    seen = Observed(low=0.0, high=float(values.max()), counts=counts.astype(float), channels=np.zeros(1), rank=2)
    high = ranges.chosen({"x": seen}, ranges.Method.ENTROPY)["x"]["max"].item()
    assert (values > high).mean() < 0.001


def test_the_least_square_range_clips_what_is_rare() -> None:
    counts = np.zeros(2048)
    counts[:200], counts[-1] = 10_000.0, 1.0
    one = Observed(low=0.0, high=100.0, counts=counts, channels=np.ones(1, np.float32), rank=4)
    high = ranges.chosen({"x": one}, ranges.Method.MSE)["x"]["max"].item()
    assert 9.0 < high < 60.0


def test_infinity_is_named() -> None:
    content = prepared(digits.models()[0])
    graph = FloatGraph(content, where="x")
    images = np.full((4, 1, 8, 8, 1), np.inf, np.float32)
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranges.observe(content, {graph.inputs[0]: images}, where="x")
