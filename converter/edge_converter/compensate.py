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
from edge_converter.layer import LARGEST, Floats, Layer
from edge_converter.layerwise import Array, FloatGraph, OneOperator
from edge_converter.quantize import NARROW, Quantized
from edge_sdk.engine import Engine
from edge_sdk.manifest import Pass

_log = logging.getLogger(__name__)

# Both streams of one tensor, and the patches of one layer, at the most.
_STREAM_BYTES = 700_000_000
_FEWEST = 8
_CONV = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
FEWEST_TO_CHECK = 4
_NO_VARIANCE = 1e-12
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensated:
    """The file with other integers in it.

    Attributes:
        layers: How many were chosen anew.
        samples: Of the calibration set that were used.
    """

    content: bytes
    layers: int
    samples: int


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
    """Choose the integers of `quantized` anew.

    Args:
        source: The float file.
        quantized: What the quantizer made of it: int8 weights and activations, tensors named as in the source.
        inputs: Calibration samples by input tensor of the source, `[calls, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.
        most: The largest magnitude of an integer in large layers, where fewer than the format's are wanted.
        advance: Told of each operator that is done.

    Returns:
        The same file with other weights and biases, or as it was where no layer could be matched.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    walk = _Walk(FloatGraph(source, where=where), flatbuffer.parse(quantized, where=where), seed, most=most)
    layers = walk.through(inputs, advance)
    count = len(next(iter(inputs.values())))
    content = flatbuffer.serialize(walk.file) if layers else quantized
    return Compensated(content=content, layers=layers, samples=count)


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
    walk = _Walk(FloatGraph(source, where=where), flatbuffer.parse(quantized, where=where), seed, follows=False)
    walk.through(inputs, lambda _: None)
    return walk.replaced


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
    graph = _graph(model)
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
    """The state of one pass: both streams, and the file that is written into.

    Args:
        graph: The float file's.
        file: The quantized file, parsed.
        seed: Of the positions that large layers are looked at.
        most: The largest magnitude of an integer in large layers, where not the format's.
        follows: Each layer reads what the quantized layers before it give; else what the trained ones give.
    """

    def __init__(
        self, graph: FloatGraph, file: Any, seed: int, *, follows: bool = True, most: int | None = None
    ) -> None:
        self.file = file
        self.replaced: dict[int, dict[int, Floats]] = {}  # by operator: the constants that were chosen, by tensor
        self._graph = graph
        self._follows = follows
        self._most = most
        self._random = np.random.default_rng(seed)
        self._tensors = {bytes(entry.name or b"").decode("utf-8", "replace"): entry for entry in _graph(file).tensors}
        self._made_by = {self._name(operator.outputs[0]): operator for operator in _graph(file).operators}
        self._unpacked = flatbuffer.unpacked(file)
        self._trained: dict[int, Array] = {}
        self._quantized: dict[int, Array] = {}

    def through(self, inputs: Mapping[int, Floats], advance: Callable[[int], None]) -> int:
        """Walk the whole graph; returns how many layers got other integers."""
        for tensor, samples in inputs.items():
            self._trained[tensor] = samples
            self._quantized[tensor] = self._as_stored(tensor, samples)
        for number, operator in enumerate(self._graph.operators):
            self._pass(number, operator)
            for tensor in [t for t in self._trained if self._graph.last_read.get(t, -1) <= number]:
                if tensor not in self._graph.outputs:
                    del self._trained[tensor], self._quantized[tensor]
            advance(1)
        return len(self.replaced)

    def _pass(self, number: int, operator: Any) -> None:
        one = OneOperator(self._graph, operator)
        if any(tensor not in self._trained for tensor in one.computed):
            raise ValueError(f"{self._graph.kind(operator)} reads what was not computed")
        output = int(operator.outputs[0])
        trained = one.run([self._trained[tensor] for tensor in one.computed])
        layer = self._layer(operator)
        if layer is not None:
            chosen = layer.choose(self._trained[one.computed[0]], self._quantized[one.computed[0]], self._random)
            at_weights, at_bias = (int(index) for index in operator.inputs[1:3])
            self.replaced[number] = {at_weights: chosen.weights, at_bias: chosen.bias}
            one = OneOperator(self._graph, operator, self.replaced[number])
        self._trained[output] = self._quantized[output] = trained
        if self._follows:
            quantized = one.run([self._quantized[tensor] for tensor in one.computed])
            self._quantized[output] = self._as_stored(output, quantized)

    def _layer(self, operator: Any) -> Layer | None:
        """The layer behind an operator, if it is one whose integers can be chosen."""
        kind = self._graph.kind(operator)
        inputs = [int(index) for index in operator.inputs]
        twin = self._made_by.get(self._graph.name(int(operator.outputs[0])))
        if kind not in _CONV or twin is None or len(inputs) < 3 or inputs[2] < 0:  # noqa: PLR2004 - no bias, no mending
            return None
        weights, bias = self._graph.constant(inputs[1]), self._graph.constant(inputs[2])
        if weights is None or bias is None or weights.dtype != np.float32 or _dilated(operator):
            return None
        tensors = _graph(self.file).tensors
        at = int(twin.inputs[1])
        stored, stored_bias = tensors[self._unpacked.get(at, at)], tensors[twin.inputs[2]]
        kinds = flatbuffer.TYPE_NAMES[stored.type], flatbuffer.TYPE_NAMES[stored_bias.type]
        input_scale = None
        if kinds == ("int8", "int32"):
            activation = self._tensors.get(self._name(twin.inputs[0]))
            if activation is None or activation.quantization is None or activation.quantization.scale is None:
                return None
            input_scale = float(activation.quantization.scale[0])
        elif kinds[0] not in LARGEST or kinds[1] != "float32" or at not in self._unpacked:
            return None
        return Layer(
            kind=kind,
            options=operator.builtinOptions,
            weights=weights,
            bias=bias.astype(np.float64),
            stored=stored,
            stored_bias=stored_bias,
            input_scale=input_scale,
            file=self.file,
            most=self._most if kind in NARROW else None,
        )

    def _as_stored(self, tensor: int, values: Array) -> Array:
        """What the quantized file makes of a tensor: rounded to its scale, where it has one."""
        entry = self._tensors.get(self._graph.name(tensor))
        if entry is None or entry.quantization is None or entry.quantization.scale is None:
            return values
        if flatbuffer.TYPE_NAMES[entry.type] != "int8" or len(entry.quantization.scale) != 1:
            return values
        scale, zero = np.float32(entry.quantization.scale[0]), np.float32(entry.quantization.zeroPoint[0])
        stored = np.clip(np.rint(values / scale) + zero, -128, 127)
        result: Array = (stored - zero) * scale
        return result

    def _name(self, index: int) -> str:
        return bytes(_graph(self.file).tensors[index].name or b"").decode("utf-8", "replace")


def _graph(file: Any) -> Any:
    return file.subgraphs[0]


def _dilated(operator: Any) -> bool:
    options = operator.builtinOptions
    return any(int(getattr(options, name, 1)) != 1 for name in ("dilationHFactor", "dilationWFactor"))
