"""The messages of the Open Inference Protocol v2 over HTTP, and its binary tensor data extension.

https://github.com/kserve/open-inference-protocol (inference_rest.yaml), and for the extension Triton's
extension_binary_data.md. What an array looks like in them is said in `edge_sdk.remote.tensors`.

Unlike our own messages these accept fields we do not know: the protocol lets every server add some.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

MAX_METADATA_BYTES = 4 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
# Of the JSON in front of binary tensors: names, shapes and parameters, no data.
MAX_HEADER_BYTES = 4 * 1024 * 1024
# With the numbers in it: decoded it takes some ten times the memory.
MAX_JSON_BYTES = 16 * 1024 * 1024
HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_EXTENSION = "binary_tensor_data"

Title = Annotated[str, Meta(max_length=500)]
Id = Annotated[str, Meta(max_length=1000)]
# No array of numpy 1 has more than 32 dimensions.
Sizes = Annotated[tuple[Annotated[int, Meta(ge=0, le=2**40)], ...], Meta(max_length=32)]
FreeSizes = Annotated[tuple[Annotated[int, Meta(ge=-1, le=2**40)], ...], Meta(max_length=32)]
Parameters = dict[str, Any]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all messages."""


class ServerMetadata(Message, frozen=True, kw_only=True):
    """Of `GET /v2`."""

    name: Title = ""
    version: Title = ""
    extensions: Annotated[tuple[Title, ...], Meta(max_length=1000)] | None = None


class TensorMetadata(Message, frozen=True, kw_only=True):
    """An input or output of a model; -1 is a free dimension."""

    name: Title
    datatype: Title
    shape: FreeSizes


class ModelMetadata(Message, frozen=True, kw_only=True):
    """Of `GET /v2/models/NAME`."""

    name: Title
    versions: Annotated[tuple[Title, ...], Meta(max_length=1000)] | None = None
    platform: Title | None = None
    inputs: Annotated[tuple[TensorMetadata, ...], Meta(max_length=1000)] | None = None
    outputs: Annotated[tuple[TensorMetadata, ...], Meta(max_length=1000)] | None = None


class Ready(Message, frozen=True, kw_only=True):
    """Of the `ready` and `live` requests; only the status counts."""

    ready: bool | None = None
    live: bool | None = None


class Tensor(Message, frozen=True, kw_only=True):
    """One array of a request or an answer: its numbers in `data`, or behind the JSON.

    Attributes:
        parameters: `binary_data_size` says how many bytes behind the JSON are this array's.
        data: The numbers, flat or nested; None where they are binary.
    """

    name: Title
    datatype: Title
    shape: Sizes
    parameters: Parameters | None = None
    data: Any = None


class RequestedOutput(Message, frozen=True, kw_only=True):
    """An output the client wants; `binary_data` among the parameters says how."""

    name: Title
    parameters: Parameters | None = None


class InferRequest(Message, frozen=True, kw_only=True):
    """Of `POST .../infer`."""

    id: Id | None = None
    parameters: Parameters | None = None
    inputs: Annotated[tuple[Tensor, ...], Meta(min_length=1, max_length=1000)]
    outputs: Annotated[tuple[RequestedOutput, ...], Meta(max_length=1000)] | None = None


class InferAnswer(Message, frozen=True, kw_only=True):
    """Its answer."""

    model_name: Title = ""
    model_version: Title | None = None
    id: Id | None = None
    parameters: Parameters | None = None
    outputs: Annotated[tuple[Tensor, ...], Meta(max_length=1000)]


class ErrorAnswer(Message, frozen=True, kw_only=True):
    """Of every request that failed."""

    error: str
