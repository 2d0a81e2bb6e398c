"""A request's bytes into the model's answer, in bytes: what the protocol says, without a socket.

Runs on a thread of its own, since it computes. A request that makes no sense is a `InferRequestError`; everything else
that goes wrong is the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edge_sdk import wire
from edge_sdk.errors import InferRequestError
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote.protocol import (
    BINARY_EXTENSION,
    MAX_HEADER_BYTES,
    MAX_JSON_BYTES,
    InferAnswer,
    InferRequest,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from edge_sdk.remote.tensors import Array, datatype, listed, metadata, packed, unlisted, unpacked
from edge_sdk.serving.served import PLATFORM, Served

_WHERE = "request"
_MAX_DIGITS = 12
_ALIGN_BYTES = 64  # tensors behind the JSON begin at a cache line


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An answer.

    Attributes:
        header_bytes: How much of the body is JSON; None where all of it is.
    """

    body: bytes
    header_bytes: int | None


def server_metadata(version: str) -> ServerMetadata:
    """What the server says of itself."""
    return ServerMetadata(name="edge serve", version=version, extensions=(BINARY_EXTENSION,))


def model_metadata(served: Served) -> ModelMetadata:
    """What it says of the model."""
    return ModelMetadata(
        name=served.name,
        versions=(served.version,),
        platform=PLATFORM,
        inputs=tuple(metadata(each) for each in served.inputs),
        outputs=tuple(metadata(each) for each in served.outputs),
    )


def answered(served: Served, body: bytes | bytearray, header_length: str | None) -> Encoded:
    """The answer to one inference.

    Args:
        served: Who computes.
        body: Of the request.
        header_length: How many bytes of it are JSON, as its header says; None where all are.

    Raises:
        InferRequestError: The request makes no sense.
        InputError: The model does not take its tensors.
        EdgeError: The model failed.
    """
    head, rest = _halves(body, header_length)
    limit = MAX_JSON_BYTES if header_length is None else MAX_HEADER_BYTES
    request = wire.decode(head, InferRequest, where=_WHERE, max_bytes=limit, error=InferRequestError)
    wanted = _wanted(request, served.outputs)
    arrays = ordered(served.inputs, _arrays(request.inputs, rest))
    variant, found = served.run(arrays)
    return _encoded(served, request.id, variant, wanted, found)


def ordered(inputs: Sequence[TensorSpec], given: dict[str, tuple[str, Array]]) -> list[Array]:
    """The arrays in the order the model takes them.

    Args:
        inputs: Of the model.
        given: Datatype and array, by name.

    Raises:
        InferRequestError: One is missing, unknown, or of another datatype.
    """
    names = [each.name for each in inputs]
    for name in given:
        if name not in names:
            raise InferRequestError(f"no input {name[:80]!r}", hint=f"there are {', '.join(names)}")
    arrays: list[Array] = []
    for each in inputs:
        if each.name not in given:
            raise InferRequestError(f"input {each.name!r} is not given", hint=f"there are {', '.join(names)}")
        told, array = given[each.name]
        if told != datatype(each.dtype):
            raise InferRequestError(f"input {each.name!r} is {told} instead of {datatype(each.dtype)}")
        arrays.append(array)
    return arrays


def chosen(names: Sequence[str], outputs: Sequence[TensorSpec]) -> list[int]:
    """Which outputs these are; all of them where none is named.

    Raises:
        InferRequestError: The model has no such output, or one is named twice, by which a short request would get a
            long answer.
    """
    known = [each.name for each in outputs]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InferRequestError(f"output {name[:80]!r} is asked for twice")
        if name not in known:
            raise InferRequestError(f"no output {name[:80]!r}", hint=f"there are {', '.join(known)}")
    return [known.index(name) for name in names] or list(range(len(known)))


def _halves(body: bytes | bytearray, header_length: str | None) -> tuple[bytes, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return bytes(body), view[len(view) :]
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= _MAX_DIGITS):
        raise InferRequestError("Inference-Header-Content-Length is no number")
    length = int(header_length)
    if length > len(view):
        raise InferRequestError(f"{length} bytes of JSON in a body of {len(view)}")
    return bytes(view[:length]), view[length:]


def _arrays(tensors: Sequence[Tensor], rest: memoryview) -> dict[str, tuple[str, Array]]:
    found: dict[str, tuple[str, Array]] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise InferRequestError(f"input {tensor.name[:80]!r} is given twice")
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            array = unlisted(tensor, where=_WHERE, error=InferRequestError)
        elif type(size) is int and 0 <= size <= len(rest):
            array = unpacked(rest[:size], tensor, where=_WHERE, error=InferRequestError)
            rest = rest[size:]
        else:
            raise InferRequestError(f"input {tensor.name[:80]!r} should have {size!r:.40} bytes, {len(rest)} are left")
        found[tensor.name] = tensor.datatype, array
    if len(rest):
        raise InferRequestError(f"{len(rest)} bytes are left over behind the tensors")
    return found


def _wanted(request: InferRequest, outputs: Sequence[TensorSpec]) -> list[tuple[int, bool]]:
    """Which outputs, and whether as binary data."""
    always = (request.parameters or {}).get("binary_data_output") is True
    asked: tuple[RequestedOutput, ...] = request.outputs or ()
    if not asked:
        return [(index, always) for index in range(len(outputs))]
    binary = [(each.parameters or {}).get("binary_data", always) is True for each in asked]
    return list(zip(chosen([each.name for each in asked], outputs), binary, strict=True))


def _encoded(
    served: Served, id_: str | None, variant: str | None, wanted: Sequence[tuple[int, bool]], found: Sequence[Any]
) -> Encoded:
    tensors: list[Tensor] = []
    behind: list[memoryview] = []
    for index, is_binary in wanted:
        name, array = served.outputs[index].name, np.asarray(found[index])
        tensor = Tensor(name=name, datatype=datatype(array.dtype.name), shape=array.shape)
        if is_binary:
            content = packed(array)
            behind.append(content)
            tensors.append(msgspec.structs.replace(tensor, parameters={"binary_data_size": len(content)}))
        else:
            tensors.append(msgspec.structs.replace(tensor, data=_numbers(name, array)))
    answer = InferAnswer(
        model_name=served.name,
        model_version=served.version,
        id=id_,
        parameters=None if variant is None else {"variant": variant},
        outputs=tuple(tensors),
    )
    head = wire.encode(answer)
    if not behind:
        return Encoded(body=head, header_bytes=None)
    head = head.ljust(-(-len(head) // _ALIGN_BYTES) * _ALIGN_BYTES)
    return Encoded(body=b"".join([head, *behind]), header_bytes=len(head))


def _numbers(name: str, array: Array) -> list[Any]:
    if array.dtype == np.float16 or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        why = "is FP16" if array.dtype == np.float16 else "holds NaN or infinity"
        raise InferRequestError(f"output {name!r} {why}, which JSON cannot carry", hint="ask for it as binary_data")
    return listed(array)
