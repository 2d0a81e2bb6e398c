"""What an operator does: commands, desired documents, labels."""

from __future__ import annotations

import http

from starlette.responses import Response

from edge_hub.api import (
    MAX_QUERIED,
    MAX_WAIT_S,
    Accepted,
    BatchView,
    CommandPage,
    CommandRequest,
    CommandView,
    DesiredView,
)
from edge_hub.errors import UnknownBatchError
from edge_hub.store.records import CommandRecord
from edge_hub.web.operation import Ask, json_answer
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId


async def send(ask: Ask) -> Response:
    """Send a command."""
    body: CommandRequest = ask.body
    devices = await _meant(ask, body)
    sent = await ask.hub.commander.send(devices, body.command, expires_s=body.expires_s, by=ask.caller.name)
    batch = sent[0].batch
    target = (
        body.query if body.query is not None else str(devices[0]) if len(devices) == 1 else f"{len(devices)} devices"
    )
    await ask.hub.audit.note(
        ask.caller, "command", target, {"command": body.command, "batch": batch, "devices": len(devices)}
    )
    ids = {str(record.device): record.id for record in sent}
    only = sent[0].id if len(sent) == 1 else None
    return json_answer(Accepted(id=only, batch=batch, ids=ids), status=http.HTTPStatus.ACCEPTED)


async def _meant(ask: Ask, body: CommandRequest) -> tuple[DeviceId, ...]:
    """Which devices a request names.

    Raises:
        UsageError: None, or by name and query at once.
    """
    named = [*([] if body.device is None else [body.device]), *body.devices]
    if body.query is None:
        if not named:
            raise UsageError("no device is named", hint="give `device`, `devices` or `query`")
        return tuple(dict.fromkeys(DeviceId.parse(name) for name in named))
    if named:
        raise UsageError("devices are given by name and by query", hint="give one of them")
    found = await ask.hub.census.matching(await ask.hub.census.query(body.query))
    if not found:
        raise UsageError(
            "no device is meant by this query",
            where=body.query[:80],
            hint="try it with 'edge hub devices --query' or in the dashboard",
        )
    if len(found) > MAX_QUERIED:
        raise UsageError(f"{len(found)} devices at once, {MAX_QUERIED} are the most", hint="narrow the query")
    return tuple(facts.record.device for facts in found)


async def command(ask: Ask) -> Response:
    """What became of a command."""
    wait_s = min(ask.query.get("wait_s", 0.0), MAX_WAIT_S)
    return json_answer(CommandView.of(await ask.hub.commander.wait(ask.path["id"], wait_s=wait_s)))


async def commands(ask: Ask) -> Response:
    """The last commands."""
    found = await ask.hub.store.recent_commands(before=ask.query.get("before"), limit=ask.query.get("limit", 100))
    return json_answer(CommandPage(commands=tuple(CommandView.of(record) for record in found)))


async def batch(ask: Ask) -> Response:
    """What became of commands ordered at once."""
    return json_answer(BatchView.of(ask.path["id"], await _batch(ask)))


async def _batch(ask: Ask) -> tuple[CommandRecord, ...]:
    """The batch of the path.

    Raises:
        UnknownBatchError: There is none.
    """
    found = await ask.hub.store.batch(ask.path["id"])
    if not found:
        raise UnknownBatchError("no such batch", where=ask.path["id"], hint="sending a command names its batch")
    return found


async def cancel(ask: Ask) -> Response:
    """Give up on a command."""
    record, was_cancelled = await ask.hub.commander.cancel(ask.path["id"])
    if was_cancelled:
        await ask.hub.audit.note(ask.caller, "cancel", str(record.device), {"command": record.id})
    return json_answer(CommandView.of(record))


async def cancel_batch(ask: Ask) -> Response:
    """Give up on all of a batch that wait."""
    found = await _batch(ask)
    after = [await ask.hub.commander.cancel(record.id) for record in found if record.finished is None]
    await ask.hub.audit.note(
        ask.caller, "cancel", ask.path["id"], {"commands": sum(was_cancelled for _, was_cancelled in after)}
    )
    return json_answer(BatchView.of(ask.path["id"], await ask.hub.store.batch(ask.path["id"])))


async def desired(ask: Ask) -> Response:
    """A device's desired document."""
    record = await ask.record()
    return json_answer(DesiredView.of(await ask.hub.store.desired(record.device), record))


async def set_desired(ask: Ask) -> Response:
    """Replace it."""
    record = await ask.record()
    stored = await ask.hub.commander.set_desired(record.device, ask.body)
    ask.hub.touch((record.device,))
    await ask.hub.audit.note(ask.caller, "desired", str(record.device), stored.desired)
    return json_answer(DesiredView.of(stored, record))


async def set_labels(ask: Ask) -> Response:
    """Replace a device's labels."""
    await ask.hub.store.set_labels(ask.device, dict(ask.body.labels))
    ask.hub.touch((ask.device,))
    await ask.hub.audit.note(ask.caller, "labels", str(ask.device), ask.body.labels)
    return json_answer(ask.body)
