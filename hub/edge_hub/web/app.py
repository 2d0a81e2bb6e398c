"""The HTTP application: its routes, and what every answer carries. What the routes do is in the modules beside."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_hub import api, api_admin, dashboard
from edge_hub.alerts import views
from edge_hub.alerts.rules import Rule
from edge_hub.overview import FleetView, ModelList
from edge_hub.rows import RowList
from edge_hub.web import admin, alarms, exports, metrics, openapi, orders, reads
from edge_hub.web.auth import Role
from edge_hub.web.door import Door, refused
from edge_hub.web.operation import (
    BEFORE,
    BEFORE_TIME,
    JSON,
    LIMIT,
    QUERY,
    Ask,
    Flag,
    Handler,
    Operation,
    Param,
    Seconds,
    Words,
    weighs,
)
from edge_sdk.wire import Count, Unix

if TYPE_CHECKING:
    from edge_hub.service import Hub

# Nothing from elsewhere, nothing inline, in nobody's frame: what a hostile name could bring into a page does not run.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_V, _O, _A = Role.VIEWER, Role.OPERATOR, Role.ADMIN
_DEVICE = "/api/v1/devices/{tenant}/{device}"
_OF_DEVICE = Param(name="device", kind=Annotated[str, Meta(max_length=129)], text="of this TENANT/DEVICE alone")
_AFTER = Param(name="after", kind=Count, text="those after this id, in ascending order")
_WAIT = Param(name="wait_s", kind=Seconds, text="answer when it has ended, or after so many seconds (at most 60)")
_SINCE = Param(name="since", kind=Unix, text="from then on; a day before `until` where it is not given")
_UNTIL = Param(name="until", kind=Unix, text="before then; now where it is not given")
_STEP = Param(name="step_s", kind=Annotated[float, Meta(gt=0, le=366 * 86_400)], text="seconds from point to point")
_FROM = Param(name="since", kind=Unix, text="from then on")
_BEFORE = Param(name="until", kind=Unix, text="and before then")
_DEVICES = Param(name="devices", kind=Words, text="of these TENANT/DEVICE, with commas")
_FORMAT = Param(name="format", kind=Literal["csv", "parquet"], text="csv where it is not given")
_TIMES = Param(name="times", kind=Literal["iso", "unix"], text="how they are written, iso where it is not given")
# What reads every device: of 1,000, 27 to 46 ms of the hub's processor time (2026-11, two cores of a virtual x86-64
# machine), where a cheap request takes 1 to 2. More would be felt by who looks at a small fleet.
_FLEET = weighs(10)
_OPEN = Param(name="open", kind=Flag, text="1: only those that have not ended")


def _route(  # noqa: PLR0917 - the columns of a table
    method: str, path: str, role: Role | None, handler: Handler, text: str, answer: Any = None, **more: Any
) -> Operation:
    return Operation(method=method, path=path, role=role, handler=handler, text=text, answer=answer, **more)


async def _described(_ask: Ask) -> Response:
    """The OpenAPI document."""
    return Response(_document(), media_type=JSON)


@functools.cache
def _document() -> bytes:
    return api.to_json(openapi.document(ROUTES))


# docs/reference/hub-api.md describes each of these, and the OpenAPI document is made of them; tests hold both to that.
ROUTES: tuple[Operation, ...] = (
    _route("GET", "/api/v1/health", _V, reads.health, "how the hub is", api.Health, unwell=503),
    _route("GET", "/api/v1/fleet", _V, reads.fleet, "totals", FleetView, weight=_FLEET),
    _route("GET", "/api/v1/rows", _V, reads.rows, "devices in short", RowList, query=(QUERY,), weight=_FLEET),
    _route("GET", "/api/v1/models", _V, reads.models, "models and where they run", ModelList, weight=_FLEET),
    _route("GET", "/api/v1/devices", _V, reads.devices, "all devices", api.DeviceList, weight=_FLEET),
    _route(
        "POST",
        "/api/v1/devices",
        _A,
        admin.enrol,
        "enrols a device",
        api.Credentials,
        body=api.EnrolRequest,
        status=201,
    ),
    _route(
        "POST",
        "/api/v1/enrolments",
        _A,
        admin.enrol_all,
        "enrols up to 1,000 devices",
        api.CredentialsList,
        body=api.EnrolAllRequest,
        status=201,
    ),
    _route(
        "POST",
        "/api/v1/removals",
        _A,
        admin.remove_all,
        "takes up to 1,000 devices out of the fleet",
        api.Removed,
        body=api.RemoveAllRequest,
    ),
    _route("DELETE", _DEVICE, _A, admin.remove, "takes it out of the fleet, with all that is kept of it", api.Removed),
    _route("GET", _DEVICE, _V, reads.device, "one device, and what happened to it last", api.DeviceDetail),
    _route(
        "GET",
        f"{_DEVICE}/history",
        _V,
        reads.history,
        "a device over time",
        api.HistoryView,
        query=(_SINCE, _UNTIL, _STEP),
        weight=reads.history_weight,
    ),
    _route("DELETE", f"{_DEVICE}/credentials", _A, admin.revoke, "lets it in no more", status=204),
    _route("GET", f"{_DEVICE}/desired", _V, orders.desired, "its desired document", api.DesiredView),
    _route(
        "PUT", f"{_DEVICE}/desired", _O, orders.set_desired, "replaces it", api.DesiredView, body=api.DesiredRequest
    ),
    _route(
        "PUT",
        f"{_DEVICE}/labels",
        _O,
        orders.set_labels,
        "replaces its labels",
        api.LabelsRequest,
        body=api.LabelsRequest,
    ),
    _route(
        "GET",
        "/api/v1/events",
        _V,
        reads.events,
        "events of the fleet",
        api.EventPage,
        query=(_OF_DEVICE, _AFTER, BEFORE, LIMIT),
    ),
    _route(
        "GET",
        "/api/v1/commands",
        _V,
        orders.commands,
        "the last commands",
        api.CommandPage,
        query=(BEFORE_TIME, LIMIT),
    ),
    _route(
        "POST",
        "/api/v1/commands",
        _O,
        orders.send,
        "sends a command",
        api.Accepted,
        body=api.CommandRequest,
        status=202,
    ),
    _route("GET", "/api/v1/commands/{id}", _V, orders.command, "what became of it", api.CommandView, query=(_WAIT,)),
    _route("DELETE", "/api/v1/commands/{id}", _O, orders.cancel, "cancels it", api.CommandView),
    _route("GET", "/api/v1/batches/{id}", _V, orders.batch, "what was ordered at once", api.BatchView),
    _route("DELETE", "/api/v1/batches/{id}", _O, orders.cancel_batch, "cancels what waits of it", api.BatchView),
    _route("GET", "/api/v1/groups", _V, admin.groups, "named queries", api_admin.GroupList, weight=_FLEET),
    _route("GET", "/api/v1/groups/{name}", _V, admin.group, "one of them", api_admin.GroupView, weight=_FLEET),
    _route(
        "PUT",
        "/api/v1/groups/{name}",
        _O,
        admin.put_group,
        "names a query",
        api_admin.GroupView,
        body=api_admin.GroupRequest,
    ),
    _route("DELETE", "/api/v1/groups/{name}", _O, admin.delete_group, "forgets the name", status=204),
    _route(
        "GET",
        "/api/v1/alerts",
        _V,
        alarms.alerts,
        "alerts",
        views.AlertPage,
        query=(_OPEN, _OF_DEVICE, BEFORE, LIMIT),
    ),
    _route("POST", "/api/v1/alerts/{number}/acknowledge", _O, alarms.acknowledge, "it was seen", views.AlertView),
    _route("GET", "/api/v1/silences", _V, alarms.silences, "what nobody is told of", views.SilenceList),
    _route(
        "POST",
        "/api/v1/silences",
        _O,
        alarms.silence,
        "tells nobody for a while",
        views.Silence,
        body=views.SilenceRequest,
        status=201,
    ),
    _route("DELETE", "/api/v1/silences/{name}", _O, alarms.end_silence, "tells again", status=204),
    _route("GET", "/api/v1/rules", _V, alarms.rules, "alert rules", views.RuleList),
    _route("GET", "/api/v1/rules/{name}", _V, alarms.rule, "one of them", views.RuleView),
    _route("PUT", "/api/v1/rules/{name}", _A, alarms.put_rule, "makes or replaces it", views.RuleView, body=Rule),
    _route("DELETE", "/api/v1/rules/{name}", _A, alarms.delete_rule, "removes it", status=204),
    _route(
        "GET",
        "/api/v1/export/{what}",
        _A,
        exports.export,
        "rows of one kind, as many as there are",
        media=tuple(exports.MEDIA.values()),
        query=(_FROM, _BEFORE, _DEVICES, QUERY, _FORMAT, _TIMES),
    ),
    _route("GET", "/api/v1/audit", _V, admin.audit, "who did what", api_admin.AuditPage, query=(BEFORE, LIMIT)),
    _route("GET", "/api/v1/tokens", _A, admin.tokens, "tokens, without themselves", api_admin.TokenList),
    _route(
        "POST",
        "/api/v1/tokens",
        _A,
        admin.make_token,
        "makes one",
        api_admin.NewToken,
        body=api_admin.TokenRequest,
        status=201,
    ),
    _route("DELETE", "/api/v1/tokens/{name}", _A, admin.withdraw_token, "withdraws it", status=204),
    _route("GET", "/api/v1/session", _V, admin.session, "who asks", api_admin.Session),
    _route(
        "POST", "/api/v1/session", None, admin.log_in, "a token for a cookie", api_admin.Session, body=api_admin.Login
    ),
    _route("DELETE", "/api/v1/session", _V, admin.log_out, "ends it", status=204),
    _route("GET", "/api/v1/quarantine", _V, reads.quarantine, "the last refused messages", api.Quarantine),
    _route(
        "GET",
        "/api/v1/stream",
        _V,
        reads.stream,
        "news as server-sent events",
        media=("text/event-stream",),
        query=(_AFTER,),
    ),
    _route("GET", "/api/v1/openapi.json", None, _described, "this API for programs", dict[str, Any]),
    _route(
        "GET", "/metrics", _V, reads.prometheus, "Prometheus text format", media=(metrics.CONTENT_TYPE,), weight=_FLEET
    ),
)


def build_app(hub: Hub, stopping: asyncio.Event) -> ASGIApp:
    """The application; `stopping` ends its streams."""
    door = Door(hub, per_s=hub.config.requests_per_s)
    routes = dashboard.routes()
    routes += [Route(one.path, door.of(one), methods=[one.method]) for one in ROUTES]
    app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    app.state.stopping = stopping
    app.state.exports = 0
    return _Secure(app, stopping)


class _Secure:
    """Puts what a browser has to keep to into every answer, and keeps answers of the API out of caches."""

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("path", "").startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, told)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            # The server has waited long enough for who does not read, and would log this as a mistake of ours.
