"""One model on a server that speaks the Open Inference Protocol v2 over gRPC: one attempt of each request.

gRPC itself keeps the connection and the deadline. Tensors always travel as raw bytes; answers are taken either way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
from google.protobuf.message import DecodeError

from edge_sdk.errors import (
    RemoteAnswerError,
    RemoteError,
    RemoteRefusedError,
    RemoteUnreachableError,
    UsageError,
)
from edge_sdk.remote.deadline import Deadline
from edge_sdk.remote.described import Declared, Described, Given, arranged, described
from edge_sdk.remote.grpc_messages import CONTENTS, MESSAGES, path
from edge_sdk.remote.protocol import ModelMetadata, Tensor
from edge_sdk.remote.tensors import Array, datatype, packed, unlisted, unpacked

_SHOWN_CHARS = 300
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
}
_UNAUTHORIZED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_TOO_LARGE = "larger than max"  # gRPC's own words, with RESOURCE_EXHAUSTED
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    # A board that comes back is found within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

T = TypeVar("T")
_ORPHANS: list[Any] = []  # channels of a forked child: closing one could wait for threads that are not there


class GrpcModel:
    """A model on a server.

    Args:
        host: Its name or number.
        port: Of the gRPC service.
        is_encrypted: By TLS.
        ca_file: Certificates to check the server's by; None takes gRPC's own.
        model: Its name there.
        version: None takes the server's choice.
        headers: Sent with each request.
        most_bytes: Of an answer.

    Raises:
        UsageError: The certificates cannot be read.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        is_encrypted: bool,
        ca_file: str | os.PathLike[str] | None,
        model: str,
        version: str | None,
        headers: dict[str, str],
        most_bytes: int,
    ) -> None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.where = f"{'grpcs' if is_encrypted else 'grpc'}://{address}/{model}"
        options = [*_OPTIONS, ("grpc.max_receive_message_length", most_bytes)]
        if is_encrypted:
            credentials = grpc.ssl_channel_credentials(_certificates(ca_file))
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._name, self._version = model, version or ""
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        self._numbers = itertools.count(1)

    def describe(self, declared: Declared, deadline: Deadline) -> Described:
        """What the server says of the model.

        Raises:
            RemoteError: It does not answer, refuses, or says something that makes no sense.
        """
        request = MESSAGES["ModelMetadataRequest"](name=self._name, version=self._version)
        told = self._ask("ModelMetadata", request, "ModelMetadataResponse", deadline)
        parts = {
            what: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in tensors]
            for what, tensors in (("inputs", told.inputs), ("outputs", told.outputs))
        }
        model = self._converted({"name": told.name} | parts, ModelMetadata)
        return described(model, declared, where=self.where, is_binary=True)

    def infer(self, arrays: Sequence[Array], known: Described, deadline: Deadline) -> list[Array]:
        """One answer per output, held against what the server said of the model.

        Raises:
            RemoteError: There is none.
        """
        number = str(next(self._numbers))
        request = MESSAGES["ModelInferRequest"](model_name=self._name, model_version=self._version, id=number)
        for spec, array in zip(known.inputs, arrays, strict=True):
            request.inputs.add(name=spec.name, datatype=datatype(spec.dtype), shape=array.shape)
            request.raw_input_contents.append(packed(array).tobytes())
        for spec in known.outputs:
            request.outputs.add(name=spec.name)
        answer = self._ask("ModelInfer", request, "ModelInferResponse", deadline)
        if answer.id not in {"", number}:
            raise RemoteAnswerError(f"an answer to request {answer.id[:40]!r}, not to ours", where=self.where)
        raw = answer.raw_output_contents
        if raw and len(raw) != len(answer.outputs):
            raise RemoteAnswerError(f"{len(raw)} contents of {len(answer.outputs)} outputs", where=self.where)
        found: list[Given] = []
        for index, each in enumerate(answer.outputs):
            told = {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
            if not raw:
                told["data"] = list(getattr(each.contents, CONTENTS.get(each.datatype, "bytes_contents")))
            tensor = self._converted(told, Tensor)
            if raw:  # a copy that is the caller's: what protobuf holds cannot be written to
                content = memoryview(bytearray(raw[index]))
                array = unpacked(content, tensor, where=self.where, error=RemoteAnswerError)
            else:
                array = unlisted(tensor, where=self.where, error=RemoteAnswerError)
            found.append(Given(name=tensor.name, datatype=tensor.datatype, array=array))
        return arranged(found, known, where=self.where)

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def lose(self) -> None:
        """In the child of a fork."""
        _ORPHANS.append(self._channel)

    def _ask(self, method: str, request: Any, answer: str, deadline: Deadline) -> Any:
        call = self._channel.unary_unary(path(method), type(request).SerializeToString)
        try:
            raw = call(request, timeout=deadline.left(), metadata=self._metadata)
            return MESSAGES[answer].FromString(raw)
        except grpc.RpcError as error:
            raise self._explained(error, deadline) from error
        except DecodeError as cause:
            raise RemoteAnswerError("the answer is no message of the protocol", where=self.where) from cause

    def _explained(self, error: grpc.RpcError, deadline: Deadline) -> RemoteError:
        code = error.code()
        details = str(error.details() or code.name)[:_SHOWN_CHARS]
        text = "".join(char if char.isprintable() else " " for char in details)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return deadline.passed()
        if code is grpc.StatusCode.UNAVAILABLE:
            return RemoteUnreachableError(f"no connection: {text}", where=self.where, hint="look at address and host")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
            return RemoteAnswerError(f"the answer is too large: {text}", where=self.where)
        hint = ""
        if code in _UNAUTHORIZED:
            has_token = any(name == "authorization" for name, _ in self._metadata)
            hint = "look at the token" if has_token else "give the server's token"
        return RemoteRefusedError(
            f"the server answers {code.name}: {text}", status=_STATUS.get(code, 500), where=self.where, hint=hint
        )

    def _converted(self, told: dict[str, Any], kind: type[T]) -> T:
        try:
            return msgspec.convert(told, kind)
        except msgspec.ValidationError as cause:
            raise RemoteAnswerError(f"not as expected: {cause}"[:_SHOWN_CHARS], where=self.where) from cause


def _certificates(ca_file: str | os.PathLike[str] | None) -> bytes | None:
    if ca_file is None:
        return None
    try:
        return Path(ca_file).read_bytes()
    except OSError as cause:
        raise UsageError(f"the certificates cannot be read: {cause.strerror}", where=str(ca_file)) from cause
