"""The workers of a hub as child processes: started, watched, restarted, and ended with the hub."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time

from edge_hub.broker.child import die_with_parent
from edge_hub.worker import WorkerConfig
from edge_sdk.wire import encode

_log = logging.getLogger(__name__)

_READY_S = 20.0
# Both together within what the hub gives each step of its own end; who is killed loses nothing.
_TERM_S, _KILL_S = 6.0, 1.0
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 15.0
# Who ran this long was healthy: its next end begins the back-off anew.
_HEALTHY_S = 30.0
_PROGRAM = (
    # -P is of 3.11: keep the working directory, where another module of this name may lie, off the path by hand.
    "import sys; sys.path[:] = [path for path in sys.path if path]; from edge_hub.worker import main; main()"
)


class Workers:
    """So many workers.

    Args:
        configs: Of each.
    """

    def __init__(self, configs: tuple[WorkerConfig, ...]) -> None:
        self.restarts = 0
        self._configs = configs
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._working: dict[int, bool] = {}
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many there are meant to be."""
        return len(self._configs)

    @property
    def running(self) -> int:
        """How many take their share."""
        return sum(self._working.values())

    async def start(self) -> None:
        """Start all, and watch them; returns when all take their share, or have been waited for long enough."""
        self._watching = [
            asyncio.create_task(self._watch(number), name=f"hub-worker-{number}") for number in range(self.count)
        ]
        try:
            await asyncio.wait_for(self._all_running(), _READY_S)
        except asyncio.TimeoutError:
            _log.warning("%d of %d workers run; the others are waited for", self.running, self.count)

    async def stop(self) -> None:
        """End all: they store what they have, then."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching.clear()
        await asyncio.gather(*(_end(process) for process in self._processes.values()))
        self._processes.clear()

    async def _watch(self, number: int) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            process = self._processes[number] = await _start(self._configs[number])
            status = await self._follow(number, process)
            if time.monotonic() - began > _HEALTHY_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.error(
                "process %d of the workers ended with status %s; starting it again in %.1f s", number, status, backoff_s
            )
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
            if process.stdin is not None:
                process.stdin.close()
            self.restarts += 1

    async def _follow(self, number: int, process: asyncio.subprocess.Process) -> int:
        """Until it ends; its status. It writes a line once it takes its share."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            if await process.stdout.readline():
                self._working[number] = True
                self._changed.set()
            return await process.wait()
        finally:
            self._working[number] = False

    async def _all_running(self) -> None:
        while self.running < self.count:
            self._changed.clear()
            await self._changed.wait()


async def _start(config: WorkerConfig) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(signal.SIGKILL),  # nothing that matters is in its memory
        start_new_session=True,  # Ctrl-C in the terminal is the hub's to hear; it ends us in order
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with contextlib.suppress(ConnectionError):  # it ended already, which shows
        process.stdin.write(encode(config) + b"\n")
        await process.stdin.drain()
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), patience_s)
    if process.stdin is not None:
        process.stdin.close()
