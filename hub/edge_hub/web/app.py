"""The HTTP API: which request does what. Values are in `edge_hub.api`, what they do in `edge_hub.service` and below."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edge_hub import dashboard
from edge_hub.api import (
    MAX_BODY_BYTES,
    MAX_PAGE,
    MAX_WAIT_S,
    Accepted,
    CommandRequest,
    CommandView,
    DesiredRequest,
    DesiredView,
    DeviceDetail,
    DeviceList,
    DeviceView,
    EnrolRequest,
    EventPage,
    EventView,
    Quarantine,
    QuarantinedView,
    to_json,
)
from edge_hub.errors import (
    EnrolledError,
    StoreError,
    TokenRefusedError,
    UnknownCommandError,
    UnknownDeviceError,
    VersionConflictError,
)
from edge_hub.store.records import DeviceRecord
from edge_hub.web import metrics
from edge_hub.web.auth import has_token, may_read
from edge_hub.web.stream import stream
from edge_sdk.errors import EdgeError, UsageError, WireError
from edge_sdk.local import ErrorBody
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import decode

if TYPE_CHECKING:
    from edge_hub.service import Hub

_log = logging.getLogger(__name__)

_JSON = "application/json"
_BODY_S = 10.0  # a body that takes longer to arrive comes from somebody who only holds the connection
_EVENTS = 50
_COMMANDS = 20
_MAX_SHOWN = 2048
_STATUS: tuple[tuple[type[EdgeError], int], ...] = (
    (TokenRefusedError, http.HTTPStatus.UNAUTHORIZED),
    (UnknownDeviceError, http.HTTPStatus.NOT_FOUND),
    (UnknownCommandError, http.HTTPStatus.NOT_FOUND),
    (VersionConflictError, http.HTTPStatus.CONFLICT),
    (EnrolledError, http.HTTPStatus.CONFLICT),
    (StoreError, http.HTTPStatus.SERVICE_UNAVAILABLE),
    (WireError, http.HTTPStatus.BAD_REQUEST),
    (UsageError, http.HTTPStatus.BAD_REQUEST),
)
T = TypeVar("T")
_Handler = Callable[["_Api", Request], Awaitable[Response]]


def build_app(hub: Hub, stopping: asyncio.Event) -> Starlette:
    """The application; `stopping` ends its streams."""
    api = _Api(hub, stopping)
    routes = dashboard.routes()
    routes += [Route(path, _door(api, handler, method), methods=[method]) for method, path, handler in ROUTES]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


class _Api:
    """Answers requests."""

    def __init__(self, hub: Hub, stopping: asyncio.Event) -> None:
        self.hub = hub
        self._stopping = stopping

    async def health(self, _request: Request) -> Response:
        found = await self.hub.health()
        return _json(found, status=http.HTTPStatus.OK if found.ok else http.HTTPStatus.SERVICE_UNAVAILABLE)

    async def devices(self, _request: Request) -> Response:
        found = await self.hub.store.devices()
        return _json(DeviceList(devices=tuple(DeviceView.of(record) for record in found)))

    async def device(self, request: Request) -> Response:
        record = await self._record(request)
        desired = await self.hub.store.desired(record.device)
        events = await self.hub.store.events(device=record.device, limit=_EVENTS)
        commands = await self.hub.store.commands(record.device, limit=_COMMANDS)
        return _json(
            DeviceDetail(
                device=DeviceView.of(record),
                desired=DesiredView.of(desired, record),
                events=tuple(EventView.of(event) for event in events),
                commands=tuple(CommandView.of(command) for command in commands),
            )
        )

    async def desired(self, request: Request) -> Response:
        record = await self._record(request)
        return _json(DesiredView.of(await self.hub.store.desired(record.device), record))

    async def set_desired(self, request: Request) -> Response:
        record = await self._record(request)
        body = await _body(request, DesiredRequest)
        return _json(DesiredView.of(await self.hub.commander.set_desired(record.device, body), record))

    async def events(self, request: Request) -> Response:
        named = request.query_params.get("device")
        events = await self.hub.store.events(
            device=None if named is None else DeviceId.parse(named),
            after=_count(request, "after"),
            before=_count(request, "before"),
            limit=min(_count(request, "limit") or 100, MAX_PAGE),
        )
        return _json(EventPage(events=tuple(EventView.of(event) for event in events)))

    async def send(self, request: Request) -> Response:
        body = await _body(request, CommandRequest)
        named = [*([] if body.device is None else [body.device]), *body.devices]
        if not named:
            raise UsageError("no device is named", hint="give `device` or `devices`")
        devices = tuple(dict.fromkeys(DeviceId.parse(name) for name in named))
        sent = await self.hub.commander.send(devices, body.command, expires_s=body.expires_s)
        ids = {str(record.device): record.id for record in sent}
        return _json(Accepted(id=sent[0].id if len(sent) == 1 else None, ids=ids), status=http.HTTPStatus.ACCEPTED)

    async def command(self, request: Request) -> Response:
        wait_s = min(_seconds(request, "wait_s"), MAX_WAIT_S)
        return _json(CommandView.of(await self.hub.commander.wait(request.path_params["id"][:64], wait_s=wait_s)))

    async def enrol(self, request: Request) -> Response:
        body = await _body(request, EnrolRequest)
        credentials = await self.hub.enrol(DeviceId.parse(body.device), again=body.again)
        return _json(credentials, status=http.HTTPStatus.CREATED)

    async def quarantine(self, _request: Request) -> Response:
        found = await self.hub.store.quarantined()
        return _json(
            Quarantine(
                messages=tuple(
                    QuarantinedView(
                        id=one.id,
                        topic=one.topic,
                        problem=one.problem,
                        received=one.received,
                        size_bytes=one.size_bytes,
                        payload=one.payload[:_MAX_SHOWN].decode("utf-8", "backslashreplace"),
                    )
                    for one in found
                )
            )
        )

    async def stream(self, request: Request) -> Response:
        given = request.headers.get("last-event-id", request.query_params.get("after"))
        after = None if given is None else _whole(given, "after")
        body = stream(self.hub, after=after, stopping=self._stopping)
        # A proxy that collects the answer before it sends it on would make a stream of nothing.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def metrics(self, _request: Request) -> Response:
        page = metrics.write(await metrics.collect(self.hub))
        return Response(page, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _record(self, request: Request) -> DeviceRecord:
        device = DeviceId.parse(f"{request.path_params['tenant']}/{request.path_params['device']}")
        record = await self.hub.store.device(device)
        if record is None:
            raise UnknownDeviceError("no such device", where=str(device), hint="'edge hub devices' lists them")
        return record


# docs/reference/hub-api.md describes each of these; a test holds it to that.
ROUTES: tuple[tuple[str, str, _Handler], ...] = (
    ("GET", "/api/v1/health", _Api.health),
    ("GET", "/api/v1/devices", _Api.devices),
    ("POST", "/api/v1/devices", _Api.enrol),
    ("GET", "/api/v1/devices/{tenant}/{device}", _Api.device),
    ("GET", "/api/v1/devices/{tenant}/{device}/desired", _Api.desired),
    ("PUT", "/api/v1/devices/{tenant}/{device}/desired", _Api.set_desired),
    ("GET", "/api/v1/events", _Api.events),
    ("POST", "/api/v1/commands", _Api.send),
    ("GET", "/api/v1/commands/{id}", _Api.command),
    ("GET", "/api/v1/quarantine", _Api.quarantine),
    ("GET", "/api/v1/stream", _Api.stream),
    ("GET", "/metrics", _Api.metrics),
)


def _door(api: _Api, handler: _Handler, method: str) -> Callable[[Request], Awaitable[Response]]:
    """Checks the token and turns errors into answers."""
    reads = method == "GET"

    async def enter(request: Request) -> Response:
        try:
            _check(request, api.hub.token, reads=reads)
            return await handler(api, request)
        except EdgeError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), http.HTTPStatus.CONFLICT)
            headers = {"WWW-Authenticate": "Bearer"} if status == http.HTTPStatus.UNAUTHORIZED else None
            return _json(ErrorBody(code=error.code, text=str(error)[:1000]), status=status, headers=headers)
        except ClientDisconnect:
            return Response(status_code=http.HTTPStatus.BAD_REQUEST)  # nobody reads it
        except Exception:  # noqa: BLE001 - the task runner of the handlers
            _log.exception("%s %s failed", request.method, request.url.path[:200])
            body = ErrorBody(code="internal", text="the hub failed at this; its log says more")
            return _json(body, status=http.HTTPStatus.INTERNAL_SERVER_ERROR)

    return enter


def _check(request: Request, token: str, *, reads: bool) -> None:
    """Let pass who may ask this.

    Raises:
        TokenRefusedError: Not this one.
    """
    if not (may_read(request, token) if reads else has_token(request, token)):
        raise TokenRefusedError(
            "no token, or a wrong one", hint="send 'Authorization: Bearer TOKEN'; it lies in the data directory"
        )


async def _refused(_request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: no such path, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these alone
    body = ErrorBody(code="bad-request", text=f"{error.detail}; the paths are in docs/reference/hub-api.md")
    return _json(body, status=error.status_code, headers=dict(error.headers or {}))


def _json(value: Any, *, status: int = http.HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status_code=status, media_type=_JSON, headers=headers)


async def _body(request: Request, kind: type[T]) -> T:
    """The body, no larger and no slower than it may be.

    Raises:
        WireError: It is too large, too slow or malformed.
    """
    where = f"{request.method} {request.url.path[:100]}"
    content = bytearray()
    try:
        async with _deadline(_BODY_S):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise WireError(f"a body of more than {MAX_BODY_BYTES} bytes", where=where)
    except (asyncio.TimeoutError, TimeoutError) as cause:
        raise WireError(f"the body did not arrive within {_BODY_S:.0f} s", where=where) from cause
    return decode(bytes(content), kind, where=where, max_bytes=MAX_BODY_BYTES)


@contextlib.asynccontextmanager
async def _deadline(limit_s: float) -> Any:
    """`asyncio.timeout`, which Python 3.10 does not have."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - handlers run in tasks
    over = False

    def end() -> None:
        nonlocal over
        over = True
        task.cancel()

    handle = asyncio.get_running_loop().call_later(limit_s, end)
    try:
        yield
    except asyncio.CancelledError:
        if over:
            raise asyncio.TimeoutError from None
        raise
    finally:
        handle.cancel()


def _count(request: Request, name: str) -> int | None:
    given = request.query_params.get(name)
    return None if given is None else _whole(given, name)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):  # noqa: PLR2004 - below 2^53
        raise WireError(f"{name} is {text[:40]!r}", where="query", hint="give a whole number from 0 up")
    return int(text)


def _seconds(request: Request, name: str) -> float:
    given = request.query_params.get(name, "0")
    try:
        value = msgspec.convert(given, float, strict=False)
    except msgspec.ValidationError:
        value = float("nan")
    if not 0 <= value <= 86_400:  # noqa: PLR2004 - a day; NaN fails too
        raise WireError(f"{name} is {given[:40]!r}", where="query", hint="give seconds from 0 up")
    return value
