"""The door of the API: who may come in, how often, with what, and how errors are answered."""

from __future__ import annotations

import asyncio
import http
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge_hub.api import MAX_BODY_BYTES
from edge_hub.errors import (
    CrossSiteError,
    EnrolledError,
    ExportLibraryError,
    ForbiddenError,
    StoreError,
    TokenRefusedError,
    TooManyRequestsError,
    UnknownAlertError,
    UnknownBatchError,
    UnknownCommandError,
    UnknownDeviceError,
    UnknownGroupError,
    UnknownRuleError,
    UnknownSilenceError,
    UnknownTokenError,
    VersionConflictError,
)
from edge_hub.web.auth import Caller, Role
from edge_hub.web.limits import Limit
from edge_hub.web.operation import JSON, ONE, Ask, Operation, json_answer, read_path, read_query
from edge_sdk.errors import EdgeError, UsageError, WireError
from edge_sdk.local import ErrorBody
from edge_sdk.wire import decode

if TYPE_CHECKING:
    from edge_hub.service import Hub

_log = logging.getLogger(__name__)

_BODY_S = 10.0  # a body that takes longer to arrive comes from somebody who only holds the connection
_NOBODY = Caller(name="", role=Role.VIEWER)
# Wrong tokens from one address: enough for a person's typing, too few for a search.
_WRONG_PER_S, _WRONG_BURST = 0.2, 20.0
_BURST_S = 10.0
_STATUS: tuple[tuple[type[EdgeError], int], ...] = (
    (TokenRefusedError, http.HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, http.HTTPStatus.FORBIDDEN),
    (CrossSiteError, http.HTTPStatus.FORBIDDEN),
    (TooManyRequestsError, http.HTTPStatus.TOO_MANY_REQUESTS),
    (UnknownDeviceError, http.HTTPStatus.NOT_FOUND),
    (UnknownCommandError, http.HTTPStatus.NOT_FOUND),
    (UnknownBatchError, http.HTTPStatus.NOT_FOUND),
    (UnknownGroupError, http.HTTPStatus.NOT_FOUND),
    (UnknownRuleError, http.HTTPStatus.NOT_FOUND),
    (UnknownAlertError, http.HTTPStatus.NOT_FOUND),
    (UnknownSilenceError, http.HTTPStatus.NOT_FOUND),
    (UnknownTokenError, http.HTTPStatus.NOT_FOUND),
    (VersionConflictError, http.HTTPStatus.CONFLICT),
    (EnrolledError, http.HTTPStatus.CONFLICT),
    (ExportLibraryError, http.HTTPStatus.NOT_IMPLEMENTED),
    (StoreError, http.HTTPStatus.SERVICE_UNAVAILABLE),
    (WireError, http.HTTPStatus.BAD_REQUEST),
    (UsageError, http.HTTPStatus.BAD_REQUEST),
)


class Door:
    """Lets requests in.

    Args:
        hub: What they are about.
        per_s: Requests a second of one token from one address; 0 is as many as come.
    """

    def __init__(self, hub: Hub, *, per_s: float) -> None:
        self._hub = hub
        self._asked = Limit(per_s=per_s, burst=max(1.0, per_s * _BURST_S))
        self._wrong = Limit(per_s=_WRONG_PER_S, burst=_WRONG_BURST)

    def of(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """What Starlette calls for a route."""

        async def enter(request: Request) -> Response:
            try:
                caller = await self._caller(request, operation)
                body = None if operation.body is None else await read_body(request, operation.body)
                ask = Ask(
                    hub=self._hub,
                    request=request,
                    caller=caller,
                    query=read_query(operation, request),
                    path=read_path(request),
                    body=body,
                )
                return await operation.handler(ask)
            except EdgeError as error:
                return refusal(self._counted(error, request))
            except ClientDisconnect:
                return Response(status_code=http.HTTPStatus.BAD_REQUEST)  # nobody reads it
            except Exception:  # noqa: BLE001 - the task runner of the handlers
                _log.exception("%s %s failed", request.method, request.url.path[:200])
                told = ErrorBody(code="internal", text="the hub failed at this; its log says more")
                return json_answer(told, status=http.HTTPStatus.INTERNAL_SERVER_ERROR)

        return enter

    def _counted(self, error: EdgeError, request: Request) -> EdgeError:
        """What is answered: a wrong token counts, and one too many is told so."""
        if isinstance(error, TokenRefusedError):
            try:
                self._wrong.take(_address(request))
            except TooManyRequestsError as many:
                return many
        return error

    async def _caller(self, request: Request, operation: Operation) -> Caller:
        """Who asks, where they may.

        Raises:
            TokenRefusedError: Nobody knows them.
            ForbiddenError: They may not.
            TooManyRequestsError: Not so often.
        """
        address = _address(request)
        if operation.role is None:
            self._wrong.check(address)
            self._asked.take(f"@{address}")
            return _NOBODY
        try:
            caller = await self._hub.gate.caller(request)
        except TokenRefusedError:
            self._wrong.check(address)  # who knows a token is not kept out by a neighbour who does not
            raise
        self._asked.take(f"{caller.name}@{address}", _weight(operation, request))
        await self._hub.gate.check(request, caller, operation.role)
        return caller


def _weight(operation: Operation, request: Request) -> int:
    """As how many a request counts; one that cannot be understood costs little."""
    try:
        return 1 if operation.weight is ONE else operation.weight(read_query(operation, request))
    except WireError:
        return 1


def refusal(error: EdgeError) -> Response:
    """The answer to a request that failed."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), http.HTTPStatus.CONFLICT)
    headers = {}
    if isinstance(error, TokenRefusedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(max(1, math.ceil(error.wait_s)))
    return json_answer(ErrorBody(code=error.code, text=str(error)[:1000]), status=status, headers=headers)


async def refused(_request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: no such path, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these alone
    body = ErrorBody(code="bad-request", text=f"{error.detail}; the paths are in docs/reference/hub-api.md")
    return json_answer(body, status=error.status_code, headers=dict(error.headers or {}))


async def read_body(request: Request, kind: type[Any]) -> Any:
    """The body, no larger and no slower than it may be.

    Raises:
        WireError: It is too large, too slow, malformed, or not called JSON.
    """
    where = f"{request.method} {request.url.path[:100]}"
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media != JSON:
        raise WireError(f"the body is called {media[:40]!r}", where=where, hint=f"send 'Content-Type: {JSON}'")
    try:
        content = await asyncio.wait_for(_content(request, where), _BODY_S)
    except asyncio.TimeoutError as cause:
        raise WireError(f"the body did not arrive within {_BODY_S:.0f} s", where=where) from cause
    return decode(content, kind, where=where, max_bytes=MAX_BODY_BYTES)


async def _content(request: Request, where: str) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise WireError(f"a body of more than {MAX_BODY_BYTES} bytes", where=where)
    return bytes(content)


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host
