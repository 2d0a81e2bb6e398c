"""Tells the hub what happened: events and telemetry go to the spool at once, the uplink sends them from there.

Where no hub is configured nothing is kept: there is nobody who would ever fetch it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_daemon.clock import Clock
from edge_daemon.lanes import Lane
from edge_daemon.logs import Seldom
from edge_daemon.spool import Message
from edge_daemon.store import Store
from edge_sdk.errors import StorageError
from edge_sdk.mqtt import Event, Tele

if TYPE_CHECKING:
    from edge_daemon.uplink import Uplink  # a megabyte of paho that only a daemon with a hub needs

log = logging.getLogger(__name__)

_LOG_EVERY_S = 60.0


class Journal:
    """The way into the spool.

    Args:
        store: With the spool, to be used in `lane`.
        lane: Where the store lives.
        clock: Of envelopes.
    """

    def __init__(self, store: Store, lane: Lane, clock: Clock) -> None:
        self._store = store
        self._lane = lane
        self._clock = clock
        self._complaint = Seldom(_LOG_EVERY_S)
        self.uplink: Uplink | None = None

    def messages(self, *bodies: Event | Tele) -> list[Message]:
        """The same as messages for a commit that also does something else; none without a hub."""
        return [Message(body=body) for body in bodies] if self.uplink is not None else []

    async def tell(self, *bodies: Event | Tele) -> None:
        """Spool these. A disk that can't take them loses them, with a line in the log; the device works on."""
        messages = self.messages(*bodies)
        if not messages:
            return
        now = self._clock.wall()
        try:
            await self._lane.run(lambda: self._store.commit(now, messages=messages))
        except StorageError as error:
            held_back = self._complaint.allows(self._clock.monotonic())
            if held_back is not None:
                log.error("events and telemetry are lost: %s (%d more held back)", error, held_back)  # noqa: TRY400
            return
        self.poke()

    def poke(self) -> None:
        """Something was spooled by other hands."""
        if self.uplink is not None:
            self.uplink.poke()
