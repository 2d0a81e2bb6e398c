"""The hub's tasks: each has a name, none is forgotten, and the first to fail is heard of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


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
