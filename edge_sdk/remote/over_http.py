"""One model on a server that speaks the Open Inference Protocol v2 over HTTP/1.1: one attempt of each request.

Tensors go as binary data where the server's metadata names that extension, and as JSON where it does not. What is
tried again, and how a batch is cut, is `edge_sdk.remote.engine`'s business.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from edge_sdk import wire
from edge_sdk._version import __version__
from edge_sdk.errors import (
    InputValueError,
    RemoteAnswerError,
    RemoteError,
    RemoteRefusedError,
    RemoteUnreachableError,
)
from edge_sdk.remote.connection import Answer, Pool
from edge_sdk.remote.deadline import Deadline
from edge_sdk.remote.described import Declared, Described, Given, arranged, described
from edge_sdk.remote.protocol import (
    BINARY_EXTENSION,
    HEADER_LENGTH,
    MAX_ERROR_BYTES,
    MAX_HEADER_BYTES,
    MAX_JSON_BYTES,
    MAX_METADATA_BYTES,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from edge_sdk.remote.tensors import Array, datatype, listed, packed, unlisted, unpacked

_OK = 200
_REDIRECTS = range(300, 400)
_NOT_FOUND = 404
_UNAUTHORIZED = (401, 403)
_ALIGN_BYTES = 64  # tensors behind the JSON begin at a cache line, and are used where they lie
_MAX_DIGITS = 12

T = TypeVar("T")


class HttpModel:
    """A model on a server.

    Args:
        pool: Of connections to it; closed with this.
        prefix: Path before `/v2`.
        model: Its name there.
        version: None takes the server's choice.
        headers: Sent with each request.
        binary: Whether tensors go as binary data; None asks the server.
        most_bytes: Of an answer.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        prefix: str,
        model: str,
        version: str | None,
        headers: dict[str, str],
        binary: bool | None,
        most_bytes: int,
    ) -> None:
        self._pool, self._prefix, self._binary, self._most_bytes = pool, prefix, binary, most_bytes
        self._path = f"{prefix}/v2/models/{quote(model, safe='')}"
        if version is not None:
            self._path += f"/versions/{quote(version, safe='')}"
        host = pool.target.host
        host = f"[{host}]" if ":" in host else host
        lines = {"Host": f"{host}:{pool.target.port}", "User-Agent": f"adaptive-edge-sdk/{__version__}"} | headers
        self._has_token = "Authorization" in headers
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._numbers = itertools.count(1)

    @property
    def where(self) -> str:
        """The model's address."""
        return f"{self._pool.target.where.rstrip('/')}{self._path.removeprefix(self._prefix)}"

    def describe(self, declared: Declared, deadline: Deadline) -> Described:
        """What the server says of the model.

        Raises:
            RemoteError: It does not answer, refuses, or says something that makes no sense.
        """
        if self._binary is None:
            try:
                server = self._ask(f"{self._prefix}/v2", ServerMetadata, deadline)
                self._binary = BINARY_EXTENSION in (server.extensions or ())
            except RemoteRefusedError as error:
                if error.status != _NOT_FOUND:
                    raise
                self._binary = False  # a server without metadata of itself
        told = self._ask(self._path, ModelMetadata, deadline)
        return described(told, declared, where=self.where, is_binary=self._binary)

    def infer(self, arrays: Sequence[Array], known: Described, deadline: Deadline) -> list[Array]:
        """One answer per output, held against what the server said of the model.

        Raises:
            RemoteError: There is none.
            InputValueError: NaN or infinity, on a server that takes numbers as JSON.
        """
        number = str(next(self._numbers))
        tensors: list[Tensor] = []
        behind: list[memoryview] = []
        for spec, array in zip(known.inputs, arrays, strict=True):
            tensor = Tensor(name=spec.name, datatype=datatype(spec.dtype), shape=array.shape)
            if known.is_binary:
                content = packed(array)
                behind.append(content)
                tensor = msgspec.structs.replace(tensor, parameters={"binary_data_size": len(content)})
            else:
                tensor = msgspec.structs.replace(tensor, data=_finite(array, spec.name))
            tensors.append(tensor)
        wanted = {"binary_data": True} if known.is_binary else None
        request = InferRequest(
            id=number,
            inputs=tuple(tensors),
            outputs=tuple(RequestedOutput(name=spec.name, parameters=wanted) for spec in known.outputs),
        )
        head = wire.encode(request)
        extra = ""
        if known.is_binary:
            head = head.ljust(-(-len(head) // _ALIGN_BYTES) * _ALIGN_BYTES)
            extra = f"{HEADER_LENGTH}: {len(head)}\r\nContent-Type: application/octet-stream\r\n"
        else:
            extra = "Content-Type: application/json\r\n"
        answer = self._exchange("POST", f"{self._path}/infer", extra, [head, *behind], deadline)
        self._refuse(answer)
        return arranged(self._outputs(answer, number), known, where=self.where)

    def close(self) -> None:
        """Let the connections go."""
        self._pool.close()

    def lose(self) -> None:
        """In the child of a fork."""
        self._pool.lose()

    # ------------------------------------------------------------------------------------------------- requests

    def _ask(self, path: str, kind: type[T], deadline: Deadline) -> T:
        answer = self._exchange("GET", path, "", [], deadline)
        self._refuse(answer)
        where = f"the answer to GET {path} of {self._pool.target.where}"
        return wire.decode(bytes(answer.body), kind, where=where, max_bytes=MAX_METADATA_BYTES, error=RemoteAnswerError)

    def _exchange(
        self, method: str, path: str, extra: str, body: Sequence[bytes | memoryview], deadline: Deadline
    ) -> Answer:
        """One request; a connection that was closed while it lay idle is no failure of the server's, and replaced."""
        length = f"Content-Length: {sum(map(len, body))}\r\n" if method == "POST" else ""
        head = f"{method} {path} HTTP/1.1\r\n{length}{extra}".encode() + self._headers + b"\r\n"
        parts = [head + bytes(body[0]), *body[1:]] if body else [head]
        fresh = False
        while True:
            with self._pool.lend(deadline, fresh=fresh) as connection:
                stood = connection.exchanges > 0
                try:
                    return connection.exchange(parts, deadline, most_bytes=self._most_bytes)
                except RemoteUnreachableError:
                    if not stood or fresh:
                        raise
                    connection.is_spent = fresh = True

    def _refuse(self, answer: Answer) -> None:
        """Raise what the server says went wrong."""
        if answer.status == _OK:
            return
        told = _told(answer.body)
        hint = ""
        if answer.status in _REDIRECTS:
            place = "".join(char for char in answer.headers.get("Location", "")[:200] if char.isprintable())
            hint = f"give the address it sends us to: {place}" if place else "give the address it means"
        elif answer.status in _UNAUTHORIZED:
            hint = "look at the token" if self._has_token else "give the server's token"
        elif answer.status == _NOT_FOUND:
            hint = "look at the model's name and version"
        raise RemoteRefusedError(
            f"the server answers {answer.status}: {told}", status=answer.status, where=self.where, hint=hint
        )

    def _outputs(self, answer: Answer, number: str) -> list[Given]:
        """The arrays of an answer, as they came."""
        head, rest = self._halves(answer)
        told = wire.decode(head, InferAnswer, where=self.where, max_bytes=MAX_JSON_BYTES, error=RemoteAnswerError)
        if told.id not in (None, "", number):
            raise RemoteAnswerError(f"an answer to request {told.id[:40]!r}, not to ours", where=self.where)
        found: list[Given] = []
        for tensor in told.outputs:
            size = (tensor.parameters or {}).get("binary_data_size")
            if size is None:
                array = unlisted(tensor, where=self.where, error=RemoteAnswerError)
            elif type(size) is int and 0 <= size <= len(rest):
                array = unpacked(rest[:size], tensor, where=self.where, error=RemoteAnswerError)
                rest = rest[size:]
            else:
                raise RemoteAnswerError(
                    f"tensor {tensor.name[:80]!r} should have {size!r:.40} bytes, and {len(rest)} are left",
                    where=self.where,
                )
            found.append(Given(name=tensor.name, datatype=tensor.datatype, array=array))
        if len(rest):
            raise RemoteAnswerError(f"{len(rest)} bytes are left over behind the tensors", where=self.where)
        return found

    def _halves(self, answer: Answer) -> tuple[bytes, memoryview]:
        """The JSON, and the bytes behind it."""
        body = memoryview(answer.body)
        length = answer.headers.get(HEADER_LENGTH)
        if length is None:
            return bytes(body), body[len(body) :]
        if not (length.isascii() and length.isdigit() and len(length) <= _MAX_DIGITS and int(length) <= len(body)):
            raise RemoteAnswerError(f"{HEADER_LENGTH} is {length[:40]!r} of {len(body)} bytes", where=self.where)
        if int(length) > MAX_HEADER_BYTES:
            raise RemoteAnswerError(f"{int(length)} bytes of JSON before the tensors", where=self.where)
        return bytes(body[: int(length)]), body[int(length) :]


def _told(body: bytearray) -> str:
    """The server's own words, bounded and on one line."""
    try:
        text = wire.decode(bytes(body[:MAX_ERROR_BYTES]), ErrorAnswer, where="", error=RemoteError).error
    except RemoteError:
        text = bytes(body[:200]).decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else " " for char in text[:300]).strip()
    return text or "no reason given"


def _finite(array: Array, name: str) -> list[Any]:
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputValueError(
            "holds NaN or infinity, which JSON cannot carry, and this server takes nothing else",
            where=f"input {name!r}",
            hint="clean the data, or use a server with the binary tensor extension",
        )
    return listed(array)
