"""Reads one property over D-Bus, without a library: one connection, two calls, one number.

What is spoken is the D-Bus specification's, little-endian, as far as `org.freedesktop.DBus.Properties.Get` of an
unsigned number needs it: authentication by the user's number (EXTERNAL), `Hello`, `Get`. Nothing is started by asking
(NO_AUTO_START), every wait has a deadline and every answer a bound.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass

from edge_daemon.sensors.reading import Unavailable

_DEADLINE_S = 0.5  # of all of it
_MOST_BYTES = 64 * 1024
_MOST_MESSAGES = 20  # before the answer: the bus greets a client with a signal or two
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIXED = 16  # bytes of a header before its fields' content
_HELLO, _GET = 1, 2  # serials


class _NotDbusError(Exception):
    """What came is no message one understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Which property of whom."""

    service: str
    path: str
    interface: str
    name: str


def get_number(bus: str, wanted: Property) -> int | Unavailable:
    """The unsigned number in a property.

    Args:
        bus: The path of the bus's socket.
        wanted: The property.
    """
    until_s = time.monotonic() + _DEADLINE_S
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_DEADLINE_S)
            connection.connect(bus)
            stream = _Stream(connection, until_s)
            _authenticate(stream)
            stream.send(_call(_HELLO, _BUS[0], _BUS[1], _BUS[0], "Hello"))
            arguments = _call(
                _GET,
                wanted.service,
                wanted.path,
                "org.freedesktop.DBus.Properties",
                "Get",
                wanted.interface,
                wanted.name,
            )
            stream.send(arguments)
            return _answer(stream, wanted)
    except (OSError, ValueError) as cause:  # ValueError: a path with a NUL
        return Unavailable(f"D-Bus: {cause}")
    except (_NotDbusError, struct.error, IndexError) as cause:
        return Unavailable(f"D-Bus: not understood: {cause}")


class _Stream:
    """Bytes, in time."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection = connection
        self._until_s = until_s
        self._held = b""

    def send(self, data: bytes) -> None:
        self._wait()
        self._connection.sendall(data)

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > _MOST_BYTES:
            raise _NotDbusError(f"{size} bytes announced")
        while len(self._held) < size:
            self._more()
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def line(self) -> bytes:
        """Up to the next CR LF."""
        while b"\r\n" not in self._held:
            if len(self._held) > _MOST_BYTES:
                raise _NotDbusError("no end of a line")
            self._more()
        taken, _, self._held = self._held.partition(b"\r\n")
        return taken

    def _more(self) -> None:
        self._wait()
        more = self._connection.recv(4096)
        if not more:
            raise ConnectionResetError("the bus hung up")
        self._held += more

    def _wait(self) -> None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)


def _authenticate(stream: _Stream) -> None:
    stream.send(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    said = stream.line()
    if not said.startswith(b"OK"):
        raise _NotDbusError(f"the bus does not admit us: {said[:80]!r}")
    stream.send(b"BEGIN\r\n")


def _answer(stream: _Stream, wanted: Property) -> int | Unavailable:
    for _ in range(_MOST_MESSAGES):
        kind, serial, error, body, order = _message(stream)
        if serial != _GET or kind not in {_RETURN, _ERROR}:
            continue
        if kind == _ERROR:
            return Unavailable(f"D-Bus: {wanted.service} does not tell {wanted.name}: {error or 'refused'}")
        # A variant: the length of its signature, `u`, NUL, and, at the next multiple of 4, the number.
        if body[:3] != b"\1u\0":
            return Unavailable(f"D-Bus: {wanted.name} is no number")
        (value,) = struct.unpack_from(f"{order}I", body, 4)
        return int(value)
    return Unavailable(f"D-Bus: no answer about {wanted.name}")


def _message(stream: _Stream) -> tuple[int, int | None, str, bytes, str]:
    """The next message: its kind, what it answers, the name of an error, its body, its byte order."""
    fixed = stream.take(_FIXED)
    orders = {ord("l"): "<", ord("B"): ">"}
    if fixed[0] not in orders:
        raise _NotDbusError(f"no byte order {fixed[0]}")
    order = orders[fixed[0]]
    body_size, _, fields_size = struct.unpack_from(f"{order}III", fixed, 4)
    if max(body_size, fields_size) > _MOST_BYTES:
        raise _NotDbusError(f"{body_size} and {fields_size} bytes announced")
    fields = stream.take(_padded(fields_size, 8))[:fields_size]
    body = stream.take(body_size)
    serial, error = _fields(fields, order)
    return fixed[1], serial, error, body, order


def _fields(data: bytes, order: str) -> tuple[int | None, str]:
    """Of a header's fields, those that matter here; all that a bus sends are strings, signatures and numbers."""
    at, serial, error = 0, None, ""
    while at < len(data):
        at = _padded(at, 8)
        if at >= len(data):
            break
        code, kind = data[at], data[at + 2 : at + 3]
        at += 4  # the code, and the signature of a variant: 1, kind, NUL
        if kind in {b"s", b"o"}:
            at = _padded(at, 4)
            (size,) = struct.unpack_from(f"{order}I", data, at)
            if code == _ERROR_NAME:
                error = data[at + 4 : at + 4 + size].decode("ascii", "replace")
            at += 4 + size + 1
        elif kind == b"g":
            at += 1 + data[at] + 1
        elif kind == b"u":
            at = _padded(at, 4)
            (value,) = struct.unpack_from(f"{order}I", data, at)
            if code == _REPLY_SERIAL:
                serial = value
            at += 4
        else:
            raise _NotDbusError(f"a field of kind {kind!r}")
    return serial, error


def _call(serial: int, service: str, path: str, interface: str, member: str, *arguments: str) -> bytes:
    """A method call with strings as arguments."""
    body = b""
    for argument in arguments:
        body = body.ljust(_padded(len(body), 4), b"\0") + _string(argument)
    fields = b""
    for code, kind, text in (
        (_PATH, b"o", path),
        (_DESTINATION, b"s", service),
        (_INTERFACE, b"s", interface),
        (_MEMBER, b"s", member),
    ):
        fields = fields.ljust(_padded(len(fields), 8), b"\0") + bytes([code, 1]) + kind + b"\0" + _string(text)
    if arguments:
        signature = b"s" * len(arguments)
        fields = fields.ljust(_padded(len(fields), 8), b"\0") + bytes([_SIGNATURE, 1]) + b"g\0"
        fields += bytes([len(signature)]) + signature + b"\0"
    header = struct.pack("<BBBBIII", ord("l"), _CALL, _NO_AUTO_START, 1, len(body), serial, len(fields)) + fields
    return header.ljust(_padded(len(header), 8), b"\0") + body


def _string(text: str) -> bytes:
    raw = text.encode("ascii")
    return struct.pack("<I", len(raw)) + raw + b"\0"


def _padded(size: int, to: int) -> int:
    return -(-size // to) * to
