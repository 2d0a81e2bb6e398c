"""The workers of a hub as child processes: started, watched, restarted, and ended with the hub."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from edge_hub.broker.child import die_with_parent
from edge_hub.pulse import MAX_BYTES, SILENT_S, Pulse
from edge_hub.tasks import begun
from edge_hub.worker import WorkerConfig
from edge_sdk.errors import WireError
from edge_sdk.wire import decode, encode

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a process said last.

    Attributes:
        at: When, by a clock that does not step.
        has_worked: It has taken its share at some time.
    """

    pulse: Pulse
    at: float
    has_worked: bool


class Workers:
    """So many workers.

    Args:
        configs: Of each.
        silent_s: Who says nothing for so long is in trouble.
    """

    def __init__(self, configs: tuple[WorkerConfig, ...], *, silent_s: float = SILENT_S) -> None:
        self.restarts = 0
        self._configs = configs
        self._silent_s = silent_s
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._heard: dict[int, _Heard] = {}
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many there are meant to be."""
        return len(self._configs)

    @property
    def running(self) -> int:
        """How many have come to take their share, and run."""
        return sum(heard.has_worked for heard in self._heard.values())

    @property
    def waiting(self) -> int:
        """Messages that they have received and not stored yet, as they said last."""
        return sum(heard.pulse.waiting for heard in self._heard.values())

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with each that runs and is in trouble, or silent."""
        now = time.monotonic()
        found = []
        for number, heard in sorted(self._heard.items()):
            name = f"worker {number if heard.pulse.slot is None else heard.pulse.slot}"
            silent_s = now - heard.at
            if silent_s > self._silent_s:
                found.append(f"{name} has said nothing for {silent_s:.0f} s")
            elif heard.pulse.trouble is not None:
                found.append(f"{name}: {heard.pulse.trouble}")
        return tuple(found)

    @property
    def trouble(self) -> str | None:
        """What is wrong with any of them."""
        missing = f"{self.running} of {self.count} workers run" if self.running < self.count else None
        return next(iter(self.troubles), missing)

    async def start(self) -> None:
        """Start all, and watch them; returns when all take their share, or have been waited for long enough."""
        self._watching = [begun(self._watch(number), name=f"hub-worker-{number}") for number in range(self.count)]
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
            fate = await self._live(number)
            if time.monotonic() - began > _HEALTHY_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.error("process %d of the workers %s; starting it again in %.1f s", number, fate, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
            self.restarts += 1

    async def _live(self, number: int) -> str:
        """One process, from its start to its end; what became of it."""
        try:
            process = self._processes[number] = await _start(self._configs[number])
        except (OSError, subprocess.SubprocessError) as error:  # no memory, process or descriptor is left for it
            return f"does not start: {error}"
        status = await self._follow(number, process)
        if process.stdin is not None:
            process.stdin.close()
        return f"ended with status {status}"

    async def _follow(self, number: int, process: asyncio.subprocess.Process) -> int:
        """Hear it until it ends; its status."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            while line := await _line(process.stdout):
                self._hear(number, line)
            return await process.wait()
        finally:
            self._heard.pop(number, None)

    def _hear(self, number: int, line: bytes) -> None:
        try:
            pulse = decode(line, Pulse, where="a worker's pulse", max_bytes=MAX_BYTES)
        except WireError as error:
            _log.debug("not understood: %s", error)
            return
        before = self._heard.get(number)
        has_worked = pulse.trouble is None or (before is not None and before.has_worked)
        self._heard[number] = _Heard(pulse=pulse, at=time.monotonic(), has_worked=has_worked)
        self._changed.set()

    async def _all_running(self) -> None:
        while self.running < self.count:
            self._changed.clear()
            await self._changed.wait()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next one; empty at the end."""
    while True:
        try:
            return await stream.readline()
        except ValueError:  # noqa: PERF203 - longer than any of ours: some library's, printed
            continue


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
