"""A process of the demonstration: in a session of its own, logged, never outliving us.

Three things see to the last: it is stopped in stages with deadlines, its whole process group is killed before it is
reaped, and the kernel ends it when we die (`_leash`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from edge_lab.errors import PartDiedError

_LEASH = Path(__file__).with_name("_leash.py")
_POLL_S = 0.02
_REAP_S = 5.0
_ORPHANS_S = 2.0
_TAIL_LINES = 4
_TAIL_BYTES = 8192


class Leashed:
    """A running process.

    Args:
        name: What to call it to the user.
        argv: The command.
        log: Where its stderr goes, and its stdout where `piped` is not set; appended to.
        env: Its environment; ours where None.
        cwd: Its working directory; one without Python files, since `python -m` looks there first.
        piped: Its stdout is read by the caller through `stdout`.
        shown: Its stderr goes to ours and not to the log, for progress bars.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        piped: bool = False,
        shown: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else sink,
                stderr=None if shown else sink,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def stdout(self) -> IO[bytes]:
        """What it prints; only where it was started with `piped`."""
        if self._popen.stdout is None:
            raise ValueError(f"{self.name} was not started with piped=True")
        return self._popen.stdout

    @property
    def status(self) -> int | None:
        """How it ended, as `subprocess` counts; None while it runs. Does not reap it."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        # WNOWAIT leaves a zombie, which keeps the process group's number ours until the group was killed.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def require(self) -> None:
        """It must be running.

        Raises:
            PartDiedError: It is not; the text ends with the last lines of its log.
        """
        status = self.status
        if status is not None:
            how = f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
            raise PartDiedError(f"the {self.name} {how}", hint=self.last_words())

    def last_words(self) -> str:
        """The last lines of its log on one line, for an error's text."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        kept = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
        return "its log ends: " + " | ".join(kept) if kept else "it logged nothing"

    def stop(self, *, grace_s: float, patient: Callable[[], bool] = lambda: True) -> None:
        """Ask it to end, kill it when it does not within `grace_s` or `patient` turns false, and reap it.

        What it had started ends with it, whatever session that is in.
        """
        if self._popen.returncode is None:
            offspring = _descendants(self.pid)
            if self.status is None:
                _send(os.kill, self.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while self.status is None and time.monotonic() < deadline and patient():
                time.sleep(_POLL_S)
            offspring |= _descendants(self.pid)
            _send(os.killpg, self.pid, signal.SIGKILL)
            _end(offspring)
        self._reap()

    def children(self) -> list[int]:
        """The ids of the processes it started and that still run."""
        return [pid for pid, (parent, _) in _processes().items() if parent == self.pid]

    def kill(self) -> None:
        """SIGKILL this one process, as the kernel's out-of-memory killer would: its children are not asked."""
        if self._popen.returncode is None:
            _send(os.kill, self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        self._popen.wait(_REAP_S)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


def _send(how: Callable[[int, int], None], pid: int, number: int) -> None:
    """Send a signal to whoever is there to take it.

    A Ctrl-C that reaches a child of ours between fork(2) and setsid(2) ends it before it has a group of its own.
    """
    with contextlib.suppress(ProcessLookupError):
        how(pid, number)


def _processes() -> dict[int, tuple[int, int]]:
    """Parent and start time (ticks since boot) of each process that is no zombie."""
    found: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:  # gone between the listing and the reading
            continue
        if fields[0] != "Z":
            found[int(folder.name)] = (int(fields[1]), int(fields[19]))  # proc(5): fields 4 and 22
    return found


def _descendants(pid: int) -> set[tuple[int, int]]:
    """Number and start time of all that descend from a process: a number alone may be somebody else's by now."""
    processes = _processes()
    found: set[tuple[int, int]] = set()
    parents = {pid}
    while parents:
        parents = {child for child, (parent, _) in processes.items() if parent in parents}
        found |= {(child, processes[child][1]) for child in parents}
    return found


def _end(orphans: set[tuple[int, int]]) -> None:
    """Let these end by themselves for a moment, as what has lost its parent does, then kill what is left."""
    for number in (0, signal.SIGKILL):
        deadline = time.monotonic() + _ORPHANS_S
        left = _running(orphans)
        for pid, _ in left:
            _send(os.kill, pid, number)  # 0 does nothing
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            left = _running(left)


def _running(these: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return these and {(pid, began) for pid, (_, began) in _processes().items()} & these


def wait_for(
    found: Callable[[], bool], *, what: str, limit_s: float, needs: Sequence[Leashed], wait: Callable[[float], None]
) -> None:
    """Wait until `found()`.

    Args:
        found: Looked at every few hundredths of a second.
        what: What is waited for, for the error's text.
        limit_s: How long at most.
        needs: Processes without which it will not come.
        wait: Sleeps; may raise to end the run.

    Raises:
        PartDiedError: One of `needs` ended, or the time is over.
    """
    deadline = time.monotonic() + limit_s
    while not found():
        for process in needs:
            process.require()
        if time.monotonic() > deadline:
            words = "; ".join(f"{process.name}: {process.last_words()}" for process in needs)
            raise PartDiedError(f"{what} did not come within {limit_s:.0f} s", hint=words)
        wait(_POLL_S)
