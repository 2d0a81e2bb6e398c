"""Silences: alerts that are kept and shown, and of which nobody is told for a while."""

from __future__ import annotations

from edge_hub.alerts.views import Silence
from edge_hub.store.records import RuleRecord
from edge_sdk.errors import WireError
from edge_sdk.wire import decode

SILENCE = "silence:"
MAX_SILENCES = 200


def silences_in_force(kept: tuple[RuleRecord, ...], now: float) -> tuple[Silence, ...]:
    """Those whose time is not over, by name."""
    return tuple(found for record in kept if (found := _read(record)) is not None and now < found.until)


def over(kept: tuple[RuleRecord, ...], now: float) -> tuple[str, ...]:
    """The names under which silences are kept whose time is over."""
    return tuple(record.name for record in kept if (found := _read(record)) is not None and now >= found.until)


def _read(record: RuleRecord) -> Silence | None:
    if not record.name.startswith(SILENCE):
        return None
    try:
        return decode(record.body, Silence, where=record.name)
    except WireError:
        return None
