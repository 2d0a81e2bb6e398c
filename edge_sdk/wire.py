"""The one border at which bytes from elsewhere become values.

Whatever arrives (MQTT payloads, requests on the unix socket, manifests, TOML) is decoded here into a frozen
`msgspec.Struct` that refuses unknown fields: size first, then structure, then bounds on every number and pattern.
What the messages are is said in `edge_sdk.mqtt`, `edge_sdk.local`, `edge_sdk.manifest` and `edge_sdk.profile`.

Of a key that stands twice in a JSON object the last one counts (msgspec has no other way); nothing here is decided by
a part of the payload that another decoder might read differently, so this is harmless. TOML refuses it.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk.errors import EdgeError, WireError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the other branch runs on the other Python
    import tomli as tomllib

MAX_LOCAL_BYTES = 256 * 1024
MAX_TOML_BYTES = 1024 * 1024
_SHOWN_INPUT_CHARS = 80
_SHOWN_CAUSE_CHARS = 300  # a complaint quotes the sender: an unknown key may be as long as the whole message

T = TypeVar("T")

# `\A...\Z` everywhere, not `^...$`: the latter accepts a trailing newline.

# An identifier that is safe as a topic level, a file name and a TOML key: models, variants, profiles, tenants.
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
# Random identity: boots, messages, apps.
Token = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16,64}\Z")]
Text = Annotated[str, Meta(max_length=1000)]
LAST_UNIX = 4102444800  # 2100
# Seconds since 1970, until then.
Unix = Annotated[float, Meta(ge=0, le=LAST_UNIX)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Bytes = Annotated[int, Meta(ge=0, le=2**53)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Millis = Annotated[float, Meta(ge=0, le=86_400_000)]
Celsius = Annotated[float, Meta(ge=-100, le=250)]
Watts = Annotated[float, Meta(ge=0, le=10_000)]
WattHours = Annotated[float, Meta(ge=0, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
Mbps = Annotated[float, Meta(ge=0, le=1e6)]


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of every value that arrives from elsewhere; `kw_only` is not inherited, so each type says it."""


def new_token() -> str:
    """A fresh random `Token` of 128 bits."""
    return os.urandom(16).hex()


def encode(value: Any) -> bytes:
    """Compact JSON of a `Wire` value, a dataclass, or plain containers of them."""
    return msgspec.json.encode(value)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, two-space indent and a final newline: the same value always gives the same bytes."""
    plain = msgspec.to_builtins(value)
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2) + b"\n"


def decode(
    payload: bytes,
    kind: type[T] | msgspec.json.Decoder[T],
    *,
    where: str,
    max_bytes: int = MAX_LOCAL_BYTES,
    error: type[EdgeError] = WireError,
) -> T:
    """Decode JSON into `kind`.

    Args:
        payload: The bytes as they came.
        kind: A `Wire` type (or any type msgspec knows), or its decoder where many of them are decoded.
        where: What the bytes are, for the error's text.
        max_bytes: Refused above this size, before anything is parsed.
        error: The class to raise.

    Raises:
        EdgeError: Of class `error`, when the bytes are too many, are not JSON, nest too deeply, or break a bound.
    """
    if len(payload) > max_bytes:
        raise error(f"{len(payload)} bytes where at most {max_bytes} are taken", where=where)
    try:
        if isinstance(kind, msgspec.json.Decoder):
            return kind.decode(payload)
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise error(f"not as expected: {_told(str(cause))} (got {_shown(payload)})", where=where) from cause


def decode_toml(payload: bytes, kind: type[T], *, where: str, error: type[EdgeError] = WireError) -> T:
    """Decode TOML into `kind`; unknown keys are refused by name.

    Raises:
        EdgeError: Of class `error`, when the file is too large, is not TOML, or breaks a bound. `nan` and `inf`,
            which TOML can spell, never pass a bounded number.
    """
    return shaped(read_toml(payload, where=where, error=error), kind, where=where, error=error)


def read_toml(payload: bytes, *, where: str, error: type[EdgeError] = WireError) -> dict[str, Any]:
    """Tables as they stand in TOML, for `shaped` once they are laid over one another.

    Raises:
        EdgeError: Of class `error`, when the file is too large or is not TOML.
    """
    if len(payload) > MAX_TOML_BYTES:
        raise error(f"{len(payload)} bytes where at most {MAX_TOML_BYTES} are taken", where=where)
    try:
        return tomllib.loads(payload.decode("utf-8-sig"))  # some editors begin a file with a mark
    except (ValueError, RecursionError) as cause:  # TOMLDecodeError, bad UTF-8, an integer of thousands of digits
        raise error(f"not TOML: {_told(str(cause))}", where=where) from cause


def shaped(plain: dict[str, Any], kind: type[T], *, where: str, error: type[EdgeError] = WireError) -> T:
    """`kind` from tables.

    Raises:
        EdgeError: Of class `error`, when a key is unknown or a bound is broken.
    """
    try:
        return msgspec.convert(plain, kind)
    except (msgspec.ValidationError, RecursionError) as cause:
        raise error(_told(_named(plain, kind, str(cause))), where=where) from cause


def _named(plain: dict[str, Any], kind: type[Any], text: str) -> str:
    """What a decoder complains of, with the key for which it has dots, where that is one of an outermost table."""
    before, dots, after = text.partition("[...]")
    table = before.rpartition("$.")[2]
    entries = plain.get(table) if dots else None
    for key, value in entries.items() if isinstance(entries, dict) else ():
        if _complaint(plain | {table: {key: value}}, kind) == text:
            return f"{before}.{key}{after}"
    return text


def _complaint(plain: dict[str, Any], kind: type[Any]) -> str | None:
    try:
        msgspec.convert(plain, kind)
    except msgspec.ValidationError as cause:
        return str(cause)
    return None


def _told(complaint: str) -> str:
    """What a decoder complains of, on one line and bounded."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in complaint[:_SHOWN_CAUSE_CHARS])
    return text if len(complaint) <= _SHOWN_CAUSE_CHARS else f"{text}..."


def _shown(payload: bytes) -> str:
    """The start of hostile bytes, safe to print and bounded."""
    text = ascii(payload[:_SHOWN_INPUT_CHARS].decode("utf-8", "replace"))
    return text if len(payload) <= _SHOWN_INPUT_CHARS else f"{text}..."
