"""int8 weights chosen by what comes out of a layer, each layer in the knowledge of what the ones before it got wrong.

The quantizer decides the file: its operators, its scales, its order. Here the integers inside are chosen anew. Two
streams of the calibration samples run through the float graph side by side, operator by operator: one as trained, one
as the quantized file will have it. At each convolution and dense layer the weights are aimed at the trained answers on
the inputs there will be (`rounding.aimed`), rounded with compensation, and the bias takes up what is left of the mean.

Nothing is learned from labels, and nothing is trained: a few dozen samples and one pass suffice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_converter import batches, flatbuffer
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.follower import Follower, Twin
from edge_converter.layer import Looks
from edge_converter.layerwise import FloatGraph, OneOperator
from edge_converter.quantize import Quantized
from edge_converter.values import Array, Floats, Values
from edge_sdk.engine import Engine
from edge_sdk.manifest import Pass

_log = logging.getLogger(__name__)

# Both streams of one tensor, and the patches of one layer, at the most.
_STREAM_BYTES = 700_000_000
_FEWEST = 8
FEWEST_TO_CHECK = 4
_NO_VARIANCE = 1e-12
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensated:
    """The file with other integers in it.

    Attributes:
        layers: How many were chosen anew.
        samples: Of the calibration set that were used.
        skipped: Layers that keep the quantizer's integers, and why, one line each.
    """

    content: bytes
    layers: int
    samples: int
    skipped: tuple[str, ...] = ()


def samples_that_fit(graph: FloatGraph, wanted: int) -> int:
    """How many samples may be streamed at once, by the largest tensor of the graph."""
    largest = max(
        (
            math.prod(max(1, int(size)) for size in entry.shape)
            for entry in graph.graph.tensors
            if entry.shape is not None
        ),
        default=1,
    )
    return min(wanted, max(_FEWEST, _STREAM_BYTES // (4 * max(largest, 1))))


def compensate(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], *, where: str, seed: int = 0,
    most: int | None = None, advance: Callable[[int], None] = lambda _: None,
) -> Compensated:  # fmt: skip
    """Choose the integers of one file anew; see `compensate_all`."""
    return compensate_all(
        source, [Twin(content=quantized, most=most)], inputs, where=where, seed=seed, advance=advance
    )[0]


def compensate_all(
    source: bytes, twins: Sequence[Twin], inputs: Mapping[int, Floats], *, where: str, seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Compensated]:  # fmt: skip
    """Choose the integers of several files made of one float file, in one walk through its graph.

    What the trained stream computes, and what each layer should see, is found once for all of them.

    Requires: a float file of one subgraph whose operators the runtime computes alone; twins whose activations bear its
    names. Ensures: the twins' operators, shapes and scales of activations are as they were.

    Args:
        source: The float file.
        twins: The files.
        inputs: Calibration samples by input tensor of the source, `[calls, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.
        advance: Told of each operator that is done.

    Returns:
        The same files with other weights and biases, or as they were where no layer could be matched.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    walk = _Walk(FloatGraph(source, where=where), [Follower(twin, where=where) for twin in twins], seed)
    walk.through(inputs, advance)
    count = len(next(iter(inputs.values())))
    return [
        Compensated(
            content=flatbuffer.serialize(follower.file) if follower.replaced else twin.content,
            layers=len(follower.replaced),
            samples=count,
            skipped=tuple(follower.skipped),
        )
        for twin, follower in zip(twins, walk.followers, strict=True)
    ]


Replaced = Mapping[int, Floats]


def replacements(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], *, where: str, seed: int = 0
) -> Mapping[int, Replaced]:
    """What each layer's weights and bias become if it alone is quantized.

    Args:
        source: The float file.
        quantized: The same with weights as integers, in all layers that are to be looked at.
        inputs: Calibration samples by input tensor of the source, `[calls, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.

    Returns:
        By operator of the source: the values instead of its constants, by tensor.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    follower = Follower(Twin(content=quantized, follows=False), where=where)
    _Walk(FloatGraph(source, where=where), [follower], seed).through(inputs, lambda _: None)
    return follower.replaced


def refine(source: Path, made: Quantized, samples: Samples, rows: Integers) -> Quantized:
    """The file with integers chosen anew, where that brings its answers closer to the float file's.

    A quarter of the samples is kept apart to find out whether it does; the file at `made.path` is replaced if so.

    Args:
        source: The float file.
        made: The file with integers that was made of it.
        samples: Calibration data.
        rows: Of it.
    """
    content = flatbuffer.prepare(source.read_bytes(), where=str(source))
    graph = FloatGraph(content, where=str(source))
    count = samples_that_fit(graph, len(rows))
    check = count // 4
    if check < FEWEST_TO_CHECK:
        return made
    plain = made.path.read_bytes()
    inputs = graph.calls(samples.read(rows[: count - check]))
    try:
        chosen = compensate(content, plain, inputs, where=str(source))
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
        _log.info("%s: integers are rounded to the nearest: %s", source.name, str(cause))
        return made
    if not chosen.layers:
        return made
    apart = samples.read(rows[count - check : count])
    wanted = scores(content, apart)
    if distance(chosen.content, apart, wanted) >= distance(plain, apart, wanted):
        return made
    made.path.write_bytes(chosen.content)
    return replace(
        made,
        compression=Pass(
            name=made.compression.name,
            parameters={**made.compression.parameters, "rounding": "compensated", "samples": chosen.samples},
        ),
    )


def cluster(source: Path, made: Quantized, samples: Samples, rows: Integers, levels: int) -> Quantized:
    """The file with few distinct integers a channel, so that it travels lighter; it runs as the other does.

    The levels are evenly spaced: what is sent is coded by how often each occurs, for which an even grid is as good as
    any (Gish and Pierce, Asymptotically efficient quantizing, 1968), and it is what hardware multiplies by. Depthwise
    layers keep all levels: they are few weights, and bear little.

    Args:
        source: The float file.
        made: The file with 8-bit integers that was made of it; replaced.
        samples: Calibration data.
        rows: Of it; all choose.
        levels: How many distinct integers, odd.

    Raises:
        QuantizationError: The layers cannot be computed one by one, or there are too few samples.
    """
    where = str(source)
    content = flatbuffer.prepare(source.read_bytes(), where=where)
    graph = FloatGraph(content, where=where)
    count = samples_that_fit(graph, len(rows))
    if count < _FEWEST:
        raise QuantizationError(f"{count} samples are too few to choose the integers by", where=where)
    inputs = graph.calls(samples.read(rows[:count]))
    try:
        chosen = compensate(content, made.path.read_bytes(), inputs, where=where, most=levels // 2)
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
        raise QuantizationError(f"its layers cannot be computed one by one: {cause}", where=where) from cause
    if not chosen.layers:
        raise QuantizationError("no layer's integers could be matched with the float file's", where=where)
    made.path.write_bytes(chosen.content)
    parameters = {**made.compression.parameters, "rounding": "compensated", "samples": chosen.samples, "levels": levels}
    return replace(made, compression=Pass(name=made.compression.name, parameters=parameters))


def distance(content: bytes, samples: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Mean square between a file's scores and those wanted, relative to each output's own variance."""
    return sum(
        float(np.mean((one.astype(np.float64) - other) ** 2)) / max(float(np.var(other)), _NO_VARIANCE)
        for one, other in zip(scores(content, samples), wanted, strict=True)
    )


def scores(content: bytes, samples: Sequence[Array]) -> tuple[Array, ...]:
    """What a file answers before it turns scores into shares, in which 8 bits would hide every difference.

    Args:
        content: Of the file.
        samples: One array per input, `[samples, *shape]`.

    Returns:
        One array per output.
    """
    model = flatbuffer.parse(content, where="a calibrated file")
    graph = model.subgraphs[0]
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    ends = {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if flatbuffer.op_name(model, operator) in _SHARES and int(operator.outputs[0]) not in read
    }
    if ends:
        graph.outputs = np.array([ends[i].inputs[0] if i in ends else i for i in map(int, graph.outputs)], np.int32)
        graph.operators = [operator for operator in graph.operators if int(operator.outputs[0]) not in ends]
        model.signatureDefs = []
        content = flatbuffer.serialize(model)
    with Engine(content, threads=1) as engine:
        return batches.run(engine, samples)


class _Walk:
    """The state of one pass: the trained stream, and those of the files that are written into.

    Args:
        graph: The float file's.
        followers: The quantized files.
        seed: Of the positions that large layers are looked at.
    """

    def __init__(self, graph: FloatGraph, followers: Sequence[Follower], seed: int) -> None:
        self.followers = followers
        self._graph = graph
        self._random = np.random.default_rng(seed)
        self._trained: dict[int, Values] = {}
        self._count = 0

    def through(self, inputs: Mapping[int, Floats], advance: Callable[[int], None]) -> None:
        """Walk the whole graph."""
        for tensor, samples in inputs.items():
            self._count = len(samples)
            self._trained[tensor] = Values.of(samples)
            for follower in self.followers:
                if follower.follows:
                    follower.stream[tensor] = Values.of(samples, follower.grid(self._graph.name(tensor)))
        for number, operator in enumerate(self._graph.operators):
            self._pass(number, operator)
            for tensor in [t for t in self._trained if self._graph.last_read.get(t, -1) <= number]:
                for stream in (self._trained, *(follower.stream for follower in self.followers)):
                    stream.pop(tensor, None)
            advance(1)

    def _pass(self, number: int, operator: Any) -> None:
        one = OneOperator(self._graph, operator)
        if any(tensor not in self._trained for tensor in one.computed):
            raise ValueError(f"{self._graph.kind(operator)} reads what was not computed")
        trained = self._run(one, operator, self._trained, None)
        looks: Looks | None = None
        for follower in self.followers:
            layer = follower.layer(self._graph, operator)
            instead: dict[int, Floats] = {}
            if layer is not None:
                if looks is None:
                    looks = Looks(
                        layer.kind, layer.options, layer.weights, self._trained[one.computed[0]], self._random,
                        centred=layer.bias is not None,
                    )  # fmt: skip
                chosen = layer.choose(looks.seen(follower.stream[one.computed[0]] if follower.follows else None))
                instead[int(operator.inputs[1])] = chosen.weights
                if chosen.bias is not None:
                    instead[int(operator.inputs[2])] = chosen.bias
                follower.replaced[number] = instead
            elif follower.follows:
                instead = follower.plain(self._graph, operator)
            if follower.follows:
                twin = OneOperator(self._graph, operator, instead) if instead else one
                follower.stream.update(self._run(twin, operator, follower.stream, follower))
        self._trained.update(trained)

    def _run(
        self, one: OneOperator, operator: Any, stream: Mapping[int, Values], follower: Follower | None
    ) -> dict[int, Values]:
        """What comes out of an operator in one stream, by tensor; what nobody reads is not kept."""
        found = {}
        outputs = []
        for index in operator.outputs:
            tensor = int(index)
            values = Values(self._count, follower.grid(self._graph.name(tensor)) if follower else None)
            outputs.append(values)
            if tensor in self._graph.last_read:
                found[tensor] = values
        if found:
            one.stream([stream[tensor] for tensor in one.computed], outputs)
        return found
