"""Alerts, their rules, and silences."""

from __future__ import annotations

import http
import time

from starlette.responses import Response

from edge_hub.alerts.rules import BUILT_IN, MAX_RULES, in_force
from edge_hub.alerts.silences import MAX_SILENCES, SILENCE, silences_in_force
from edge_hub.alerts.views import AlertPage, AlertView, RuleList, RuleView, Silence, SilenceList
from edge_hub.errors import UnknownAlertError, UnknownRuleError, UnknownSilenceError
from edge_hub.store.records import RuleRecord
from edge_hub.web.operation import Ask, json_answer
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import encode, new_token

_NAME_CHARS = 12


async def alerts(ask: Ask) -> Response:
    """Alerts, the newest first."""
    named = ask.query.get("device")
    found = await ask.hub.store.alerts(
        open_only=bool(ask.query.get("open", 0)),
        device=None if named is None else DeviceId.parse(named),
        before=ask.query.get("before"),
        limit=ask.query.get("limit", 100),
    )
    return json_answer(AlertPage(alerts=tuple(AlertView.of(record) for record in found)))


async def acknowledge(ask: Ask) -> Response:
    """Somebody has seen it."""
    number = ask.path["number"]
    record = await ask.hub.store.acknowledge_alert(number, who=ask.caller.name, now=time.time())
    if record is None:
        raise UnknownAlertError("no such alert", where=str(number), hint="'edge hub alerts' lists them")
    ask.hub.spread_alerts((record,))
    await ask.hub.audit.note(ask.caller, "acknowledge", str(record.device), {"alert": number, "rule": record.rule})
    return json_answer(AlertView.of(record))


async def rules(ask: Ask) -> Response:
    """All rules."""
    kept = await ask.hub.store.rules()
    changed = {record.name: record.changed for record in kept}
    found = in_force(kept)
    return json_answer(RuleList(rules=tuple(RuleView.of(name, one, changed.get(name)) for name, one in found.items())))


async def rule(ask: Ask) -> Response:
    """One rule."""
    name = ask.path["name"]
    kept = await ask.hub.store.rules()
    found = in_force(kept).get(name)
    if found is None:
        raise UnknownRuleError("no such rule", where=name, hint="'edge hub rules' lists them")
    changed = next((record.changed for record in kept if record.name == name), None)
    return json_answer(RuleView.of(name, found, changed))


async def put_rule(ask: Ask) -> Response:
    """A rule, new or instead of the one there is; a built-in one put as it came is again that."""
    name = ask.path["name"]
    ask.body.check(await ask.hub.census.groups())
    known = in_force(await ask.hub.store.rules())
    if name not in known and len(known) >= MAX_RULES:
        raise UsageError(f"there are {MAX_RULES} rules already", hint="remove some")
    changed = None if BUILT_IN.get(name) == ask.body else time.time()
    if changed is None:
        await ask.hub.store.delete_rule(name)
    else:
        await ask.hub.store.put_rule(RuleRecord(name=name, body=encode(ask.body), changed=changed))
    await ask.hub.audit.note(ask.caller, "rule", name, ask.body)
    return json_answer(RuleView.of(name, ask.body, changed))


async def delete_rule(ask: Ask) -> Response:
    """A rule of somebody's goes; a built-in one is again as it came."""
    name = ask.path["name"]
    if not await ask.hub.store.delete_rule(name):
        if name in BUILT_IN:
            raise UsageError("a built-in rule as it came", where=name, hint='put it with "enabled": false')
        raise UnknownRuleError("no such rule", where=name, hint="'edge hub rules' lists them")
    await ask.hub.audit.note(ask.caller, "rule-deleted", name)
    return Response(status_code=http.HTTPStatus.NO_CONTENT)


async def silences(ask: Ask) -> Response:
    """What nobody is told of."""
    return json_answer(SilenceList(silences=silences_in_force(await ask.hub.store.rules(), time.time())))


async def silence(ask: Ask) -> Response:
    """Tell nobody for a while."""
    body, now = ask.body, time.time()
    await ask.hub.census.query(body.query)
    if len(silences_in_force(await ask.hub.store.rules(), now)) >= MAX_SILENCES:
        raise UsageError(f"there are {MAX_SILENCES} silences already", hint="end some")
    made = Silence(
        name=new_token()[:_NAME_CHARS],
        query=body.query,
        rule=body.rule,
        until=now + body.for_s,
        by=ask.caller.name,
        why=body.why,
    )
    await ask.hub.store.put_rule(RuleRecord(name=f"{SILENCE}{made.name}", body=encode(made), changed=now))
    await ask.hub.audit.note(ask.caller, "silence", made.name, made)
    return json_answer(made, status=http.HTTPStatus.CREATED)


async def end_silence(ask: Ask) -> Response:
    """Tell of them again."""
    name = ask.path["name"]
    if not await ask.hub.store.delete_rule(f"{SILENCE}{name}"):
        raise UnknownSilenceError("no such silence", where=name, hint="GET /api/v1/silences lists them")
    await ask.hub.audit.note(ask.caller, "silence-ended", name)
    return Response(status_code=http.HTTPStatus.NO_CONTENT)
