"""One device's connection to the broker, as a protocol of asyncio: no task, no thread, some kilobytes."""

from __future__ import annotations

import asyncio
import collections
import struct
from typing import Final, Protocol

from edge_lab.errors import FleetError
from edge_lab.fleet import packets

_MOST_MID: Final = 65_535
_PING_SHARE: Final = 0.75  # of the keepalive; a broker that is silent from one ping to the next is gone
_GREETING_S: Final = 120.0  # mosquitto checks 250 passwords a second, and 20,000 devices may return at once


class Party(Protocol):
    """Who is told what happens on a connection."""

    def connected(self) -> None:
        """The broker has accepted us and our subscriptions."""

    def arrived(self, message: packets.Received) -> None:
        """A message came; the broker is told that it was taken when this has returned."""

    def lost(self, why: str, *, refused: bool) -> None:
        """It ended, or never came about."""


class Connection(asyncio.Protocol):
    """One connection from CONNECT to its end.

    Args:
        login: What to connect with.
        topics: To subscribe to.
        party: Told what happens.
        lag_s: How much later than composed each packet leaves, as on a slow link.
    """

    def __init__(self, login: packets.Login, topics: tuple[str, ...], party: Party, *, lag_s: float = 0.0) -> None:
        self._login = login
        self._topics = topics
        self._party = party
        self._lag_s = lag_s
        self._splitter = packets.Splitter()
        self._transport: asyncio.Transport | None = None
        self._packets: list[bytes] = []
        self._mid = 0
        self._inflight: set[int] = set()
        self._room = 1
        self._waiting: collections.deque[tuple[str, bytes, bool]] = collections.deque()
        self._ping: asyncio.TimerHandle | None = None
        self._is_heard = False
        self._refused = False
        self._why = "the connection broke"
        self.up = False

    # ------------------------------------------------------------------------------------------------ for the device

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send with QoS 1, as soon as the broker has room."""
        if len(self._inflight) >= self._room:
            self._waiting.append((topic, payload, retain))
            return
        mid = self._next()
        self._inflight.add(mid)
        self._write(packets.publish(topic, payload, mid, retain=retain))

    @property
    def idle(self) -> bool:
        """The broker has taken everything."""
        return not self._inflight and not self._waiting

    def close(self) -> None:
        """Say goodbye."""
        if self._transport is not None:
            self._packets.append(packets.GOODBYE)
            self._flush()
            self._transport.close()

    def drop(self) -> None:
        """Be gone without a word: the broker will tell our will."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's is one
        self._transport = transport
        self._write(packets.connect(self._login))
        self._look_in(_GREETING_S)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._is_heard = True
        try:
            for first, body in self._splitter.feed(data):
                self._take(first, body)
        except (FleetError, IndexError, struct.error, UnicodeDecodeError) as error:
            self._why = f"what the broker sends is not MQTT: {error}"
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._ping is not None:
            self._ping.cancel()
        self.up, self._transport = False, None
        self._party.lost(self._why if error is None else str(error), refused=self._refused)

    # ------------------------------------------------------------------------------------------------ in detail

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == packets.PUBLISH:
            message = packets.received(first, body)
            self._party.arrived(message)
            if message.mid is not None:
                self._write(packets.puback(message.mid))
        elif kind == packets.PUBACK:
            self._inflight.discard(struct.unpack_from(">H", body)[0])
            while self._waiting and len(self._inflight) < self._room:
                topic, payload, retain = self._waiting.popleft()
                self.publish(topic, payload, retain=retain)
        elif kind == packets.CONNACK:
            self._greeted(packets.accepted(body))
        elif kind == packets.SUBACK:
            self.up = True
            self._party.connected()
        elif kind == packets.DISCONNECT:
            self._why = f"the broker ended it with reason {body[0] if body else 0}"

    def _greeted(self, answer: packets.Accepted) -> None:
        if answer.reason >= packets.FAILURE:
            self._refused, self._why = True, f"the broker refuses it with reason {answer.reason}"
            self.drop()
            return
        self._room = answer.inflight
        self._write(packets.subscribe(self._next(), self._topics))
        self._look_in(self._login.keepalive_s * _PING_SHARE)

    def _look_in(self, after_s: float) -> None:
        """Keep the connection alive from then on, if the broker was heard by then."""
        if self._ping is not None:
            self._ping.cancel()
        self._ping = asyncio.get_running_loop().call_later(after_s, self._keep_alive)

    def _keep_alive(self) -> None:
        if not self._is_heard:
            self._why = "the broker is silent"
            self.drop()
            return
        self._is_heard = False
        self._look_in(self._login.keepalive_s * _PING_SHARE)
        if self.up:
            self._write(packets.PING)

    def _next(self) -> int:
        """A number that no message under way has."""
        self._mid = self._mid % _MOST_MID + 1
        while self._mid in self._inflight:
            self._mid = self._mid % _MOST_MID + 1
        return self._mid

    def _write(self, packet: bytes) -> None:
        """Send it with whatever else this turn of the loop sends: a system call costs more than all the rest."""
        if not self._packets:
            loop = asyncio.get_running_loop()
            if self._lag_s:
                loop.call_later(self._lag_s, self._flush)
            else:
                loop.call_soon(self._flush)
        self._packets.append(packet)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._packets))
        self._packets.clear()
