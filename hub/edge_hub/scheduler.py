"""What only one process of a hub does at a time: it holds a lease, and the others wait for it to be free.

Duties may be cut off anywhere: the process is killed, or the lease lost. So each keeps its state in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from edge_hub.errors import StoreError
from edge_hub.store.parts import Leases

_log = logging.getLogger(__name__)

KIND = "scheduler"
TTL_S = 15.0
RENEW_S = 5.0

Duty = Callable[[], Coroutine[Any, Any, None]]


class Scheduler:
    """Stands for election until cancelled, and does the duties while elected.

    Args:
        store: Where the lease is.
        holder: Who this is; the same after a restart, so that nobody waits for a lease of its own to end.
        duties: By name; each runs until it is cancelled.
        clock: Seconds since 1970.
    """

    def __init__(
        self, *, store: Leases, holder: str, duties: Mapping[str, Duty], clock: Callable[[], float] = time.time
    ) -> None:
        self.elected = False
        self._store = store
        self._holder = holder
        self._duties = duties
        self._clock = clock

    async def run(self) -> None:
        """Stand for election for ever. Ends only by being cancelled, or with the failure of a duty."""
        try:
            while True:
                if await self._ask():
                    await self._serve()
                await asyncio.sleep(RENEW_S)
        finally:
            if self.elected:
                self.elected = False
                with contextlib.suppress(StoreError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._store.release(KIND, self._holder), RENEW_S)

    async def _ask(self) -> bool | None:
        """Whether the lease is ours; None where the store does not answer."""
        try:
            slot = await self._store.lease(KIND, self._holder, slots=1, now=self._clock(), ttl_s=TTL_S)
        except StoreError as error:
            _log.debug("no election: %s", error)
            return None
        return slot is not None

    async def _serve(self) -> None:
        """Do the duties while the lease is ours; without an answer of the store, until it may be another's."""
        self.elected = True
        _log.debug("elected: %s", ", ".join(self._duties))
        tasks = [asyncio.create_task(duty(), name=f"hub-{name}") for name, duty in self._duties.items()]
        until = time.monotonic() + TTL_S
        try:
            while time.monotonic() < until:
                done, _ = await asyncio.wait(tasks, timeout=RENEW_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                asked = time.monotonic()
                is_ours = await self._ask()
                if is_ours:
                    until = asked + TTL_S
                elif is_ours is False:
                    break
            _log.warning("what only one process may do is another's now")
            self.elected = False
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
