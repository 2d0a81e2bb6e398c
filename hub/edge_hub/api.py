"""The values of the HTTP API, for the server and its clients; `docs/reference/hub-api.md` describes the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_hub.alerts.views import AlertView
from edge_hub.differences import Difference, differences
from edge_hub.rows import Labels
from edge_hub.store.records import CommandRecord, DesiredRecord, DeviceRecord, EventRecord, Point
from edge_sdk.mqtt import Birth, Command, Desired, Event, Reply, Sample, State
from edge_sdk.preference import Preference
from edge_sdk.wire import Count, Name, Text, Token, Unix, Wire

DEFAULT_EXPIRES_S = 60.0
MAX_BODY_BYTES = 64 * 1024
MAX_DEVICES = 1000
MAX_QUERIED = 20_000
MAX_PAGE = 1000
MAX_WAIT_S = 60.0

# What can be exported: the tables of `edge_hub.export.tables`.
Kept = Literal["telemetry", "minutes", "hours", "events", "commands", "alerts", "audit"]
# TENANT/DEVICE; `DeviceId.parse` has the last word.
Device = Annotated[str, Meta(max_length=129)]
Pem = Annotated[str, Meta(max_length=16_384)]
Expires = Annotated[float, Meta(ge=1, le=30 * 86_400)]


class DeviceView(Wire, frozen=True, kw_only=True):
    """A device in a list.

    Attributes:
        online: It was born and its will has not come; `last_seen` says how fresh that is.
        birth: What it said of itself when it came up.
        sample: Its newest telemetry record.
        reported_version: Of the desired document, the one it has applied.
        in_step: It has applied the desired document, or there is none.
        labels: The operator's words for it.
        skew_s: How far its clock is ahead of the hub's.
    """

    device: Device
    online: bool
    enrolled: Unix | None = None
    last_seen: Unix | None = None
    boot: Token | None = None
    birth: Birth | None = None
    state: State | None = None
    sample: Sample | None = None
    messages: Count = 0
    duplicates: Count = 0
    desired_version: Count = 0
    reported_version: Count = 0
    in_step: bool = True
    labels: Labels = {}
    skew_s: float | None = None

    @classmethod
    def of(cls, record: DeviceRecord) -> DeviceView:
        """The view of a stored device."""
        reported = record.state.desired_version if record.state is not None else 0
        return cls(
            device=str(record.device),
            online=record.online,
            enrolled=record.enrolled,
            last_seen=record.last_seen,
            boot=record.boot,
            birth=record.birth,
            state=record.state,
            sample=record.sample,
            messages=record.messages,
            duplicates=record.duplicates,
            desired_version=record.desired_version,
            reported_version=reported,
            in_step=reported >= record.desired_version,
            labels=dict(record.labels),
            skew_s=record.skew_s,
        )


class DeviceList(Wire, frozen=True, kw_only=True):
    """All devices."""

    devices: tuple[DeviceView, ...]


class EventView(Wire, frozen=True, kw_only=True):
    """Something that happened on a device."""

    id: Count
    device: Device
    received: Unix
    event: Event

    @classmethod
    def of(cls, record: EventRecord) -> EventView:
        """The view of a stored event."""
        return cls(id=record.id, device=str(record.device), received=record.received, event=record.event)


class EventPage(Wire, frozen=True, kw_only=True):
    """Events by ascending id. Older ones: `before` the first id; newer ones: `after` the last."""

    events: tuple[EventView, ...]


class CommandView(Wire, frozen=True, kw_only=True):
    """A command and what became of it.

    Attributes:
        state: `pending`, and at the end one of `done`, `refused`, `expired`, `cancelled`.
        published: How often it was sent.
        late: The reply came after the hub had called the command expired or cancelled.
        by: Who ordered it: the name of a token.
        batch: What was ordered at once has this in common.
    """

    id: Token
    device: Device
    command: Command
    state: Name
    sent: Unix
    expires: Unix
    published: Count = 0
    finished: Unix | None = None
    reply: Reply | None = None
    late: bool = False
    by: Text = ""
    batch: Token | None = None

    @classmethod
    def of(cls, record: CommandRecord) -> CommandView:
        """The view of a stored command."""
        return cls(
            id=record.id,
            device=str(record.device),
            command=record.command,
            state=record.state.value,
            sent=record.sent,
            expires=record.expires,
            published=record.published,
            finished=record.finished,
            reply=record.reply,
            late=record.late,
            by=record.by,
            batch=record.batch,
        )


class CommandPage(Wire, frozen=True, kw_only=True):
    """Commands, the newest first. Older ones: `before` the last one's `sent`."""

    commands: tuple[CommandView, ...]


class BatchView(Wire, frozen=True, kw_only=True):
    """What was ordered at once.

    Attributes:
        states: How many are in each state.
        commands: All, by device.
    """

    batch: Token
    states: dict[Name, Count]
    commands: tuple[CommandView, ...]

    @classmethod
    def of(cls, batch: str, records: Sequence[CommandRecord]) -> BatchView:
        """The view of stored commands."""
        return cls(
            batch=batch,
            states=dict(Counter(record.state.value for record in records)),
            commands=tuple(CommandView.of(record) for record in records),
        )


class DesiredView(Wire, frozen=True, kw_only=True):
    """A desired document, and how far the device is.

    Attributes:
        refused: Why the device does not apply it.
        since: Since when it has not applied it; None where it has.
        differences: Where what it reports is another thing, also where it has applied it.
    """

    device: Device
    desired: Desired | None = None
    sent: Unix | None = None
    reported_version: Count = 0
    in_step: bool = True
    refused: Text | None = None
    since: Unix | None = None
    differences: tuple[Difference, ...] = ()

    @classmethod
    def of(cls, record: DesiredRecord | None, device: DeviceRecord) -> DesiredView:
        """The view of a stored document."""
        state = device.state
        reported = state.desired_version if state is not None else 0
        return cls(
            device=str(device.device),
            desired=None if record is None else record.desired,
            sent=None if record is None else record.sent,
            reported_version=reported,
            in_step=(in_step := record is None or reported >= record.desired.version),
            since=None if record is None or in_step else record.sent,
            differences=() if record is None else differences(record.desired, device.state, sent=record.sent),
            refused=None if state is None else state.desired_refused,
        )


class DeviceDetail(Wire, frozen=True, kw_only=True):
    """One device with what happened to it last."""

    device: DeviceView
    desired: DesiredView
    events: tuple[EventView, ...]
    commands: tuple[CommandView, ...]
    alerts: tuple[AlertView, ...] = ()
    labels: Labels = {}


class LabelsRequest(Wire, frozen=True, kw_only=True):
    """The operator's words for a device, instead of those it has."""

    labels: Labels


class CommandRequest(Wire, frozen=True, kw_only=True):
    """Send a command to a device, to each of a list, or to each that a query means now."""

    device: Device | None = None
    query: Annotated[str, Meta(max_length=2000)] | None = None
    devices: Annotated[tuple[Device, ...], Meta(max_length=MAX_DEVICES)] = ()
    command: Command
    expires_s: Expires = DEFAULT_EXPIRES_S


class Accepted(Wire, frozen=True, kw_only=True):
    """The commands are stored and on their way; `id` is there when it is one, `batch` names all of them."""

    id: Token | None = None
    batch: Token | None = None
    ids: dict[Device, Token] = {}


class DesiredRequest(Wire, frozen=True, kw_only=True):
    """The new desired document; its version is the hub's to count.

    Attributes:
        if_version: Only when the present version is this one (0: when there is none yet).
    """

    preferences: Annotated[dict[Name, Preference], Meta(max_length=100)] = {}
    pins: Annotated[dict[Name, Name | None], Meta(max_length=100)] = {}
    if_version: Count | None = None


class EnrolRequest(Wire, frozen=True, kw_only=True):
    """Give a device credentials; `again` replaces those it has."""

    device: Device
    again: bool = False


class Credentials(Wire, frozen=True, kw_only=True):
    """What a device connects with. Password and key are shown this once; the hub keeps a hash of the one alone.

    Attributes:
        ca: The authority that the device is to trust, PEM; None for the system's.
        certificate: The device's own, with `key`, where the broker asks for one.
    """

    device: Device
    host: Text
    port: Count
    tls: bool = False
    username: Text
    password: Text
    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None


class EnrolAllRequest(Wire, frozen=True, kw_only=True):
    """Give each of these devices credentials, or none of them; `again` replaces those they have."""

    devices: Annotated[tuple[Device, ...], Meta(min_length=1, max_length=MAX_DEVICES)]
    again: bool = False


class CredentialsList(Wire, frozen=True, kw_only=True):
    """In the order of the request."""

    devices: tuple[Credentials, ...]


class RemoveAllRequest(Wire, frozen=True, kw_only=True):
    """Take each of these devices out of the fleet, or none of them."""

    devices: Annotated[tuple[Device, ...], Meta(min_length=1, max_length=MAX_DEVICES)]


class Removed(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Devices that are not in the fleet any more.

    Attributes:
        left: What is left to do, in sentences; empty where nothing is.
    """

    devices: tuple[Device, ...]
    left: tuple[Text, ...] = ()


class Health(Wire, frozen=True, kw_only=True):
    """How the hub itself is.

    Attributes:
        trouble: What hinders it now, or None: then it is well.
    """

    ok: bool
    version: Text
    broker: Name
    broker_running: bool
    connected: bool
    trouble: Text | None = None
    devices: Count = 0
    online: Count = 0
    messages: Count = 0
    duplicates: Count = 0
    malformed: Count = 0


class PointView(Wire, frozen=True, kw_only=True):
    """A device over one step of time, see `edge_hub.store.records.Point`: least, mean and most of each."""

    at: Unix
    samples: Count
    temp_c: tuple[float, float, float] | None = None
    power_w: tuple[float, float, float] | None = None
    rtt_ms: tuple[float, float, float] | None = None
    load_pct: tuple[float, float, float] | None = None
    battery_pct: float | None = None
    calls: Count = 0
    late: Count = 0
    failed: Count = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    variants: dict[str, float] = {}

    @classmethod
    def of(cls, point: Point) -> PointView:
        """The view of a stored point."""
        return cls(**{name: getattr(point, name) for name in cls.__struct_fields__})


class HistoryView(Wire, frozen=True, kw_only=True):
    """A device over time, in ascending order; steps without a sample are left out."""

    step_s: float
    points: tuple[PointView, ...]


class ExportQuery(Wire, frozen=True, kw_only=True):
    """Which rows an export has, and how they are written; all fields go into the request's query string.

    Attributes:
        since, until: As `edge hub export` has them.
        devices: TENANT/DEVICE, with commas; all without.
        query: Those for which it holds now.
    """

    format: Literal["csv", "parquet"] = "csv"
    times: Literal["iso", "unix"] = "iso"
    since: Unix | None = None
    until: Unix | None = None
    devices: str | None = None
    query: str | None = None


class QuarantinedView(Wire, frozen=True, kw_only=True):
    """A refused message; the payload's first kilobytes as text with escapes."""

    id: Count
    topic: str
    problem: str
    received: Unix
    size_bytes: Count
    payload: str


class Quarantine(Wire, frozen=True, kw_only=True):
    """The last refused messages, the newest first."""

    messages: tuple[QuarantinedView, ...]


def to_json(value: Any) -> bytes:
    """The body of an answer."""
    return msgspec.json.encode(value)
