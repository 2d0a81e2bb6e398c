"""The same model over gRPC, beside the HTTP server and behind the same gate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import numpy as np

from edge_sdk._version import __version__
from edge_sdk.address import Address
from edge_sdk.errors import AddressInUseError, EdgeError, InferRequestError, InputError, ModelClosedError
from edge_sdk.remote.grpc_messages import CONTENTS, MESSAGES, SERVICE
from edge_sdk.remote.protocol import Tensor
from edge_sdk.remote.tensors import Array, datatype, packed, unlisted, unpacked
from edge_sdk.serving.answering import chosen, model_metadata, ordered, server_metadata
from edge_sdk.serving.gate import Gate
from edge_sdk.serving.served import Served
from edge_sdk.serving.token import token_holds

if TYPE_CHECKING:
    from typing_extensions import Self

_WHERE = "request"
_THREADS = 4
_OPEN = ("ServerLive", "ServerReady")  # asked by whoever watches over processes, who has no token

Handler = Callable[[Any, grpc.ServicerContext], Any]


class GrpcServer:
    """Answers while its context is entered.

    Args:
        served: What computes.
        address: To listen at; port 0 takes a free one.
        gate: Shared with the other server.
        token: Who asks must have it; None asks for none.
        max_body_bytes: Of a request.
        grace_s: For the requests that are in it when it ends.

    Raises:
        AddressInUseError: The port is taken.
    """

    def __init__(
        self,
        served: Served,
        address: Address,
        *,
        gate: Gate,
        token: str | None,
        max_body_bytes: int,
        grace_s: float,
    ) -> None:
        self._served, self._gate, self._token, self._grace_s = served, gate, token, grace_s
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_body_bytes)]
        options += [("grpc.max_send_message_length", -1)]
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="edge-grpc")
        self._server = grpc.server(self._executor, options=options, maximum_concurrent_rpcs=gate.most + _THREADS)
        answers: dict[str, Handler] = {
            "ServerLive": lambda _, __: MESSAGES["ServerLiveResponse"](live=True),
            "ServerReady": lambda _, __: MESSAGES["ServerReadyResponse"](ready=gate.is_open),
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, answer),
                request_deserializer=MESSAGES[f"{name}Request"].FromString,
                response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
            )
            for name, answer in answers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError:
            port = 0
        if not port:
            self._executor.shutdown()
            raise AddressInUseError(
                "gRPC cannot listen here", where=str(address), hint="stop what listens there, or take another port"
            ) from None
        self.address = Address(host=address.host, port=port)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(self._grace_s).wait(self._grace_s + 1)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, name: str, answer: Handler) -> Handler:
        token = self._token
        if token is None or name in _OPEN:
            return answer

        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            given = dict(context.invocation_metadata()).get("authorization", "")
            if not token_holds(str(given), token):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is asked for")
            return answer(request, context)

        return guarded

    def _known(self, name: str, version: str, context: grpc.ServicerContext) -> None:
        if name != self._served.name or version not in {"", self._served.version}:
            there = f"{self._served.name!r}, version {self._served.version!r}"
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such model or version here; there is {there}")

    def _model_ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._known(request.name, request.version, context)
        return MESSAGES["ModelReadyResponse"](ready=self._gate.is_open)

    def _server_metadata(self, _: Any, __: grpc.ServicerContext) -> Any:
        told = server_metadata(__version__)
        return MESSAGES["ServerMetadataResponse"](name=told.name, version=told.version, extensions=told.extensions)

    def _model_metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._known(request.name, request.version, context)
        return MESSAGES["ModelMetadataResponse"](**msgspec.to_builtins(model_metadata(self._served)))

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._known(request.model_name, request.model_version, context)
        if not self._gate.enter():
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as many requests as may wait are here already")
        try:
            return self._answer(request)
        except (InputError, InferRequestError) as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ModelClosedError as error:
            return context.abort(grpc.StatusCode.UNAVAILABLE, error.what)
        except EdgeError as error:
            return context.abort(grpc.StatusCode.INTERNAL, error.what)  # not where our files lie
        finally:
            self._gate.leave()

    def _answer(self, request: Any) -> Any:
        wanted = chosen([each.name for each in request.outputs], self._served.outputs)
        variant, found = self._served.run(ordered(self._served.inputs, _arrays(request)))
        answer = MESSAGES["ModelInferResponse"](
            model_name=self._served.name, model_version=self._served.version, id=request.id
        )
        if variant is not None:
            answer.parameters.add(key="variant").value.string_param = variant
        for index in wanted:
            array = np.asarray(found[index])
            name = self._served.outputs[index].name
            answer.outputs.add(name=name, datatype=datatype(array.dtype.name), shape=array.shape)
            answer.raw_output_contents.append(packed(array).tobytes())
        return answer


def _arrays(request: Any) -> dict[str, tuple[str, Array]]:
    """Datatype and array by name, whichever way they came."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InferRequestError(f"{len(raw)} raw contents of {len(request.inputs)} inputs")
    found: dict[str, tuple[str, Array]] = {}
    for index, each in enumerate(request.inputs):
        told = {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
        if not raw:
            told["data"] = list(getattr(each.contents, CONTENTS.get(each.datatype, "bytes_contents")))
        try:
            tensor = msgspec.convert(told, Tensor)
        except msgspec.ValidationError as cause:
            raise InferRequestError(f"not as expected: {cause}"[:300]) from cause
        if tensor.name in found:
            raise InferRequestError(f"input {tensor.name[:80]!r} is given twice")
        array = (
            unpacked(memoryview(raw[index]), tensor, where=_WHERE, error=InferRequestError)
            if raw
            else unlisted(tensor, where=_WHERE, error=InferRequestError)
        )
        found[tensor.name] = tensor.datatype, array
    return found
