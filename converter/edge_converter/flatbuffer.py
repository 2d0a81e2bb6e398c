"""A `.tflite` file as an object that can be changed, and back.

What is decided here is only the file's form: what must be true of it before the quantizer reads it (`prepare`) and
before a device does (`stamp`). What the model computes is read by `edge_converter.graph`.
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from edge_converter import _op_versions
from edge_converter.errors import SourceError

_IDENTIFIER = b"TFL3"
_MOST_BYTES = 2**31  # offsets within a flatbuffer have 32 bits, of which one is a sign
_SIGNATURE = b"serving_default"
_MIN_RUNTIME = b"min_runtime_version"
_MIN_RUNTIME_BYTES = 16
_LAST_SHORT_CODE = 127
_LONGEST_NAME = 60
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


class _SharedScales(schema.QuantizationParametersT):  # type: ignore[misc] # the schema has no types
    """Scales and zero points whose vectors are written once, however many tensors have the same.

    A tensor with one scale a channel has as many zero points of 8 bytes, all zero: 176 of the 3,400 kB of
    EfficientNet-Lite0 in 4 and 8 bits. One for all is no way out, the runtime asks for as many as there are scales.
    """

    def __init__(self, given: Any, written: dict[bytes, int]) -> None:
        super().__init__()
        for name, value in vars(given).items():
            setattr(self, name, value)
        self._written = written

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - the schema's name
        fields: dict[str, Any] = {"min": np.float32, "max": np.float32, "scale": np.float32, "zeroPoint": np.int64}
        at = {name: self._vector(builder, name, dtype) for name, dtype in fields.items()}
        details = self.details.Pack(builder) if self.details is not None else None
        schema.QuantizationParametersStart(builder)
        for name, offset in at.items():
            if offset is not None:
                getattr(schema, f"QuantizationParametersAdd{name[0].upper()}{name[1:]}")(builder, offset)
        schema.QuantizationParametersAddDetailsType(builder, self.detailsType)
        if details is not None:
            schema.QuantizationParametersAddDetails(builder, details)
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        return int(schema.QuantizationParametersEnd(builder))

    def _vector(self, builder: flatbuffers.Builder, name: str, dtype: Any) -> int | None:
        values = getattr(self, name)
        if values is None:
            return None
        array = np.asarray(values, dtype)
        key = array.dtype.char.encode() + array.tobytes()
        if key not in self._written:
            self._written[key] = int(builder.CreateNumpyVector(array))
        return self._written[key]


def read(path: Path) -> Any:
    """The file as a `ModelT`.

    Raises:
        SourceError: It cannot be read, or is no whole `.tflite` file.
    """
    return parse(content(path), where=str(path))


def content(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        SourceError: It cannot be read, or is larger than any `.tflite` file: what has no end is not waited for.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("is no file", where=str(path), hint="name a .tflite file")
        if status.st_size > _MOST_BYTES:
            raise SourceError(
                f"has {status.st_size:,} bytes, and a .tflite file at most {_MOST_BYTES:,}", where=str(path)
            )
        return path.read_bytes()
    except OSError as cause:
        raise SourceError(f"cannot be read: {cause.strerror}", where=str(path)) from cause


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
    written: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None:
                tensor.quantization = _SharedScales(tensor.quantization, written)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: Any, operator: Any) -> str:
    """What the operator is, such as `CONV_2D`."""
    code = flatbuffer_utils.get_builtin_code_from_operator_code(model.operatorCodes[operator.opcodeIndex])
    return OP_NAMES.get(code, f"BUILTIN_{code}")


def unpacked(model: Any) -> dict[int, int]:
    """Tensors that a DEQUANTIZE makes of a constant, and that constant: a weight stored smaller than it is used."""
    graph = model.subgraphs[0]
    return {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if op_name(model, operator) == "DEQUANTIZE" and is_constant(model, operator.inputs[0])
    }


def is_constant(model: Any, index: int) -> bool:
    """Whether the file itself holds the tensor's value."""
    buffer = model.buffers[model.subgraphs[0].tensors[index].buffer]
    return buffer.data is not None and len(buffer.data) > 0


def put(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Give a constant another value; a buffer that several tensors share is left to the others."""
    if sum(entry.buffer == tensor.buffer for graph in model.subgraphs for entry in graph.tensors) > 1:
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)


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


def shorten_names(content: bytes, *, where: str) -> bytes:
    """The same model with names of tensors no longer than people read; those of inputs and outputs stay.

    Converters join the names of all that was fused: 116 of the 3,400 kB of EfficientNet-Lite0 in 4 and 8 bits.
    """
    model = parse(content, where=where)
    for graph in model.subgraphs:
        borders = {*(int(i) for i in graph.inputs), *(int(i) for i in graph.outputs)}
        for number, tensor in enumerate(graph.tensors):
            if number not in borders and tensor.name is not None:
                tensor.name = bytes(tensor.name).split(b";")[0][-_LONGEST_NAME:]
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
        scales = graph.tensors[inputs[0]].quantization.scale if graph.tensors[inputs[0]].quantization else None
        if kind(inputs[0]) == "int8":
            return 5 if scales is not None and len(scales) > 1 else 2
        return {"uint8": 1, "int4": 6}.get(kind(inputs[0]), 3)
    if name == "QUANTIZE":
        return 2 if output == "int16" else 1
    if name in _op_versions.HYBRID and output == "float32" and kind(inputs[1]) == "int8":
        scales = graph.tensors[inputs[1]].quantization.scale
        return _op_versions.HYBRID[name][len(scales) > 1]
    int8, int16 = _op_versions.STATIC.get(name, (None, None))
    return {"int8": int8, "int16": int16}.get(output) or 1
