"""The local API: which request does what. Messages are in `edge_sdk.local`, connections in `edge_daemon.listener`."""

from __future__ import annotations

import asyncio
import http
import logging
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from edge_daemon.apps import App, Apps
from edge_daemon.catalogue import Catalogue, Served
from edge_daemon.clock import Clock
from edge_daemon.errors import NotAllowedError, RequestError, UnknownModelError
from edge_daemon.hearing import heard_of
from edge_daemon.journal import Journal
from edge_daemon.listener import Request, Response
from edge_daemon.policy.types import (
    AppJoined,
    AppLeft,
    AppPinned,
    Event,
    Pinned,
    PinnedBy,
    Preferred,
    Unpinned,
)
from edge_daemon.position import Whereabouts
from edge_daemon.recorder import Recorder
from edge_daemon.switcher import Switcher
from edge_daemon.wishes.schedule import Position
from edge_daemon.wishes.state import AppWish
from edge_sdk import mqtt
from edge_sdk.errors import EdgeError, PinnedError, StorageError, UnknownVariantError, WireError
from edge_sdk.local import (
    KNOWS_SERVERS,
    MAX_BODY_BYTES,
    AppPin,
    AppPrefer,
    AppReport,
    Assignment,
    Done,
    ErrorBody,
    Explanation,
    PinRequest,
    PositionReport,
    PreferRequest,
    Register,
    Registered,
    Status,
    UnpinRequest,
)
from edge_sdk.preference import Preference
from edge_sdk.wire import Wire, decode, encode

log = logging.getLogger(__name__)

MAX_WAIT_S: Final = 60.0
_STATUS: Final[tuple[tuple[type[EdgeError], int], ...]] = (
    (WireError, http.HTTPStatus.BAD_REQUEST),
    (NotAllowedError, http.HTTPStatus.FORBIDDEN),
    (UnknownVariantError, http.HTTPStatus.NOT_FOUND),
    (PinnedError, http.HTTPStatus.CONFLICT),
    (StorageError, http.HTTPStatus.INSUFFICIENT_STORAGE),
)

T = TypeVar("T")
_Route = Callable[[Request, str, dict[str, str]], Awaitable[Wire]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """A path, in which `APP` stands for an app's identity, and what each method does there."""

    parts: tuple[str, ...]
    methods: dict[str, _Route]


class Api:
    """Answers requests.

    Args:
        catalogue: What is served.
        apps: Who runs it.
        switcher: Decides.
        recorder: Counts what apps report.
        journal: Tells the hub what an operator did and which switches happened.
        clock: Of apps' signs of life.
        whereabouts: Is told positions.
        status: All that `GET /v1/status` shows.
        used: Told of each report, too, with its app and model.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        apps: Apps,
        switcher: Switcher,
        recorder: Recorder,
        journal: Journal,
        clock: Clock,
        whereabouts: Whereabouts,
        status: Callable[[], Awaitable[Status]],
        used: Callable[[str, str, AppReport], None],
    ) -> None:
        self._catalogue = catalogue
        self._apps = apps
        self._switcher = switcher
        self._recorder = recorder
        self._used = used
        self._journal = journal
        self._clock = clock
        self._whereabouts = whereabouts
        self._status = status
        self._paths = (
            _Path(parts=("v1", "status"), methods={"GET": self._get_status}),
            _Path(parts=("v1", "explain"), methods={"GET": self._explain}),
            _Path(parts=("v1", "prefer"), methods={"POST": self._prefer}),
            _Path(parts=("v1", "pin"), methods={"POST": self._pin}),
            _Path(parts=("v1", "unpin"), methods={"POST": self._unpin}),
            _Path(parts=("v1", "position"), methods={"POST": self._position}),
            _Path(parts=("v1", "apps"), methods={"POST": self._register}),
            _Path(parts=("v1", "apps", "APP"), methods={"DELETE": self._leave}),
            _Path(parts=("v1", "apps", "APP", "report"), methods={"POST": self._report}),
            _Path(parts=("v1", "apps", "APP", "assignment"), methods={"GET": self._assignment}),
            _Path(parts=("v1", "apps", "APP", "pin"), methods={"POST": self._app_pin}),
            _Path(parts=("v1", "apps", "APP", "prefer"), methods={"POST": self._app_prefer}),
        )

    async def handle(self, request: Request) -> Response:
        """The answer to a request, whatever comes of it."""
        try:
            route, app, query = self._route(request)
            answer = await route(request, app, query)
            return Response(status=http.HTTPStatus.OK, body=encode(answer))
        except EdgeError as error:
            body = ErrorBody(code=error.code, text=str(error)[:1000])
            return Response(status=_status_of(error), body=encode(body))
        except Exception:
            log.exception("%s %s failed", request.method, request.target[:200])
            body = ErrorBody(code="failed", text="the daemon failed at this; its log says more")
            return Response(status=http.HTTPStatus.INTERNAL_SERVER_ERROR, body=encode(body))

    def _route(self, request: Request) -> tuple[_Route, str, dict[str, str]]:
        target = urllib.parse.urlsplit(request.target)
        parts = tuple(target.path.strip("/").split("/"))
        for path in self._paths:
            matches = len(parts) == len(path.parts) and all(
                ours in ("APP", theirs) for ours, theirs in zip(path.parts, parts, strict=True)
            )
            if not matches:
                continue
            route = path.methods.get(request.method)
            if route is None:
                raise RequestError(
                    f"{request.method} is not served here",
                    status=http.HTTPStatus.METHOD_NOT_ALLOWED,
                    hint=f"it takes {', '.join(path.methods)}",
                )
            app = parts[path.parts.index("APP")] if "APP" in path.parts else ""
            return route, app, dict(urllib.parse.parse_qsl(target.query))
        raise RequestError(f"no such path: {target.path[:100]!r}", status=http.HTTPStatus.NOT_FOUND)

    # ---------------------------------------------------------------------------------- operators

    async def _get_status(self, _request: Request, _app: str, _query: dict[str, str]) -> Status:
        return await self._status()

    async def _explain(self, _request: Request, _app: str, query: dict[str, str]) -> Explanation:
        model = query.get("model")
        self._switcher.check_model(model)
        return Explanation(decisions=self._switcher.explain(model))

    async def _prefer(self, request: Request, _app: str, _query: dict[str, str]) -> Done:
        body = _body(request, PreferRequest)
        self._switcher.check_model(body.model)
        text = f"{body.model or 'every model'} is to be run for {body.preference.mode.value}"
        return await self._order(text, Preferred(model=body.model, preference=body.preference))

    async def _pin(self, request: Request, _app: str, _query: dict[str, str]) -> Done:
        body = _body(request, PinRequest)
        self._switcher.check_variant(body.model, body.variant)
        self._switcher.check_unpinned(body.model, PinnedBy.OPERATOR)
        text = f"{body.model} is pinned to {body.variant}"
        return await self._order(text, Pinned(model=body.model, variant=body.variant, by=PinnedBy.OPERATOR))

    async def _unpin(self, request: Request, _app: str, _query: dict[str, str]) -> Done:
        body = _body(request, UnpinRequest)
        self._switcher.check_model(body.model)
        self._switcher.check_unpinned(body.model, PinnedBy.OPERATOR)
        text = f"{body.model or 'every model'} is decided by the policy again"
        return await self._order(text, Unpinned(model=body.model, by=PinnedBy.OPERATOR))

    async def _position(self, request: Request, _app: str, _query: dict[str, str]) -> Done:
        body = _body(request, PositionReport)
        self._whereabouts.tell(Position(lat=body.lat, lon=body.lon), body.for_s)
        return Done(text=f"this counts for {body.for_s:g} s")

    async def _order(self, text: str, event: Event) -> Done:
        """What an operator ordered: it survives a restart before it is answered, and the hub hears of it."""
        told = mqtt.Event(at=self._clock.wall(), kind="command", text=f"an operator on the device: {text}")
        await self._switcher.commit([event], messages=self._journal.messages(told))
        self._journal.poke()
        log.info("an operator orders: %s", text)
        return Done(text=text)

    # ---------------------------------------------------------------------------------- apps

    async def _register(self, request: Request, _app: str, _query: dict[str, str]) -> Registered:
        body = _body(request, Register)
        served = self._model_of(body)
        app = self._apps.join(body, served.name, request.peer.pid, self._clock.monotonic())
        await self._switcher.feed(_wish(app, body.preference), _joined(app, served, body.runs))
        record = self._switcher.state.model(served.name)
        app.most_per_s = None if record is None else record.most_per_s
        log.info("app %s (%s, pid %d) runs %s", app.id[:8], app.name[:40] or "unnamed", app.pid, app.model)
        return Registered(
            app=app.id,
            model=served.name,
            bundle=str(served.bundle.path),
            assignment=self._assigned(app),
            speaks=app.speaks,
        )

    def _model_of(self, body: Register) -> Served:
        if body.model is not None:
            self._switcher.check_model(body.model)
            served = self._catalogue.served[body.model]
            if body.manifest is None or body.manifest == served.bundle.manifest_sha256:
                return served
        elif body.manifest is not None:
            by_manifest = self._catalogue.by_manifest(body.manifest)
            if by_manifest is not None:
                return by_manifest
        raise UnknownModelError(
            "this bundle is not served here",
            where=body.model or (body.manifest or "")[:12],
            hint="list it under [models] in the daemon's configuration",
        )

    async def _report(self, request: Request, app_id: str, _query: dict[str, str]) -> Assignment:
        app = self._apps.find(app_id, self._clock.monotonic())
        report = _body(request, AppReport)
        heard = heard_of(self._apps, app, report, now_s=self._clock.monotonic(), now=self._clock.wall())
        self._recorder.saw(app.model, report)
        self._used(app.id, app.model, report)
        if heard.changed:
            self._switcher.changes += 1
        await self._switcher.feed(*heard.events)
        await self._journal.tell(*heard.told)
        return self._assigned(app)

    async def _assignment(self, _request: Request, app_id: str, query: dict[str, str]) -> Assignment:
        app = self._apps.find(app_id, self._clock.monotonic())
        after, wait_s = _number(query, "after", int, 0), _number(query, "wait_s", float, 0.0)
        await app.changed_after(after, min(wait_s, MAX_WAIT_S))
        # It may have been given up while it waited, if its process died.
        return self._assigned(self._apps.find(app_id, self._clock.monotonic()))

    async def _app_pin(self, request: Request, app_id: str, _query: dict[str, str]) -> Assignment:
        app = self._apps.find(app_id, self._clock.monotonic())
        variant = _body(request, AppPin).variant
        if variant is not None:
            self._switcher.check_unpinned(app.model, PinnedBy.APP)
            self._switcher.check_variant(app.model, variant)
        await self._switcher.feed(AppPinned(app=app.id, variant=variant))
        return self._assigned(app)

    async def _app_prefer(self, request: Request, app_id: str, _query: dict[str, str]) -> Assignment:
        app = self._apps.find(app_id, self._clock.monotonic())
        await self._switcher.feed(_wish(app, _body(request, AppPrefer).preference))
        return self._assigned(app)

    async def _leave(self, _request: Request, app_id: str, _query: dict[str, str]) -> Done:
        await self.leave(self._apps.find(app_id, self._clock.monotonic()), "it said goodbye")
        return Done(text="goodbye")

    async def leave(self, app: App, why: str) -> None:
        """Forget an app. Cancelled before the policy heard of it, it is forgotten later, for its silence."""
        self._apps.leave(app)  # first, so that the policy hears nothing of it afterwards
        self._switcher.changes += 1
        try:
            await self._switcher.feed(AppLeft(app=app.id))
        except asyncio.CancelledError:
            self._apps.come_back(app)
            raise
        log.info("app %s is gone: %s", app.id[:8], why)

    def _assigned(self, app: App) -> Assignment:
        if app.assigned is None:
            assign = self._switcher.state.assignment(app.id)
            if assign is not None:
                app.assign(assign)
        assignment = self._switcher.assignment(app)
        if assignment is None:
            raise RequestError(
                f"nothing is decided for {app.model} yet", status=http.HTTPStatus.SERVICE_UNAVAILABLE, hint="ask again"
            )
        return assignment


def _body(request: Request, kind: type[T]) -> T:
    where = f"{request.method} {request.target[:100]}"
    return decode(request.body, kind, where=where, max_bytes=MAX_BODY_BYTES)


def _number(query: dict[str, str], name: str, kind: type[T], default: T) -> T:
    """A bounded number of the query.

    Raises:
        WireError: It is no such number.
    """
    if name not in query:
        return default
    import msgspec

    try:
        value = msgspec.convert(query[name], kind, strict=False)
        if 0 <= value <= 2**53:  # type: ignore[operator]  # int or float; NaN fails
            return value
    except msgspec.ValidationError:
        pass
    raise WireError(f"{name} is {query[name][:40]!r}", where="query", hint="give a number from 0 up")


def _status_of(error: EdgeError) -> int:
    if isinstance(error, RequestError):
        return error.status
    if error.code.startswith("unknown-"):
        return http.HTTPStatus.NOT_FOUND
    return next((status for kind, status in _STATUS if isinstance(error, kind)), http.HTTPStatus.CONFLICT)


def _joined(app: App, served: Served, runs: tuple[str, ...] | None) -> AppJoined:
    since = KNOWS_SERVERS if served.server is None else served.server.since
    why = "the SDK is from before servers with a token or an authority" if KNOWS_SERVERS <= app.speaks < since else ""
    return AppJoined(app=app.id, model=served.name, runs=runs, asks=app.speaks >= since, why=why)


def _wish(app: App, preference: Preference | None) -> AppWish:
    return AppWish(app=app.id, model=app.model, name=app.name[:60], preference=preference)
