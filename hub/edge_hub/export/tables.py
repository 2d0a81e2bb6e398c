"""What can be exported: the columns of each kind, and how its rows are made."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from edge_hub.export.sources import PAGE_ROWS, Source
from edge_hub.store._logged import LONGEST_BATCH_S, Logged, logged
from edge_hub.store._rows import ALERTS, EVENTS, alert_record, command_record, device_id, event_record
from edge_hub.store._rows import Row as Kept
from edge_hub.store.condense import HOUR_S, MINUTE_S, decode_span, points
from edge_sdk.mqtt import DeviceId, Sample
from edge_sdk.wire import encode

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
    read: Callable[[Source, Wanted], Iterator[Row]]


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
_stats = attrgetter(*_STATS)
_conditions = attrgetter(*list(_CONDITIONS)[2:])  # after those that are spelled out below


def _telemetry(source: Source, wanted: Wanted) -> Iterator[Row]:
    """A row for each sample and model; one for a sample without any."""
    for message, device in _messages(source, wanted):
        for sample in message.samples:
            if wanted.since <= sample.at < wanted.until:
                yield from _sample_rows((sample.at, device, message.boot, message.seq, message.received), sample)


def _sample_rows(head: Row, sample: Sample) -> Iterator[Row]:
    seen = sample.conditions
    told = (*head, sample.window_s, seen.temp_c, seen.throttle.value, *_conditions(seen))
    if not sample.models:
        yield (*told, *_NO_MODEL)
    for name, stats in sample.models.items():
        yield (*told, name, *_stats(stats))


def _messages(source: Source, wanted: Wanted) -> Iterator[tuple[Logged, str]]:
    """Telemetry messages of the log, with the device's name."""
    if wanted.devices is not None:
        for device, number in _numbers(source, wanted.devices):
            for message in source.telemetry(number, since=wanted.since, until=wanted.until):
                yield message, str(device)
        return
    rows = source.stream(
        "SELECT log.id, log.seq, log.received, log.payload, boots.boot, d.tenant, d.name"
        " FROM log JOIN boots ON boots.id = log.boot JOIN devices d ON d.id = boots.device",
        key="log.id",
        where="log.kind = 'tele' AND log.sent >= ? AND log.sent <= ?",
        values=(wanted.since, wanted.until + LONGEST_BATCH_S),
    )
    for row in rows:
        yield logged(row, row["boot"]), str(device_id(row))


# -------------------------------------------------------------------------------------------- minutes and hours

_CONDENSED: dict[str, Kind] = {
    "at": Kind.TIME,
    "device": Kind.TEXT,
    "samples": Kind.WHOLE,
    **{
        f"{name}_{which}_{unit}": Kind.REAL
        for name, unit in (("temp", "c"), ("power", "w"), ("rtt", "ms"), ("load", "pct"))
        for which in ("min", "mean", "max")
    },
    "battery_pct": Kind.REAL,
    "calls": Kind.WHOLE,
    "late": Kind.WHOLE,
    "failed": Kind.WHOLE,
    "p50_ms": Kind.REAL,
    "p95_ms": Kind.REAL,
    "variants": Kind.TEXT,
}
_UNTOLD = (None, None, None)


def _condensed(step: int, source: Source, wanted: Wanted) -> Iterator[Row]:
    """By device, the oldest first."""
    names = {number: str(device) for device, number in _numbers(source, wanted.devices)}
    for row in source.condensed(tuple(names), step=step, since=wanted.since, until=wanted.until):
        (one,) = points({float(row["at"]): decode_span(row["body"])})
        yield (
            *(one.at, names[row["device"]], one.samples),
            *(one.temp_c or _UNTOLD),
            *(one.power_w or _UNTOLD),
            *(one.rtt_ms or _UNTOLD),
            *(one.load_pct or _UNTOLD),
            *(one.battery_pct, one.calls, one.late, one.failed, one.p50_ms, one.p95_ms),
            encode(one.variants).decode(),
        )


# -------------------------------------------------------------------------------------- events, commands and others


def _events(source: Source, wanted: Wanted) -> Iterator[Row]:
    rows = source.stream(
        EVENTS,
        key="e.id",
        where=f"(? OR e.device {source.among})",
        values=_of_devices(source, wanted),
    )
    for row in rows:
        record = event_record(row)
        event, because = record.event, record.event.because
        if wanted.since <= event.at < wanted.until:
            yield (
                *(record.id, event.at, record.received, str(record.device), event.kind, event.model),
                *(event.old, event.new, because and because.code, because and because.text, event.text, event.took_ms),
            )


def _commands(source: Source, wanted: Wanted) -> Iterator[Row]:
    """By device, the oldest first."""
    for device, number in _numbers(source, wanted.devices):
        for row in _orders(source, number, wanted):
            one = command_record(row, device)
            reply = one.reply
            yield (
                *(one.id, one.sent, str(device), one.by, one.batch, encode(one.command).decode(), one.state.value),
                *(one.published, one.expires, one.finished, one.late),
                *((None,) * 3 if reply is None else (reply.code, reply.text, encode(reply.result).decode())),
            )


def _orders(source: Source, device: int, wanted: Wanted) -> Iterator[Kept]:
    """A page at a time: a reply may be as long as a message."""
    sql = (
        "SELECT * FROM commands WHERE device = ? AND sent >= ? AND (sent, id) > (?, ?) AND sent < ?"
        " ORDER BY sent, id LIMIT ?"
    )
    sent, last = wanted.since, ""
    while rows := source.fetch(sql, (device, sent, sent, last, wanted.until, PAGE_ROWS)):
        yield from rows
        sent, last = rows[-1]["sent"], rows[-1]["id"]


def _alerts(source: Source, wanted: Wanted) -> Iterator[Row]:
    rows = source.stream(
        ALERTS,
        key="a.id",
        where=f"(? OR a.device {source.among}) AND a.began >= ? AND a.began < ?",
        values=(*_of_devices(source, wanted), wanted.since, wanted.until),
    )
    for row in rows:
        one = alert_record(row)
        yield (
            *(one.id, one.rule, str(one.device), one.severity, one.began, one.ended, one.text),
            *(one.value, one.acknowledged, one.acknowledged_at),
        )


def _audit(source: Source, wanted: Wanted) -> Iterator[Row]:
    targets = None if wanted.devices is None else {str(device) for device in wanted.devices}
    rows = source.stream(
        "SELECT * FROM audit", key="audit.id", where="at >= ? AND at < ?", values=(wanted.since, wanted.until)
    )
    for row in rows:
        if targets is None or row["target"] in targets:
            yield (
                *(row[name] for name in ("id", "at", "who", "role", "what", "target")),
                bytes(row["detail"]).decode(),
            )


def _numbers(source: Source, devices: tuple[DeviceId, ...] | None) -> Iterator[tuple[DeviceId, int]]:
    rows = source.fetch("SELECT id, tenant, name FROM devices ORDER BY tenant, name")
    wanted = None if devices is None else set(devices)
    return ((device_id(row), row["id"]) for row in rows if wanted is None or device_id(row) in wanted)


def _of_devices(source: Source, wanted: Wanted) -> Row:
    """Whether it is all of them, and else their numbers as JSON: any number of them is one variable."""
    numbers = [] if wanted.devices is None else [number for _, number in _numbers(source, wanted.devices)]
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
    "minutes": Table(columns=_CONDENSED, read=partial(_condensed, MINUTE_S)),
    "hours": Table(columns=_CONDENSED, read=partial(_condensed, HOUR_S)),
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
