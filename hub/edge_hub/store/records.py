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
        ignored: Fields that the hub does not know, as `State.lux`: the device is newer.
    """

    device: DeviceId
    kind: Up
    envelope: UpEnvelope[Any]
    payload: bytes
    received: float
    retained: bool = False
    ignored: tuple[str, ...] = ()


class Refusal(enum.Enum):
    """Why a message was refused."""

    TOPIC = "topic"  # no topic of a device
    SIZE = "size"  # more bytes than may be taken
    COMPRESSION = "compression"  # no whole zlib stream, or one that inflates to too much
    SYNTAX = "syntax"  # no JSON, or no UTF-8
    CONTENT = "content"  # a field is missing, or a value is out of bounds
    NUMBER = "number"  # another message had its number


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
    reason: Refusal = Refusal.CONTENT


class CommandState(enum.Enum):
    """Where a command stands; all but the first are final."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command and what became of it.

    Attributes:
        id: The message id; the device's reply names it.
        expires: After this the device does not act on it.
        published: How often it was sent.
        reply: The device's, or None where the hub gave up waiting.
        late: The reply came after the hub had called the command expired or cancelled; that stands, the reply is kept
            beside it.
        by: Who ordered it: the name of a token; empty where that is not known.
        batch: What was ordered at once, for several devices, has this id in common.
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
    by: str = ""
    batch: str | None = None


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
        labels: The operator's words for it, by key.
        skew_s: By how much its clock is ahead of the hub's, estimated from live messages; None before any.
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
    labels: Mapping[str, str] = field(default_factory=dict)
    skew_s: float | None = None


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
class Late:
    """Telemetry that says nothing about now: all of a message, or all but its newest record.

    Attributes:
        boot: With `seq`, the message in the log; the store's own number of it.
        samples: The first ones of the message, the oldest first.
    """

    device: DeviceId
    boot: int
    seq: int
    samples: tuple[Sample, ...]


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
        late: New telemetry but for each device's newest record.
        alerts: Those that began, ended, or were acknowledged; no batch of messages has any.
        noted: Kinds of what was noted in the audit log, as its `what`; likewise.
    """

    acks: Mapping[tuple[DeviceId, str], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    malformed: int = 0
    events: tuple[EventRecord, ...] = ()
    finished: tuple[CommandRecord, ...] = ()
    born: tuple[DeviceId, ...] = ()
    touched: tuple[DeviceId, ...] = ()
    late: tuple[Late, ...] = ()
    alerts: tuple[AlertRecord, ...] = ()
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts over everything ever stored; retention does not lower them.

    Attributes:
        refused: Of `malformed`, how many for which reason, by `Refusal.value`.
        newer: Messages with fields that the hub does not know.
        closed_gaps: Between numbers of long ago. What should still come there is taken for a repetition.
        forgotten_boots: What should still come of one is taken for new.
    """

    devices: int
    online: int
    messages: int
    duplicates: int
    malformed: int
    events: int
    commands: Mapping[str, int]
    size_bytes: int
    refused: Mapping[str, int] = field(default_factory=dict)
    newer: int = 0
    closed_gaps: int = 0
    forgotten_boots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept: an age for each kind, and a size for all of it together.

    Attributes:
        max_age_s: Of messages, events and finished commands.
        max_bytes: What exceeds it goes before its age: messages and minutes first, the oldest for their kind.
        minutes_age_s: Of telemetry summed up by minute.
        hours_age_s: Of telemetry summed up by hour.
        audit_age_s: Of the audit log.
        alerts_age_s: Of alerts that ended.
    """

    max_age_s: float = 30 * 86_400.0
    max_bytes: int = 2 * 1024**3
    minutes_age_s: float = 90 * 86_400.0
    hours_age_s: float = 730 * 86_400.0
    audit_age_s: float = 730 * 86_400.0
    alerts_age_s: float = 730 * 86_400.0


# ------------------------------------------------------------------------------------------------------ control


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what, when, to whom. `id` counts up; 0 before it is stored.

    Attributes:
        who: The name of a token, or `local` for what the command line did in the data directory.
        role: What it was allowed.
        what: `command`, `cancel`, `desired`, `labels`, `enrol`, `token`, `rule`, `alert`, ...
        target: A device, a query, a name.
        detail: What was asked, as JSON; no secrets.
    """

    id: int = 0
    at: float
    who: str
    role: str
    what: str
    target: str
    detail: bytes = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token for the API; `digest` is of the token, which is kept nowhere."""

    name: str
    role: str
    digest: str
    created: float
    expires: float | None = None
    last_used: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRecord:
    """An alert rule; `body` is its JSON (`edge_hub.alerts.rules.Rule`).

    What is kept like one has a name with a colon, which no rule has: `group:NAME`, `silence:NAME`, `state:alerts`, how
    far the evaluation of the rules has come, and `told:WAY`, how far the telling of alerts on a way.
    """

    name: str
    body: bytes
    changed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRecord:
    """A rule holds for a device, from `began` to `ended`. `id` counts up; 0 before it is stored.

    Attributes:
        text: One sentence, with the number and its unit.
        acknowledged: Who has seen it, and when.
    """

    id: int = 0
    rule: str
    device: DeviceId
    severity: str
    began: float
    ended: float | None = None
    text: str
    value: float | None = None
    acknowledged: str | None = None
    acknowledged_at: float | None = None


# ------------------------------------------------------------------------------------------------------ removal

# What a removed device sent before is still on its way for so long at most: a minute is six times the daemon's own
# delay of its will, and longer than any queue of a broker takes to drain into a hub that is well.
HELD_OFF_S = 60.0
# The ends of its alerts are kept until they were told, or nobody tries any more (`alerts.delivery.GIVE_UP_S`).
KEPT_ALERTS_S = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What ended with devices that were taken out of the fleet, as it is now."""

    commands: tuple[CommandRecord, ...] = ()
    alerts: tuple[AlertRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A device that was taken out of the fleet at a moment. `id` is of that removal alone."""

    id: int
    device: DeviceId
    at: float


# ------------------------------------------------------------------------------------------------------ history


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A device over one step of time: what its samples said, summed up. None where no sample said it.

    Attributes:
        at: Begin of the step, seconds since 1970.
        samples: How many it stands for.
        temp_c, power_w, rtt_ms, load_pct: Least, mean and most.
        battery_pct: The last.
        calls, late, failed: Of all models together.
        p50_ms, p95_ms: Of the model with the most calls; over several samples the mean of the former weighed by calls,
            and the most of the latter.
        variants: Seconds for which each `model/variant` ran.
    """

    at: float
    samples: int
    temp_c: tuple[float, float, float] | None = None
    power_w: tuple[float, float, float] | None = None
    rtt_ms: tuple[float, float, float] | None = None
    load_pct: tuple[float, float, float] | None = None
    battery_pct: float | None = None
    calls: int = 0
    late: int = 0
    failed: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    variants: Mapping[str, float] = field(default_factory=dict)
