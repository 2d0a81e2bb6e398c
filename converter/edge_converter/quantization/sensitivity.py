"""What each layer alone costs in a number format: the error of the whole network's scores when only it is rounded.

Measured on samples without labels, as evidence: a report can show it, and searches rank by it. For `int8` a layer's
weights stand for the quantizer's integers, and its output is rounded to the grid the int8 file has; for 4 bits the
weights are rounded with compensation (`edge_converter.quantization.mixed`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.graph import WEIGHTED
from edge_converter.quantization import answers, mixed
from edge_converter.quantization.follower import Follower, Twin
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.values import Array, Floats, Grid
from edge_sdk.manifest import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """A layer and what rounding it alone costs.

    Attributes:
        name: Of its output tensor.
        op: Such as `CONV_2D`.
        precision: The format it was rounded to.
        error: Mean square of what the network's scores differ by, relative to their variance (NMSE).
        weights: How many it has.
    """

    name: str
    op: str
    precision: Precision
    error: float
    weights: int


def int8(
    source: bytes,
    quantized: bytes,
    apart: Sequence[Array],
    *,
    where: str,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[LayerError, ...]:
    """Every layer alone in int8, in the order of the graph.

    Requires: an int8 file whose tensors bear the float file's names. Ensures: nothing is written.

    Args:
        source: The float file.
        quantized: What was made of it in int8, with or without compensation.
        apart: Samples, one array per input, `[samples, *shape]`; integers should not have been chosen by them.
        where: The source's name, for errors.
        advance: Told of each layer that is done.
    """
    graph = FloatGraph(source, where=where)
    follower = Follower(Twin(content=quantized), where=where)
    wanted = answers.scores(source, apart)
    found = []
    for operator in graph.operators:
        if graph.kind(operator) in WEIGHTED and (stands := follower.plain(graph, operator)):
            output = int(operator.outputs[0])
            alone = _rounded(source, stands, output, follower.grid(graph.name(output)), where=where)
            error = answers.distance(alone, apart, wanted)
            found.append(_layer(graph, operator, Precision.INT8, error))
            advance(1)
    return tuple(found)


def four_bits(
    source: bytes,
    samples: Sequence[Array],
    apart: Sequence[Array],
    *,
    where: str,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[LayerError, ...]:
    """Every layer that can be stored in 4 bits, alone in 4 bits; see `mixed.sensitivities`."""
    graph = FloatGraph(source, where=where)
    return tuple(
        _layer(graph, graph.operators[one.operator], Precision.WEIGHT4, one.error)
        for one in mixed.sensitivities(source, samples, apart, where=where, advance=advance)
    )


def _layer(graph: FloatGraph, operator: Any, precision: Precision, error: float) -> LayerError:
    return LayerError(
        name=graph.name(int(operator.outputs[0])),
        op=graph.kind(operator),
        precision=precision,
        error=error,
        weights=max(_elements(graph, operator), default=0),
    )


def _elements(graph: FloatGraph, operator: Any) -> Iterator[int]:
    for index in operator.inputs:
        if graph.constant(int(index)) is not None:
            yield math.prod(int(size) for size in graph.graph.tensors[int(index)].shape)


def _rounded(source: bytes, stands: Mapping[int, Floats], output: int, grid: Grid | None, *, where: str) -> bytes:
    """The float file with other constants in one layer, and its output rounded to a grid."""
    model = flatbuffer.parse(source, where=where)
    graph = model.subgraphs[0]
    for tensor, value in stands.items():
        flatbuffer.put(model, graph.tensors[tensor], value)
    if grid is not None and output not in {int(index) for index in graph.outputs}:
        at = next(n for n, one in enumerate(graph.operators) if output in {int(index) for index in one.outputs})
        _round_behind(model, at, output, grid)
    return flatbuffer.serialize(model)


def _round_behind(model: Any, at: int, output: int, grid: Grid) -> None:
    """Behind an operator, to int8 and back; all that read its output read what comes of that."""
    graph = model.subgraphs[0]
    coded, back = (copy.copy(graph.tensors[output]) for _ in range(2))
    coded.name, back.name = b"rounded/coded", b"rounded/back"
    coded.type = schema.TensorType.INT8
    coded.quantization = schema.QuantizationParametersT()
    coded.quantization.scale = np.array([grid.scale], np.float32)
    coded.quantization.zeroPoint = np.array([grid.zero], np.int64)
    for tensor in (coded, back):
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    first = len(graph.tensors)
    graph.tensors += [coded, back]
    for operator in graph.operators[at + 1 :]:
        operator.inputs = np.array([first + 1 if int(i) == output else int(i) for i in operator.inputs], np.int32)
    for number, (kind, reads) in enumerate((("QUANTIZE", output), ("DEQUANTIZE", first))):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 1 + number  # int8 needs DEQUANTIZE 2
        model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array([reads], np.int32), np.array([first + number], np.int32)
        graph.operators.insert(at + 1 + number, operator)
