"""Times variants on this machine, in a child process: a model may crash the runtime, and the daemon has none.

The child (`edge_sdk.measure`) sets its own limits, ends when its standard input does (so it can't outlive us), and
is killed at its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
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
        pipe = asyncio.subprocess.PIPE
        # In the root directory, since `-m` looks for modules in the current one first.
        child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd="/")
        try:
            output, complaint = await asyncio.wait_for(_read(child), self._deadline_s + _GRACE_S)
            status = await child.wait()
        except (asyncio.TimeoutError, TimeoutError) as cause:
            raise MeasurementError(f"not done within {self._deadline_s:.0f} s", where=model) from cause
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
            if child.stdin is not None:
                child.stdin.close()
        if status != 0:
            raise MeasurementError(_why(status, complaint), where=model)
        try:
            return decode(output, tuple[Latency, ...], where="the measuring process", max_bytes=_MAX_OUTPUT_BYTES)
        except WireError as cause:
            raise MeasurementError(f"gave no result: {cause}", where=model) from cause


async def _given_up(task: asyncio.Task[tuple[Latency, ...]] | None) -> None:
    """Returns when it has ended, and its child with it."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _read(child: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    assert child.stdout is not None  # noqa: S101 - we asked for pipes
    assert child.stderr is not None  # noqa: S101
    output, complaint = await asyncio.gather(_all(child.stdout), _all(child.stderr))
    return output, complaint


async def _all(stream: asyncio.StreamReader) -> bytes:
    """Everything, of which only the first megabyte is kept."""
    kept = b""
    while chunk := await stream.read(1 << 16):
        if len(kept) <= _MAX_OUTPUT_BYTES:
            kept += chunk
    return kept


def _why(status: int, complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1][:_MAX_ERROR_CHARS] if lines else "it said nothing"
    return f"the measuring process was killed by signal {-status}: {last}" if status < 0 else last
