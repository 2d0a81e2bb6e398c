"""Silences: alerts that are kept and shown, and of which nobody is told for a while."""

from __future__ import annotations

import re
from collections.abc import Collection

from edge_hub.alerts.views import Silence
from edge_hub.store.records import RuleRecord
from edge_sdk.errors import WireError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import decode

SILENCE = "silence:"
MAX_SILENCES = 200
_OF_ONE = re.compile(r"""\A\s*device\s*=\s*("?)([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)\1\s*\Z""", re.IGNORECASE)


def silences_in_force(kept: tuple[RuleRecord, ...], now: float) -> tuple[Silence, ...]:
    """Those whose time is not over, by name."""
    return tuple(found for record in kept if (found := _read(record)) is not None and now < found.until)


def over(kept: tuple[RuleRecord, ...], now: float) -> tuple[str, ...]:
    """The names under which silences are kept whose time is over."""
    return tuple(record.name for record in kept if (found := _read(record)) is not None and now >= found.until)


def naming_only(kept: tuple[RuleRecord, ...], devices: Collection[DeviceId]) -> tuple[str, ...]:
    """The names under which silences are kept that mean one of these devices by its name, and nothing else."""
    names = {str(device) for device in devices}
    found = []
    for record in kept:
        silence = _read(record)
        told = None if silence is None else _OF_ONE.match(silence.query)
        if told is not None and told[2] in names:
            found.append(record.name)
    return tuple(found)


def _read(record: RuleRecord) -> Silence | None:
    if not record.name.startswith(SILENCE):
        return None
    try:
        return decode(record.body, Silence, where=record.name)
    except WireError:
        return None
