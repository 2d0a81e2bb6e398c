"""A network to measure on: a chain of equal convolutions, so that it takes as long as is wanted and halves evenly."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

SIZE = 28
CHANNELS = 32
_RELU, _SAME = 1, 0


def conv_chain(layers: int = 16) -> bytes:
    """A `.tflite` file: [1, 28, 28, 32] float32 in and out, 7.2 M multiply-accumulates a layer.

    16 layers take about 5 ms on one core of a workstation.
    """
    random = np.random.default_rng(5)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "a chain of convolutions"
    model.buffers, model.signatureDefs, model.metadata = [schema.BufferT()], [], []
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    model.operatorCodes, model.subgraphs = [code], [graph]
    graph.name, graph.tensors, graph.operators = "main", [], []

    def tensor(name: str, shape: list[int], data: np.ndarray | None = None) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type = name, shape, schema.TensorType.FLOAT32
        if data is not None:
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(data.astype(np.float32).tobytes(), np.uint8)
            one.buffer = len(model.buffers) - 1
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    last = first = tensor("image", [1, SIZE, SIZE, CHANNELS])
    spread = np.sqrt(2 / (9 * CHANNELS))  # keeps the size of what passes through (He et al., 2015)
    for number in range(layers):
        weights = random.normal(0, spread, (CHANNELS, 3, 3, CHANNELS))
        kernel = tensor(f"kernel{number}", list(weights.shape), weights)
        bias = tensor(f"bias{number}", [CHANNELS], np.zeros(CHANNELS))
        made = tensor(f"conv{number}", [1, SIZE, SIZE, CHANNELS])
        one = schema.OperatorT()
        one.inputs, one.outputs, one.opcodeIndex = [last, kernel, bias], [made], 0
        one.builtinOptionsType, one.builtinOptions = schema.BuiltinOptions.Conv2DOptions, schema.Conv2DOptionsT()
        one.builtinOptions.padding, one.builtinOptions.fusedActivationFunction = _SAME, _RELU
        one.builtinOptions.strideH = one.builtinOptions.strideW = 1
        graph.operators.append(one)
        last = made
    graph.inputs, graph.outputs = [first], [last]
    return flatbuffer.serialize(model)
