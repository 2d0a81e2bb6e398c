"""Arrays as the Open Inference Protocol carries them: little-endian bytes, or numbers in JSON.

Used by both ends; each passes the class of error that a bad tensor is to it. Text (`BYTES`) and `BF16`, which numpy
does not have, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EdgeError, RemoteAnswerError, UsageError
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote.protocol import Tensor, TensorMetadata

Array = NDArray[Any]

# As they travel: little-endian, whatever this machine is.
DATATYPES = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype.newbyteorder("=").name: name for name, dtype in DATATYPES.items()}


def datatype(dtype: str) -> str:
    """The protocol's name of a numpy dtype that it has."""
    return _NAMES[dtype]


def spec(told: TensorMetadata, *, where: str) -> TensorSpec:
    """An input or output as an engine describes it.

    Raises:
        RemoteAnswerError: It is of a datatype that no array here can have.
    """
    dtype = DATATYPES.get(told.datatype)
    if dtype is None:
        raise RemoteAnswerError(
            f"tensor {told.name[:80]!r} is {told.datatype[:20]!r}, which no engine here takes or gives",
            where=where,
            hint=f"serve a model of {', '.join(DATATYPES)}",
        )
    return TensorSpec(name=told.name, shape=told.shape, dtype=dtype.newbyteorder("=").name)


def metadata(told: TensorSpec) -> TensorMetadata:
    """The same the other way round.

    Raises:
        UsageError: The protocol has no such dtype.
    """
    if told.dtype not in _NAMES:
        raise UsageError(f"tensor {told.name[:80]!r} is {told.dtype!r}", hint=f"there are {', '.join(_NAMES)}")
    return TensorMetadata(name=told.name, datatype=datatype(told.dtype), shape=tuple(told.shape))


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether it is this shape, of which -1 takes any size."""
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def packed(array: Array) -> memoryview:
    """The array's bytes as they travel; no copy where they lie so already."""
    wire = DATATYPES[datatype(array.dtype.name)]
    flat = np.ascontiguousarray(array, wire).reshape(-1)
    return memoryview(flat.view(np.uint8).data)


def unpacked(
    content: memoryview, tensor: Tensor | TensorMetadata, *, where: str, error: type[EdgeError]
) -> Array:  # fmt: skip
    """The array of these bytes; it shares their memory where that is possible.

    Raises:
        EdgeError: Of class `error`: they are not as many as shape and datatype say.
    """
    dtype = _known(tensor, where=where, error=error)
    wanted = math.prod(tensor.shape) * dtype.itemsize
    if len(content) != wanted:
        raise error(
            f"tensor {tensor.name[:80]!r} of shape {list(tensor.shape)} and {tensor.datatype} has {len(content)} bytes"
            f" instead of {wanted}",
            where=where,
        )
    if dtype.kind == "b":  # a byte of 2 would be neither true nor false
        truth: Array = np.frombuffer(content, np.uint8) != 0
        return _shaped(truth, tensor, where=where, error=error)
    array = _shaped(np.frombuffer(content, dtype), tensor, where=where, error=error)
    native: Array = array.astype(dtype.newbyteorder("="), copy=False)
    return native if native.flags.aligned else native.copy()


def listed(array: Array) -> list[Any]:
    """The numbers, flat, as JSON carries them."""
    plain: list[Any] = array.reshape(-1).tolist()
    return plain


def unlisted(tensor: Tensor, *, where: str, error: type[EdgeError]) -> Array:
    """The array of the numbers in `tensor.data`, flat or nested.

    Raises:
        EdgeError: Of class `error`: they are not numbers of this datatype, or not as many as the shape says.
    """
    dtype = _known(tensor, where=where, error=error)
    name = repr(tensor.name[:80])
    if not isinstance(tensor.data, list):
        raise error(f"tensor {name} has neither data nor binary data", where=where)
    try:
        found = np.asarray(tensor.data) if tensor.data else np.empty(0, dtype)
    except (ValueError, OverflowError) as cause:  # nested lists of unequal lengths
        raise error(f"the data of tensor {name} is no array", where=where) from cause
    # Whole numbers may stand where floating-point ones are meant; nothing else may stand for another.
    if found.dtype.kind not in {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]:
        raise error(f"the data of tensor {name} is not {tensor.datatype}", where=where)
    if found.size != math.prod(tensor.shape):
        raise error(
            f"tensor {name} of shape {list(tensor.shape)} has {found.size} numbers instead of"
            f" {math.prod(tensor.shape)}",
            where=where,
        )
    if dtype.kind in "iu" and found.size:
        limits = np.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise error(f"the data of tensor {name} is beyond {tensor.datatype}", where=where)
    with np.errstate(over="ignore"):
        array: Array = found.astype(dtype.newbyteorder("="))
    return _shaped(array, tensor, where=where, error=error)


def _shaped(flat: Array, tensor: Tensor | TensorMetadata, *, where: str, error: type[EdgeError]) -> Array:
    """In the tensor's shape, of as many elements; one with a 0 may be beyond what numpy counts to all the same."""
    try:
        return flat.reshape(tensor.shape)
    except ValueError as cause:
        raise error(f"tensor {tensor.name[:80]!r} of shape {list(tensor.shape)} is no array", where=where) from cause


def _known(tensor: Tensor | TensorMetadata, *, where: str, error: type[EdgeError]) -> np.dtype[Any]:
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise error(
            f"tensor {tensor.name[:80]!r} is {tensor.datatype[:20]!r}", where=where, hint=f"use {', '.join(DATATYPES)}"
        )
    return dtype
