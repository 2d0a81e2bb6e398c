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
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edge_converter import flatbuffer, rounding
from edge_converter.data import Integers, Samples
from edge_converter.layerwise import Array, FloatGraph, OneOperator
from edge_converter.quantize import Quantized
from edge_sdk.engine import Engine
from edge_sdk.manifest import Pass

_log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

_MOST = 127
# Rows of a layer's input that its moments are taken from; more change nothing and cost time.
_ROWS = 49_152
_ROWS_EACH = 12_288  # of a depthwise layer, which has fewer taps
# Both streams of one tensor, and the patches of one layer, at the most.
_STREAM_BYTES = 600_000_000
_FEWEST = 8
_CONV = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SAME = 0  # schema: Padding.SAME
_INT32 = 2**31 - 1
_FEWEST_TO_CHECK = 4
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
    return max(_FEWEST, min(wanted, _STREAM_BYTES // (4 * max(largest, 1))))


def compensate(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], *, where: str, seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Compensated:  # fmt: skip
    """Choose the integers of `quantized` anew.

    Args:
        source: The float file.
        quantized: What the quantizer made of it: int8 weights and activations, tensors named as in the source.
        inputs: Calibration samples by input tensor of the source, `[samples, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.
        advance: Told of each operator that is done.

    Returns:
        The same file with other weights and biases, or as it was where no layer could be matched.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    walk = _Walk(FloatGraph(source, where=where), flatbuffer.parse(quantized, where=where), seed)
    layers = walk.through(inputs, advance)
    count = len(next(iter(inputs.values())))
    content = flatbuffer.serialize(walk.file) if layers else quantized
    return Compensated(content=content, layers=layers, samples=count)


def refine(source: Path, made: Quantized, samples: Samples, rows: Integers) -> Quantized:
    """The int8 file with integers chosen anew, where that brings its answers closer to the float file's.

    A quarter of the samples is kept apart to find out whether it does; the file at `made.path` is replaced if so.

    Args:
        source: The float file.
        made: The int8 file made of it.
        samples: Calibration data.
        rows: Of it.
    """
    content = flatbuffer.prepare(source.read_bytes(), where=str(source))
    graph = FloatGraph(content, where=str(source))
    count = samples_that_fit(graph, len(rows))
    check = count // 4
    if len(graph.inputs) != 1 or check < _FEWEST_TO_CHECK:
        return made
    plain = made.path.read_bytes()
    inputs = samples.read(rows[: count - check])[:, np.newaxis]
    try:
        chosen = compensate(content, plain, {graph.inputs[0]: inputs}, where=str(source))
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
        _log.info("%s: integers are rounded to the nearest: %s", source.name, str(cause))
        return made
    if not chosen.layers:
        return made
    apart = samples.read(rows[count - check : count])
    wanted = _scores(content, apart)
    if _distance(chosen.content, apart, wanted) >= _distance(plain, apart, wanted):
        return made
    made.path.write_bytes(chosen.content)
    return replace(
        made,
        compression=Pass(
            name=made.compression.name,
            parameters={**made.compression.parameters, "rounding": "compensated", "samples": chosen.samples},
        ),
    )


def _distance(content: bytes, samples: Array, wanted: Sequence[Array]) -> float:
    """Mean square between a file's scores and those wanted, relative to each output's own variance."""
    return sum(
        float(np.mean((one - other) ** 2)) / max(float(np.var(other)), _NO_VARIANCE)
        for one, other in zip(_scores(content, samples), wanted, strict=True)
    )


def _scores(content: bytes, samples: Array) -> list[Array]:
    """What a file answers before it turns scores into shares, in which 8 bits would hide every difference."""
    model = flatbuffer.parse(content, where="a calibrated file")
    graph = _graph(model)
    for number, operator in enumerate(graph.operators):
        if flatbuffer.op_name(model, operator) in _SHARES:
            graph.outputs = np.array([operator.inputs[0]], np.int32)
            graph.operators = graph.operators[:number]
            model.signatureDefs = []
            content = flatbuffer.serialize(model)
            break
    with Engine(content, threads=1) as engine:
        found: list[Array] = engine.run([samples])
        return found


class _Walk:
    """The state of one pass: both streams, and the file that is written into."""

    def __init__(self, graph: FloatGraph, file: Any, seed: int) -> None:
        self.file = file
        self._graph = graph
        self._random = np.random.default_rng(seed)
        self._tensors = {bytes(entry.name or b"").decode("utf-8", "replace"): entry for entry in _graph(file).tensors}
        self._made_by = {self._name(operator.outputs[0]): operator for operator in _graph(file).operators}
        self._trained: dict[int, Array] = {}
        self._quantized: dict[int, Array] = {}

    def through(self, inputs: Mapping[int, Floats], advance: Callable[[int], None]) -> int:
        """Walk the whole graph; returns how many layers got other integers."""
        layers = 0
        for tensor, samples in inputs.items():
            self._trained[tensor] = samples
            self._quantized[tensor] = self._as_stored(tensor, samples)
        for number, operator in enumerate(self._graph.operators):
            layers += self._pass(operator)
            for tensor in [t for t in self._trained if self._graph.last_read.get(t, -1) <= number]:
                if tensor not in self._graph.outputs:
                    del self._trained[tensor], self._quantized[tensor]
            advance(1)
        return layers

    def _pass(self, operator: Any) -> bool:
        one = OneOperator(self._graph, operator)
        if any(tensor not in self._trained for tensor in one.computed):
            raise ValueError(f"{self._graph.kind(operator)} reads what was not computed")
        output = int(operator.outputs[0])
        trained = one.run([self._trained[tensor] for tensor in one.computed])
        layer = self._layer(operator)
        if layer is not None:
            weights, bias = layer.choose(self._trained[one.computed[0]], self._quantized[one.computed[0]], self._random)
            one = OneOperator(self._graph, operator, {layer.weights_at: weights, layer.bias_at: bias})
        quantized = one.run([self._quantized[tensor] for tensor in one.computed])
        self._trained[output] = trained
        self._quantized[output] = self._as_stored(output, quantized)
        return layer is not None

    def _layer(self, operator: Any) -> _Layer | None:
        """The layer behind an operator, if it is one whose integers can be chosen."""
        kind = self._graph.kind(operator)
        inputs = [int(index) for index in operator.inputs]
        twin = self._made_by.get(self._graph.name(int(operator.outputs[0])))
        if kind not in _CONV or twin is None or len(inputs) < 3 or inputs[2] < 0:  # noqa: PLR2004 - no bias, no mending
            return None
        weights = self._graph.constant(inputs[1])
        stored, bias = (_graph(self.file).tensors[index] for index in twin.inputs[1:3])
        is_int8 = flatbuffer.TYPE_NAMES[stored.type] == "int8" and flatbuffer.TYPE_NAMES[bias.type] == "int32"
        if weights is None or weights.dtype != np.float32 or not is_int8 or _dilated(operator):
            return None
        activation = self._tensors.get(self._name(twin.inputs[0]))
        if activation is None or activation.quantization is None or activation.quantization.scale is None:
            return None
        trained_bias = self._graph.constant(inputs[2])
        if trained_bias is None:
            return None
        return _Layer(
            kind=kind,
            options=operator.builtinOptions,
            weights=weights,
            bias=trained_bias.astype(np.float64),
            weights_at=inputs[1],
            bias_at=inputs[2],
            stored=stored,
            stored_bias=bias,
            input_scale=float(activation.quantization.scale[0]),
            file=self.file,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A convolution or dense layer in both files."""

    kind: str
    options: Any
    weights: Floats
    bias: Matrix
    weights_at: int
    bias_at: int
    stored: Any
    stored_bias: Any
    input_scale: float
    file: Any

    def choose(self, trained: Floats, quantized: Floats, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Choose the integers, write them into the file, and return what they stand for: weights and bias."""
        each = self.kind == "DEPTHWISE_CONV_2D"
        rows = _Rows(self, trained.shape, random, _ROWS_EACH if each else _ROWS)
        there, should = rows.of(quantized), rows.of(trained)
        matrix = self._matrix()
        if each:
            codes, scales, shift = _choose_each(matrix, there, should)
        else:
            codes, scales, shift = _choose(matrix, there, should)
        return self._write(codes, scales.astype(np.float32), self.bias + shift)

    def _matrix(self) -> Matrix:
        """`[taps, channels]`."""
        weights = self.weights.astype(np.float64)
        if self.kind == "DEPTHWISE_CONV_2D":  # [1, h, w, channels]
            each: Matrix = weights.reshape(-1, weights.shape[-1])
            return each
        matrix: Matrix = weights.reshape(len(weights), -1).T
        return matrix  # [channels, h, w, inputs] or [channels, inputs]

    def _write(self, codes: Matrix, scales: Floats, bias: Matrix) -> tuple[Floats, Floats]:
        shape = self.weights.shape
        stacked = codes if self.kind == "DEPTHWISE_CONV_2D" else codes.T
        integers = stacked.reshape(shape).astype(np.int8)
        bias_scales = np.float64(self.input_scale) * scales
        whole = np.clip(np.rint(bias / bias_scales), -_INT32, _INT32).astype(np.int32)
        _put(self.file, self.stored, integers, scales)
        _put(self.file, self.stored_bias, whole, bias_scales.astype(np.float32))
        spread = scales if self.kind == "DEPTHWISE_CONV_2D" else scales.reshape(-1, *([1] * (len(shape) - 1)))
        return integers.astype(np.float32) * spread, (whole * bias_scales).astype(np.float32)


class _Rows:
    """The patches of a layer's input that some of its output positions see, the same ones of both streams."""

    def __init__(self, layer: _Layer, shape: tuple[int, ...], random: np.random.Generator, most: int) -> None:
        self._each = layer.kind == "DEPTHWISE_CONV_2D"
        if layer.kind == "FULLY_CONNECTED":
            self._window, self._stride, padded, size = (1, 1), (1, 1), False, (1, 1)
            self._flat: int | None = layer.weights.shape[-1]
            count = math.prod(shape) // self._flat
        else:
            self._flat = None
            self._window = layer.weights.shape[1], layer.weights.shape[2]
            self._stride = int(layer.options.strideH), int(layer.options.strideW)
            padded, size = layer.options.padding == _SAME, (shape[-3], shape[-2])
            count = math.prod(shape[:-3])
        steps = [
            -(-length // stride) if padded else (length - window) // stride + 1
            for length, window, stride in zip(size, self._window, self._stride, strict=True)
        ]
        self._pads = [
            max((step - 1) * stride + window - length, 0) if padded else 0
            for step, stride, window, length in zip(steps, self._stride, self._window, size, strict=True)
        ]
        total = count * steps[0] * steps[1]
        picked = np.arange(total) if total <= most else np.sort(random.choice(total, most, replace=False))
        self._sample, rest = picked // (steps[0] * steps[1]), picked % (steps[0] * steps[1])
        self._row, self._column = rest // steps[1] * self._stride[0], rest % steps[1] * self._stride[1]

    def of(self, stream: Floats) -> Floats:
        """`[rows, taps]`, of a depthwise layer `[rows, taps, channels]`."""
        if self._flat is not None:
            flat: Floats = stream.reshape(-1, self._flat)[self._sample]
            return flat
        stream = stream.reshape(-1, *stream.shape[-3:])
        (high, wide), (tall, broad) = self._window, self._pads
        if tall or broad:
            stream = np.pad(stream, ((0, 0), (tall // 2, tall - tall // 2), (broad // 2, broad - broad // 2), (0, 0)))
        found = np.empty((len(self._sample), high, wide, stream.shape[3]), np.float32)
        for down in range(high):
            for right in range(wide):
                found[:, down, right] = stream[self._sample, self._row + down, self._column + right]
        patches: Floats = found.reshape(len(found), high * wide, -1) if self._each else found.reshape(len(found), -1)
        return patches


def _choose(weights: Matrix, there: Floats, should: Floats) -> tuple[Matrix, Matrix, Matrix]:
    """Integers, scales, and what the bias has to add, of a layer whose channels see the same inputs."""
    mean_there, mean_should = there.mean(axis=0, dtype=np.float64), should.mean(axis=0, dtype=np.float64)
    centred = there - mean_there.astype(np.float32)
    lacking = should - mean_should.astype(np.float32) - centred
    moments = (centred.T @ centred).astype(np.float64) / len(centred)
    cross = (centred.T @ lacking).astype(np.float64) / len(centred)
    wanted = rounding.aimed(weights, moments, cross)
    scales = rounding.largest(wanted, most=_MOST)
    codes = rounding.compensated(wanted, moments, scales, most=_MOST)
    return codes, scales, mean_should @ weights - mean_there @ (codes * scales)


def _choose_each(weights: Matrix, there: Floats, should: Floats) -> tuple[Matrix, Matrix, Matrix]:
    """The same of a depthwise layer: `[rows, taps, channels]`."""
    mean_there, mean_should = there.mean(axis=0, dtype=np.float64), should.mean(axis=0, dtype=np.float64)
    centred = there - mean_there.astype(np.float32)
    lacking = should - mean_should.astype(np.float32) - centred
    moments = np.einsum("pic,pjc->cij", centred, centred, optimize=True).astype(np.float64) / len(centred)
    cross = np.einsum("pic,pjc->cij", centred, lacking, optimize=True).astype(np.float64) / len(centred)
    wanted = rounding.aimed_each(weights, moments, cross)
    scales = rounding.largest(wanted, most=_MOST)
    codes = rounding.compensated_each(wanted, moments, scales, most=_MOST)
    return codes, scales, (mean_should * weights).sum(axis=0) - (mean_there * codes * scales).sum(axis=0)


def _put(file: Any, tensor: Any, values: Array, scales: Floats) -> None:
    """Write a constant and its scales; a buffer that several tensors share is left to the others."""
    old = tensor.quantization
    if len(old.scale) == 1 and len(scales) > 1:
        raise ValueError("the quantizer gave this layer one scale for all channels")
    shared = sum(entry.buffer == tensor.buffer for graph in file.subgraphs for entry in graph.tensors) > 1
    if shared:
        file.buffers.append(schema.BufferT())
        tensor.buffer = len(file.buffers) - 1
    file.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    old.scale = scales


def _graph(file: Any) -> Any:
    return file.subgraphs[0]


def _dilated(operator: Any) -> bool:
    options = operator.builtinOptions
    return any(int(getattr(options, name, 1)) != 1 for name in ("dilationHFactor", "dilationWFactor"))
