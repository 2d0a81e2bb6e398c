"""The operators of a `.tflite` file with everything the tables put conditions on.

What a graph costs is read by `edge_converter.graph`; here is what a driver looks at before it takes an operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.errors import UnsupportedModelError

_FUSED = {v: k for k, v in vars(schema.ActivationFunctionType).items() if isinstance(v, int)}
# Shapes, axes and paddings are shorter than this; nothing longer is looked into.
_MAX_VALUES = 64
_INTEGERS = {"int32": np.int32, "int64": np.int64}
_WEIGHTS_AT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output of an operator.

    Attributes:
        index: In the file; two operators that share a tensor share its index.
        kind: Its type, such as `int8`.
        shape: A free size counts as it is stored, most often 1.
        is_free: A size other than the batch's is only known when it runs.
        is_constant: The file holds its value.
        is_unpacked: It is stored smaller than it is used, and unpacked when the model is loaded.
        scales: How many different scales it has; 0 where it is not quantized.
        values: Of a short integer constant, flat; else None.
    """

    index: int
    kind: str
    shape: tuple[int, ...]
    is_free: bool
    is_constant: bool
    is_unpacked: bool
    scales: int
    values: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator.

    Attributes:
        op: As the schema spells it; of a custom operator its own name.
        version: Of the operator.
        name: Of its first output, which is what people recognise it by.
        inputs: By position; None where an optional one is left out.
        outputs: By position.
        fused: The activation fused into it, `NONE` without.
        stride: The larger of the two.
        dilation: Of height and width.
        window: Height and width of a kernel or pooling window; None where it has none.
        is_same: SAME padding.
        axis: Of a concatenation, pack or split; None where it is no option of the operator.
        is_half_pixel: A resize takes pixel centres at one half.
        is_corners: A resize keeps the corners where they are, so that its factor is that of the distances.
        is_plain_slice: A strided slice neither adds an axis nor has an ellipsis.
    """

    op: str
    version: int
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    fused: str
    stride: int
    dilation: tuple[int, int]
    window: tuple[int, int] | None
    is_same: bool
    axis: int | None
    is_half_pixel: bool
    is_corners: bool
    is_plain_slice: bool

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """What it computes from and to."""
        return (*(t for t in self.inputs if t is not None and not t.is_constant), *self.outputs)

    @property
    def weights(self) -> Tensor | None:
        """Its constant weights, of a convolution or dense layer."""
        at = _WEIGHTS_AT.get(self.op)
        found = self.inputs[at] if at is not None and at < len(self.inputs) else None
        return found if found is not None and found.is_constant else None


def read(path: Path) -> tuple[Operator, ...]:
    """The operators in the order they run, without those that unpack a constant when the model is loaded.

    Raises:
        SourceError: It is no whole `.tflite` file.
        UnsupportedModelError: It has several subgraphs.
    """
    return of_model(flatbuffer.read(path), where=str(path))


def of_model(model: Any, *, where: str) -> tuple[Operator, ...]:
    """The same of a model that is read already.

    Raises:
        UnsupportedModelError: It has several subgraphs.
    """
    if len(model.subgraphs) > 1:
        raise UnsupportedModelError(
            f"has {len(model.subgraphs)} subgraphs (loops, branches or several signatures)",
            where=where,
            hint="export one signature without control flow",
        )
    unpacked = flatbuffer.unpacked(model)
    tensors = [_tensor(model, index, unpacked) for index in range(len(model.subgraphs[0].tensors))]
    return tuple(
        _operator(model, operator, tensors)
        for operator in model.subgraphs[0].operators
        if operator.outputs is None or len(operator.outputs) == 0 or int(operator.outputs[0]) not in unpacked
    )


def _operator(model: Any, operator: Any, tensors: list[Tensor]) -> Operator:
    code = model.operatorCodes[operator.opcodeIndex]
    op = flatbuffer.op_name(model, operator)
    if op == "CUSTOM":
        op = bytes(code.customCode or b"CUSTOM").decode("utf-8", "replace")[:_MAX_VALUES]
    options = operator.builtinOptions
    inputs = tuple(None if i < 0 else tensors[i] for i in _indexes(operator.inputs))
    outputs = tuple(tensors[i] for i in _indexes(operator.outputs))
    name = model.subgraphs[0].tensors[outputs[0].index].name if outputs else b""
    return Operator(
        op=op,
        version=int(code.version),
        name=bytes(name or b"").decode("utf-8", "replace").partition(";")[0],
        inputs=inputs,
        outputs=outputs,
        fused=_FUSED.get(int(getattr(options, "fusedActivationFunction", 0) or 0), "NONE"),
        stride=max(int(getattr(options, "strideH", 1) or 1), int(getattr(options, "strideW", 1) or 1)),
        dilation=(int(getattr(options, "dilationHFactor", 1) or 1), int(getattr(options, "dilationWFactor", 1) or 1)),
        window=_window(op, options, inputs),
        is_same=getattr(options, "padding", schema.Padding.VALID) == schema.Padding.SAME,
        axis=_axis(op, options, inputs),
        is_half_pixel=bool(getattr(options, "halfPixelCenters", False)),
        is_corners=bool(getattr(options, "alignCorners", False)),
        is_plain_slice=not (getattr(options, "ellipsisMask", 0) or getattr(options, "newAxisMask", 0)),
    )


def _indexes(found: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in found) if found is not None else ()


def _window(op: str, options: Any, inputs: tuple[Tensor | None, ...]) -> tuple[int, int] | None:
    if hasattr(options, "filterHeight"):
        return int(options.filterHeight), int(options.filterWidth)
    kernel = inputs[1] if op in {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"} and len(inputs) > 1 else None
    return (kernel.shape[1], kernel.shape[2]) if kernel is not None and len(kernel.shape) == 4 else None  # noqa: PLR2004


def _axis(op: str, options: Any, inputs: tuple[Tensor | None, ...]) -> int | None:
    if op == "SPLIT" and inputs and inputs[0] is not None and inputs[0].values:
        return inputs[0].values[0]
    found = getattr(options, "axis", None)
    return int(found) if isinstance(found, int) else None


def _tensor(model: Any, index: int, unpacked: dict[int, int]) -> Tensor:
    graph = model.subgraphs[0]
    stored = graph.tensors[unpacked.get(index, index)]
    tensor = graph.tensors[index]
    signature = tensor.shapeSignature
    scales = stored.quantization.scale if stored.quantization is not None else None
    is_constant = index in unpacked or flatbuffer.is_constant(model, index)
    kind = flatbuffer.TYPE_NAMES[stored.type]
    return Tensor(
        index=index,
        kind=kind,
        shape=tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ())),
        is_free=signature is not None and any(int(size) < 0 for size in signature[1:]),
        is_constant=is_constant,
        is_unpacked=index in unpacked,
        scales=0 if scales is None else len(np.unique(np.asarray(scales))),
        values=_values(model, tensor, kind) if is_constant else None,
    )


def _values(model: Any, tensor: Any, kind: str) -> tuple[int, ...] | None:
    dtype, data = _INTEGERS.get(kind), model.buffers[tensor.buffer].data
    if dtype is None or data is None or len(data) > _MAX_VALUES * np.dtype(dtype).itemsize:
        return None
    return tuple(int(value) for value in np.frombuffer(bytes(data), dtype))
