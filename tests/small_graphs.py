"""Small `.tflite` files with several inputs and outputs, written operator by operator for one test.

Every output is the sum of dense layers, one for each input that reaches it: what a model answers can be computed by
hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
}


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input: `[batch, *shape]`; -1 leaves the batch free."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output: `sum of input @ weights.T`, by the input's name, shaped as asked."""

    name: str
    weights: Mapping[str, Any]
    shape: tuple[int, ...] | None = None
    softmax: bool = False


@dataclass
class _Graph:
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32", data: Any = None) -> int:
        one = schema.TensorT()
        one.name, one.type = name, _TYPES[dtype]
        one.shape = [1 if size < 0 else size for size in shape]
        if -1 in shape:
            one.shapeSignature = list(shape)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            one.buffer = len(self.buffers) - 1
        self.tensors.append(one)
        return len(self.tensors) - 1

    def op(self, builtin: int, inputs: Sequence[int], output: int, options: Any, kind: int) -> int:
        if builtin not in self.codes:
            self.codes.append(builtin)
        one = schema.OperatorT()
        one.opcodeIndex = self.codes.index(builtin)
        one.inputs, one.outputs = list(inputs), [output]
        one.builtinOptions, one.builtinOptionsType = options, kind
        self.operators.append(one)
        return output


def write(path: Path, inputs: Sequence[Input], outputs: Sequence[Output]) -> Path:
    """Write the file; returns its path."""
    ops, kinds, g = schema.BuiltinOperator, schema.BuiltinOptions, _Graph()
    batch = inputs[0].batch
    at = {one.name: g.tensor(one.name, (one.batch, *one.shape), one.dtype) for one in inputs}
    flat: dict[str, int] = {}
    for one in inputs:
        here = at[one.name]
        if one.dtype != "float32":
            options = schema.CastOptionsT()
            options.inDataType, options.outDataType = _TYPES[one.dtype], _TYPES["float32"]
            here = g.op(ops.CAST, [here], g.tensor(f"{one.name}/cast", (batch, *one.shape)), options, kinds.CastOptions)
        if len(one.shape) != 1:
            here = _reshaped(g, here, (batch, int(np.prod(one.shape))), f"{one.name}/flat")
        flat[one.name] = here
    ends = []
    for out in outputs:
        total = None
        for name, weights in out.weights.items():
            w = np.asarray(weights, np.float32)
            where = f"{out.name}/{name}"
            parts = [flat[name], g.tensor(f"{where}/w", w.shape, data=w)]
            parts.append(g.tensor(f"{where}/b", (len(w),), data=np.zeros(len(w), np.float32)))
            dense = g.tensor(f"{where}/dense", (batch, len(w)))
            g.op(ops.FULLY_CONNECTED, parts, dense, schema.FullyConnectedOptionsT(), kinds.FullyConnectedOptions)
            if total is not None:
                added = g.tensor(f"{where}/sum", (batch, len(w)))
                dense = g.op(ops.ADD, [total, dense], added, schema.AddOptionsT(), kinds.AddOptions)
            total = dense
        assert total is not None
        if out.shape is not None:
            total = _reshaped(g, total, (batch, *out.shape), f"{out.name}/shaped")
        if out.softmax:
            options = schema.SoftmaxOptionsT()
            options.beta = 1.0
            shares = g.tensor(f"{out.name}/shares", (batch, len(w)))
            total = g.op(ops.SOFTMAX, [total], shares, options, kinds.SoftmaxOptions)
        g.tensors[total].name = out.name
        ends.append(total)
    path.write_bytes(_packed(g, list(at.values()), ends))
    return path


def echo(path: Path, width: int) -> Path:
    """A file whose output is twice its input, `[1, width]`, without weights."""
    g = _Graph()
    x, y = g.tensor("x", (1, width)), g.tensor("y", (1, width))
    g.op(schema.BuiltinOperator.ADD, [x, x], y, schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)
    path.write_bytes(_packed(g, [x], [y]))
    return path


def _reshaped(g: _Graph, tensor: int, shape: tuple[int, ...], name: str) -> int:
    wanted = g.tensor(f"{name}/shape", (len(shape),), "int32", np.array(shape, np.int32))
    made = g.tensor(name, shape)
    options = schema.ReshapeOptionsT()
    options.newShape = list(shape)
    return g.op(schema.BuiltinOperator.RESHAPE, [tensor, wanted], made, options, schema.BuiltinOptions.ReshapeOptions)


def _packed(g: _Graph, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    part, model, signature = schema.SubGraphT(), schema.ModelT(), schema.SignatureDefT()
    part.tensors, part.operators, part.name = g.tensors, g.operators, "main"
    part.inputs, part.outputs = list(inputs), list(outputs)
    model.version, model.buffers, model.subgraphs = 3, g.buffers, [part]
    for builtin in g.codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        model.operatorCodes = [*(model.operatorCodes or []), code]
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    # As TensorFlow writes them: by name, whatever the order of the graph.
    signature.inputs = [_entry(g, i) for i in sorted(inputs, key=lambda i: str(g.tensors[i].name))]
    signature.outputs = [_entry(g, i) for i in outputs]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _entry(g: _Graph, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = g.tensors[index].name, index
    return entry
