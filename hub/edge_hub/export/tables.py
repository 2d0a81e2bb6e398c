"""What can be exported: the columns of each kind, and how its rows are read, a page at a time.

Rows are read from a running hub's database, too: no transaction lasts longer than a page, so that the hub's
write-ahead log does not grow meanwhile. What came in after the first page was read is left out.
"""

from __future__ import annotations

import enum
import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edge_hub.store._history import LONGEST_BATCH_S, log_of, samples_of
from edge_hub.store._rows import command_record, device_id, event_record
from edge_sdk.mqtt import DeviceId, ModelStats, Sample
from edge_sdk.wire import encode

_PAGE_ROWS = 1000

Row = tuple[Any, ...]


class Kind(enum.Enum):
    """What a column holds."""

    TIME = "time"  # seconds since 1970
    TEXT = "text"
    REAL = "real"
    WHOLE = "whole"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows.

    Attributes:
        since: Not before, seconds since 1970.
        until: Before.
        devices: Of these; None is all.
    """

    since: float = 0.0
    until: float = math.inf
    devices: tuple[DeviceId, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One kind of rows.

    Attributes:
        columns: By name, in order.
        read: The rows that are wanted.
    """

    columns: dict[str, Kind]
    read: Callable[[sqlite3.Connection, Wanted], Iterator[Row]]


# ----------------------------------------------------------------------------------------------------- telemetry

_CONDITIONS: dict[str, Kind] = {
    "temp_c": Kind.REAL,
    "throttle": Kind.TEXT,
    "battery_pct": Kind.REAL,
    "charging": Kind.FLAG,
    "power_w": Kind.REAL,
    "load_pct": Kind.REAL,
    "memory_available_mb": Kind.WHOLE,
    "rtt_ms": Kind.REAL,
    "clock": Kind.REAL,
    "gpu_pct": Kind.REAL,
    "npu_pct": Kind.REAL,
    "edgetpu_pct": Kind.REAL,
    "up_mbps": Kind.REAL,
    "down_mbps": Kind.REAL,
    "metered": Kind.FLAG,
    "played": Kind.FLAG,
}
_STATS: dict[str, Kind] = {
    "variant": Kind.TEXT,
    "calls": Kind.WHOLE,
    "late": Kind.WHOLE,
    "failed": Kind.WHOLE,
    "p50_ms": Kind.REAL,
    "p95_ms": Kind.REAL,
}
_NO_MODEL = (None,) * (1 + len(_STATS))


def _telemetry(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    """A row for each sample and model; one for a sample without any."""
    for row, device in _messages(connection, wanted):
        for sample in samples_of(row["payload"]):
            if wanted.since <= sample.at < wanted.until:
                yield from _sample_rows((sample.at, device, row["boot"], row["seq"], row["received"]), sample)


def _sample_rows(head: Row, sample: Sample) -> Iterator[Row]:
    seen = sample.conditions
    told = (*head, sample.window_s, *(_plain(getattr(seen, name)) for name in _CONDITIONS))
    if not sample.models:
        yield (*told, *_NO_MODEL)
    for name, stats in sample.models.items():
        yield (*told, name, *_stats(stats))


def _stats(stats: ModelStats) -> Row:
    return tuple(getattr(stats, name) for name in _STATS)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _messages(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[tuple[sqlite3.Row, str]]:
    """Telemetry messages of the log, with the device's name."""
    if wanted.devices is None:
        sql = (
            "SELECT log.id, log.seq, log.received, log.payload, boots.boot, d.tenant, d.name"
            " FROM log JOIN boots ON boots.id = log.boot JOIN devices d ON d.id = boots.device"
            " WHERE log.id > ? AND log.id <= ? AND log.kind = 'tele' AND log.sent >= ? AND log.sent <= ?"
            " ORDER BY log.id LIMIT ?"
        )
        for row in _pages(connection, "log", sql, (wanted.since, wanted.until + LONGEST_BATCH_S)):
            yield row, str(device_id(row))
        return
    for device, number in _numbers(connection, wanted.devices):
        for row in log_of(connection, number, since=wanted.since, until=wanted.until):
            yield row, str(device)


# -------------------------------------------------------------------------------------- events, commands and others


def _events(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    sql = (
        "SELECT e.id, e.received, e.body, d.tenant, d.name FROM events e JOIN devices d ON d.id = e.device"
        " WHERE e.id > ? AND e.id <= ? AND (? OR e.device IN (SELECT value FROM json_each(?))) ORDER BY e.id LIMIT ?"
    )
    for row in _pages(connection, "events", sql, _of_devices(connection, wanted)):
        record = event_record(row)
        event, because = record.event, record.event.because
        if wanted.since <= event.at < wanted.until:
            yield (
                *(record.id, event.at, record.received, str(record.device), event.kind, event.model),
                *(event.old, event.new, because and because.code, because and because.text, event.text, event.took_ms),
            )


def _commands(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    """By device, the oldest first."""
    for device, number in _numbers(connection, wanted.devices):
        rows = connection.execute(
            "SELECT * FROM commands WHERE device = ? AND sent >= ? AND sent < ? ORDER BY sent",
            (number, wanted.since, wanted.until),
        ).fetchall()
        for row in rows:
            one = command_record(row, device)
            reply = one.reply
            yield (
                *(one.id, one.sent, str(device), one.by, one.batch, encode(one.command).decode(), one.state.value),
                *(one.published, one.expires, one.finished, one.late),
                *((None,) * 3 if reply is None else (reply.code, reply.text, encode(reply.result).decode())),
            )


def _alerts(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    sql = (
        "SELECT a.*, d.tenant, d.name FROM alerts a JOIN devices d ON d.id = a.device WHERE a.id > ? AND a.id <= ?"
        " AND (? OR a.device IN (SELECT value FROM json_each(?))) AND a.began >= ? AND a.began < ?"
        " ORDER BY a.id LIMIT ?"
    )
    values = (*_of_devices(connection, wanted), wanted.since, wanted.until)
    for row in _pages(connection, "alerts", sql, values):
        yield (
            *(row["id"], row["rule"], str(device_id(row)), row["severity"], row["began"], row["ended"], row["text"]),
            *(row["value"], row["acknowledged"], row["acknowledged_at"]),
        )


def _audit(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    sql = "SELECT * FROM audit WHERE id > ? AND id <= ? AND at >= ? AND at < ? ORDER BY id LIMIT ?"
    targets = None if wanted.devices is None else {str(device) for device in wanted.devices}
    for row in _pages(connection, "audit", sql, (wanted.since, wanted.until)):
        if targets is None or row["target"] in targets:
            yield (
                *(row[name] for name in ("id", "at", "who", "role", "what", "target")),
                bytes(row["detail"]).decode(),
            )


def _pages(connection: sqlite3.Connection, table: str, sql: str, values: Row) -> Iterator[sqlite3.Row]:
    """Rows by ascending id, up to the last there is now."""
    last = connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0  # noqa: S608 - this module's own words
    done = 0
    while True:
        rows = connection.execute(sql, (done, last, *values, _PAGE_ROWS)).fetchall()
        yield from rows
        if len(rows) < _PAGE_ROWS:
            return
        done = rows[-1]["id"]


def _numbers(connection: sqlite3.Connection, devices: tuple[DeviceId, ...] | None) -> Iterator[tuple[DeviceId, int]]:
    rows = connection.execute("SELECT id, tenant, name FROM devices ORDER BY tenant, name").fetchall()
    wanted = None if devices is None else set(devices)
    return ((device_id(row), row["id"]) for row in rows if wanted is None or device_id(row) in wanted)


def _of_devices(connection: sqlite3.Connection, wanted: Wanted) -> Row:
    """Whether it is all of them, and else their numbers as JSON: any number of them is one variable."""
    numbers = [number for _, number in _numbers(connection, wanted.devices)]
    return wanted.devices is None, encode(numbers).decode()


TABLES: dict[str, Table] = {
    "telemetry": Table(
        columns={
            "at": Kind.TIME,
            "device": Kind.TEXT,
            "boot": Kind.TEXT,
            "seq": Kind.WHOLE,
            "received": Kind.TIME,
            "window_s": Kind.REAL,
            **_CONDITIONS,
            "model": Kind.TEXT,
            **_STATS,
        },
        read=_telemetry,
    ),
    "events": Table(
        columns={
            "id": Kind.WHOLE,
            "at": Kind.TIME,
            "received": Kind.TIME,
            "device": Kind.TEXT,
            "kind": Kind.TEXT,
            "model": Kind.TEXT,
            "old": Kind.TEXT,
            "new": Kind.TEXT,
            "code": Kind.TEXT,
            "because": Kind.TEXT,
            "text": Kind.TEXT,
            "took_ms": Kind.REAL,
        },
        read=_events,
    ),
    "commands": Table(
        columns={
            "id": Kind.TEXT,
            "sent": Kind.TIME,
            "device": Kind.TEXT,
            "by": Kind.TEXT,
            "batch": Kind.TEXT,
            "command": Kind.TEXT,
            "state": Kind.TEXT,
            "published": Kind.WHOLE,
            "expires": Kind.TIME,
            "finished": Kind.TIME,
            "late": Kind.FLAG,
            "code": Kind.TEXT,
            "text": Kind.TEXT,
            "result": Kind.TEXT,
        },
        read=_commands,
    ),
    "alerts": Table(
        columns={
            "id": Kind.WHOLE,
            "rule": Kind.TEXT,
            "device": Kind.TEXT,
            "severity": Kind.TEXT,
            "began": Kind.TIME,
            "ended": Kind.TIME,
            "text": Kind.TEXT,
            "value": Kind.REAL,
            "acknowledged": Kind.TEXT,
            "acknowledged_at": Kind.TIME,
        },
        read=_alerts,
    ),
    "audit": Table(
        columns={
            "id": Kind.WHOLE,
            "at": Kind.TIME,
            "who": Kind.TEXT,
            "role": Kind.TEXT,
            "what": Kind.TEXT,
            "target": Kind.TEXT,
            "detail": Kind.TEXT,
        },
        read=_audit,
    ),
}
