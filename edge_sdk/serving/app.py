"""The requests of the Open Inference Protocol v2, as a Starlette application.

Every request has an answer in JSON, a failed one `{"error": ...}`. The event loop reads and writes; decoding, computing
and encoding happen on threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edge_sdk import wire
from edge_sdk._version import __version__
from edge_sdk.errors import EdgeError, InferRequestError, InputError, ModelClosedError
from edge_sdk.remote.protocol import HEADER_LENGTH, ErrorAnswer
from edge_sdk.serving import answering
from edge_sdk.serving.gate import Gate
from edge_sdk.serving.served import Served
from edge_sdk.serving.token import token_holds

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BODY_S = 30.0  # for a whole body to arrive
_RETRY_S = "1"
_PATIENCE = 4  # times as large as is taken: so much of a body is read before it is refused
_OPEN = ("/v2/health/live", "/v2/health/ready")  # asked by whoever watches over processes, who has no token
_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the application needs.

    Attributes:
        executor: Where inferences run.
        token: Who asks must have it; None asks for none.
        max_body_bytes: Of a request.
    """

    served: Served
    gate: Gate
    executor: Executor
    token: str | None
    max_body_bytes: int


def build_app(host: Host) -> ASGIApp:
    """The application."""
    routes = _Routes(host)
    app = Starlette(
        routes=[
            Route("/v2", routes.server),
            Route("/v2/", routes.server),
            Route("/v2/health/live", routes.live),
            Route("/v2/health/ready", routes.ready),
            *(Route(path, routes.model) for path in (_MODEL, _VERSION)),
            *(Route(f"{path}/ready", routes.model_ready) for path in (_MODEL, _VERSION)),
            *(Route(f"{path}/infer", routes.infer, methods=["POST"]) for path in (_MODEL, _VERSION)),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _our_mistake},
    )
    app.router.redirect_slashes = False
    return app if host.token is None else _Guarded(app, host.token)


class _Routes:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._served = host.served

    async def server(self, _: Request) -> Response:
        return _json(answering.server_metadata(__version__))

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        return _json({"ready": self._host.gate.is_open}, 200 if self._host.gate.is_open else 503)

    async def model(self, request: Request) -> Response:
        return self._unknown(request) or _json(answering.model_metadata(self._served))

    async def model_ready(self, request: Request) -> Response:
        is_ready = self._host.gate.is_open
        return self._unknown(request) or _json({"name": self._served.name, "ready": is_ready}, 200 if is_ready else 503)

    async def infer(self, request: Request) -> Response:
        """Let in, read, compute on a thread, answer."""
        try:
            return await self._inferred(request)
        except asyncio.CancelledError:  # the server ends, and its grace is over
            return _error(503, "the server ends before this is answered", {"Connection": "close"})

    async def _inferred(self, request: Request) -> Response:
        refused = self._unknown(request) or _compressed(request)
        if refused is not None:
            return refused
        gate, most = self._host.gate, self._host.max_body_bytes
        if not gate.enter():
            await _drained(request, most)
            return _error(503, "as many requests as may wait are here already", {"Retry-After": _RETRY_S})
        leave = gate.leave
        try:
            body = await asyncio.wait_for(_body(request, most), BODY_S)
            if body is not None:
                work = self._host.executor.submit(self._answer, body, request.headers.get(HEADER_LENGTH))
                # It is in the server until it has been computed, also where the client no longer waits.
                work.add_done_callback(lambda _: gate.leave())
                leave = _nothing
                return self._response(*await asyncio.wrap_future(work))
        except asyncio.TimeoutError:
            return _error(408, f"the body was not here within {BODY_S:g} s", {"Connection": "close"})
        except ClientDisconnect:
            return _error(400, "the client has gone")
        finally:
            leave()
        await _drained(request, _PATIENCE * most)
        return _error(413, f"a body of at most {most} bytes is taken", {"Connection": "close"})

    @staticmethod
    def _response(status: int, done: answering.Encoded | str) -> Response:
        if isinstance(done, str):
            return _error(status, done)
        headers = {} if done.header_bytes is None else {HEADER_LENGTH: str(done.header_bytes)}
        kind = "application/json" if done.header_bytes is None else "application/octet-stream"
        return Response(done.body, headers=headers, media_type=kind)

    def _answer(self, body: bytearray, header_length: str | None) -> tuple[int, answering.Encoded | str]:
        """On a thread: the answer, or a status and what went wrong."""
        try:
            return 200, answering.answered(self._served, body, header_length)
        except EdgeError as error:
            return status(error), told(error)

    def _unknown(self, request: Request) -> Response | None:
        """An answer to who asks for another model than ours."""
        model, version = request.path_params["model"], request.path_params.get("version", self._served.version)
        if model != self._served.name:
            return _error(404, f"no model {model[:80]!r} here; there is {self._served.name!r}")
        if version != self._served.version:
            return _error(404, f"no version {version[:80]!r} of it here; there is {self._served.version!r}")
        return None


class _Guarded:
    """Lets nobody in without the token, but for asking whether we live."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not token_holds(given, self._token):
                response = _error(401, "a token is asked for", {"WWW-Authenticate": "Bearer", "Connection": "close"})
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def status(error: EdgeError) -> int:
    """Of HTTP, for what went wrong."""
    if isinstance(error, (InputError, InferRequestError)):
        return 400
    return 503 if isinstance(error, ModelClosedError) else 500


def told(error: EdgeError) -> str:
    """What a stranger is told: what is wrong with the request in full, of our failures not where our files lie."""
    return str(error) if status(error) == 400 else error.what  # noqa: PLR2004 - the status of a bad request


def _compressed(request: Request) -> Response | None:
    """An answer to who compresses the body."""
    if request.headers.get("content-encoding", "identity") == "identity":
        return None
    return _error(415, "a compressed body is not taken", {"Accept-Encoding": "identity"})


async def _body(request: Request, most_bytes: int) -> bytearray | None:
    """The body; None where it is too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            return None
    return body


async def _drained(request: Request, most_bytes: int) -> None:
    """Read what comes, up to so many bytes, and keep nothing: who still sends would not hear why it is refused."""

    async def drain() -> None:
        count = 0
        async for piece in request.stream():
            count += len(piece)
            if count > most_bytes:
                return

    try:
        await asyncio.wait_for(drain(), BODY_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return


def _nothing() -> None:
    """The place in the server has gone over to who computes."""


def _json(value: Any, status_: int = 200) -> Response:
    return Response(wire.encode(value), status_code=status_, media_type="application/json")


def _error(status_: int, what: str, headers: dict[str, str] | None = None) -> Response:
    body = wire.encode(ErrorAnswer(error=what))
    return Response(body, status_code=status_, headers=headers, media_type="application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette's own table says so
    return _error(error.status_code, error.detail, dict(error.headers or {}))


async def _our_mistake(_: Request, error: Exception) -> Response:
    return _error(500, f"this is a mistake of ours: {type(error).__name__}")
