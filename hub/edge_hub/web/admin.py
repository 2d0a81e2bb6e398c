"""What those who run the hub do: enrol, sessions, tokens, groups; and the audit log."""

from __future__ import annotations

import contextlib
import http
import secrets
import time
from typing import Any

from starlette.responses import Response

from edge_hub.api import CredentialsList, Removed
from edge_hub.api_admin import (
    AuditPage,
    AuditView,
    GroupList,
    GroupView,
    NewToken,
    Session,
    TokenList,
    TokenView,
)
from edge_hub.census import GROUP
from edge_hub.errors import QueryError, UnknownGroupError, UnknownTokenError
from edge_hub.query import parse
from edge_hub.store.records import RuleRecord, TokenRecord
from edge_hub.web.auth import ADMIN, SESSION_S, Caller, digest
from edge_hub.web.operation import Ask, json_answer
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

_TOKEN_BYTES = 32
_MAX_TOKENS = 1000
_MAX_GROUPS = 1000
_NOT_TAKEN = frozenset({ADMIN, "local"})


async def enrol(ask: Ask) -> Response:
    """Give a device credentials."""
    credentials = await ask.hub.enrol(DeviceId.parse(ask.body.device), again=ask.body.again)
    await ask.hub.audit.note(ask.caller, "enrol", credentials.device, {"again": ask.body.again})
    return json_answer(credentials, status=http.HTTPStatus.CREATED)


async def enrol_all(ask: Ask) -> Response:
    """Give many devices credentials, all or none."""
    devices = [DeviceId.parse(device) for device in ask.body.devices]
    credentials = await ask.hub.enrol_all(devices, again=ask.body.again)
    named = {"again": ask.body.again, "devices": [str(device) for device in devices]}
    await ask.hub.audit.note(ask.caller, "enrol", f"{len(devices)} devices", named)
    return json_answer(CredentialsList(devices=credentials), status=http.HTTPStatus.CREATED)


async def revoke(ask: Ask) -> Response:
    """Let a device in no more."""
    await ask.hub.revoke(ask.device)
    await ask.hub.audit.note(ask.caller, "revoke", str(ask.device), {})
    return Response(status_code=http.HTTPStatus.NO_CONTENT)


async def remove(ask: Ask) -> Response:
    """Take a device out of the fleet."""
    left = await ask.hub.removals.remove((ask.device,))
    await ask.hub.audit.note(ask.caller, "remove", str(ask.device), {"left": left})
    return json_answer(Removed(devices=(str(ask.device),), left=left))


async def remove_all(ask: Ask) -> Response:
    """Take many devices out of the fleet, all or none."""
    devices = tuple(dict.fromkeys(DeviceId.parse(device) for device in ask.body.devices))
    names = tuple(map(str, devices))
    left = await ask.hub.removals.remove(devices)
    await ask.hub.audit.note(ask.caller, "remove", f"{len(devices)} devices", {"devices": names, "left": left})
    return json_answer(Removed(devices=names, left=left))


async def session(ask: Ask) -> Response:
    """Who asks."""
    csrf = None if ask.caller.session is None else ask.hub.gate.csrf_of(ask.caller.session)
    return json_answer(_session(ask.caller, csrf))


async def log_in(ask: Ask) -> Response:
    """A token for a cookie."""
    caller = await ask.hub.gate.holder(ask.body.token)
    value = ask.hub.gate.new_session(caller)
    csrf = ask.hub.gate.csrf_of(value)
    answer = json_answer(_session(caller, csrf))
    common = {"max_age": SESSION_S, **_for_cookies(ask)}
    answer.set_cookie(ask.hub.gate.cookie, value, httponly=True, **common)
    answer.set_cookie(ask.hub.gate.csrf_cookie, csrf, httponly=False, **common)
    await ask.hub.audit.note(caller, "log-in", caller.name)
    return answer


async def log_out(ask: Ask) -> Response:
    """Forget the cookie, here and in the browser."""
    if ask.caller.session is not None:
        await ask.hub.gate.end(ask.caller.session)
    answer = Response(status_code=http.HTTPStatus.NO_CONTENT)
    for cookie in (ask.hub.gate.cookie, ask.hub.gate.csrf_cookie):
        answer.delete_cookie(cookie, **_for_cookies(ask))
    return answer


def _for_cookies(ask: Ask) -> dict[str, Any]:
    """What a session's cookies have in common, also where they are taken back; TLS may be a proxy's before the hub."""
    return {
        "path": "/",
        "secure": ask.hub.gate.secure or ask.request.url.scheme == "https",
        "samesite": "strict",
    }


def _session(caller: Caller, csrf: str | None) -> Session:
    return Session(name=caller.name, role=caller.role.word, csrf=csrf)


async def tokens(ask: Ask) -> Response:
    """All tokens."""
    return json_answer(TokenList(tokens=tuple(TokenView.of(record) for record in await ask.hub.store.tokens())))


async def make_token(ask: Ask) -> Response:
    """A fresh token."""
    body = ask.body
    if body.name in _NOT_TAKEN:
        raise UsageError(f"{body.name!r} is the data directory's", hint="choose another name")
    present = {record.name for record in await ask.hub.store.tokens()}
    if len(present - {body.name}) >= _MAX_TOKENS:
        raise UsageError(f"there are {_MAX_TOKENS} tokens already", hint="withdraw some")
    now = time.time()
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    expires = None if body.expires_s is None else now + body.expires_s
    await ask.hub.store.put_token(
        TokenRecord(name=body.name, role=body.role, digest=digest(token), created=now, expires=expires)
    )
    ask.hub.gate.forget()
    await ask.hub.audit.note(ask.caller, "token", body.name, {"role": body.role, "expires": expires})
    fresh = NewToken(name=body.name, role=body.role, token=token, expires=expires)
    return json_answer(fresh, status=http.HTTPStatus.CREATED)


async def withdraw_token(ask: Ask) -> Response:
    """A token ends, and its sessions."""
    name = ask.path["name"]
    if not await ask.hub.store.delete_token(name):
        raise UnknownTokenError("no such token", where=name, hint="'edge hub token list' lists them")
    ask.hub.gate.forget()
    await ask.hub.audit.note(ask.caller, "token-withdrawn", name)
    return Response(status_code=http.HTTPStatus.NO_CONTENT)


async def audit(ask: Ask) -> Response:
    """Who did what."""
    found = await ask.hub.store.audit(before=ask.query.get("before"), limit=ask.query.get("limit", 100))
    return json_answer(AuditPage(entries=tuple(AuditView.of(record) for record in found)))


# ------------------------------------------------------------------------------------------------------- groups


async def groups(ask: Ask) -> Response:
    """All groups."""
    found = await ask.hub.census.groups()
    queries = {}
    for name, query in found.items():
        with contextlib.suppress(QueryError):  # it names a group that was deleted
            queries[name] = parse(query, found)
    counts = dict(zip(queries, await ask.hub.census.counts(tuple(queries.values())), strict=True))
    views = (GroupView(name=name, query=query, devices=counts.get(name, 0)) for name, query in found.items())
    return json_answer(GroupList(groups=tuple(views)))


async def group(ask: Ask) -> Response:
    """One group."""
    name = ask.path["name"]
    query = (await ask.hub.census.groups()).get(name)
    if query is None:
        raise UnknownGroupError("no such group", where=name, hint="'edge hub groups' lists them")
    return json_answer(await _group(ask, name, query))


async def put_group(ask: Ask) -> Response:
    """What a name stands for."""
    name, query = ask.path["name"], ask.body.query
    known = await ask.hub.census.groups()
    if name not in known and len(known) >= _MAX_GROUPS:
        raise UsageError(f"there are {_MAX_GROUPS} groups already", hint="remove some")
    parse(f"{GROUP}{name}", known | {name: query})  # also that it does not name itself
    await ask.hub.store.put_rule(RuleRecord(name=f"{GROUP}{name}", body=query.encode(), changed=time.time()))
    await ask.hub.audit.note(ask.caller, "group", name, {"query": query})
    return json_answer(await _group(ask, name, query))


async def delete_group(ask: Ask) -> Response:
    """Forget a group; whoever names it is told so when it is used."""
    name = ask.path["name"]
    if not await ask.hub.store.delete_rule(f"{GROUP}{name}"):
        raise UnknownGroupError("no such group", where=name, hint="'edge hub groups' lists them")
    await ask.hub.audit.note(ask.caller, "group-deleted", name)
    return Response(status_code=http.HTTPStatus.NO_CONTENT)


async def _group(ask: Ask, name: str, query: str) -> GroupView:
    try:
        devices = len(await ask.hub.census.matching(await ask.hub.census.query(query)))
    except QueryError:  # it names a group that was deleted
        devices = 0
    return GroupView(name=name, query=query, devices=devices)
