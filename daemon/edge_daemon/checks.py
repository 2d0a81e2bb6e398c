"""What this package contributes to `edge doctor`: every value the daemon senses, with its source or why there is none.

The sensors are read here and now, as a daemon would; what only a running daemon sees (the connection to the hub, what
apps report, a value that has stood still for long) it is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge_daemon import config
from edge_daemon.sensors.suite import SensorSuite
from edge_daemon.sensors.survey import Sensed
from edge_sdk.errors import EdgeError
from edge_sdk.finding import Contribution, Finding, State
from edge_sdk.local import LocalClient, Status
from edge_sdk.mqtt import Conditions, Throttle
from edge_sdk.profile import Profile, recognise

_INTERVAL_S = 0.3  # over which load and counted energy are measured
_TIMEOUT_S = 1.0
_STUCK = "stuck at"


def look(root: Path, machine: str) -> Iterator[Finding]:
    """See `Contribution.look`."""
    is_real = os.fspath(root) == "/"
    owned = _owned() if is_real else config.SensorsSection()
    with SensorSuite(root, _profile(root, machine), owned=owned) as suite:
        suite.survey()
        time.sleep(_INTERVAL_S)
        found = suite.survey()
    daemon = _daemon() if is_real else None
    for one in found:
        if one.value is not None or one.reason:  # what goes with another value is told with it
            yield _finding(one, daemon)
    told = {one.field for one in found}
    for name, why in sorted(() if daemon is None else daemon.missing.items()):
        if name not in told and _STUCK in why:
            yield Finding(what=name, state=State.WARNING, reason=f"the daemon finds it {why}", hint=_MEND)


def _finding(one: Sensed, daemon: Conditions | None) -> Finding:
    reason = one.reason
    if daemon is not None:
        told = daemon.missing.get(one.field, "")
        if _STUCK in told:
            return Finding(what=one.field, state=State.WARNING, reason=f"the daemon finds it {told}", hint=_MEND)
        value = getattr(daemon, one.field, None)
        if one.value is None and value is not None:
            return Finding(what=one.field, state=State.OK, reason=f"{_shown(value, one.unit)}, from the daemon")
        reason = told if one.value is None and told else reason
    if one.value is None or reason:  # throttling without anybody who tells of it is `none`, but nothing was found
        return Finding(what=one.field, state=State.MISSING, reason=reason)
    remark = f" ({one.remark})" if one.remark else ""
    source = f", from {one.source}" if one.source else ""
    text = f"{_shown(one.value, one.unit)}{remark}{source}"
    held_back = isinstance(one.value, Throttle) and one.value is not Throttle.NONE
    return Finding(what=one.field, state=State.WARNING if held_back else State.OK, reason=text)


_MEND = "a sensor that does not move with the load is not believed: see docs/reference/sensors.md"


def _shown(value: object, unit: str) -> str:
    if isinstance(value, Throttle):
        return value.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g} {unit}".rstrip() if abs(value) < 1000 else f"{value:.0f} {unit}".rstrip()  # noqa: PLR2004 - digits
    return f"{value} {unit}".rstrip()


def _profile(root: Path, machine: str) -> Profile | None:
    try:
        return recognise(root, machine=machine).profile
    except EdgeError:  # the check of the board tells
        return None


def _owned() -> config.SensorsSection:
    """What the daemon's configuration says of this board, where there is one that can be read."""
    try:
        return config.load(config.find()).sensors
    except EdgeError:
        return config.SensorsSection()


def _daemon() -> Conditions | None:
    try:
        with LocalClient(timeout_s=_TIMEOUT_S) as client:
            conditions = client.call("GET", "/v1/status", Status).conditions
    except EdgeError:
        return None
    return None if conditions.played else conditions  # what is invented is nothing of this board's


CHECKS = (Contribution(name="conditions", look=look),)
