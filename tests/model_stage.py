"""Small `.tflite` models of kinds that no package ships, built operator by operator.

Each answers three scores to a few numbers: with state from call to call, with free sizes, with several signatures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

Builtin, Options = schema.BuiltinOperator, schema.BuiltinOptions
FLOAT32, INT32, RESOURCE = schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.RESOURCE
WEIGHTS = np.random.default_rng(7).normal(0, 0.5, (3, 4)).astype(np.float32)


@dataclass
class Stage:
    """A model under construction: graphs share its buffers and operator codes."""

    model: Any = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        self.model.version, self.model.description = 3, "staged"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.model.subgraphs, self.model.signatureDefs = [], []

    def graph(self, name: str) -> Any:
        one = schema.SubGraphT()
        one.name, one.tensors, one.operators, one.inputs, one.outputs = name, [], [], [], []
        self.model.subgraphs.append(one)
        return one

    def tensor(self, graph: Any, name: str, shape: list[int], kind: int = FLOAT32, data: Any = None) -> int:
        one = schema.TensorT()
        one.name, one.type = name.encode(), kind
        one.shape = [max(1, size) for size in shape]
        if -1 in shape:
            one.shapeSignature = shape
        if data is not None:
            self.model.buffers.append(schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            one.buffer = len(self.model.buffers) - 1
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def op(self, graph: Any, name: str, inputs: list[int], outputs: list[int], **settings: object) -> None:
        builtin = getattr(Builtin, name)
        if builtin not in [code.builtinCode for code in self.model.operatorCodes]:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version, code.deprecatedBuiltinCode = builtin, 1, min(builtin, 127)
            self.model.operatorCodes.append(code)
        one = schema.OperatorT()
        one.opcodeIndex = [code.builtinCode for code in self.model.operatorCodes].index(builtin)
        one.inputs, one.outputs = inputs, outputs
        kind = "".join(part.capitalize() for part in name.split("_")) + "Options"
        kind = {
            "MeanOptions": "ReducerOptions",
            "UnidirectionalSequenceLstmOptions": "UnidirectionalSequenceLSTMOptions",
            "BatchMatmulOptions": "BatchMatMulOptions",
        }.get(kind, kind)
        if hasattr(schema, kind + "T"):
            one.builtinOptionsType, one.builtinOptions = getattr(Options, kind), getattr(schema, kind + "T")()
            for key, value in settings.items():
                setattr(one.builtinOptions, key, value)
        graph.operators.append(one)

    def dense(self, graph: Any, x: int, weights: Any = WEIGHTS, name: str = "scores") -> int:
        w = self.tensor(graph, f"{name}_w", list(weights.shape), data=weights)
        y = self.tensor(graph, name, [1, len(weights)])
        self.op(graph, "FULLY_CONNECTED", [x, w, -1], [y])
        return y

    def signature(self, name: str, number: int) -> None:
        graph, one = self.model.subgraphs[number], schema.SignatureDefT()
        one.signatureKey, one.subgraphIndex = name.encode(), number
        for field_, indexes in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            entries = []
            for index in indexes:
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = graph.tensors[index].name, index
                entries.append(entry)
            setattr(one, field_, entries)
        self.model.signatureDefs.append(one)

    def write(self, path: Path) -> Path:
        path.write_bytes(flatbuffer.serialize(self.model))
        return path


def several(path: Path, names: tuple[str, ...] = ("serving_default", "other"), *, sizes: int = 4) -> Path:
    """A signature for each name, over a graph of its own: dense layers with weights that grow from one to the next."""
    stage = Stage()
    for number, name in enumerate(names):
        graph = stage.graph(name)
        x = stage.tensor(graph, "x", [1, sizes])
        graph.inputs, graph.outputs = [x], [stage.dense(graph, x, WEIGHTS * (number + 1))]
        stage.signature(name, number)
    return stage.write(path)


def free_sizes(path: Path) -> Path:
    """The mean of an image of any size, `[batch, height, width, 4]`, and a dense layer."""
    stage = Stage()
    graph = stage.graph("main")
    x = stage.tensor(graph, "x", [-1, -1, -1, 4])
    axes = stage.tensor(graph, "axes", [2], INT32, np.array([1, 2], np.int32))
    mean = stage.tensor(graph, "mean", [-1, 4])
    stage.op(graph, "MEAN", [x, axes], [mean], keepDims=False)
    y = stage.dense(graph, mean)
    graph.tensors[y].shapeSignature = [-1, 3]
    graph.inputs, graph.outputs = [x], [y]
    stage.signature("serving_default", 0)
    return stage.write(path)


def stateful(path: Path, *, step: float = 0.0) -> Path:
    """It adds up its inputs, `[1, 4]`, in a variable that a second graph sets to zero, and scores the sum.

    With a `step`, that is added as well, so that zeros leave something behind, too.
    """
    stage = Stage()
    main, start = stage.graph("main"), stage.graph("start")
    x = stage.tensor(main, "x", [1, 4])
    handle = stage.tensor(main, "handle", [], RESOURCE)
    before, after = stage.tensor(main, "before", [1, 4]), stage.tensor(main, "after", [1, 4])
    stage.op(main, "CALL_ONCE", [], [], initSubgraphIndex=1)
    stage.op(main, "VAR_HANDLE", [], [handle], sharedName="sum", container="")
    stage.op(main, "READ_VARIABLE", [handle], [before])
    stage.op(main, "ADD", [x, before], [after])
    if step:
        more = stage.tensor(main, "step", [1, 4], data=np.full((1, 4), step, np.float32))
        after, summed = stage.tensor(main, "stepped", [1, 4]), after
        stage.op(main, "ADD", [summed, more], [after])
    stage.op(main, "ASSIGN_VARIABLE", [handle, after], [])
    main.inputs, main.outputs = [x], [stage.dense(main, after)]
    there = stage.tensor(start, "handle", [], RESOURCE)
    zeros = stage.tensor(start, "zeros", [1, 4], data=np.zeros((1, 4), np.float32))
    stage.op(start, "VAR_HANDLE", [], [there], sharedName="sum", container="")
    stage.op(start, "ASSIGN_VARIABLE", [there, zeros], [])
    stage.signature("serving_default", 0)
    return stage.write(path)


def transposed(path: Path) -> Path:
    """A transposed convolution of an image, `[1, 4, 4, 2]`, its mean, a product with a constant, and a dense layer."""
    stage, rng = Stage(), np.random.default_rng(5)
    graph = stage.graph("main")
    x = stage.tensor(graph, "x", [1, 4, 4, 2])
    size = stage.tensor(graph, "size", [4], INT32, np.array([1, 8, 8, 4], np.int32))
    kernel = stage.tensor(graph, "kernel", [4, 3, 3, 2], data=rng.normal(0, 0.3, (4, 3, 3, 2)).astype(np.float32))
    larger = stage.tensor(graph, "larger", [1, 8, 8, 4])
    stage.op(graph, "TRANSPOSE_CONV", [size, kernel, x], [larger], strideH=2, strideW=2, padding=0)
    axes = stage.tensor(graph, "axes", [2], INT32, np.array([1, 2], np.int32))
    mean = stage.tensor(graph, "mean", [1, 4])
    stage.op(graph, "MEAN", [larger, axes], [mean], keepDims=False)
    matrix = stage.tensor(graph, "matrix", [4, 4], data=rng.normal(0, 0.5, (4, 4)).astype(np.float32))
    product = stage.tensor(graph, "product", [1, 4])
    stage.op(graph, "BATCH_MATMUL", [mean, matrix], [product])
    graph.inputs, graph.outputs = [x], [stage.dense(graph, product)]
    stage.signature("serving_default", 0)
    return stage.write(path)


def recurrent(path: Path) -> Path:
    """An LSTM cell of 6 units over 5 steps of 4 numbers, and a dense layer on its last output; float32."""
    stage, rng = Stage(), np.random.default_rng(5)
    graph = stage.graph("main")
    x = stage.tensor(graph, "x", [1, 5, 4])

    def matrix(name: str, *shape: int) -> int:
        return stage.tensor(graph, name, list(shape), data=rng.normal(0, 0.3, shape).astype(np.float32))

    gates = [matrix(f"w{gate}", 6, 4) for gate in range(4)]
    gates += [matrix(f"r{gate}", 6, 6) for gate in range(4)]
    biases = [matrix(f"b{gate}", 6) for gate in range(4)]
    state = [stage.tensor(graph, name, [1, 6]) for name in ("output_state", "cell_state")]
    for index in state:
        graph.tensors[index].isVariable = True
    sequence = stage.tensor(graph, "sequence", [1, 5, 6])
    inputs = [x, *gates, -1, -1, -1, *biases, -1, -1, *state, -1, -1, -1, -1]
    stage.op(graph, "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [sequence], fusedActivationFunction=4)
    axes = stage.tensor(graph, "axes", [1], INT32, np.array([1], np.int32))
    mean = stage.tensor(graph, "mean", [1, 6])
    stage.op(graph, "MEAN", [sequence, axes], [mean], keepDims=False)
    graph.inputs = [x]
    graph.outputs = [stage.dense(graph, mean, rng.normal(0, 0.5, (3, 6)).astype(np.float32))]
    stage.signature("serving_default", 0)
    return stage.write(path)
