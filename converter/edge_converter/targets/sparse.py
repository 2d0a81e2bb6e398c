"""Whether XNNPACK would use the zeros of a pruned model, and if not, why.

Its sparse kernels engage under conditions on the whole graph (google-ai-edge/LiteRT
tflite/delegates/xnnpack/README.md @f674577, "Sparse Inference"; the paper is arXiv 1911.09723). MobileNetV2 with 80 %
zeros took a quarter of the time under an emulated Cortex-A72 where it met them, and all of it where it did not
(measured, ai-edge-litert 2.3.0); x86-64 gains nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

_SHARE = 2 / 3
_FLOATS = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
_INTEGERS = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
_LEAST_CHANNELS = 3
_ONE_INPUT = frozenset(
    {"ABS", "CEIL", "ELU", "FLOOR", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_N1_TO_1"}
    | {"ROUND", "SQUARE", "MEAN", "DEPTH_TO_SPACE", "RESIZE_BILINEAR", "ADD", "MUL", "DENSIFY", "DEQUANTIZE"}
)
_ENDS = ("MEAN", "DEPTH_TO_SPACE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """Of the weights of all 1x1 convolutions.

    Attributes:
        zeros: Share of them that is zero.
        why_not: What keeps the sparse kernels out, one clause each; empty where they engage.
    """

    zeros: float
    why_not: tuple[str, ...]


def of(path: Path) -> Sparsity:
    """Look at a float `.tflite` file.

    Raises:
        SourceError: It is no whole `.tflite` file.
    """
    model = flatbuffer.read(path)
    graph = model.subgraphs[0]
    names = [flatbuffer.op_name(model, operator) for operator in graph.operators]
    zeros, count, is_encoded = _pointwise(model)
    why: list[str] = []
    if any(graph.tensors[o.outputs[0]].type not in _FLOATS for o in graph.operators if len(o.inputs) > 1):
        why.append("it does not compute in floats throughout")
    if not count:
        why.append("it has no 1x1 convolution")
    elif zeros / count < _SHARE:
        why.append(f"{100 * zeros / count:.0f} % of the weights of its 1x1 convolutions are zero, 67 % are needed")
    if not is_encoded:
        why.append("its weights are not stored as sparse tensors (DENSIFY)")
    if not _starts(model):
        why.append("it does not begin with a 3x3 convolution of stride 2 with one pixel of padding on each side")
    if not any(name in _ENDS for name in names):
        why.append("no MEAN over the image or DEPTH_TO_SPACE ends it")
    why += _within(model)
    return Sparsity(zeros=zeros / count if count else 0.0, why_not=tuple(why))


def _pointwise(model: Any) -> tuple[int, int, bool]:
    """Zeros and all of the weights of 1x1 convolutions, and whether any is stored sparse."""
    graph = model.subgraphs[0]
    made = {int(o.outputs[0]): o for o in graph.operators if len(o.outputs)}
    zeros = count = 0
    is_encoded = False
    for operator in graph.operators:
        if flatbuffer.op_name(model, operator) != "CONV_2D":
            continue
        tensor = graph.tensors[operator.inputs[1]]
        if tuple(int(size) for size in tensor.shape[1:3]) != (1, 1):
            continue
        source = graph.tensors[_source(made, int(operator.inputs[1]))]
        data, dtype = model.buffers[source.buffer].data, _FLOATS.get(source.type)
        count += math.prod(int(size) for size in tensor.shape)
        if data is None or dtype is None:
            continue
        values = np.frombuffer(bytes(data), dtype)
        if source.sparsity is not None:
            is_encoded = True
            zeros += math.prod(int(size) for size in tensor.shape) - len(values)
        else:
            zeros += int((values == 0).sum())
    return zeros, count, is_encoded


def _source(made: dict[int, Any], index: int) -> int:
    """The constant behind DENSIFY and DEQUANTIZE."""
    while index in made and len(made[index].inputs) == 1:
        index = int(made[index].inputs[0])
    return index


def _starts(model: Any) -> bool:
    graph = model.subgraphs[0]
    for at, operator in enumerate(graph.operators):
        if flatbuffer.op_name(model, operator) != "CONV_2D":
            continue
        kernel = tuple(int(size) for size in graph.tensors[operator.inputs[1]].shape)
        options = operator.builtinOptions
        stride_two = (options.strideH, options.strideW) == (2, 2)
        dense = (options.dilationHFactor, options.dilationWFactor) == (1, 1)
        return kernel[1:] == (3, 3, _LEAST_CHANNELS) and stride_two and dense and _padded(model, at)
    return False


def _padded(model: Any, at: int) -> bool:
    """One pixel on each side: by a PAD before it, or by SAME of an odd image; SAME pads an even one unevenly."""
    graph = model.subgraphs[0]
    operator = graph.operators[at]
    if operator.builtinOptions.padding == schema.Padding.SAME:
        height = int(graph.tensors[operator.inputs[0]].shape[1])
        return height % 2 == 1
    pads = [o for o in graph.operators if flatbuffer.op_name(model, o) == "PAD" and o.outputs[0] == operator.inputs[0]]
    if not pads:
        return False
    padding = graph.tensors[pads[0].inputs[1]]
    data, dtype = model.buffers[padding.buffer].data, _INTEGERS.get(padding.type)
    if data is None or dtype is None:
        return False
    return bool((np.frombuffer(bytes(data), dtype).reshape(-1, 2)[1:3] == 1).all())


def _within(model: Any) -> list[str]:
    """What the sparse kernels cannot work through between its beginning and the first operator that may end it."""
    graph = model.subgraphs[0]
    names = [flatbuffer.op_name(model, operator) for operator in graph.operators]
    last = next((at for at, name in enumerate(names) if name in _ENDS), len(names))
    first = names.index("CONV_2D") if "CONV_2D" in names else 0
    why = []
    for name, operator in list(zip(names, graph.operators, strict=True))[first + 1 : last]:
        kernel = tuple(graph.tensors[operator.inputs[1]].shape[1:3]) if len(operator.inputs) > 1 else ()
        if name == "CONV_2D":
            if kernel != (1, 1):
                why.append(f"a {kernel[0]}x{kernel[1]} convolution stands within it")
        elif name == "DEPTHWISE_CONV_2D":
            if kernel not in {(3, 3), (5, 5)}:
                why.append(f"a {kernel[0]}x{kernel[1]} depthwise convolution stands within it")
        elif name == "PAD":
            continue
        elif name not in _ONE_INPUT:
            why.append(f"{name} stands within it")
    return list(dict.fromkeys(why))
