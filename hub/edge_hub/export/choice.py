"""Which devices a query means, asked of a database directly: the hub that would answer may not run."""

from __future__ import annotations

from collections import Counter

from edge_hub.census import SWITCHES, groups_of
from edge_hub.export.sources import Source
from edge_hub.query import parse
from edge_hub.rows import Fleet, facts_of
from edge_hub.store._rows import EVENTS, device_id, event_record, outline
from edge_hub.store.outline import COLUMNS
from edge_hub.store.records import RuleRecord
from edge_sdk.mqtt import DeviceId

_HOUR_S = 3600.0


def matching(source: Source, text: str, *, now: float) -> tuple[DeviceId, ...]:
    """The devices that a query holds for now.

    Raises:
        QueryError: It is none.
    """
    kept = source.fetch("SELECT name, body, changed FROM rules")
    rules = (RuleRecord(name=row["name"], body=row["body"], changed=row["changed"]) for row in kept)
    query = parse(text, groups_of(rules))
    found = source.fetch(f"SELECT {COLUMNS} FROM devices ORDER BY tenant, name")  # noqa: S608 - columns of ours
    records = [outline(row) for row in found]
    fleet = Fleet.of(
        records,
        now=now,
        alerts=_open_alerts(source),
        switches=_switches(source, since=now - _HOUR_S) if SWITCHES in query.fields else {},
    )
    return tuple(record.device for record in records if query(facts_of(record, fleet)))


def chosen(
    source: Source, named: tuple[DeviceId, ...] | None, query: str | None, *, now: float
) -> tuple[DeviceId, ...] | None:
    """Those that are named and that the query means; None is all.

    Raises:
        QueryError: It is none.
    """
    if query is None:
        return named
    found = matching(source, query, now=now)
    return found if named is None else tuple(device for device in found if device in set(named))


def _open_alerts(source: Source) -> Counter[DeviceId]:
    select = "SELECT a.id, d.tenant, d.name FROM alerts a JOIN devices d ON d.id = a.device"
    return Counter(device_id(row) for row in source.stream(select, key="a.id", where="a.ended IS NULL"))


def _switches(source: Source, *, since: float) -> Counter[DeviceId]:
    rows = source.stream(EVENTS, key="e.id", where="e.received >= ?", values=(since,))
    return Counter(one.device for one in map(event_record, rows) if one.event.kind == "switch")
