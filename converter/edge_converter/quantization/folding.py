"""What is left of batch normalization after a convolution, folded into its weights.

Converters fold most of it. What stays (a graph exported in training mode, a scale that a tool put behind a layer) costs
an operator at every call, and a second rounding in int8. A multiplication or an addition by one constant a channel,
directly behind a convolution or dense layer whose output nobody else reads, is the same as other weights and another
bias.

Requires: a float file of one subgraph. Ensures: the same inputs, outputs and names of what remains; the answers differ
by rounding of float32 alone. What looks like a fold and is none is named, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.values import Floats

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_BY_CONSTANT = ("MUL", "DIV", "ADD", "SUB")
_NONE = schema.ActivationFunctionType.NONE
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The file without the operators that were folded.

    Attributes:
        content: The file; as it was where there was nothing to fold.
        folded: Operators that are gone, by name of their output.
        left: Operators that a fold would remove and cannot, with the reason, one line each.
    """

    content: bytes
    folded: tuple[str, ...]
    left: tuple[str, ...]


def fold(source: bytes, *, where: str) -> Folded:
    """Fold what can be folded.

    Args:
        source: A float file.
        where: Its name, for errors.

    Raises:
        SourceError: It is no whole `.tflite` file.
    """
    graph = FloatGraph(source, where=where)
    folded: list[str] = []
    left: dict[str, str] = {}
    number = 0
    while number < len(graph.operators):
        operator = graph.operators[number]
        found = _fold(graph, operator)
        if found is None:
            number += 1
            continue
        name = graph.name(int(operator.outputs[0]))[:_SHOWN]
        if found:
            left[name] = f"{graph.kind(operator)} {name}: {found}"
            number += 1
        else:
            folded.append(name)
            del graph.operators[number]
            number = 0  # what comes next may now stand directly behind the layer
    graph.graph.operators = graph.operators
    content = flatbuffer.serialize(graph.model) if folded else source
    return Folded(content=content, folded=tuple(folded), left=tuple(left.values()))


def _fold(graph: FloatGraph, operator: Any) -> str | None:
    """Fold one operator into the layer before it; empty if done, a reason if not, None where there is none to fold."""
    kind = graph.kind(operator)
    if kind not in _BY_CONSTANT or len(operator.inputs) != 2:  # noqa: PLR2004 - a value and a constant
        return None
    moving, constant = int(operator.inputs[0]), graph.constant(int(operator.inputs[1]))
    if constant is None and kind in {"MUL", "ADD"}:
        moving, constant = int(operator.inputs[1]), graph.constant(int(operator.inputs[0]))
    layer = next((one for one in graph.operators if moving in {int(index) for index in one.outputs}), None)
    if constant is None or constant.dtype != np.float32 or layer is None or graph.kind(layer) not in _LAYERS:
        return None
    reason = _why_not(graph, layer, moving, constant)
    if reason:
        return reason
    channels = int(graph.graph.tensors[moving].shape[-1])
    values = np.broadcast_to(constant.reshape(-1), (channels,)).astype(np.float64)
    if kind in {"MUL", "DIV"}:
        _scale(graph, layer, values if kind == "MUL" else 1.0 / values)
    else:
        _shift(graph, layer, values if kind == "ADD" else -values)
    layer.builtinOptions.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    layer.outputs = operator.outputs
    return ""


def _why_not(graph: FloatGraph, layer: Any, moving: int, constant: Floats) -> str:
    """What keeps an operator from being folded into the layer before it; empty for nothing."""
    channels = int(graph.graph.tensors[moving].shape[-1])
    constants = [int(index) for index in layer.inputs[1:] if index >= 0]
    readers = sum(int(index) == moving for operator in graph.operators for index in operator.inputs)
    if layer.builtinOptions.fusedActivationFunction != _NONE:
        return "an activation stands between"
    if readers > 1 or moving in graph.outputs:
        return "the layer's output is read elsewhere, too"
    if constant.size not in {1, channels} or constant.size != (constant.shape[-1] if constant.shape else 1):
        return "not one constant a channel"
    if any(graph.constant(index) is None for index in constants):
        return "the layer's weights are not floats in the file"
    shared = [sum(int(i) == index for one in graph.operators for i in one.inputs) > 1 for index in constants]
    return "the layer's weights are used elsewhere, too" if any(shared) else ""


def _scale(graph: FloatGraph, layer: Any, factors: Any) -> None:
    weights = graph.constant(int(layer.inputs[1]))
    if weights is not None:
        each = graph.kind(layer) == "DEPTHWISE_CONV_2D"
        spread = factors if each else factors.reshape(-1, *([1] * (weights.ndim - 1)))
        _put(graph, int(layer.inputs[1]), weights * spread)
    bias = _bias(graph, layer)
    if bias is not None:
        _put(graph, int(layer.inputs[2]), bias * factors)


def _shift(graph: FloatGraph, layer: Any, values: Any) -> None:
    bias = _bias(graph, layer)
    if bias is not None:
        _put(graph, int(layer.inputs[2]), bias + values)
        return
    tensor = schema.TensorT()
    tensor.name = graph.name(int(layer.outputs[0])).encode()[:_SHOWN] + b"/bias"
    tensor.shape, tensor.type = np.array([len(values)], np.int32), schema.TensorType.FLOAT32
    graph.model.buffers.append(schema.BufferT())
    tensor.buffer = len(graph.model.buffers) - 1
    graph.graph.tensors.append(tensor)
    layer.inputs = np.array([*(int(index) for index in layer.inputs[:2]), len(graph.graph.tensors) - 1], np.int32)
    _put(graph, len(graph.graph.tensors) - 1, values)


def _bias(graph: FloatGraph, layer: Any) -> Floats | None:
    return graph.constant(int(layer.inputs[2])) if len(layer.inputs) > 2 else None  # noqa: PLR2004 - the third


def _put(graph: FloatGraph, tensor: int, values: Any) -> None:
    flatbuffer.put(graph.model, graph.graph.tensors[tensor], np.asarray(values, np.float32))
