"""Orders to devices: commands, each with exactly one end, and desired documents, each with a version.

A command is stored before it is sent. It is sent again whenever its device is born anew without having answered, so
that neither a broker's queue nor a device's crash loses it; the device answers a replay from memory. When its time is
over and no reply has come for a while, the hub calls it expired.

A device looks at its own clock to see whether a command's time is over. Where that clock is ahead, it is told a later
end, by as much as the hub believes it to be ahead; everything else is by the hub's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from edge_hub.api import CommandView, DesiredRequest
from edge_hub.errors import StoreError, UnknownCommandError
from edge_hub.feed import Feed, News, Topic
from edge_hub.store import Store
from edge_hub.store.records import CommandRecord, CommandState, DesiredRecord
from edge_hub.tasks import within
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import MAX_DOWN_BYTES, Command, Desired, DeviceId, Down, DownEnvelope, down_topic, pack
from edge_sdk.wire import LAST_UNIX, new_token

_log = logging.getLogger(__name__)

# A device that answers in time may be slow to be heard: its reply goes through its spool.
GRACE_S = 10.0
_EXPIRE_EVERY_S = 1.0
_POLL_S = 1.0
_RETRY_S = 2.0
# What is ordered at once is this far apart, so that a list by time has one order and can be read page by page.
_APART_S = 1e-6

Publish = Callable[..., Awaitable[bool]]


class Commander:
    """Sends orders and follows them.

    Args:
        store: Where they are kept.
        publish: `Link.publish`.
        feed: Told of each command that ends.
        clock: Seconds since 1970.

    Attributes:
        told: Called with commands that this process ended, for the others to know.
    """

    def __init__(self, *, store: Store, publish: Publish, feed: Feed, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._publish = publish
        self._feed = feed
        self._clock = clock
        self.told: Callable[[Sequence[CommandRecord]], None] = lambda _: None
        self._born: dict[DeviceId, None] = {}  # in their order, each once, however often it comes up meanwhile
        self._is_born = asyncio.Event()
        self._ended = asyncio.Event()

    async def send(
        self, devices: Sequence[DeviceId], command: Command, *, expires_s: float, by: str
    ) -> tuple[CommandRecord, ...]:
        """Store and send a command to each device: two transactions, however many they are.

        Args:
            devices: Each once.
            command: The same for all.
            expires_s: From now on.
            by: Who orders it.

        Raises:
            UnknownDeviceError: One of them is not known; none was sent anything.
        """
        now, batch = self._clock(), new_token()
        records = tuple(
            CommandRecord(
                id=new_token(),
                device=device,
                command=command,
                sent=now + number * _APART_S,
                expires=now + expires_s,
                by=by,
                batch=batch,
            )
            for number, device in enumerate(devices)
        )
        await self._store.add_commands(records)
        await self._publish_commands(records)
        return records

    async def cancel(self, command_id: str) -> tuple[CommandRecord, bool]:
        """Give up on a command: it is not sent again. A device that has it already may still carry it out and answer.

        Returns:
            The command as it is now, and whether this call ended it: a reply or its time may have come before.

        Raises:
            UnknownCommandError: There is none with this id.
        """
        now = self._clock()
        record = await self._store.cancel_command(command_id, now=now)
        if record is None:
            raise _unknown(command_id)
        was_cancelled = record.state is CommandState.CANCELLED and record.finished == now
        if was_cancelled:
            self.finished((record,))
            self.told((record,))
        return record, was_cancelled

    async def wait(self, command_id: str, *, wait_s: float) -> CommandRecord:
        """The command, as soon as it has ended or the time is over.

        Raises:
            UnknownCommandError: There is none with this id.
        """
        deadline = time.monotonic() + wait_s
        known: CommandRecord | None = None
        while True:
            ended = self._ended
            record = await self._store.command(command_id)
            if record is None and known is not None:
                # What waits goes with its device alone.
                return replace(known, state=CommandState.CANCELLED, finished=self._clock())
            if record is None:
                raise _unknown(command_id)
            known = record
            left_s = deadline - time.monotonic()
            if record.state is not CommandState.PENDING or left_s <= 0:
                return record
            # The store is looked at again all the same: another process may have taken the reply.
            with contextlib.suppress(asyncio.TimeoutError):
                await within(ended.wait(), min(left_s, _POLL_S))

    async def set_desired(self, device: DeviceId, request: DesiredRequest) -> DesiredRecord:
        """Replace a device's desired document and publish it.

        Raises:
            UnknownDeviceError: The device is not known.
            VersionConflictError: The present version is another one than the request expects.
            UsageError: The document is too large to be sent.
        """
        if len(pack(_document(0.0, "0" * 32, request))) > MAX_DOWN_BYTES:
            raise UsageError(
                f"the document is larger than {MAX_DOWN_BYTES} bytes",
                where=str(device),
                hint="say less of fewer models",
            )
        record = await self._store.put_desired(
            device,
            preferences=dict(request.preferences),
            pins=dict(request.pins),
            expected_version=request.if_version,
            now=self._clock(),
        )
        await self._publish_desired(record)
        return record

    def born(self, devices: Sequence[DeviceId]) -> None:
        """Devices came up: they are to be sent what they have not answered."""
        for device in devices:
            self._born[device] = None
        self._is_born.set()

    def finished(self, records: Sequence[CommandRecord]) -> None:
        """Commands came to their end."""
        for record in records:
            self._feed.spread(News(topic=Topic.COMMAND, body=CommandView.of(record)))
        if records:
            ended, self._ended = self._ended, asyncio.Event()
            ended.set()

    async def greet(self) -> None:
        """The broker is there (anew): publish what never was, and all desired documents, for it may have lost them."""
        try:
            for record in await self._store.all_desired():
                await self._publish_desired(record)
            await self._publish_commands(await self._store.pending(unsent=True))
        except StoreError as error:
            _log.warning("orders wait: %s", error)

    async def run_births(self) -> None:
        """Send again to each device that is born, until cancelled."""
        while True:
            while not self._born:
                self._is_born.clear()
                await self._is_born.wait()
            device = next(iter(self._born))
            del self._born[device]
            try:
                await self.resend(device)
            except StoreError as error:
                _log.warning("orders for %s wait: %s", device, error)
                await asyncio.sleep(_RETRY_S)
                self._born[device] = None

    async def resend(self, device: DeviceId) -> None:
        """Send a device its desired document and what it has not answered.

        Raises:
            StoreError: The store does not say what that is.
        """
        desired = await self._store.desired(device)
        if desired is not None:
            await self._publish_desired(desired)
        await self._publish_commands(await self._store.pending(device=device))

    async def run_expiry(self) -> None:
        """End what got no reply, until cancelled."""
        while True:
            await asyncio.sleep(_EXPIRE_EVERY_S)
            try:
                over = await self._store.expire_commands(now=self._clock(), grace_s=GRACE_S)
            except StoreError as error:
                _log.debug("commands are not looked at: %s", error)
                continue
            self.finished(over)
            self.told(over)

    async def _publish_commands(self, records: Sequence[CommandRecord]) -> None:
        """Send those whose time is not over, and count them as sent in one go."""
        sent = []
        leads_s = await self._leads_s(records)
        for record in records:
            left_s = record.expires - self._clock()
            # Too much of it does little harm: on the way the broker ends it, and afterwards the hub waits no longer.
            expires = min(record.expires + leads_s.get(record.device, 0.0), LAST_UNIX)
            envelope = DownEnvelope(id=record.id, sent=record.sent, expires=expires, body=record.command)
            topic = down_topic(record.device, Down.CMD)
            if left_s > 0 and await self._publish(topic, pack(envelope), expires_in_s=left_s):
                sent.append(record.id)
        if sent:
            try:
                await self._store.published(*sent)
            except StoreError as error:
                # They are on their way all the same; at worst they are sent once more, which a device answers from
                # memory.
                _log.warning("%d commands were sent but not counted: %s", len(sent), error)

    async def _leads_s(self, records: Sequence[CommandRecord]) -> Mapping[DeviceId, float]:
        """By how much the clocks of these commands' devices are ahead, where they are and that is known."""
        if not records:
            return {}
        try:
            found = await self._store.outlines(tuple({record.device for record in records}))
        except StoreError as error:
            _log.debug("nothing is known of clocks: %s", error)
            return {}
        return {one.device: one.skew_s for one in found if one.skew_s is not None and one.skew_s > 0}

    async def _publish_desired(self, record: DesiredRecord) -> None:
        envelope = DownEnvelope(id=record.message, sent=record.sent, body=record.desired)
        await self._publish(down_topic(record.device, Down.DESIRED), pack(envelope), retain=True)


def _unknown(command: str) -> UnknownCommandError:
    return UnknownCommandError("no such command", where=command, hint="GET /api/v1/commands lists the last ones")


def _document(sent: float, message: str, request: DesiredRequest) -> DownEnvelope[object]:
    """As large as the one that is going to be sent."""
    body = Desired(version=2**53, preferences=dict(request.preferences), pins=dict(request.pins))
    return DownEnvelope(id=message, sent=sent, body=body)
