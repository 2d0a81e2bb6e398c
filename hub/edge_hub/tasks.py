"""The hub's tasks: each has a name, none is forgotten, the first to fail is heard of; and waits that end with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


_log = logging.getLogger(__name__)


class Tasks:
    """Owns tasks from `spawn` until they end or `stop` ends them."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start one that is meant to run until it is stopped."""
        self._tasks[name] = asyncio.create_task(work, name=f"hub-{name}")

    async def failure(self) -> None:
        """Raise what the first task to fail failed of."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self, name: str, *, patience_s: float = 5.0) -> None:
        """Cancel one, and wait until it has ended or the patience has."""
        task = self._tasks.pop(name, None)
        if task is None:
            return
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=patience_s)
        for each in done:
            if not each.cancelled():
                each.exception()  # looked at: a failure here was heard of by `failure`, or no longer matters

    async def stop_all(self) -> None:
        """Cancel the rest, the last started first."""
        for name in reversed(list(self._tasks)):
            await self.stop(name)


def begun(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """A task that may fail alone; that it did is logged at once, for whoever has it may look long after."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def within(work: Coroutine[Any, Any, T], patience_s: float) -> T:
    """What comes of it in time, as of `asyncio.wait_for`.

    That one, before Python 3.12, goes on as if nothing was where it is cancelled at the moment at which what it waits
    for comes (cpython issue 86296): a task that waits again and again would not end.

    Raises:
        asyncio.TimeoutError: It did not come; it is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=patience_s)
        if task.done():
            return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    raise asyncio.TimeoutError
