"""News between the processes of a hub: what one has stored, the others hear of, by LISTEN and NOTIFY.

A bulletin only says what changed; who needs to know reads it from the store, where it is durable. So nothing is lost
with a bulletin but time, and a process that could not listen for a while is told that it missed some.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from msgspec import Meta

from edge_hub.errors import StoreError
from edge_hub.ranges import to_ranges
from edge_hub.store.records import AlertRecord, Committed, EventRecord
from edge_hub.tasks import within
from edge_sdk.errors import WireError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import Count, Name, Token, Wire, decode, encode, new_token

if TYPE_CHECKING:
    from edge_hub.store.postgres import PostgresStore

_log = logging.getLogger(__name__)

CHANNEL = "edge_hub"
# What is told at once; a dashboard gathers as long.
_GATHER_S = 0.1
# NOTIFY takes less than 8,000 bytes (PostgreSQL, "NOTIFY"). A device's name has up to 129: so many of each kind fit.
_MAX_BYTES = 7_900
_AT_ONCE = 16
_MAX_WAITING = 10_000
# Of telemetry of the past, which is not in what somebody reads again; of more, the oldest is not told.
_MAX_LATE = 2_000
_MAX_EVENTS = 1000
_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 10.0
# A connection that only listens does not notice when its server vanishes without a word.
_ALIVE_EVERY_S = 20.0


class Bulletin(Wire, frozen=True, kw_only=True):
    """What changed.

    Attributes:
        by: The process that says so.
        touched: Devices, as `tenant/device`.
        born: Those of them that came up.
        finished: Ids of commands that ended.
        events: Their ids, as inclusive ranges.
        alerts: Ids of those that began, ended or were acknowledged, likewise.
        late: Telemetry of the past: boot and number as in `Late`, and how many samples.
        noted: Kinds of what was noted in the audit log.
        missed: What changed is not known: whoever listens has to read all again.
    """

    by: Token
    touched: Annotated[tuple[str, ...], Meta(max_length=_AT_ONCE)] = ()
    born: Annotated[tuple[str, ...], Meta(max_length=_AT_ONCE)] = ()
    finished: Annotated[tuple[str, ...], Meta(max_length=_AT_ONCE)] = ()
    events: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=_AT_ONCE)] = ()
    alerts: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=_AT_ONCE)] = ()
    late: Annotated[tuple[tuple[Count, Count, Count], ...], Meta(max_length=_AT_ONCE)] = ()
    noted: Annotated[tuple[Name, ...], Meta(max_length=_AT_ONCE)] = ()
    missed: bool = False


class Wireless(Protocol):
    """The database as a means of telling; `Database` is one."""

    async def connect(self) -> Any:
        """A connection of the driver's."""

    async def notify(self, channel: str, text: str) -> None:
        """Tell all that listen."""

    def refusals(self) -> contextlib.AbstractContextManager[None]:
        """Makes the driver's errors ours."""


class Relay:
    """Tells the other processes, and hears them.

    Args:
        database: Of the store.
        hear: Awaited with each bulletin of another process; None where nobody here wants to know.
    """

    def __init__(self, database: Wireless, hear: Callable[[Bulletin], Awaitable[None]] | None = None) -> None:
        self._database = database
        self._hear = hear
        self._by = new_token()
        self._touched: dict[str, None] = {}
        self._born: dict[str, None] = {}
        self._finished: dict[str, None] = {}
        self._events: dict[int, None] = {}
        self._alerts: dict[int, None] = {}
        self._late: deque[tuple[int, int, int]] = deque(maxlen=_MAX_LATE)
        self._noted: dict[str, None] = {}  # the hub's own words, a dozen
        self._missed = False
        self._some = asyncio.Event()

    def tell(self, committed: Committed) -> None:
        """The others are to know of this, soon."""
        self._touched.update((str(device), None) for device in committed.touched)
        self._born.update((str(device), None) for device in committed.born)
        self._finished.update((command.id, None) for command in committed.finished)
        self._events.update((event.id, None) for event in committed.events)
        self._alerts.update((alert.id, None) for alert in committed.alerts)
        self._late.extend((one.boot, one.seq, len(one.samples)) for one in committed.late)
        self._noted.update(dict.fromkeys(committed.noted))
        if max(len(self._touched), len(self._finished), len(self._events), len(self._alerts)) > _MAX_WAITING:
            self.tell_missed()
        told = (self._touched, self._born, self._finished, self._events, self._alerts, self._late, self._noted)
        if any(told):
            self._some.set()

    def tell_missed(self) -> None:
        """The others are to read all again."""
        self._forget()
        self._missed = True
        self._some.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            self._some.clear()
            try:
                for bulletin in self._bulletins():
                    await self._database.notify(CHANNEL, encode(bulletin).decode())
            except StoreError as error:
                _log.debug("the others are not told: %s", error)
                self.tell_missed()
                await asyncio.sleep(_FIRST_BACKOFF_S)

    async def run_listening(self) -> None:
        """Hear the others, until cancelled."""
        backoff_s, missed = _FIRST_BACKOFF_S, False
        while True:
            with contextlib.suppress(StoreError):
                with self._database.refusals():
                    await self._listen(missed=missed)
                backoff_s = _FIRST_BACKOFF_S
            missed = True
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)

    async def _listen(self, *, missed: bool) -> None:
        """One connection, until it is lost."""
        assert self._hear is not None  # noqa: S101 - who runs this wants to know
        texts: asyncio.Queue[str | None] = asyncio.Queue(_MAX_WAITING)
        overflowed = False

        def put(text: str | None) -> None:
            nonlocal overflowed
            try:
                texts.put_nowait(text)
            except asyncio.QueueFull:
                overflowed = True

        connection = await self._database.connect()
        connection.add_termination_listener(lambda _: put(None))
        try:
            await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, text: put(text))
            if missed:
                await self._hear(Bulletin(by=self._by, missed=True))
            while True:
                try:
                    text = await within(texts.get(), _ALIVE_EVERY_S)
                except asyncio.TimeoutError:
                    await connection.execute("SELECT 1")
                    continue
                if text is None:
                    return
                await self._take(text)
                if overflowed:
                    overflowed = False
                    await self._hear(Bulletin(by=self._by, missed=True))
        finally:
            connection.terminate()

    async def _take(self, text: str) -> None:
        assert self._hear is not None  # noqa: S101 - see above
        try:
            bulletin = decode(text.encode(), Bulletin, where=CHANNEL, max_bytes=_MAX_BYTES + 100)
        except WireError as error:
            _log.debug("a bulletin is not understood: %s", error)
            bulletin = Bulletin(by=new_token(), missed=True)
        if bulletin.by != self._by:
            await self._hear(bulletin)

    def _forget(self) -> None:
        """What waits, but for telemetry of the past, which nobody reads again."""
        for names in (self._touched, self._born, self._finished, self._noted):
            names.clear()
        for numbers in (self._events, self._alerts):
            numbers.clear()

    def _bulletins(self) -> list[Bulletin]:
        """All that waits, in pieces that fit."""
        touched, born, finished = list(self._touched), list(self._born), list(self._finished)
        noted = list(self._noted)
        events, alerts, late = to_ranges(self._events), to_ranges(self._alerts), tuple(self._late)
        missed, self._missed = self._missed, False
        self._forget()
        self._late.clear()
        lengths = (len(touched), len(born), len(finished), len(events), len(alerts), len(late), len(noted))
        count = max(*lengths, 1 if missed else 0)
        return [
            Bulletin(
                by=self._by,
                touched=tuple(touched[first : first + _AT_ONCE]),
                born=tuple(born[first : first + _AT_ONCE]),
                finished=tuple(finished[first : first + _AT_ONCE]),
                events=events[first : first + _AT_ONCE],
                alerts=alerts[first : first + _AT_ONCE],
                late=late[first : first + _AT_ONCE],
                noted=tuple(noted[first : first + _AT_ONCE]),
                missed=missed,
            )
            for first in range(0, count, _AT_ONCE)
        ]


async def recall(store: PostgresStore, bulletin: Bulletin, *, late: bool) -> Committed:
    """What a bulletin stands for, read from the store; telemetry of the past only where that is wanted."""
    events: list[EventRecord] = []
    for first, last in bulletin.events:
        limit = min(last - first + 1, _MAX_EVENTS - len(events))
        if limit > 0:
            events += [event for event in await store.events(after=first - 1, limit=limit) if event.id <= last]
    alerts: list[AlertRecord] = []
    for first, last in bulletin.alerts:
        limit = min(last - first + 1, _MAX_EVENTS - len(alerts))
        if limit > 0:
            page = await store.alerts(before=last + 1, limit=limit)
            alerts += [alert for alert in reversed(page) if alert.id >= first]
    finished = [await store.command(command) for command in bulletin.finished]
    return Committed(
        events=tuple(events),
        alerts=tuple(alerts),
        late=await store.late(bulletin.late) if late and bulletin.late else (),
        finished=tuple(command for command in finished if command is not None),
        born=tuple(DeviceId.parse(device) for device in bulletin.born),
        touched=tuple(DeviceId.parse(device) for device in bulletin.touched),
        noted=bulletin.noted,
    )
