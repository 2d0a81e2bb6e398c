"""Small `.tflite` files of a given shape, made with the schema's own objects: what is computed is up to the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

_CODES = {name: number for number, name in flatbuffer.OP_NAMES.items()}
_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 2, np.dtype(np.int8): 9}
_OPTIONS = {"ADD": (schema.BuiltinOptions.AddOptions, schema.AddOptionsT)}


@dataclass(kw_only=True)
class Made:
    """A graph that grows: each method returns the number of the tensor it adds."""

    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs, self.model.signatureDefs, self.model.metadata = [self.graph], [], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: Sequence[int] = (1, 4), dtype: Any = np.float32) -> int:
        entry = schema.TensorT()
        entry.name, entry.shape, entry.type = name.encode(), list(shape), _TYPES[np.dtype(dtype)]
        self.graph.tensors.append(entry)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: Any) -> int:
        array = np.asarray(values)
        index = self.tensor(name, array.shape, array.dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def op(self, kind: str, *inputs: int, name: str, shape: Sequence[int] = (1, 4)) -> int:
        output = self.tensor(name, shape)
        operator, code = schema.OperatorT(), schema.OperatorCodeT()
        code.builtinCode, code.version = _CODES[kind], 1
        code.deprecatedBuiltinCode = min(_CODES[kind], 127)
        self.model.operatorCodes.append(code)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [output]
        if kind in _OPTIONS:
            operator.builtinOptionsType, operator.builtinOptions = _OPTIONS[kind][0], _OPTIONS[kind][1]()
        self.graph.operators.append(operator)
        return output

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return flatbuffer.serialize(self.model)


def residual() -> bytes:
    """Two inputs and two outputs; `early` is made first and read last, and a constant is read on both sides.

    Operators: 0 TANH early, 1 ADD, 2 TANH, 3 ADD (of both inputs), 4 TANH, 5 ADD (of early) out, 6 ABS side.
    """
    made = Made()
    x, y = made.tensor("x"), made.tensor("y")
    shared = made.constant("shared", np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    early = made.op("TANH", x, name="early")
    one = made.op("TANH", made.op("ADD", early, shared, name="sum1"), name="one")
    two = made.op("TANH", made.op("ADD", one, y, name="sum2"), name="two")
    out = made.op("ADD", two, early, name="out")
    side = made.op("ABS", made.op("ADD", one, shared, name="sum3"), name="side")
    return made.content([x, y], [out, side])


def halves(count: int = 6) -> bytes:
    """A chain of additions of constants stored in half precision, each unpacked at the start of the file."""
    made = Made()
    x = made.tensor("x")
    halves_ = [made.constant(f"half{i}", np.full(4, i / 3, np.float16)) for i in range(count)]
    unpacked = [made.op("DEQUANTIZE", half, name=f"whole{i}", shape=(4,)) for i, half in enumerate(halves_)]
    last = x
    for number, constant in enumerate(unpacked):
        last = made.op("TANH", made.op("ADD", last, constant, name=f"sum{number}"), name=f"tanh{number}")
    # The first constant is read again at the end.
    return made.content([x], [made.op("ADD", last, unpacked[0], name="out")])


def sparse() -> bytes:
    """A chain with a constant of which only the values that are not zero are stored, in rows (CSR), read twice."""
    made = Made()
    x = made.tensor("x")
    dense = made.constant("sparse", np.array([1.5, -2.5], np.float32))
    entry = made.graph.tensors[dense]
    entry.shape, entry.sparsity = [1, 4], schema.SparsityParametersT()
    entry.sparsity.traversalOrder, entry.sparsity.blockMap = [0, 1], []
    rows, columns = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.format, rows.denseSize = schema.DimensionType.DENSE, 1
    columns.format, columns.denseSize = schema.DimensionType.SPARSE_CSR, 0
    for name, values in (("arraySegments", [0, 2]), ("arrayIndices", [1, 3])):
        vector = schema.Int32VectorT()
        vector.values = values
        setattr(columns, f"{name}Type", schema.SparseIndexVector.Int32Vector)
        setattr(columns, name, vector)
    entry.sparsity.dimMetadata = [rows, columns]
    whole = made.op("DENSIFY", dense, name="densified")
    one = made.op("TANH", made.op("ADD", x, whole, name="sum1"), name="one")
    return made.content([x], [made.op("ADD", one, whole, name="out")])
