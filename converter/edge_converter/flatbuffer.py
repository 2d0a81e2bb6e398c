"""A `.tflite` file as an object that can be changed, and back.

What is decided here is only the file's form: what must be true of it before the quantizer reads it (`prepare`) and
before a device does (`stamp`). What the model computes is read by `edge_converter.graph`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edge_converter import _op_versions
from edge_converter.errors import SourceError

_IDENTIFIER = b"TFL3"
_SIGNATURE = b"serving_default"
_MIN_RUNTIME = b"min_runtime_version"
_MIN_RUNTIME_BYTES = 16
_LAST_SHORT_CODE = 127
# The schema asks for it (`force_align: 16`); the Python builder alone would give 4.
_BUFFER_ALIGNMENT = 16

OP_NAMES: dict[int, str] = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
TYPE_NAMES: dict[int, str] = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc] # the schema has no types
    """A buffer whose content starts at a multiple of 16, as memory-mapped weights should."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = np.frombuffer(bytes(data), np.uint8) if data is not None else None

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - the schema's name
        if self.data is None:
            return int(super().Pack(builder))
        builder.StartVector(1, self.data.size, _BUFFER_ALIGNMENT)
        builder.head = builder.Head() - self.data.size
        builder.Bytes[builder.Head() : builder.Head() + self.data.size] = self.data.tobytes()
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def read(path: Path) -> Any:
    """The file as a `ModelT`.

    Raises:
        SourceError: It cannot be read, or is no whole `.tflite` file.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise SourceError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    return parse(content, where=str(path))


def parse(content: bytes, *, where: str) -> Any:
    """The bytes as a `ModelT`.

    Raises:
        SourceError: They are no whole `.tflite` file.
    """
    if content[4:8] != _IDENTIFIER:
        raise SourceError("is not a .tflite file", where=where, hint="its bytes 4 to 8 are not TFL3")
    # The generated reader follows offsets without checking them: each of these is a way to fall off the end.
    try:
        model = flatbuffer_utils.read_model_from_bytearray(content)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as cause:
        raise SourceError("is truncated or damaged", where=where, hint="copy or export it again") from cause
    if not model.subgraphs or not model.operatorCodes or model.subgraphs[0].operators is None:
        raise SourceError("holds no graph", where=where, hint="copy or export it again")
    return model


def serialize(model: Any) -> bytes:
    """The model as the bytes of a `.tflite` file, with aligned buffers; the same model always gives the same bytes."""
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: Any, operator: Any) -> str:
    """What the operator is, such as `CONV_2D`."""
    code = flatbuffer_utils.get_builtin_code_from_operator_code(model.operatorCodes[operator.opcodeIndex])
    return OP_NAMES.get(code, f"BUILTIN_{code}")


def prepare(content: bytes, *, where: str) -> bytes:
    """The same model in a form the quantizer understands.

    It reads only the newer of a file's two operator codes, so files from before TensorFlow 2.4 look to it as if they
    held nothing but ADD; and it calibrates only through a signature, which older files lack.
    """
    model = parse(content, where=where)
    for code in model.operatorCodes:
        code.builtinCode = flatbuffer_utils.get_builtin_code_from_operator_code(code)
    if not model.signatureDefs:
        graph = model.subgraphs[0]
        signature = schema.SignatureDefT()
        signature.signatureKey = _SIGNATURE
        signature.subgraphIndex = 0
        signature.inputs = [_tensor_map(graph, index) for index in graph.inputs]
        signature.outputs = [_tensor_map(graph, index) for index in graph.outputs]
        model.signatureDefs = [signature]
    return serialize(model)


def stamp(content: bytes, *, where: str) -> bytes:
    """The same model with the operator versions its number formats need, and the lowest runtime that knows them."""
    model = parse(content, where=where)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            code.version = max(code.version, _needed_version(op_name(model, operator), operator, graph))
    for code in model.operatorCodes:
        code.builtinCode = flatbuffer_utils.get_builtin_code_from_operator_code(code)
        code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_SHORT_CODE)
    runtime = min_runtime(model)
    for entry in model.metadata or ():
        if entry.name == _MIN_RUNTIME:
            text = (runtime or "").encode()
            model.buffers[entry.buffer].data = np.frombuffer(text.ljust(_MIN_RUNTIME_BYTES, b"\0"), np.uint8)
    return serialize(model)


def min_runtime(model: Any) -> str | None:
    """The lowest TensorFlow Lite that knows every operator version in the model, or None where that is not known."""
    runtimes = []
    for code in model.operatorCodes:
        name = OP_NAMES.get(flatbuffer_utils.get_builtin_code_from_operator_code(code), "")
        first = _op_versions.first_runtime(name, code.version)
        if first is None:
            return None
        runtimes.append(first)
    return _op_versions.latest(runtimes) if runtimes else None


def _tensor_map(graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = graph.tensors[index].name
    entry.tensorIndex = index
    return entry


def _needed_version(name: str, operator: Any, graph: Any) -> int:
    def kind(index: int) -> str:
        return TYPE_NAMES[graph.tensors[index].type]

    inputs, output = [i for i in operator.inputs if i >= 0], kind(operator.outputs[0])
    if name == "DEQUANTIZE":
        return {"int8": 2, "uint8": 1}.get(kind(inputs[0]), 3)
    if name == "QUANTIZE":
        return 2 if output == "int16" else 1
    if name in _op_versions.HYBRID and output == "float32" and kind(inputs[1]) == "int8":
        scales = graph.tensors[inputs[1]].quantization.scale
        return _op_versions.HYBRID[name][len(scales) > 1]
    int8, int16 = _op_versions.STATIC.get(name, (None, None))
    return {"int8": int8, "int16": int16}.get(output) or 1
