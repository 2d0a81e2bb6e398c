"""What the API tells: devices, rows, totals, history, events, the hub itself."""

from __future__ import annotations

import http
import time
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from edge_hub.alerts.views import AlertView
from edge_hub.api import (
    CommandView,
    DesiredView,
    DeviceDetail,
    DeviceList,
    DeviceView,
    EventPage,
    EventView,
    HistoryView,
    PointView,
    Quarantine,
    QuarantinedView,
)
from edge_hub.rows import RowList
from edge_hub.web import metrics
from edge_hub.web.operation import Ask, json_answer
from edge_hub.web.stream import refuse_too_many
from edge_hub.web.stream import stream as news_stream
from edge_sdk.errors import WireError
from edge_sdk.mqtt import DeviceId

_EVENTS = 50
_COMMANDS = 20
_ALERTS = 50
_MAX_SHOWN = 2048
_DAY_S = 86_400.0
_MOST_POINTS = 2000
_STEP_S = 60.0
_POINTS_OF_ONE = 100


async def health(ask: Ask) -> Response:
    """How the hub is."""
    found = await ask.hub.health()
    return json_answer(found, status=http.HTTPStatus.OK if found.ok else http.HTTPStatus.SERVICE_UNAVAILABLE)


async def devices(ask: Ask) -> Response:
    """All devices with all that is known of them."""
    found = await ask.hub.store.devices()
    return json_answer(DeviceList(devices=tuple(DeviceView.of(record) for record in found)))


async def rows(ask: Ask) -> Response:
    """Devices in short."""
    found = await ask.hub.census.rows(ask.query.get("query", ""))
    return json_answer(RowList(rows=found, at=time.time()))


async def fleet(ask: Ask) -> Response:
    """Totals."""
    return json_answer(await ask.hub.census.overview())


async def models(ask: Ask) -> Response:
    """Models, their variants, and where they run."""
    return json_answer(await ask.hub.census.models())


async def device(ask: Ask) -> Response:
    """One device with what happened to it last."""
    record = await ask.record()
    store = ask.hub.store
    return json_answer(
        DeviceDetail(
            device=DeviceView.of(record),
            desired=DesiredView.of(await store.desired(record.device), record),
            events=tuple(EventView.of(one) for one in await store.events(device=record.device, limit=_EVENTS)),
            commands=tuple(CommandView.of(one) for one in await store.commands(record.device, limit=_COMMANDS)),
            alerts=tuple(AlertView.of(one) for one in await store.alerts(device=record.device, limit=_ALERTS)),
            labels=dict(record.labels),
        )
    )


def _span(query: Mapping[str, Any]) -> tuple[float, float, float]:
    """From when until when, and seconds from point to point."""
    until = query.get("until", time.time())
    since = query.get("since", max(0.0, until - _DAY_S))
    return since, until, query.get("step_s", max(_STEP_S, (until - since) / _MOST_POINTS))


def history_weight(query: Mapping[str, Any]) -> int:
    """One more for each so many points; of more than there may be, as for those."""
    since, until, step_s = _span(query)
    return 1 + int(min(max(until - since, 0.0) / step_s, _MOST_POINTS) / _POINTS_OF_ONE)


async def history(ask: Ask) -> Response:
    """A device over time."""
    since, until, step_s = _span(ask.query)
    if not since < until:
        raise WireError("since is not before until", where="query", hint="times are seconds since 1970")
    points = await ask.hub.store.history(ask.device, since=since, until=until, step_s=step_s)
    return json_answer(HistoryView(step_s=step_s, points=tuple(PointView.of(point) for point in points)))


async def events(ask: Ask) -> Response:
    """Events of the fleet or of one device."""
    named = ask.query.get("device")
    found = await ask.hub.store.events(
        device=None if named is None else DeviceId.parse(named),
        after=ask.query.get("after"),
        before=ask.query.get("before"),
        limit=ask.query.get("limit", 100),
    )
    return json_answer(EventPage(events=tuple(EventView.of(event) for event in found)))


async def quarantine(ask: Ask) -> Response:
    """Refused messages."""
    found = await ask.hub.store.quarantined()
    return json_answer(
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


async def stream(ask: Ask) -> Response:
    """News."""
    given: Any = ask.request.headers.get("last-event-id")
    if given is not None and not (given.isascii() and given.isdigit() and len(given) <= 15):  # noqa: PLR2004 - below 2^53
        raise WireError(f"Last-Event-ID is {given[:40]!r}", where="header", hint="give the id of an event")
    after = ask.query.get("after") if given is None else int(given)
    refuse_too_many(ask.hub, ask.caller.name)
    body = news_stream(ask.hub, after=after, stopping=ask.request.app.state.stopping, who=ask.caller.name)
    # A proxy that collects the answer before it sends it on would make a stream of nothing.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


async def prometheus(ask: Ask) -> Response:
    """Metrics."""
    page = metrics.write(await metrics.collect(ask.hub))
    return Response(page, headers={"Content-Type": metrics.CONTENT_TYPE})
