"""The values of the HTTP API, for the server and its clients; `docs/reference/hub-api.md` describes the requests."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_hub.store.records import CommandRecord, DesiredRecord, DeviceRecord, EventRecord
from edge_sdk.mqtt import Birth, Command, Desired, Event, Reply, Sample, State
from edge_sdk.preference import Preference
from edge_sdk.wire import Count, Name, Text, Token, Unix, Wire

DEFAULT_EXPIRES_S = 60.0
MAX_BODY_BYTES = 64 * 1024
MAX_DEVICES = 1000
MAX_PAGE = 1000
MAX_WAIT_S = 60.0

# TENANT/DEVICE; `DeviceId.parse` has the last word.
Device = Annotated[str, Meta(max_length=129)]
Expires = Annotated[float, Meta(ge=1, le=30 * 86_400)]


class DeviceView(Wire, frozen=True, kw_only=True):
    """A device in a list.

    Attributes:
        online: It was born and its will has not come; `last_seen` says how fresh that is.
        birth: What it said of itself when it came up.
        sample: Its newest telemetry record.
        reported_version: Of the desired document, the one it has applied.
        in_step: It has applied the desired document, or there is none.
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
        state: `pending`, and at the end one of `done`, `refused`, `expired`.
        published: How often it was sent.
        late: The reply came after the hub had called the command expired.
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
        )


class DesiredView(Wire, frozen=True, kw_only=True):
    """A desired document, and how far the device is.

    Attributes:
        refused: Why the device does not apply it.
    """

    device: Device
    desired: Desired | None = None
    sent: Unix | None = None
    reported_version: Count = 0
    in_step: bool = True
    refused: Text | None = None

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
            in_step=record is None or reported >= record.desired.version,
            refused=None if state is None else state.desired_refused,
        )


class DeviceDetail(Wire, frozen=True, kw_only=True):
    """One device with what happened to it last."""

    device: DeviceView
    desired: DesiredView
    events: tuple[EventView, ...]
    commands: tuple[CommandView, ...]


class CommandRequest(Wire, frozen=True, kw_only=True):
    """Send a command to a device, or to each of a list."""

    device: Device | None = None
    devices: Annotated[tuple[Device, ...], Meta(max_length=MAX_DEVICES)] = ()
    command: Command
    expires_s: Expires = DEFAULT_EXPIRES_S


class Accepted(Wire, frozen=True, kw_only=True):
    """The commands are stored and on their way; `id` is there when it is one."""

    id: Token | None = None
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
    """What a device connects with. The password is shown this once; the hub keeps a hash."""

    device: Device
    host: Text
    port: Count
    tls: bool = False
    username: Text
    password: Text


class EnrolAllRequest(Wire, frozen=True, kw_only=True):
    """Give each of these devices credentials, or none of them; `again` replaces those they have."""

    devices: Annotated[tuple[Device, ...], Meta(min_length=1, max_length=MAX_DEVICES)]
    again: bool = False


class CredentialsList(Wire, frozen=True, kw_only=True):
    """In the order of the request."""

    devices: tuple[Credentials, ...]


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
