"""Rows of a store to records, and how rows that name their device are selected; the same for both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from edge_hub.errors import StoreError
from edge_hub.store.outline import Outline, SampleOutline, StateOutline, birth_outline
from edge_hub.store.records import (
    AlertRecord,
    CommandRecord,
    CommandState,
    DesiredRecord,
    DeviceRecord,
    EventRecord,
    QuarantinedRecord,
)
from edge_sdk.mqtt import Birth, Command, Desired, DeviceId, Event, Reply, Sample, State

T = TypeVar("T")


class Row(Protocol):
    """As both databases return them."""

    def __getitem__(self, column: str, /) -> Any: ...


EVENTS = "SELECT e.id, e.received, e.body, d.tenant, d.name FROM events e JOIN devices d ON d.id = e.device"
COMMANDS = "SELECT c.*, d.tenant, d.name FROM commands c JOIN devices d ON d.id = c.device"
ALERTS = "SELECT a.*, d.tenant, d.name FROM alerts a JOIN devices d ON d.id = a.device"

_state_outline = msgspec.json.Decoder(StateOutline)
_sample_outline = msgspec.json.Decoder(SampleOutline)
_birth = msgspec.json.Decoder(Birth)
_state = msgspec.json.Decoder(State)
_sample = msgspec.json.Decoder(Sample)
_event = msgspec.json.Decoder(Event)
_command: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_reply = msgspec.json.Decoder(Reply)
_labels: msgspec.json.Decoder[Mapping[str, str]] = msgspec.json.Decoder(dict[str, str])
_desired = msgspec.json.Decoder(Desired)


def device_id(row: Row) -> DeviceId:
    """Of a row with `tenant` and `name`."""
    return DeviceId(tenant=row["tenant"], device=row["name"])


def device_record(row: Row) -> DeviceRecord:
    """Of a whole row of `devices`."""
    return DeviceRecord(
        device=device_id(row),
        enrolled=row["enrolled"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        online=bool(row["online"]),
        boot=row["boot"],
        birth=_maybe(_birth.decode, row["birth"]),
        state=_maybe(_state.decode, row["state"]),
        sample=_maybe(_sample.decode, row["sample"]),
        messages=row["messages"],
        duplicates=row["duplicates"],
        desired_version=row["desired_version"],
        labels={} if row["labels"] is None else _must(_labels.decode, row["labels"]),
        skew_s=row["skew_s"],
    )


def outline(row: Row) -> Outline:
    """Of a row with `outline.COLUMNS`."""
    return Outline(
        device=device_id(row),
        online=bool(row["online"]),
        last_seen=row["last_seen"],
        birth=_maybe(birth_outline, row["birth"]),
        state=_maybe(_state_outline.decode, row["state"]),
        sample=_maybe(_sample_outline.decode, row["sample"]),
        desired_version=row["desired_version"],
        labels={} if row["labels"] is None else _must(_labels.decode, row["labels"]),
        skew_s=row["skew_s"],
    )


def event_record(row: Row) -> EventRecord:
    """Of a row of `EVENTS`."""
    return EventRecord(
        id=row["id"], device=device_id(row), received=row["received"], event=_must(_event.decode, row["body"])
    )


def command_record(row: Row, device: DeviceId | None = None) -> CommandRecord:
    """Of a row of `COMMANDS`, or of a whole row of `commands` of this device."""
    return CommandRecord(
        id=row["id"],
        device=device_id(row) if device is None else device,
        command=_must(_command.decode, row["body"]),
        sent=row["sent"],
        expires=row["expires"],
        state=CommandState(row["state"]),
        published=row["published"],
        finished=row["finished"],
        reply=_maybe(_reply.decode, row["reply"]),
        late=bool(row["late"]),
        by=row["by"],
        batch=row["batch"],
    )


def alert_record(row: Row) -> AlertRecord:
    """Of a row of `ALERTS`."""
    return AlertRecord(
        id=row["id"],
        rule=row["rule"],
        device=device_id(row),
        severity=row["severity"],
        began=row["began"],
        ended=row["ended"],
        text=row["text"],
        value=row["value"],
        acknowledged=row["acknowledged"],
        acknowledged_at=row["acknowledged_at"],
    )


def desired_record(row: Row) -> DesiredRecord:
    """Of a row of `devices` that has a desired document."""
    return DesiredRecord(
        device=device_id(row),
        desired=_must(_desired.decode, row["desired"]),
        sent=row["desired_sent"],
        message=row["desired_message"],
    )


def quarantined_record(row: Row) -> QuarantinedRecord:
    """Of a whole row of `quarantine`."""
    return QuarantinedRecord(
        id=row["id"],
        topic=row["topic"],
        problem=row["problem"],
        received=row["received"],
        size_bytes=row["size_bytes"],
        payload=row["payload"],
    )


def _maybe(decode: Callable[[bytes], T], body: bytes | None) -> T | None:
    return None if body is None else _must(decode, body)


def _must(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.DecodeError as cause:
        raise StoreError(f"a stored document cannot be read: {cause}", hint="was another version here?") from cause
