"""Models the benchmarks make themselves: random weights are as much work as trained ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

_CODES = {name: number for number, name in flatbuffer.OP_NAMES.items()}
_SAME = 0
_RELU6 = 3


@dataclass
class _Graph:
    """A graph of float tensors that grows operator by operator."""

    rng: np.random.Generator
    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs = [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape: tuple[int, ...], data: np.ndarray[Any, Any] | None = None) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type = f"t{len(self.graph.tensors)}".encode(), list(shape), schema.TensorType.FLOAT32
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype(np.float32).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            one.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(one)
        return len(self.graph.tensors) - 1

    def weights(self, *shape: int) -> int:
        fan_in = int(np.prod(shape[1:]))
        return self.tensor(shape, self.rng.normal(0, fan_in**-0.5, shape))

    def op(self, kind: str, inputs: list[int], shape: tuple[int, ...], options: Any = None) -> int:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.version, code.deprecatedBuiltinCode = _CODES[kind], 1, min(_CODES[kind], 127)
        self.model.operatorCodes.append(code)
        output = self.tensor(shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = (
            len(self.model.operatorCodes) - 1,
            inputs,
            [output],
        )
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)
        return output

    def conv(self, x: int, size: int, taken: int, given: int, *, kernel: int = 1, stride: int = 1) -> int:
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW, options.fusedActivationFunction = (
            _SAME,
            stride,
            stride,
            _RELU6,
        )
        weights, bias = self.weights(given, kernel, kernel, taken), self.tensor((given,), np.zeros(given))
        return self.op("CONV_2D", [x, weights, bias], (1, size // stride, size // stride, given), options)

    def content(self, given: int, taken: int) -> bytes:
        self.graph.inputs, self.graph.outputs = [given], [taken]
        return flatbuffer.serialize(self.model)


def instant() -> bytes:
    """A dense layer of 4 x 3: a few microseconds an inference. `[1, 4]` in, `[1, 3]` out."""
    made = _Graph(np.random.default_rng(1))
    x = made.tensor((1, 4))
    y = made.op("FULLY_CONNECTED", [x, made.weights(3, 4), -1], (1, 3), schema.FullyConnectedOptionsT())
    return made.content(x, y)


def convolutional(seed: int = 2) -> bytes:
    """A network of 3.5 million float weights, 14 MB, and as many multiplications as MobileNetV2 at 224 x 224.

    `[1, 128, 128, 3]` in, `[1, 256]` out.
    """
    made = _Graph(np.random.default_rng(seed))
    given = made.tensor((1, 128, 128, 3))
    x, size, channels = made.conv(given, 128, 3, 32, kernel=3, stride=2), 64, 32
    for wider in (64, 128, 256):
        x, size, channels = made.conv(x, size, channels, wider, kernel=3, stride=2), size // 2, wider
    for wider in (512, 512, 768, 768, 1024):
        x, channels = made.conv(x, size, channels, wider), wider
    flat = made.op("MEAN", [x, _axes(made)], (1, channels), schema.ReducerOptionsT())
    y = made.op("FULLY_CONNECTED", [flat, made.weights(256, channels), -1], (1, 256), schema.FullyConnectedOptionsT())
    return made.content(given, y)


def _axes(made: _Graph) -> int:
    index = made.tensor((2,), np.zeros(2))
    made.graph.tensors[index].type = schema.TensorType.INT32
    made.model.buffers[-1].data = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)
    return index
