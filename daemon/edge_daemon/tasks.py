"""The owner of the daemon's tasks: each has a name, none outlives it, and a failure of one is noticed.

Like `asyncio.TaskGroup`, which Python 3.10 does not have, with two differences a daemon wants: tasks may be stopped
in stages, and a task that is not vital is begun anew after a failure instead of ending everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

RESTART_AFTER_S = 10.0


class TaskOwner:
    """Named tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._count = 0
        self.failed: asyncio.Event = asyncio.Event()
        self.failure: BaseException | None = None

    def spawn(self, name: str, work: Callable[[], Awaitable[None]], *, vital: bool = True) -> None:
        """Begin a task. If it fails: a vital one sets `failed`, any other is begun anew after a while."""
        self._keep(name, self._vital(name, work) if vital else self._restarting(name, work))

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task that ends by itself; its failure is logged and concerns nobody else."""
        self._count += 1
        self._keep(f"{name}-{self._count}", self._single(name, work))

    async def stop(self, name: str, timeout_s: float) -> None:
        """Cancel one task and wait for it, but not longer than `timeout_s`."""
        await self._end([task for key, task in self._tasks.items() if key == name], timeout_s)

    async def stop_all(self, timeout_s: float) -> None:
        """Cancel what is left."""
        await self._end(list(self._tasks.values()), timeout_s)

    async def _end(self, tasks: list[asyncio.Task[None]], timeout_s: float) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                log.warning("task %s did not end within %.0f s", task.get_name(), timeout_s)

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _vital(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            log.exception("%s failed; the daemon stops", name)
            self.failure = error
            self.failed.set()

    async def _restarting(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # noqa: PERF203 - that is what the loop is for
                log.exception("%s failed; it begins anew in %.0f s", name, RESTART_AFTER_S)
                await asyncio.sleep(RESTART_AFTER_S)
            else:
                return

    async def _single(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("%s failed", name)
