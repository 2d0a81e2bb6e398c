"""What somebody chose elsewhere becomes a command, in that somebody's name."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from edge_hub.auditing import Audit
from edge_hub.commanding import Commander
from edge_hub.web.auth import Caller, Role
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Pin, Unpin

_log = logging.getLogger(__name__)

EXPIRES_S = 60.0

# Pins a model of a device to a variant, or lets the policy decide again (None).
Choose = Callable[[DeviceId, str, str | None], Awaitable[None]]


def chooser(commander: Commander, audit: Audit, *, by: str) -> Choose:
    """Sends the commands of one exporter.

    Args:
        commander: Keeps and sends them.
        audit: Notes them.
        by: Who is said to have ordered them.
    """
    who = Caller(name=by, role=Role.OPERATOR)

    async def choose(device: DeviceId, model: str, variant: str | None) -> None:
        command = Unpin(model=model) if variant is None else Pin(model=model, variant=variant)
        try:
            (sent,) = await commander.send((device,), command, expires_s=EXPIRES_S, by=by)
            await audit.note(who, "command", str(device), {"command": command, "batch": sent.batch, "devices": 1})
        except EdgeError as error:
            _log.warning("%s asks %s to run %s of %s: %s", by, device, variant or "any variant", model, error)
            return
        _log.info("%s asks %s to run %s of %s", by, device, variant or "any variant", model)

    return choose
