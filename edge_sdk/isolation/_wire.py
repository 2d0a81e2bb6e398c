"""What an app and a worker process say to each other: small messages of MessagePack; tensors go by shared memory.

Each engine has a socket of its own (SOCK_SEQPACKET: one message, one packet), so calls of one never wait behind the
loading of another. Both ends are this package at one version; it is decoded with bounds all the same, because what
the worker loads into itself is somebody else's machine code.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import WorkerLostError
from edge_sdk.wire import Count, Millis, Wire

MAX_PACKET_BYTES = 128 * 1024
MAX_REASON_CHARS = 1000
MAX_NAME_CHARS = 500  # what a converter joins from the names of fused operators may be longer
_MOST_TENSORS = 256  # language models hand on a key and a value for every layer

Dimension = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=8)]
Shapes = Annotated[tuple[Shape, ...], Meta(max_length=_MOST_TENSORS)]
Reason = Annotated[str, Meta(max_length=MAX_REASON_CHARS)]
K = TypeVar("K")


class PortSpec(Wire, frozen=True, kw_only=True):
    """A `Port`, on its way to the app."""

    name: Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
    index: Count
    shape: Shape
    free: Annotated[tuple[bool, ...], Meta(max_length=8)]
    dtype: Annotated[str, Meta(pattern=r"\A[a-z0-9]{1,16}\Z")]
    scale: Annotated[float, Meta(gt=0, le=1e30)] | None = None
    zero: Annotated[int, Meta(ge=-(2**31), le=2**31)] = 0
    finite: bool = False


Ports = Annotated[tuple[PortSpec, ...], Meta(min_length=1, max_length=_MOST_TENSORS)]


class Open(Wire, frozen=True, kw_only=True, tag="open"):
    """Load this model; the memory and the socket of the engine come with it.

    Attributes:
        deadline_s: The app waits no longer for the first answer.
    """

    model: Annotated[str, Meta(max_length=4096)]
    delegation: Delegation | None = None
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    stored: bool = False
    deadline_s: Annotated[int, Meta(ge=1, le=86_400)]


class Stage(Wire, frozen=True, kw_only=True, tag="stage"):
    """What is begun now, so that a crash or a hang can be told with its place."""

    name: Annotated[str, Meta(max_length=100)]


class Opened(Wire, frozen=True, kw_only=True, tag="opened"):
    """The model is loaded and has run.

    Attributes:
        load_ms: From the model's file to the first answer.
        first_ms: What of that the first inference took.
        warm_ms: The second inference.
        operators: Of the model.
        delegated: Partitions that the delegate took; None where the runtime does not say.
    """

    inputs: Ports
    outputs: Ports
    runtime: Annotated[str, Meta(max_length=100)]
    load_ms: Millis
    first_ms: Millis = 0.0
    warm_ms: Millis
    operators: Count | None = None
    delegated: Count | None = None


class Refused(Wire, frozen=True, kw_only=True, tag="refused"):
    """It cannot be loaded, in the worker's words."""

    code: Annotated[str, Meta(max_length=100)]
    what: Reason
    hint: Reason = ""


class Call(Wire, frozen=True, kw_only=True, tag="call"):
    """Compute; the inputs are in the shared memory. `shapes` where they are not those that were allocated."""

    number: Count
    shapes: Shapes | None = None


class Answer(Wire, frozen=True, kw_only=True, tag="answer"):
    """The outputs lie behind the inputs in the shared memory; `shapes` where they are not those that were allocated.

    Attributes:
        number: Of the call that is answered.
    """

    number: Count
    shapes: Shapes | None = None


class Failed(Wire, frozen=True, kw_only=True, tag="failed"):
    """The runtime refused to compute."""

    number: Count
    what: Reason


Said = Stage | Opened | Refused | Answer | Failed
Asked = Call

_encoder = msgspec.msgpack.Encoder()
_said: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
_asked: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked)
_open: msgspec.msgpack.Decoder[Open] = msgspec.msgpack.Decoder(Open)


def encode(message: Any) -> bytes:
    """One packet."""
    return _encoder.encode(message)


def said(packet: bytes) -> Said:
    """What a worker said.

    Raises:
        WorkerLostError: It is no message: the process is not in its right mind.
    """
    return _decoded(_said, packet)


def asked(packet: bytes) -> Asked:
    """What an app asked of an engine.

    Raises:
        WorkerLostError: It is no message.
    """
    return _decoded(_asked, packet)


def ordered(packet: bytes) -> Open:
    """The order to load a model.

    Raises:
        WorkerLostError: It is no message.
    """
    return _decoded(_open, packet)


def _decoded(decoder: msgspec.msgpack.Decoder[K], packet: bytes) -> K:
    try:
        return decoder.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise WorkerLostError(f"a message between app and worker is malformed: {str(cause)[:200]}") from cause
