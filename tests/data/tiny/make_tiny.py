"""Writes the tiny models beside this file, operator by operator, without TensorFlow.

They are checked in because the schema this script needs comes with ai-edge-litert, and the tests also run under
tflite-runtime. Run `python tests/data/tiny/make_tiny.py` after a change; the same script always gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

HERE = Path(__file__).resolve().parent
Builtin = schema.BuiltinOperator
TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "bool": schema.TensorType.BOOL,
}


@dataclass
class Graph:
    """One subgraph under construction; tensors are named by their index."""

    tensors: list = field(default_factory=list)
    buffers: list = field(default_factory=lambda: [schema.BufferT()])
    operators: list = field(default_factory=list)
    codes: list = field(default_factory=list)

    def tensor(self, name, shape, dtype="float32", *, data=None, scale=None, zero=0, free_batch=False, axis=0):
        one = schema.TensorT()
        one.name, one.shape, one.type = name, list(shape), TYPES[dtype]
        if free_batch:
            one.shapeSignature = [-1, *shape[1:]]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            one.buffer = len(self.buffers) - 1
        if scale is not None:
            q = schema.QuantizationParametersT()
            q.scale = [float(s) for s in np.atleast_1d(scale)]
            q.zeroPoint = [zero] * len(q.scale)
            q.quantizedDimension = axis
            one.quantization = q
        self.tensors.append(one)
        return len(self.tensors) - 1

    def op(self, builtin, inputs, outputs, options=None, *, kind=0, version=1, custom=None):
        code = schema.OperatorCodeT()
        code.builtinCode, code.version, code.customCode = builtin, version, custom
        code.deprecatedBuiltinCode = min(builtin, 127)
        key = (builtin, version, custom)
        if key not in [k for k, _ in self.codes]:
            self.codes.append((key, code))
        one = schema.OperatorT()
        one.opcodeIndex = [k for k, _ in self.codes].index(key)
        one.inputs, one.outputs = list(inputs), list(outputs)
        one.builtinOptionsType, one.builtinOptions = kind, options
        self.operators.append(one)

    def write(self, name, inputs, outputs):
        part = schema.SubGraphT()
        part.tensors, part.operators = self.tensors, self.operators
        part.inputs, part.outputs, part.name = list(inputs), list(outputs), "main"
        model = schema.ModelT()
        model.version, model.description = 3, f"tiny {name}"
        model.operatorCodes = [code for _, code in self.codes]
        model.subgraphs, model.buffers = [part], self.buffers
        model.signatureDefs = [self._signature(inputs, outputs)]
        builder = flatbuffers.Builder(4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        (HERE / f"{name}.tflite").write_bytes(bytes(builder.Output()))

    def _signature(self, inputs, outputs):
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [self._entry(i) for i in inputs]
        signature.outputs = [self._entry(i) for i in outputs]
        return signature

    def _entry(self, index):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = self.tensors[index].name, index
        return entry


def fully_connected(graph, x, weights, bias, y):
    options = schema.FullyConnectedOptionsT()
    quantized = graph.tensors[weights].type == TYPES["int8"]
    graph.op(
        Builtin.FULLY_CONNECTED, [x, weights, bias], [y], options,
        kind=schema.BuiltinOptions.FullyConnectedOptions, version=4 if quantized else 1,
    )  # fmt: skip


def softmax(graph, x, y):
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    quantized = graph.tensors[x].type == TYPES["int8"]
    graph.op(
        Builtin.SOFTMAX, [x], [y], options, kind=schema.BuiltinOptions.SoftmaxOptions, version=2 if quantized else 1
    )


def quantize(graph, x, y):
    graph.op(Builtin.QUANTIZE, [x], [y], schema.QuantizeOptionsT(), kind=schema.BuiltinOptions.QuantizeOptions)


def dequantize(graph, x, y):
    graph.op(
        Builtin.DEQUANTIZE, [x], [y], schema.DequantizeOptionsT(), kind=schema.BuiltinOptions.DequantizeOptions,
        version=2,
    )  # fmt: skip


RNG = np.random.default_rng(7)
W = RNG.normal(0, 0.5, (3, 4)).astype(np.float32)
B = RNG.normal(0, 0.2, 3).astype(np.float32)
IN_SCALE, OUT_SCALE = 4.0 / 255, 8.0 / 255
W_SCALE = float(np.abs(W).max() / 127)


def dense_fp32(name, *, free_batch=False):
    """softmax(x W^T + b), 4 in, 3 out."""
    g = Graph()
    x = g.tensor("x", [1, 4], free_batch=free_batch)
    w, b = g.tensor("w", [3, 4], data=W), g.tensor("b", [3], data=B)
    h = g.tensor("logits", [1, 3], free_batch=free_batch)
    y = g.tensor("scores", [1, 3], free_batch=free_batch)
    fully_connected(g, x, w, b, h)
    softmax(g, h, y)
    g.write(name, [x], [y])


def dense_int8(name, *, float_io):
    """The same in int8, with float or int8 at the border."""
    g = Graph()
    x = g.tensor("x", [1, 4]) if float_io else None
    xq = g.tensor("xq" if float_io else "x", [1, 4], "int8", scale=IN_SCALE, zero=-3)
    w = g.tensor("w", [3, 4], "int8", data=np.clip(np.rint(W / W_SCALE), -127, 127).astype(np.int8), scale=W_SCALE)
    bias = np.rint(B / (IN_SCALE * W_SCALE)).astype(np.int32)
    b = g.tensor("b", [3], "int32", data=bias, scale=IN_SCALE * W_SCALE)
    h = g.tensor("logits", [1, 3], "int8", scale=OUT_SCALE, zero=0)
    yq = g.tensor("yq" if float_io else "scores", [1, 3], "int8", scale=1 / 256, zero=-128)
    y = g.tensor("scores", [1, 3]) if float_io else None
    if x is not None:
        quantize(g, x, xq)
    fully_connected(g, xq, w, b, h)
    softmax(g, h, yq)
    if y is not None:
        dequantize(g, yq, y)
    g.write(name, [xq if x is None else x], [yq if y is None else y])


def two_by_two(name):
    """Two inputs of two shapes, two outputs: total = a + b, product = a * b."""
    g = Graph()
    a, b = g.tensor("a", [1, 2]), g.tensor("b", [1, 2])
    total, product = g.tensor("total", [1, 2]), g.tensor("product", [1, 2])
    g.op(Builtin.ADD, [a, b], [total], schema.AddOptionsT(), kind=schema.BuiltinOptions.AddOptions)
    g.op(Builtin.MUL, [a, b], [product], schema.MulOptionsT(), kind=schema.BuiltinOptions.MulOptions)
    g.write(name, [a, b], [total, product])


def tokens(name):
    """int32 in, int32 out: doubles, without quantization."""
    g = Graph()
    x, y = g.tensor("ids", [1, 3], "int32"), g.tensor("doubled", [1, 3], "int32")
    g.op(Builtin.ADD, [x, x], [y], schema.AddOptionsT(), kind=schema.BuiltinOptions.AddOptions)
    g.write(name, [x], [y])


def image(name):
    """A free image size: doubles each pixel of [1, h, w, 1]."""
    g = Graph()
    x, y = g.tensor("image", [1, 1, 1, 1]), g.tensor("doubled", [1, 1, 1, 1])
    for tensor in g.tensors:
        tensor.shapeSignature = [1, -1, -1, 1]
    g.op(Builtin.ADD, [x, x], [y], schema.AddOptionsT(), kind=schema.BuiltinOptions.AddOptions)
    g.write(name, [x], [y])


def custom(name):
    """An operator only an Arm Ethos-U runs, as Vela leaves it."""
    g = Graph()
    x, y = g.tensor("x", [1, 4]), g.tensor("y", [1, 4])
    g.op(Builtin.CUSTOM, [x], [y], custom="ethos-u")
    g.write(name, [x], [y])


def newer(name):
    """An operator version no runtime knows yet."""
    g = Graph()
    x, y = g.tensor("x", [1, 4]), g.tensor("y", [1, 4])
    g.op(Builtin.ADD, [x, x], [y], schema.AddOptionsT(), kind=schema.BuiltinOptions.AddOptions, version=99)
    g.write(name, [x], [y])


def deep(name, layers, *, gain):
    """Slow for its size: one weight matrix passed many times; `gain` makes the answers tell the variants apart."""
    g = Graph()
    width = 64
    w = g.tensor("w", [width, width], data=(np.eye(width, dtype=np.float32)))
    b = g.tensor("b", [width], data=np.zeros(width, np.float32))
    first = g.tensor("w0", [width, 4], data=np.full((width, 4), gain, np.float32))
    last = g.tensor("w9", [3, width], data=np.full((3, width), 1 / width, np.float32))
    b9 = g.tensor("b9", [3], data=np.arange(3, dtype=np.float32))
    x = g.tensor("x", [1, 4])
    h = g.tensor("h0", [1, width])
    fully_connected(g, x, first, b, h)
    for layer in range(layers):
        after = g.tensor(f"h{layer + 1}", [1, width])
        fully_connected(g, h, w, b, after)
        h = after
    y = g.tensor("scores", [1, 3])
    fully_connected(g, h, last, b9, y)
    g.write(name, [x], [y])


if __name__ == "__main__":
    dense_fp32("dense_fp32")
    dense_fp32("dense_free_batch", free_batch=True)
    dense_int8("dense_int8", float_io=True)
    dense_int8("dense_int8_io", float_io=False)
    two_by_two("two_by_two")
    tokens("tokens")
    image("image")
    custom("custom_op")
    newer("newer_op")
    deep("deep", 60, gain=1.0)
    deep("shallow", 2, gain=2.0)
