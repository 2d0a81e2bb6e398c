"""Taking devices out of the fleet: out of the store, and out of the broker.

The store has the first and the last word: what it has removed, each process of the hub takes out of its own broker, and
tries again until that is done. So whoever is killed in between, the next one finishes. What a broker keeps of a device
would bring it back: its retained messages are cleared at once, and once more when nothing that it sent can be on its
way any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from edge_hub.alerts import silences
from edge_hub.broker.accounts import Guest, new_password
from edge_hub.broker.backend import BrokerBackend
from edge_hub.errors import BrokerError, StoreError
from edge_hub.interop.session import Session
from edge_hub.store import Store
from edge_hub.store.records import HELD_OFF_S, Removal, Removed
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Down, Up, down_topic, up_topic

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
# Until the broker has read that a device has another password: a fleet of thousands takes it a second.
_LET_IN_S = 5.0
_ASK_EVERY_S = 0.05
_AT_ONCE = 50
_WHOSE = "removed"

NOT_OURS = (
    "its account at the broker is its administrator's to end: while the device reports, it comes back as a new one"
)
LATER = "what the broker has of it stays until the hub reaches the broker again, and goes then"

Publish = Callable[..., Awaitable[bool]]


class Removals:
    """Takes devices out.

    In the store first: an account that is not there is let in nowhere, and what was begun there is finished.

    Args:
        store: Of the fleet.
        broker: Of this process.
        publish: `Link.publish`.
        tell_accounts: Lets into the broker whom the store knows.
        ended: Told of what ended with devices, and which.
        since: Whom the store knew after this moment may be in the broker.
    """

    def __init__(
        self,
        *,
        store: Store,
        broker: BrokerBackend,
        publish: Publish,
        tell_accounts: Callable[[], Awaitable[None]],
        ended: Callable[[Removed, Sequence[DeviceId]], None],
        since: float,
    ) -> None:
        self._store = store
        self._broker = broker
        self._publish = publish
        self._tell_accounts = tell_accounts
        self._ended = ended
        self._since = since
        # By removal, when this broker was last cleared of it.
        self._cleared: dict[Removal, float] = {}
        self._one_at_a_time = asyncio.Lock()

    async def remove(self, devices: Sequence[DeviceId]) -> tuple[str, ...]:
        """Take devices out of the fleet, all or none.

        Returns:
            What is left to do, in sentences.

        Raises:
            UnknownDeviceError: Names the first that is not there.
        """
        removed = await self._store.remove(devices, now=time.time())
        self._ended(removed, devices)
        left = [] if self._broker.enrols else [NOT_OURS]
        try:
            await self._look()
        except EdgeError as error:
            _log.warning("what the broker has of %d removed devices stays for now: %s", len(devices), error)
            left.append(LATER)
        return tuple(left)

    async def run(self) -> None:
        """Finish what this or another process began, until cancelled."""
        while True:
            try:
                await self._look()
            except EdgeError as error:
                _log.debug("what the broker has of removed devices stays for now: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        """Clear this broker of what was removed and is still to be cleared of.

        Raises:
            EdgeError: It could not be.
        """
        async with self._one_at_a_time:
            removals = await self._store.removals()
            self._cleared = {one: at for one in removals if (at := self._cleared.get(one)) is not None}
            first = [one for one in removals if one not in self._cleared]
            again = [one for one in removals if self._is_due_again(one)]
            if not (first or again):
                return
            # Who was enrolled anew, or came back, is somebody else.
            back = {one.device for one in await self._store.outlines([one.device for one in (*first, *again)])}
            gone = [one.device for one in first if one.device not in back]
            # Whom the store knew no more at the start was never let in, and a broker that has just started with the
            # sessions of a fleet is better not told to read its accounts anew: mosquitto 2.0.11 may die of it.
            there = [one.device for one in first if one.device not in back and one.at >= self._since]
            if there:
                await self._broker.revoke(*map(str, there))
                await self._tell_accounts()
                await self._end_sessions(there)
            await self._end_silences(gone)
            await self._clear(one for one in (*first, *again) if one.device not in back)
            self._cleared.update((one, time.time()) for one in (*first, *again))
            if gone:
                _log.info("%d removed devices are out of the broker, too", len(gone))

    def _is_due_again(self, removal: Removal) -> bool:
        """It was cleared while something could be on its way, which is over."""
        cleared, quiet = self._cleared.get(removal), removal.at + HELD_OFF_S
        return cleared is not None and cleared < quiet <= time.time()

    async def _clear(self, removals: Iterable[Removal]) -> None:
        """Have the broker keep nothing of them.

        Raises:
            BrokerError: It is not connected.
        """
        for device in dict.fromkeys(one.device for one in removals):
            kept = (up_topic(device, Up.BIRTH), up_topic(device, Up.STATE), down_topic(device, Down.DESIRED))
            for topic in kept:
                if not await self._publish(topic, b"", retain=True):
                    raise BrokerError("not connected to the broker")

    async def _end_sessions(self, devices: Collection[DeviceId]) -> None:
        """End what our broker queues for devices that are away, and tell the last will of those that it just cut off.

        Only the device itself can: so the hub connects once in its name.
        """
        if self._broker.kind != "mosquitto":
            return
        guests = {device: Guest(user=str(device), password=new_password(), access=()) for device in devices}
        await self._broker.admit(_WHOSE, tuple(guests.values()))
        try:
            room = asyncio.Semaphore(_AT_ONCE)
            deadline = time.monotonic() + _LET_IN_S
            await asyncio.gather(*(self._end_session(guest, room, deadline) for guest in guests.values()))
        finally:
            await self._broker.admit(_WHOSE, ())

    async def _end_session(self, guest: Guest, room: asyncio.Semaphore, deadline: float) -> None:
        async with room:
            while True:
                endpoint = self._broker.endpoint_of(guest)
                session = Session(endpoint=endpoint, client_id=guest.user, will=None, topics=(), heard=_unheard)
                try:
                    await session.open()
                except EdgeError as error:  # of the broker, or of a certificate's file
                    if time.monotonic() > deadline:
                        _log.warning("the broker's session of %s could not be ended: %s", guest.user, error)
                        return
                    await asyncio.sleep(_ASK_EVERY_S)
                    continue
                await session.close()
                return

    async def _end_silences(self, devices: Collection[DeviceId]) -> None:
        for name in silences.naming_only(await self._store.rules(), devices):
            with contextlib.suppress(StoreError):  # it ends by itself
                await self._store.delete_rule(name)


def _unheard(_topic: str, _payload: bytes, _retained: bool) -> None:
    """Nothing was subscribed to."""
