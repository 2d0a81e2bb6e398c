"""Small ONNX files, written as the protobuf bytes they are: the package that makes them is not installed on a device.

Numbers of fields and types are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "str": 8, "bool": 9, "float16": 10, "float64": 11}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _piece(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _port(name: str, shape: Sequence[int | str], kind: str) -> bytes:
    dims = b"".join(_piece(1, _number(1, size) if isinstance(size, int) else _piece(2, size)) for size in shape)
    tensor = _number(1, KINDS[kind]) + _piece(2, dims)
    return _piece(1, name) + _piece(2, _piece(1, tensor))


def _constant(name: str, values: np.ndarray[Any, Any]) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    return dims + _number(2, KINDS[values.dtype.name]) + _piece(8, name) + _piece(9, values.tobytes())


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "") -> bytes:
    """An operator without attributes."""
    ports = b"".join(_piece(1, each) for each in inputs) + b"".join(_piece(2, each) for each in outputs)
    return ports + _piece(4, kind) + (_piece(7, domain) if domain else b"")


def model(
    nodes: Sequence[bytes],
    inputs: Mapping[str, tuple[Sequence[int | str], str]],
    outputs: Mapping[str, tuple[Sequence[int | str], str]],
    constants: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    opset: int = 13,
    domains: Sequence[str] = (),
) -> bytes:
    """A file: a size that is a word is free."""
    graph = b"".join(_piece(1, each) for each in nodes) + _piece(2, "main")
    graph += b"".join(_piece(5, _constant(name, values)) for name, values in (constants or {}).items())
    graph += b"".join(_piece(11, _port(name, *what)) for name, what in inputs.items())
    graph += b"".join(_piece(12, _port(name, *what)) for name, what in outputs.items())
    opsets = _piece(8, _piece(1, "") + _number(2, opset))
    opsets += b"".join(_piece(8, _piece(1, each) + _number(2, 1)) for each in domains)
    return _number(1, 8) + _piece(7, graph) + opsets


WEIGHTS = np.random.default_rng(5).normal(0, 0.5, (4, 3)).astype(np.float32)


def scores(*, batch: int | str = 1, opset: int = 13) -> bytes:
    """The softmax of a dense layer: `x`, `[batch, 4]`, to `scores`, `[batch, 3]`."""
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Softmax", ["y"], ["scores"])]
    return model(
        nodes, {"x": ([batch, 4], "float32")}, {"scores": ([batch, 3], "float32")}, {"w": WEIGHTS}, opset=opset
    )
