"""One worker process: started, given models to load, asked why it is gone, and ended."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import WorkerLostError
from edge_sdk.isolation import _wire
from edge_sdk.isolation._memory import SharedMemory

_END_S = 3.0
_DYING_S = 1.0  # a socket ends a moment before its process can be waited for
_NOISE_BYTES = 16 * 1024
_SHOWN_CHARS = 300
_WORDS = {
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGILL: "crashed (illegal instruction: the library is for another CPU)",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "crashed (bus error)",
    signal.SIGFPE: "crashed (arithmetic error)",
    signal.SIGKILL: "was killed (out of memory?)",
}
# Modules are found where the app finds them: neither `-m` nor a path would do for one that was not installed, and both
# look first into the directory the app happens to be in.
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge_sdk.isolation.worker import main; main(sys.argv[2:])"
)
# What runtimes say when all is well.
_CHATTER = ("INFO:", "VERBOSE:", "Created TensorFlow Lite", "WARNING: All log messages before absl")


class Worker:
    """A process for engines.

    Raises:
        WorkerLostError: It cannot be started.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held, alive = os.pipe()
        self._noise = os.memfd_create("edge-worker-stderr", os.MFD_CLOEXEC)
        # Appended to, so that the worker can cut it short; the flag belongs to the file that both share.
        fcntl.fcntl(self._noise, fcntl.F_SETFL, fcntl.fcntl(self._noise, fcntl.F_GETFL) | os.O_APPEND)
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=held,
                stdout=self._noise,
                stderr=self._noise,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # an interrupt from the keyboard is the app's business
            )
        except OSError as cause:
            ours.close()
            os.close(alive)
            os.close(self._noise)
            raise WorkerLostError(f"no worker process can be started: {cause.strerror}") from cause
        finally:
            theirs.close()
            os.close(held)
        self._orders = ours
        self._engines = 0
        self._lock = threading.Lock()
        self._alive = alive
        self._end = weakref.finalize(self, _end, self._process, ours, alive, self._noise)
        _workers.add(self)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as the system has told."""
        return self._end.alive and self._process.poll() is None

    def open(self, order: _wire.Open) -> tuple[socket.socket, SharedMemory]:
        """Order a model to be loaded.

        Returns:
            The engine's socket, on which stages and at last `Opened` or `Refused` arrive, and its shared memory.

        Raises:
            WorkerLostError: The process is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = SharedMemory()
        try:
            socket.send_fds(self._orders, [_wire.encode(order)], [theirs.fileno(), memory.descriptor])
        except OSError as cause:
            ours.close()
            memory.close()
            raise WorkerLostError(self.why(), where=order.model) from cause
        finally:
            theirs.close()
        with self._lock:
            self._engines += 1
        return ours, memory

    def release(self) -> None:
        """An engine is closed; the process ends with the last of them."""
        with self._lock:
            self._engines -= 1
            is_last = self._engines <= 0
        if is_last:
            self._end()

    def kill(self) -> None:
        """End it now: it hangs, or nobody waits for it any more."""
        if self._end.alive:
            with suppress(ProcessLookupError):
                self._process.kill()

    def orphan(self) -> None:
        """In the child of a fork: the process is the parent's, and must not live for as long as the child does."""
        if self._end.detach() is not None:
            self._orders.close()
            os.close(self._alive)
            os.close(self._noise)

    def why(self) -> str:
        """How it ended, and what it said last."""
        how = "is gone"
        if self._end.alive:
            try:
                status = self._process.wait(_DYING_S)
            except subprocess.TimeoutExpired:
                return "does not answer"
            how = _WORDS.get(-status, f"ended with status {status}")  # type: ignore[call-overload]
        said = self.said()
        return f"the worker process {how}" + (f": {said}" if said else "")

    def said(self) -> str:
        """The last telling line on its standard error; empty where there is none."""
        if not self._end.alive:
            return ""
        size = os.fstat(self._noise).st_size
        raw = os.pread(self._noise, _NOISE_BYTES, max(0, size - _NOISE_BYTES)).decode("utf-8", "replace")
        lines = [line.strip() for line in raw.splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith(_CHATTER)]
        return "".join(char if char.isprintable() else "?" for char in telling[-1])[:_SHOWN_CHARS] if telling else ""


def _end(process: subprocess.Popen[bytes], orders: socket.socket, alive: int, noise: int) -> None:
    """Hang up, wait, kill; also when the worker object is forgotten, and at the end of the app."""
    orders.close()
    os.close(alive)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    os.close(noise)


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[tuple[str, str, str], Worker] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def worker_for(delegation: Delegation | None) -> Worker:
    """A process for an engine: of its own, or the one that already holds a device which only one may use.

    Raises:
        WorkerLostError: It cannot be started.
    """
    if delegation is None or not delegation.exclusive:
        return Worker()
    key = delegation.name, delegation.device, delegation.library
    with _sharing:
        found = _shared.get(key)
        if found is None or not found.is_alive:
            found = Worker()
            _shared[key] = found
        return found


def lose_all() -> None:
    """In the child of a fork: the workers are the parent's, and their numbers of engines mean nothing here."""
    _shared.clear()
    for worker in tuple(_workers):
        worker.orphan()


def wait_for(line: socket.socket, timeout_s: float) -> bool:
    """Whether something can be read within the time."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(1e3 * timeout_s))
