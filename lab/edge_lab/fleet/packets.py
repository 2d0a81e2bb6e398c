"""The packets of MQTT 5 that a device needs, as bytes. No I/O.

A fleet of thousands in one process has room for some kilobytes and microseconds a device, which no client library
keeps to: each brings tasks, queues and stores of its own. Written to the specification of OASIS (MQTT 5.0, 2019-03-07);
numbers in comments are its sections. Only what comes up here is spoken: QoS 1 out, QoS 0 and 1 in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from edge_lab.errors import FleetError

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 13, 14
PING: Final = b"\xc0\x00"
GOODBYE: Final = b"\xe0\x00"  # 3.14.2.1: the will is not to be published
FAILURE: Final = 0x80  # 2.4: reason codes from here are failures
MOST_INFLIGHT: Final = 65_535  # 3.2.2.3.3: where the server names no receive maximum
_LONGEST: Final = 268_435_455  # 1.5.5
_SESSION_EXPIRY, _WILL_DELAY, _RECEIVE_MAXIMUM = 0x11, 0x18, 0x21
# 2.2.2.2: how long a property's value is; -1 a string or binary with its length before it, -2 a pair of strings.
_LENGTHS: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, _RECEIVE_MAXIMUM, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, _SESSION_EXPIRY, _WILL_DELAY, 0x27), 4),
    **dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), -1),
    0x26: -2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a device connects with.

    Attributes:
        will_delay_s: Before the broker publishes the will of a connection that broke.
    """

    client_id: str
    username: str
    password: str
    keepalive_s: int
    session_expiry_s: int
    will_topic: str
    will_payload: bytes
    will_delay_s: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker's answer to a login."""

    reason: int
    inflight: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message; `mid` is None at QoS 0."""

    topic: str
    payload: bytes
    retained: bool
    mid: int | None


def connect(login: Login) -> bytes:
    """3.1. The session is kept, the will is retained with QoS 1."""
    flags = 0b1110_1100  # user name, password, will: retained, QoS 1, present; not a clean start
    session = struct.pack(">BI", _SESSION_EXPIRY, login.session_expiry_s)
    delay = struct.pack(">BI", _WILL_DELAY, login.will_delay_s)
    body = b"".join(
        (
            b"\x00\x04MQTT\x05",
            struct.pack(">BHB", flags, login.keepalive_s, len(session)),
            session,
            _text(login.client_id),
            bytes((len(delay),)),
            delay,
            _text(login.will_topic),
            struct.pack(">H", len(login.will_payload)),
            login.will_payload,
            _text(login.username),
            _text(login.password),
        )
    )
    return _packet(0x10, body)


def subscribe(mid: int, topics: tuple[str, ...]) -> bytes:
    """3.8, each with QoS 1."""
    return _packet(0x82, struct.pack(">HB", mid, 0) + b"".join(_text(topic) + b"\x01" for topic in topics))


def publish(topic: str, payload: bytes, mid: int, *, retain: bool) -> bytes:
    """3.3, with QoS 1."""
    return _packet(0x33 if retain else 0x32, b"".join((_text(topic), struct.pack(">HB", mid, 0), payload)))


def puback(mid: int) -> bytes:
    """3.4, success."""
    return struct.pack(">BBH", 0x40, 2, mid)


def accepted(body: bytes) -> Accepted:
    """3.2."""
    inflight = MOST_INFLIGHT
    size, at = _number(body, 2)
    end = at + size
    while at < end:
        kind, at = body[at], at + 1
        length = _LENGTHS.get(kind)
        if length is None:
            raise FleetError(f"the broker answers with property {kind}, which MQTT 5 does not have")
        if kind == _RECEIVE_MAXIMUM:
            (inflight,) = struct.unpack_from(">H", body, at)
        for _ in range(max(1, -length)):
            at += length if length > 0 else 2 + struct.unpack_from(">H", body, at)[0]
    return Accepted(body[1], inflight)


def received(first: int, body: bytes) -> Received:
    """3.3."""
    (length,) = struct.unpack_from(">H", body)
    at = 2 + length
    topic = body[2:at].decode()
    mid = None
    if first & 0x06:
        (mid,) = struct.unpack_from(">H", body, at)
        at += 2
    size, at = _number(body, at)
    return Received(topic, body[at + size :], bool(first & 0x01), mid)


class Splitter:
    """Cuts a stream into packets: first byte and body."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """What is complete now.

        Raises:
            FleetError: That is not MQTT.
        """
        data, found, at = self._rest + data if self._rest else data, [], 0
        while len(data) - at >= 2:  # noqa: PLR2004 - the shortest packet
            size = shift = 0
            begin = at + 1
            while begin < len(data):
                byte, begin = data[begin], begin + 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80 or shift > 21:  # noqa: PLR2004 - 1.5.5: at most four bytes
                    break
            else:
                break
            if data[begin - 1] >= 0x80:  # noqa: PLR2004 - 1.5.5
                raise FleetError("what the broker sends is not MQTT")
            if len(data) < begin + size:
                break
            found.append((data[at], data[begin : begin + size]))
            at = begin + size
        self._rest = data[at:]
        return found


def _packet(first: int, body: bytes) -> bytes:
    size = len(body)
    if size > _LONGEST:
        raise ValueError(f"a packet of {size} bytes")
    head = bytearray((first,))
    while True:
        size, low = size >> 7, size & 0x7F
        head.append(low | (0x80 if size else 0))
        if not size:
            return bytes(head) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _number(data: bytes, at: int) -> tuple[int, int]:
    """1.5.5: a number of one to four bytes, and where the next thing begins."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - 1.5.5
            return value, at
        shift += 7
