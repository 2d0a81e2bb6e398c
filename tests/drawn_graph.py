"""Small `.tflite` graphs drawn operator by operator, for what no trained model at hand has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

_KINDS = {name: number for number, name in flatbuffer.TYPE_NAMES.items()}
_OPS = {name: number for number, name in flatbuffer.OP_NAMES.items()}
_OPTIONS = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
}


class Drawn:
    """A graph being drawn; tensors are numbers, in the order they were added."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.operatorCodes, self._model.buffers = [], [schema.BufferT()]
        self._model.subgraphs = [self._graph]

    def tensor(
        self,
        *shape: int,
        kind: str = "int8",
        values: Any = None,
        scales: int = 1,
        signature: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor; with `values` it is a constant."""
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}".encode()
        tensor.shape, tensor.type = list(shape), _KINDS[kind]
        tensor.shapeSignature = list(signature) if signature is not None else None
        tensor.buffer = 0
        if kind.startswith(("int8", "uint8", "int16")):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [0.5 + 0.01 * at for at in range(scales)]
            tensor.quantization.zeroPoint = [0] * scales
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(values, kind).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, *shape: int, kind: str = "int8", scales: int = 1) -> int:
        """Add a constant of ones."""
        return self.tensor(*shape, kind=kind, values=np.ones(shape), scales=scales)

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], *, version: int = 1, **options: Any) -> int:
        """Add an operator, or a custom one where the name is no builtin's; gives back its first output."""
        code = schema.OperatorCodeT()
        code.builtinCode = _OPS.get(name, _OPS["CUSTOM"])
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = None if name in _OPS else name.encode()
        code.version = version
        self._model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if name in _OPTIONS:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[name])
            operator.builtinOptions = getattr(schema, f"{_OPTIONS[name]}T")()
            for option, value in options.items():
                setattr(operator.builtinOptions, option, value)
        self._graph.operators.append(operator)
        return int(outputs[0])

    def convolution(self, source: int, *shape: int, kind: str = "int8", scales: int = 1, **options: Any) -> int:
        """Add a 1x1 convolution that gives a tensor of `shape`."""
        depth = int(self._graph.tensors[source].shape[-1])
        weights = self.constant(shape[-1], 1, 1, depth, kind=kind, scales=scales)
        bias = self.constant(shape[-1], kind="int32" if kind == "int8" else "float32")
        plain: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        return self.op("CONV_2D", [source, weights, bias], [self.tensor(*shape, kind=kind)], **(plain | options))

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        """Write it."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        path.write_bytes(flatbuffer.serialize(self._model))
        return path
