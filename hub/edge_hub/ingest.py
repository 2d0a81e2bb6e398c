"""From the broker into the store: decode, batch, commit, and only then acknowledge.

A message waits in a bounded queue; a batch of them is one transaction; the devices are told which numbers are
durable; then the broker is told that each was taken. Where the store refuses, nothing is acknowledged: the batch is
tried again until it is stored, the queue fills, and the broker keeps the rest.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from edge_hub.store import Store
from edge_hub.store.records import Arrival, Committed, Malformed, Refusal
from edge_sdk.errors import StorageError, WireError
from edge_sdk.mqtt import (
    MAX_UP_BYTES,
    Ack,
    DeviceId,
    Down,
    DownEnvelope,
    Up,
    UpEnvelope,
    down_topic,
    pack,
    parse_up_topic,
    plain,
    read_up,
)
from edge_sdk.wire import Token, new_token

_log = logging.getLogger(__name__)

BATCH_MESSAGES = 500
BATCH_BYTES = 8 * 1024 * 1024
# A batch closes when it is full, after this long, or once nothing more has come for the shorter while: a broker that
# allows few messages on the way must not wait for us while we wait for it.
BATCH_S = 0.05
QUIET_S = 0.01
ACK_EXPIRES_S = 300.0
_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 10.0
_SAID_EVERY_S = 30.0

# What the broker keeps of a device.
_KEPT = (f"/up/{Up.BIRTH.value}", f"/up/{Up.STATE.value}")

Publish = Callable[..., Awaitable[bool]]
# Tells the broker of each of these that it was taken.
Release = Callable[[Sequence[int]], None]


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What can still be read of an envelope whose body is refused: enough to have it forgotten."""

    boot: Token
    seq: Annotated[int, Meta(ge=1, le=2**53)]


class _Waiting(NamedTuple):
    """A message in the queue, and how the broker is told of its being stored. A tuple: one is made for each message."""

    topic: str
    payload: bytes
    retained: bool
    received: float
    number: int
    release: Release


class Ingest:
    """The way in.

    Args:
        store: Where it goes.
        publish: `Link.publish`.
        after: Awaited with what each batch changed.
    """

    def __init__(self, *, store: Store, publish: Publish, after: Callable[[Committed], Awaitable[None]]) -> None:
        self.trouble: str | None = None
        self.batches = 0
        self._store = store
        self._publish = publish
        self._after = after
        # Bounded by the link, which has so many on the way at most and stops reading beyond.
        self._queue: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._batch: list[_Waiting] = []
        self._said_at = -_SAID_EVERY_S

    @property
    def waiting(self) -> int:
        """Messages not stored yet."""
        return len(self._queue) + len(self._batch)

    def take(self, topic: str, payload: bytes, retained: bool, number: int, release: Release) -> None:
        """Let a message wait; `release` is called with its number once it is durable, or refused for good."""
        if not payload and topic.endswith(_KEPT):
            release((number,))  # the broker was told to keep no birth or state of a device any more: it says nothing
            return
        self._queue.append(_Waiting(topic, payload, retained, time.time(), number, release))
        self._came.set()

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._gather()
            messages = [_read(waiting) for waiting in self._batch]
            committed = await self._commit(messages)
            self.batches += 1
            await self._acknowledge(committed)
            await self._after(committed)
            self._release()

    async def drain(self) -> None:
        """Store what is in the queue, once, after `run` was cancelled and no more comes."""
        self._batch += self._queue
        self._queue.clear()
        if self._batch:
            try:
                await self._store.commit([_read(waiting) for waiting in self._batch])
            except StorageError as error:
                _log.warning("%d messages are not stored: %s; their devices send them again", len(self._batch), error)
                return
        self._release()

    async def _gather(self) -> None:
        """Fill the batch. What is in it when this is cancelled stays in it."""
        if not self._batch:
            while not self._queue:
                self._came.clear()
                await self._came.wait()
        closes = time.monotonic() + BATCH_S
        before = -1
        while before != len(self._queue) < BATCH_MESSAGES and (left_s := closes - time.monotonic()) > 0:
            before = len(self._queue)
            await asyncio.sleep(min(QUIET_S, left_s))
        size_bytes = sum(len(waiting.payload) for waiting in self._batch)
        while self._queue and len(self._batch) < BATCH_MESSAGES and size_bytes < BATCH_BYTES:
            size_bytes += len(self._queue[0].payload)
            self._batch.append(self._queue.popleft())

    async def _commit(self, messages: list[Arrival | Malformed]) -> Committed:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                committed = await self._store.commit(messages)
            except StorageError as error:
                self.trouble = str(error)
                if time.monotonic() - self._said_at > _SAID_EVERY_S:
                    self._said_at = time.monotonic()
                    _log.error("nothing is acknowledged: %s", error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
                continue
            if self.trouble is not None:
                _log.warning("the store takes messages again")
                self.trouble = None
            return committed

    async def _acknowledge(self, committed: Committed) -> None:
        now = time.time()
        for (device, boot), ranges in committed.acks.items():
            envelope = DownEnvelope(id=new_token(), sent=now, body=Ack(boot=boot, ranges=ranges))
            topic = down_topic(device, Down.ACK)
            if not await self._publish(topic, pack(envelope), expires_in_s=ACK_EXPIRES_S):
                return  # without a connection; the devices send again, and are told then

    def _release(self) -> None:
        batch, self._batch = self._batch, []
        for release, group in groupby(batch, key=attrgetter("release")):
            release([waiting.number for waiting in group])


def _check(kind: Up, envelope: UpEnvelope[Any], *, where: str) -> None:
    """What the types of `edge_sdk.mqtt` cannot say.

    Raises:
        WireError: It does not hold.
    """
    if not envelope.seq and kind is not Up.STATE and kind is not Up.BIRTH:
        raise WireError("a message that is spooled carries no number", where=where)
    if kind is Up.REPLY and envelope.reply_to is None:
        raise WireError("a reply that names no command", where=where)


def _read(waiting: _Waiting) -> Arrival | Malformed:
    topic = waiting.topic
    device: DeviceId | None = None
    stage = Refusal.TOPIC
    try:
        device, kind = parse_up_topic(topic)
        stage = Refusal.COMPRESSION
        text = plain(waiting.payload, where=topic)
        stage = Refusal.SYNTAX
        envelope, ignored = read_up(kind, text, where=topic)
        stage = Refusal.CONTENT
        _check(kind, envelope, where=topic)
    except WireError as error:
        header = _header(waiting.payload) if device is not None else None
        return Malformed(
            topic=topic,
            payload=waiting.payload,
            problem=str(error),
            received=waiting.received,
            device=device,
            boot=header.boot if header else None,
            seq=header.seq if header else 0,
            reason=_why(error) if stage is Refusal.SYNTAX else stage,
        )
    return Arrival(
        device=device,
        kind=kind,
        envelope=envelope,
        payload=waiting.payload,
        received=waiting.received,
        retained=waiting.retained,
        ignored=ignored,
    )


def _why(error: WireError) -> Refusal:
    """Too large, no JSON, or JSON that is no such message."""
    if error.__cause__ is None:
        return Refusal.SIZE
    return Refusal.CONTENT if isinstance(error.__cause__, msgspec.ValidationError) else Refusal.SYNTAX


def _header(payload: bytes) -> _Header | None:
    if len(payload) > MAX_UP_BYTES:
        return None
    try:
        return msgspec.json.decode(plain(payload), type=_Header)
    except (WireError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def spare_the_collector() -> None:
    """What is there now stays; a batch of messages is thousands of objects, none of them in a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
