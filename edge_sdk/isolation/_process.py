"""One worker process: started, given models to load, asked why it is gone, and ended."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import ExitStack, suppress

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import WorkerLostError
from edge_sdk.isolation import _wire
from edge_sdk.isolation._memory import SharedMemory
from edge_sdk.living import Living

_END_S = 3.0
_DYING_S = 1.0  # a socket ends a moment before its process can be waited for
_NOISE_BYTES = 16 * 1024
_SHOWN_CHARS = 300
_NO_FILES = (errno.EMFILE, errno.ENFILE)
_WORDS: dict[int, str] = {
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGILL: "crashed (illegal instruction: the library is for another CPU)",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "crashed (bus error)",
    signal.SIGFPE: "crashed (arithmetic error)",
    signal.SIGKILL: "was killed (out of memory?)",
}
# By which a library fails of its own; the others come from outside.
_FAULTS = (signal.SIGSEGV, signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)
# Modules are found where the app finds them, from the first import on: neither `-m` nor a path would do for one that
# was not installed, and both look first into the directory the app happens to be in.
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from edge_sdk.isolation.worker import main; main(sys.argv[1:2])"
# Set in a worker. Where `sys.executable` is no Python but an app that embeds it, the worker is a second app, which must
# not start a third.
_INSIDE = "EDGE_WORKER"
_FIRST_DESCRIPTOR = 3
# What runtimes say when all is well.
_CHATTER = ("INFO:", "VERBOSE:", "Created TensorFlow Lite", "WARNING: All log messages before absl")


class Worker:
    """A process for engines, one of which it is made for.

    Raises:
        WorkerLostError: It cannot be started.
    """

    def __init__(self) -> None:
        if _INSIDE in os.environ or not sys.executable or getattr(sys, "frozen", False):
            raise WorkerLostError(
                "no worker process can be started: this app's executable is no Python interpreter",
                hint="run it with one",
            )
        with ExitStack() as undo, ExitStack() as passed:
            try:
                ours, theirs = _pair()
                undo.callback(ours.close)
                passed.callback(theirs.close)
                held, alive = os.pipe()
                undo.callback(os.close, alive)
                passed.callback(os.close, held)
                noise = os.memfd_create("edge-worker-stderr", os.MFD_CLOEXEC)
                undo.callback(os.close, noise)
                # Appended to, so that the worker can cut it short; the flag belongs to the file that both share.
                fcntl.fcntl(noise, fcntl.F_SETFL, fcntl.fcntl(noise, fcntl.F_GETFL) | os.O_APPEND)
                entries: list[object] = list(sys.path)
                path = [each for each in entries if isinstance(each, str)]  # imports pass over the others, too
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *path],
                    stdin=held,
                    stdout=noise,
                    stderr=noise,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, _INSIDE: "1"},
                    start_new_session=True,  # an interrupt from the keyboard is the app's business
                )
            except OSError as cause:
                raise WorkerLostError(f"no worker process can be started: {cause.strerror}") from cause
            undo.pop_all()
        self._noise = noise
        self._orders = ours
        self._lock = threading.Lock()  # guards the two below
        self._engines = 1
        self._is_ending = False
        self._alive = alive
        self._end = weakref.finalize(self, _end, self._process, ours, alive, self._noise)
        _workers.add(self)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def join(self) -> bool:
        """Make room for one more engine; False where it has ended or is about to."""
        with self._lock:
            if self._is_ending or self._process.poll() is not None:
                return False
            self._engines += 1
            return True

    def wait(self) -> None:
        """Until it has given back its device, if it is about to."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)

    def open(self, order: _wire.Open) -> tuple[socket.socket, SharedMemory]:
        """Order a model to be loaded, for an engine it was made for or that has joined.

        Returns:
            The engine's socket, on which stages and at last `Opened` or `Refused` arrive, and its shared memory.

        Raises:
            WorkerLostError: The process is gone.
        """
        with ExitStack() as undo:
            try:
                ours, theirs = _pair()
                undo.callback(ours.close)
                with theirs:
                    memory = SharedMemory()
                    undo.callback(memory.close)
                    socket.send_fds(self._orders, [_wire.encode(order)], [theirs.fileno(), memory.descriptor])
            except OSError as cause:
                why = f"no more files: {cause.strerror}" if cause.errno in _NO_FILES else self.why()
                self.release()
                raise WorkerLostError(why, where=order.model) from cause
            undo.pop_all()
        return ours, memory

    def release(self) -> None:
        """An engine is closed; the process ends with the last of them."""
        with self._lock:
            self._engines -= 1
            is_last = self._engines <= 0
            self._is_ending = self._is_ending or is_last
        if is_last:
            self._end()

    def kill(self) -> None:
        """End it now: it hangs, or nobody waits for it any more."""
        with self._lock:
            self._is_ending = True
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
                how = "does not answer"
            else:
                how = _WORDS.get(-status, f"ended with status {status}")
        said = self.said()
        return f"the worker process {how}" + (f": {said}" if said else "")

    @property
    def has_crashed(self) -> bool:
        """It ended, and by a fault of what it had loaded."""
        status = self._process.returncode
        return status is not None and -status in _FAULTS

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


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket, which are never standard input or output, also in an app that has closed its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if min(ours.fileno(), theirs.fileno()) >= _FIRST_DESCRIPTOR:
        return ours, theirs
    with ours, theirs:
        return _higher(ours), _higher(theirs)


def _higher(end: socket.socket) -> socket.socket:
    return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR))


_workers: Living[Worker] = Living(Worker.orphan)
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
        if found is not None and found.join():
            return found
        if found is not None:
            found.wait()
        _shared[key] = made = Worker()
        return made


def _unshare() -> None:
    """In the child of a fork: the workers are the parent's, as is whoever held the lock."""
    global _sharing  # noqa: PLW0603 - nobody else is here to hold it
    _sharing = threading.Lock()
    _shared.clear()


os.register_at_fork(after_in_child=_unshare)


def wait_for(line: socket.socket, timeout_s: float) -> bool:
    """Whether something can be read within the time."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(1e3 * timeout_s))
