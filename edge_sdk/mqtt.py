"""The MQTT protocol between a device and its hub, version 1: topics, envelopes, bodies.

Correctness never rests on a broker's features: identity, order, expiry and correlation are in the envelope. A device
numbers what it sends by `seq` within a `boot` (random per start of the daemon) and keeps each spooled message until
the hub's `down/ack` names it. The hub stores by (device, boot, seq), so a message may arrive twice and count once.
`docs/reference/mqtt.md` describes the protocol for people. This module does no I/O.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk import conditions
from edge_sdk.errors import WireError
from edge_sdk.inflating import ZLIB_FIRST_BYTE, inflate
from edge_sdk.manifest import Origin
from edge_sdk.newer import unknown_fields
from edge_sdk.preference import Preference
from edge_sdk.wire import Count, Millis, Name, Text, Token, Unix, Wire, decode, encode

VERSION = 1
ROOT = f"edge/v{VERSION}"
MAX_UP_BYTES = 256 * 1024
MAX_DOWN_BYTES = 64 * 1024
MAX_INFLATED_BYTES = 1024 * 1024
MAX_RESULT_LEVELS = 32
Finite = Annotated[float, Meta(ge=-1e12, le=1e12)]

Conditions = conditions.Conditions
Throttle = conditions.Throttle

B = TypeVar("B")


class Up(enum.Enum):
    """What a device publishes."""

    BIRTH = "birth"
    STATE = "state"
    TELE = "tele"
    EVENT = "event"
    REPLY = "reply"


class Down(enum.Enum):
    """What a hub publishes to a device."""

    DESIRED = "desired"
    CMD = "cmd"
    ACK = "ack"


class DeviceId(Wire, frozen=True, kw_only=True):
    """`tenant/device`: the MQTT user name, and the middle of every topic."""

    tenant: Name
    device: Name

    def __str__(self) -> str:
        return f"{self.tenant}/{self.device}"

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Read `tenant/device`.

        Raises:
            WireError: The text is not two names with a slash between them.
        """
        tenant, _, device = text.partition("/")
        try:
            return msgspec.convert({"tenant": tenant, "device": device}, cls)
        except msgspec.ValidationError as cause:
            raise WireError(
                f"{text[:80]!r} is not TENANT/DEVICE", hint="use letters, digits, '.', '_' and '-', at most 64 each"
            ) from cause


def up_topic(device: DeviceId, kind: Up) -> str:
    """Where the device publishes `kind`."""
    return f"{ROOT}/{device}/up/{kind.value}"


def down_topic(device: DeviceId, kind: Down) -> str:
    """Where the hub publishes `kind` to the device."""
    return f"{ROOT}/{device}/down/{kind.value}"


@lru_cache(maxsize=16_384)  # a fleet's topics come again and again
def parse_up_topic(topic: str) -> tuple[DeviceId, Up]:
    """Which device published what.

    Raises:
        WireError: The topic is none of a device's.
    """
    parts = topic.split("/")
    if len(parts) == 6 and "/".join(parts[:2]) == ROOT and parts[4] == "up":  # noqa: PLR2004 - levels of the topic
        try:
            return DeviceId.parse(f"{parts[2]}/{parts[3]}"), Up(parts[5])
        except ValueError:
            pass
    raise WireError("not a topic of a device", where=topic[:200])


class UpEnvelope(Wire, Generic[B], frozen=True, kw_only=True):
    """Around everything a device sends.

    Attributes:
        id: Of this message, random.
        boot: Of this start of the daemon, random.
        seq: Counts up from 1 within the boot; birth and state, which are retained and not spooled, carry 0.
        sent: When it was composed (not when a replay left the spool).
        reply_to: The id of the command this answers.
    """

    id: Token
    boot: Token
    seq: Count
    sent: Unix
    reply_to: Token | None = None
    body: B


class DownEnvelope(Wire, Generic[B], frozen=True, kw_only=True):
    """Around everything a hub sends.

    Attributes:
        id: Of this message, random; a command's reply names it.
        sent: When it was composed.
        expires: After this a device does not act on it any more.
    """

    id: Token
    sent: Unix
    expires: Unix | None = None
    body: B


class ModelStats(Wire, frozen=True, kw_only=True):
    """One model's work within a telemetry window."""

    variant: Name | None
    calls: Count = 0
    late: Count = 0
    failed: Count = 0
    p50_ms: Millis | None = None
    p95_ms: Millis | None = None


class Sample(Wire, frozen=True, kw_only=True):
    """One telemetry record: the window that ended at `at`."""

    at: Unix
    window_s: Annotated[float, Meta(ge=0, le=86_400)]
    conditions: Conditions
    models: dict[Name, ModelStats] = {}


class Tele(Wire, frozen=True, kw_only=True):
    """A batch of records, oldest first."""

    samples: Annotated[tuple[Sample, ...], Meta(min_length=1, max_length=600)]


class Because(Wire, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Why a decision fell as it did; a newer device may tell more of it than a hub knows.

    Attributes:
        code: What bound: `latency`, `deadline`, `battery`, `thermal`, `throttle`, `power`, `network`, `accuracy`,
            `preference`, `pin`, `unpin`, `failure`, `start`, `measured`, `recovered` (what bound has eased), `gain`
            (nothing bound: it is worth more).
        text: One sentence for people, with the numbers.
        runner_up: The variant that came second, where there was one.
        margin: By how much the choice is worth more than that, in points of quality per request.
        numbers: What was weighed, by name; the end of a name is its unit. Watts and joules are a model's estimate
            unless the device has a sensor of power.
    """

    code: Name
    text: Text
    runner_up: Name | None = None
    margin: Finite | None = None
    numbers: Annotated[dict[Name, Finite], Meta(max_length=32)] = {}


class Decision(Wire, frozen=True, kw_only=True):
    """The variant that is to run, and why."""

    model: Name
    variant: Name
    because: Because
    at: Unix


class Event(Wire, frozen=True, kw_only=True):
    """Something that happened once.

    Attributes:
        kind: `switch` (an app runs another variant now), `switch-failed`, `throttle`, `sensor`, `spool-dropped`,
            `started`, `stopped`, `command`.
        old: The variant before, of a switch.
        new: The variant after, of a switch.
    """

    at: Unix
    kind: Name
    model: Name | None = None
    old: Name | None = None
    new: Name | None = None
    because: Because | None = None
    text: Text | None = None
    took_ms: Millis | None = None


class ServedVariant(Wire, frozen=True, kw_only=True):
    """A variant a device could run, as the hub may show it.

    Attributes:
        delegate: Who it is made for: `cpu`, or an accelerator. Who computes in fact is in `ModelState.on`. None: the
            device is from before it was told.
    """

    id: Name
    precision: Name
    quality: float
    size_bytes: Count
    latency_ms: Millis | None = None
    origin: Origin | None = None
    delegate: Name | None = None


class ServedModel(Wire, frozen=True, kw_only=True):
    """A model a device serves."""

    name: Name
    version: Name
    variants: Annotated[tuple[ServedVariant, ...], Meta(max_length=1000)] = ()


class Birth(Wire, frozen=True, kw_only=True):
    """Retained; the will is the same with `online = false`. A late will of an old boot changes nothing."""

    online: bool
    profile: Name | None = None
    board: Text | None = None
    software: Text | None = None
    started: Unix | None = None
    models: Annotated[tuple[ServedModel, ...], Meta(max_length=100)] = ()


class ModelState(Wire, frozen=True, kw_only=True):
    """One model as it is now: what apps confirmed, not what was wished.

    Attributes:
        preference: What is in force: somebody's word, with what schedules and apps make of it.
        wished_by: The schedules and apps that had a part in it, in words.
        on: Who computes now, as the app said that spoke last: `cpu`, or the delegate, such as `edgetpu:usb:0`, or
            `server` while one is asked first. None without apps, or where they do not say.
    """

    active: Name | None
    decision: Decision | None = None
    pinned: Name | None = None
    pinned_by: Literal["app", "operator", "hub"] | None = None
    preference: Preference = Preference()
    wished_by: Text | None = None
    apps: Count = 0
    paused: bool = False
    on: Annotated[str, Meta(max_length=200)] | None = None


class State(Wire, frozen=True, kw_only=True):
    """Retained: what the device reports of itself."""

    at: Unix
    conditions: Conditions
    models: dict[Name, ModelState] = {}
    desired_version: Count = 0
    desired_refused: Text | None = None
    spooled: Count = 0
    dropped: Count = 0


class ReplyStatus(enum.Enum):
    """How a command ended; each gets exactly one of these."""

    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


class Reply(Wire, frozen=True, kw_only=True):
    """The one answer to a command, whose id is the envelope's `reply_to`.

    Attributes:
        result: What the command asked for, any JSON value: `explain` a `local.Explanation`, `report` a `State`. It is
            decoded all the same (`msgspec.Raw` would let invalid UTF-8 through to whoever shows it), and its nesting is
            bounded: what was just taken apart must be put together again deeper in somebody's stack.
    """

    status: ReplyStatus
    code: Name | None = None
    text: Text | None = None
    result: Any = None

    def __post_init__(self) -> None:
        level: list[Any] = [self.result]
        for _ in range(MAX_RESULT_LEVELS):
            level = [part for value in level for part in _parts(value)]
            if not level:
                return
        raise ValueError(f"the result nests deeper than {MAX_RESULT_LEVELS} levels")


def _parts(value: Any) -> Iterable[Any]:
    """What a JSON value consists of."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


# ----------------------------------------------------------------------------------------------------- commands


class Prefer(Wire, frozen=True, tag_field="name", tag="prefer", kw_only=True):
    """Set the preference of one model, or of all."""

    model: Name | None = None
    preference: Preference


class Pin(Wire, frozen=True, tag_field="name", tag="pin", kw_only=True):
    """Run this variant of this model until `unpin`, whatever the conditions."""

    model: Name
    variant: Name


class Unpin(Wire, frozen=True, tag_field="name", tag="unpin", kw_only=True):
    """Let the policy decide again, for one model or all."""

    model: Name | None = None


class Pause(Wire, frozen=True, tag_field="name", tag="pause", kw_only=True):
    """Stop switching; what runs goes on running."""


class Resume(Wire, frozen=True, tag_field="name", tag="resume", kw_only=True):
    """Switch again."""


class Measure(Wire, frozen=True, tag_field="name", tag="measure", kw_only=True):
    """Time one variant (or all) of a model on the device, in a child process."""

    model: Name
    variant: Name | None = None


class Report(Wire, frozen=True, tag_field="name", tag="report", kw_only=True):
    """Answer with the state, and publish it."""


class Configure(Wire, frozen=True, tag_field="name", tag="configure", kw_only=True):
    """Change settings that may change while the daemon runs; they outlive a restart."""

    telemetry_every_s: Annotated[float, Meta(ge=1, le=86_400)] | None = None
    sample_every_s: Annotated[float, Meta(ge=1, le=3600)] | None = None


class Explain(Wire, frozen=True, tag_field="name", tag="explain", kw_only=True):
    """Answer with the last decisions and why they fell as they did."""

    model: Name | None = None


Command = Prefer | Pin | Unpin | Pause | Resume | Measure | Report | Configure | Explain


class Desired(Wire, frozen=True, kw_only=True):
    """Retained: how the hub wants the device to be. A version is applied once; an older one is ignored.

    Attributes:
        version: Counts up with each change; the device's state echoes the one it has applied.
        preferences: By model; a model not named keeps its own.
        pins: By model; None unpins, a model not named keeps its own.
    """

    version: Annotated[int, Meta(ge=1, le=2**53)]
    preferences: dict[Name, Preference] = {}
    pins: dict[Name, Name | None] = {}


class Ack(Wire, frozen=True, kw_only=True):
    """What the hub has stored durably: inclusive ranges of `seq` within one boot."""

    boot: Token
    ranges: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=10_000)]


_UP: dict[Up, Any] = {
    Up.BIRTH: UpEnvelope[Birth],
    Up.STATE: UpEnvelope[State],
    Up.TELE: UpEnvelope[Tele],
    Up.EVENT: UpEnvelope[Event],
    Up.REPLY: UpEnvelope[Reply],
}
_DOWN: dict[Down, Any] = {
    Down.DESIRED: DownEnvelope[Desired],
    Down.CMD: DownEnvelope[Command],
    Down.ACK: DownEnvelope[Ack],
}


def envelope_type(kind: Up | Down) -> Any:
    """The type of what is published as `kind`."""
    return _UP[kind] if isinstance(kind, Up) else _DOWN[kind]


@cache  # a closed set
def _decoder(kind: Up) -> msgspec.json.Decoder[UpEnvelope[Any]]:
    return msgspec.json.Decoder(_UP[kind])


def pack(envelope: UpEnvelope[Any] | DownEnvelope[Any], *, squeeze: bool = False) -> bytes:
    """The payload of an envelope; `squeeze` compresses it (telemetry batches shrink about sevenfold)."""
    plain = encode(envelope)
    return zlib.compress(plain, 6) if squeeze else plain


def plain(payload: bytes, *, where: str = "up") -> bytes:
    """The JSON of a payload that may be compressed.

    Raises:
        WireError: Too large, a decompression bomb, or no whole zlib stream.
    """
    if payload[:1] != bytes([ZLIB_FIRST_BYTE]):
        return payload
    return inflate(payload, where=where, max_bytes=MAX_UP_BYTES, max_inflated_bytes=MAX_INFLATED_BYTES)


def unpack_up(kind: Up, payload: bytes, *, where: str = "up") -> UpEnvelope[Any]:
    """Decode what a device sent; fields that a newer device may have added are ignored.

    Raises:
        WireError: Too large, a decompression bomb, malformed, or out of bounds.
    """
    return read_up(kind, plain(payload, where=where), where=where)[0]


def read_up(kind: Up, payload: bytes, *, where: str = "up") -> tuple[UpEnvelope[Any], tuple[str, ...]]:
    """Decode the JSON of what a device sent, see `plain`.

    A device reports what it knows, and may be newer than its hub: what the hub does not know it ignores. What a hub
    orders is another thing, see `unpack_down`: half an order is none.

    Returns:
        The envelope, and which fields were ignored, as `State.lux`.

    Raises:
        WireError: Too large, malformed, or out of bounds.
    """
    limit = MAX_INFLATED_BYTES if kind is Up.TELE else MAX_UP_BYTES
    try:
        envelope: UpEnvelope[Any] = decode(payload, _decoder(kind), where=where, max_bytes=limit)
    except WireError:
        ignored = unknown_fields(payload, _UP[kind]) if len(payload) <= limit else None
        if not ignored:
            raise
        return decode(ignored.rest, _decoder(kind), where=where, max_bytes=limit), ignored.names
    return envelope, ()


def unpack_down(kind: Down, payload: bytes, *, where: str = "down") -> DownEnvelope[Any]:
    """Decode what a hub sent.

    Raises:
        WireError: Too large, malformed, or out of bounds.
    """
    envelope: DownEnvelope[Any] = decode(payload, _DOWN[kind], where=where, max_bytes=MAX_DOWN_BYTES)
    return envelope
