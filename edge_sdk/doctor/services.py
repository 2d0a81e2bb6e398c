"""Programs beside the app: the daemon, and a broker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from edge_sdk.doctor.contract import Finding, Place, State
from edge_sdk.errors import DaemonUnreachableError, EdgeError
from edge_sdk.local import LocalClient, Status

_TIMEOUT_S = 2.0
# Debian's package puts it where an ordinary user's PATH does not look.
_ELSEWHERE = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    del place
    yield _daemon()
    path = os.pathsep.join([os.environ.get("PATH", ""), *_ELSEWHERE])
    broker = shutil.which("mosquitto", path=path)
    if broker:
        yield Finding(what="mosquitto", state=State.OK, reason=broker)
    else:
        yield Finding(
            what="mosquitto",
            state=State.MISSING,
            reason="not installed; only the machine of the hub needs a broker",
            command="sudo apt install mosquitto",
        )


def _daemon() -> Finding:
    what = "daemon"
    try:
        with LocalClient(timeout_s=_TIMEOUT_S) as client:
            where = client.path
            status = client.call("GET", "/v1/status", Status)
    except DaemonUnreachableError:
        return Finding(
            what=what,
            state=State.MISSING,
            reason="none answers; apps choose their variants themselves",
            command="edge daemon run",
            hint="see docs/how-to/run-the-daemon.md",
        )
    except EdgeError as error:
        return Finding(what=what, state=State.BROKEN, reason=error.what, command="edge daemon status")
    models = ", ".join(status.models) or "no model"
    reason = f"{status.software} at {where}, serves {models}; hub: {status.hub}"
    if status.trouble or status.left_out:
        trouble = [*status.trouble, *(f"{name}: {why}" for name, why in status.left_out.items())]
        return Finding(
            what=what, state=State.WARNING, reason=f"{reason}; {'; '.join(trouble)}", command="edge daemon status"
        )
    return Finding(what=what, state=State.OK, reason=reason)
