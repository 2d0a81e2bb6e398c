"""What goes into a store and what comes out."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_sdk.mqtt import Birth, Command, Desired, DeviceId, Event, Reply, Sample, State, Up, UpEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A well-formed message of a device.

    Attributes:
        payload: As it came, perhaps compressed.
        retained: The broker kept it: it says nothing about the device being there now.
    """

    device: DeviceId
    kind: Up
    envelope: UpEnvelope[Any]
    payload: bytes
    received: float
    retained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A message that was refused, kept for whoever has to find out why.

    Attributes:
        device: Who sent it, where the topic says so.
        boot: With `seq`, its number, where at least that could be read: then the device is told to forget it,
            for it would send it for ever.
    """

    topic: str
    payload: bytes
    problem: str
    received: float
    device: DeviceId | None = None
    boot: str | None = None
    seq: int = 0


class CommandState(enum.Enum):
    """Where a command stands; all but the first are final."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command and what became of it.

    Attributes:
        id: The message id; the device's reply names it.
        expires: After this the device does not act on it.
        published: How often it was sent.
        reply: The device's, or None where the hub gave up waiting.
        late: The reply came after the hub had called the command expired; that stands, the reply is kept beside it.
    """

    id: str
    device: DeviceId
    command: Command
    sent: float
    expires: float
    state: CommandState = CommandState.PENDING
    published: int = 0
    finished: float | None = None
    reply: Reply | None = None
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredRecord:
    """The desired document of a device."""

    device: DeviceId
    desired: Desired
    sent: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """All that is known of a device now.

    Attributes:
        enrolled: When it was given credentials; None where it was only heard of.
        online: It was born and its will has not come.
        last_seen: When the last message came that it sent itself, by the hub's clock.
        messages: Distinct numbered messages stored so far.
        duplicates: Messages that came again.
        sample: Its newest telemetry record.
        desired_version: Of the desired document, 0 without one.
    """

    device: DeviceId
    enrolled: float | None
    first_seen: float | None
    last_seen: float | None
    online: bool
    boot: str | None
    birth: Birth | None
    state: State | None
    sample: Sample | None
    messages: int
    duplicates: int
    desired_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened on a device. `id` counts up over all devices, in the order of storing."""

    id: int
    device: DeviceId
    received: float
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedRecord:
    """A refused message. `payload` is cut to the first kilobytes."""

    id: int
    topic: str
    problem: str
    received: float
    size_bytes: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a stored batch changed.

    Attributes:
        acks: By device and boot, the inclusive ranges of `seq` that are durable now, stored just so or before.
        stored: Numbered messages that were new.
        duplicates: Numbered messages that were not.
        malformed: Messages put into quarantine.
        events: New events, in the order of their ids.
        finished: Commands that got their final state, or a late reply.
        born: Devices that are there anew.
        touched: Devices of which anything changed.
    """

    acks: Mapping[tuple[DeviceId, str], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    malformed: int = 0
    events: tuple[EventRecord, ...] = ()
    finished: tuple[CommandRecord, ...] = ()
    born: tuple[DeviceId, ...] = ()
    touched: tuple[DeviceId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts over everything ever stored; retention does not lower them."""

    devices: int
    online: int
    messages: int
    duplicates: int
    malformed: int
    events: int
    commands: Mapping[str, int]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the message log, the events and the finished commands may grow to."""

    max_age_s: float = 30 * 86_400.0
    max_bytes: int = 2 * 1024**3
