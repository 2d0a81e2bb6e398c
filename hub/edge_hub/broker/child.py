"""A broker as a child process: started, watched, restarted, and never left behind.

The kernel ends the child when the hub ends, even by `kill -9` (PR_SET_PDEATHSIG). Should one be left all the same,
the next start ends it, but only where the kernel proves it is the process that was recorded: same number, same start
time, same boot of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_hub.address import as_we_reach
from edge_hub.datadir import PRIVATE_FILE
from edge_hub.errors import BrokerError
from edge_hub.tasks import begun
from edge_sdk import atomic
from edge_sdk.address import Address, check_free
from edge_sdk.errors import EdgeError
from edge_sdk.wire import Count, Text, Wire, decode, encode

_log = logging.getLogger(__name__)

_READY_S = 15.0
_TERM_S = 5.0
_KILL_S = 5.0
_POLL_S = 0.02
_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 30.0
# A child that ran this long was healthy: its next crash begins the back-off anew.
_HEALTHY_S = 60.0
_KEPT_LINES = 20
_MAX_LINE_BYTES = 2000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Loaded before any fork: between fork and exec nothing may allocate or import.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class _Recorded(Wire, frozen=True, kw_only=True):
    """What proves that a process is the one we started."""

    pid: Count
    started_ticks: Count
    boot: Text


class Child:
    """One child process under watch.

    Args:
        name: For logs and errors.
        command: Called at each start; the argument list.
        address: Where it is going to listen.
        pid_file: Where the child is recorded.
        heal: Called with the last lines of a child that ended by itself; returns true when it has repaired what
            hindered the start, and the start is worth repeating at once.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Callable[[], Sequence[str]],
        address: Address,
        pid_file: Path,
        heal: Callable[[Sequence[str]], bool] = lambda _lines: False,
    ) -> None:
        self.restarts = 0
        self._name = name
        self._command = command
        self._address = address
        self._pid_file = pid_file
        self._heal = heal
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """The process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Return once it listens.

        Raises:
            AddressInUseError: The port is taken.
            BrokerError: It ended or did not listen in time; the text carries its own last words.
        """
        await asyncio.to_thread(end_leftover, self._pid_file)
        await self._start_once_or_healed()
        self._watcher = begun(self._watch(), name=f"{self._name}-watch")

    def send_signal(self, number: signal.Signals) -> None:
        """Pass a signal on, if it runs."""
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """End it: politely, then not."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        await self._end()
        with contextlib.suppress(OSError):
            self._pid_file.unlink(missing_ok=True)

    async def _start_once_or_healed(self) -> None:
        try:
            await self._spawn()
        except BrokerError:
            if not self._heal(tuple(self._lines)):
                raise
            await self._spawn()

    async def _spawn(self) -> None:
        check_free(self._address, what=self._name, hint="stop what listens there, or choose another --mqtt")
        self._lines.clear()
        command = self._command()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                preexec_fn=die_with_parent(signal.SIGTERM),  # ctypes is loaded, nothing is allocated
                start_new_session=True,  # Ctrl-C in the terminal is the hub's to hear; it ends us in order
                umask=0o077,
            )
        except OSError as cause:
            raise BrokerError(
                f"{self._name} cannot be started: {cause.strerror}", where=command[0], hint="may this user run it?"
            ) from cause
        self._reader = asyncio.create_task(self._read(self._process), name=f"{self._name}-log")
        try:
            self._record(self._process.pid)
            await self._ready(self._process)
        except BaseException:
            await self._end()
            raise

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + _READY_S
        while process.returncode is None and time.monotonic() < deadline:
            if await _answers(self._address):
                return
            await asyncio.sleep(_POLL_S)
        how = "ended" if process.returncode is not None else f"did not listen within {_READY_S:.0f} s"
        if self._reader is not None and process.returncode is not None:
            await asyncio.wait((self._reader,), timeout=1)
        said = f": {self._lines[-1]}" if self._lines else ""
        raise BrokerError(f"{self._name} {how}{said}", where=str(self._address), hint="--log debug shows all it says")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        # By blocks, not by lines: a line without end must not fill memory or raise.
        rest = b""
        while block := await process.stderr.read(_MAX_LINE_BYTES):
            *whole, rest = (rest[-_MAX_LINE_BYTES:] + block).split(b"\n")
            for raw in whole:
                line = raw.decode("utf-8", "replace").strip()
                if line:
                    self._lines.append(line)
                    _log.log(logging.WARNING if "Error" in line else logging.DEBUG, "%s: %s", self._name, line)

    async def _watch(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            process = self._process
            if process is None:
                return
            began = time.monotonic()
            status = await process.wait()
            if time.monotonic() - began > _HEALTHY_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.error("%s ended with status %s; starting it again in %.1f s", self._name, status, backoff_s)
            while True:
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
                self.restarts += 1
                try:
                    await self._start_once_or_healed()
                except EdgeError as error:
                    _log.error("%s; trying again in %.1f s", error, backoff_s)
                    continue
                _log.warning("%s runs again", self._name)
                break

    def _record(self, pid: int) -> None:
        proof = _proof(pid)
        if proof is not None:
            atomic.write_bytes(self._pid_file, encode(proof), mode=PRIVATE_FILE)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(process.wait(), patience_s)
                    break
        if self._reader is not None:
            _, late = await asyncio.wait((self._reader,), timeout=1)
            for task in late:
                task.cancel()
            self._reader = None


def die_with_parent(how: signal.Signals) -> Callable[[], None]:
    """What a child does between fork and exec so that the kernel ends it together with this process."""
    parent = os.getpid()

    def arrange() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, how)
            if os.getppid() != parent:  # the hub ended between fork and prctl
                os._exit(1)

    return arrange


def end_leftover(pid_file: Path) -> bool:
    """End the child an earlier hub left behind, if the kernel proves that it is that child.

    Returns:
        Whether there was one.
    """
    try:
        recorded = decode(pid_file.read_bytes(), _Recorded, where=str(pid_file))
    except (OSError, EdgeError):
        return False
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        if _proof(recorded.pid) != recorded:
            break
        _log.warning("a broker of an earlier run is still there (process %d); ending it", recorded.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(recorded.pid, number)
        deadline = time.monotonic() + patience_s
        while _proof(recorded.pid) == recorded and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    else:
        return True
    with contextlib.suppress(OSError):
        pid_file.unlink()
    return True


def _proof(pid: int) -> _Recorded | None:
    """Identity of a living process: numbers are reused, a number with its start time within one boot is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    state, started_ticks = fields[0], int(fields[19])  # proc(5): fields 3 and 22
    return None if state == "Z" else _Recorded(pid=pid, started_ticks=started_ticks, boot=boot)


async def _answers(address: Address) -> bool:
    here = as_we_reach(address)
    family = socket.AF_INET6 if ":" in here.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(probe, (here.host, here.port)), 1.0)
        except (OSError, asyncio.TimeoutError):
            return False
    return True
