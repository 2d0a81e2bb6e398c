"""Times variants on this machine, in a child process: a model may crash the runtime, and the daemon has none.

The child (`edge_sdk.measure`) sets its own limits, ends when its standard input does (so it can't outlive us), and
is killed at its deadline.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from edge_daemon.catalogue import Catalogue
from edge_daemon.errors import BusyError, MeasurementError
from edge_sdk.errors import WireError
from edge_sdk.manifest import Latency
from edge_sdk.wire import decode

DEADLINE_S: Final = 120.0
_GRACE_S: Final = 15.0  # for the interpreter to start and numpy to load on a slow card
_MAX_OUTPUT_BYTES: Final = 1 << 20
_MAX_ERROR_CHARS: Final = 300


class ChildMeasurer:
    """Measures one model at a time; a trial nobody ordered gives way to a measurement that somebody did.

    Args:
        catalogue: Where the bundles are.
        deadline_s: All variants together may take this long.
    """

    def __init__(self, catalogue: Catalogue, *, deadline_s: float = DEADLINE_S) -> None:
        self._catalogue = catalogue
        self._deadline_s = deadline_s
        self._is_ordered = False
        self._trial: asyncio.Task[tuple[Latency, ...]] | None = None

    async def measure(self, model: str, variant: str | None) -> tuple[Latency, ...]:
        """Latencies of one variant, or of all that can run here; a trial that runs is ended for it.

        Raises:
            BusyError: Another ordered measurement is running.
            MeasurementError: The child failed or ran out of time.
        """
        if self._is_ordered:
            raise BusyError("another measurement is running", where=model, hint="try again when it has replied")
        self._is_ordered = True
        try:
            await _given_up(self._trial)
            return await self._timed(model, variant)
        finally:
            self._is_ordered = False

    async def trial(self, model: str, variant: str) -> tuple[Latency, ...]:
        """The latency of one variant, unless an ordered measurement runs or begins meanwhile.

        Raises:
            BusyError: It gave way, or another trial is running.
            MeasurementError: The child failed or ran out of time.
        """
        if self._is_ordered or self._trial is not None:
            raise BusyError("another measurement is running", where=model)
        self._trial = task = asyncio.get_running_loop().create_task(self._timed(model, variant))
        try:
            await asyncio.wait({task})
        finally:
            self._trial = None
            await _given_up(task)
        if task.cancelled():
            raise BusyError("the trial gave way to a measurement", where=model)
        return task.result()

    async def _timed(self, model: str, variant: str | None) -> tuple[Latency, ...]:
        served = self._catalogue.served[model]
        wanted = [variant] if variant is not None else [v.id for v in served.facts.variants if not v.accelerated]
        return await self._run(model, [str(served.bundle.path.resolve()), *wanted])

    async def _run(self, model: str, arguments: list[str]) -> tuple[Latency, ...]:
        command = [sys.executable, "-m", "edge_sdk.measure", f"--deadline-s={self._deadline_s}", *arguments]
        loop, pipe = asyncio.get_running_loop(), asyncio.subprocess.PIPE
        try:
            # In the root directory, since `-m` looks for modules in the current one first.
            transport, child = await loop.subprocess_exec(
                _Child, *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd="/"
            )
        except OSError as cause:  # no memory for it, or another Python since the daemon began
            raise MeasurementError(f"the measuring process cannot be started: {cause}", where=model) from cause
        try:
            await asyncio.wait({child.ended}, timeout=self._deadline_s + _GRACE_S)
            if not child.ended.done():
                raise MeasurementError(f"not done within {self._deadline_s:.0f} s", where=model)
        finally:
            transport.close()  # kills it where it still runs, and leaves alone what it may still have to say
            await asyncio.wait({child.ended})
        status = transport.get_returncode() or 0
        if status != 0:
            raise MeasurementError(_why(status, bytes(child.said[2])), where=model)
        where, output = "the measuring process", bytes(child.said[1])
        try:
            return decode(output, tuple[Latency, ...], where=where, max_bytes=_MAX_OUTPUT_BYTES)
        except WireError as cause:
            raise MeasurementError(f"gave no result: {cause}", where=model) from cause


class _Child(asyncio.SubprocessProtocol):
    """The measuring process.

    Not `asyncio.subprocess.Process`: that one waits for the end of the output, which never comes where nobody reads it
    any more or somebody else holds it.

    Attributes:
        said: On standard output and standard error; only the first megabyte of each is kept.
        ended: It is gone, and its pipes with it.
    """

    def __init__(self) -> None:
        self.said = {1: bytearray(), 2: bytearray()}
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.said[fd]) <= _MAX_OUTPUT_BYTES:
            self.said[fd] += data

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _given_up(task: asyncio.Task[tuple[Latency, ...]] | None) -> None:
    """Returns when it has ended, and its child with it."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _why(status: int, complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1][:_MAX_ERROR_CHARS] if lines else "it said nothing"
    return f"the measuring process was killed by signal {-status}: {last}" if status < 0 else last
