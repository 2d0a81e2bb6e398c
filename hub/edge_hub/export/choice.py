"""Which devices a query means, asked of a database directly: the hub that would answer may not run."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from edge_hub.census import GROUP
from edge_hub.query import parse
from edge_hub.rows import Fleet, facts_of
from edge_hub.store._rows import device_id, device_record
from edge_sdk.mqtt import DeviceId

_SWITCHES = "switches_h"
_HOUR_S = 3600.0


def matching(connection: sqlite3.Connection, text: str, *, now: float) -> tuple[DeviceId, ...]:
    """The devices that a query holds for now.

    Raises:
        QueryError: It is none.
    """
    kept = connection.execute("SELECT name, body FROM rules").fetchall()
    groups = {
        row["name"].removeprefix(GROUP): bytes(row["body"]).decode() for row in kept if row["name"].startswith(GROUP)
    }
    query = parse(text, groups)
    records = [device_record(row) for row in connection.execute("SELECT * FROM devices ORDER BY tenant, name")]
    fleet = Fleet.of(
        records,
        now=now,
        alerts=_counted(connection, "alerts x", "x.ended IS NULL AND x.began <= ?", now),
        switches=_counted(
            connection,
            "events x",
            "x.received > ? AND json_extract(CAST(x.body AS TEXT), '$.kind') = 'switch'",
            now - _HOUR_S,
        )
        if _SWITCHES in query.fields
        else {},
    )
    return tuple(record.device for record in records if query(facts_of(record, fleet)))


def _counted(connection: sqlite3.Connection, table: str, where: str, value: float) -> Mapping[DeviceId, int]:
    rows = connection.execute(
        "SELECT d.tenant, d.name, count(*) AS times"  # noqa: S608 - this module's own words
        f" FROM {table} JOIN devices d ON d.id = x.device WHERE {where} GROUP BY x.device",
        (value,),
    )
    return {device_id(row): row["times"] for row in rows}
