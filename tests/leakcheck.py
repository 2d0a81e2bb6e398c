"""What a test may not leave behind: threads, asyncio tasks, open files, child processes.

`Footprint.now()` is taken before a test; `left_behind(before)` after it names what is new, once it had `SETTLE_S` to
go away (a socket closes a moment after the thread that served it was told to stop). It reads `/proc`, so that it runs
with the device install alone; elsewhere files and children are not looked at.

Tolerated, because they are shared by the whole process and live until its end, whoever starts them first:

- daemon threads: they hold nothing a test owns, and the runtime's and TensorFlow's pools are such;
- the resource tracker and the fork server of `multiprocessing`, with the pipe to each;
- files that are not a test's: devices (`/dev/urandom`), and what the interpreter maps from its own installation.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SETTLE_S = 20.0
_POLL_S = 0.01
_SHARED_CHILDREN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_SHARED_FILES = ("/dev/", "/proc/", f"{sys.prefix}/", f"{sys.base_prefix}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the process holds at one moment.

    Attributes:
        files: What each open descriptor refers to, as `/proc/self/fd` shows it.
        children: Command lines by process id, zombies included: a child that nobody waited for is a leak, too.
    """

    threads: frozenset[threading.Thread]
    files: dict[int, str]
    children: dict[int, str]

    @classmethod
    def now(cls) -> Footprint:
        return cls(
            threads=frozenset(t for t in threading.enumerate() if not t.daemon),
            files=dict(_open_files()),
            children=dict(_children()),
        )


def left_behind(before: Footprint) -> list[str]:
    """One sentence for each thing that is there now and was not before; empty when all is clean."""
    deadline = time.monotonic() + SETTLE_S
    leaks = _difference(before, Footprint.now())
    collected = False
    while leaks and time.monotonic() < deadline:
        if not collected:
            # An object in a reference cycle lives until the collector runs; what it held is not leaked for good.
            gc.collect()
            collected = True
        time.sleep(_POLL_S)
        leaks = _difference(before, Footprint.now())
    return leaks


def _difference(before: Footprint, after: Footprint) -> list[str]:
    leaks = [f"thread {t.name!r} still runs" for t in after.threads - before.threads]
    new_children = {pid: line for pid, line in after.children.items() if pid not in before.children}
    shared = {pid for pid, line in new_children.items() if any(name in line for name in _SHARED_CHILDREN)}
    leaks += [f"child process {pid} ({line}) is left" for pid, line in new_children.items() if pid not in shared]
    new_files = [(fd, what) for fd, what in after.files.items() if before.files.get(fd) != what]
    # Only growth counts: a test may replace what a fixture of a wider scope holds open.
    growth = len(after.files) - len(before.files) - len(shared)
    if growth > 0:
        leaks += [f"descriptor {fd} is open on {what}" for fd, what in new_files]
    return leaks


def _open_files() -> Iterator[tuple[int, str]]:
    try:
        links = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return
    for link in links:
        try:
            target = str(link.readlink())
        except OSError:  # the descriptor of the listing itself
            continue
        if not target.startswith(_SHARED_FILES):
            yield int(link.name), target


def _children() -> Iterator[tuple[int, str]]:
    own = str(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name, which may hold spaces and brackets) state ppid ...
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if parent != own:
                continue
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:  # gone between the listing and the reading
            continue
        yield int(folder.name), "zombie" if state == "Z" else line[:200]


class AbandonedTasks(logging.Handler):
    """Collects what asyncio says of tasks nobody awaited; it only logs them, so a test would pass."""

    _SIGNS = ("was destroyed but it is pending", "exception was never retrieved")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if any(sign in message for sign in self._SIGNS):
            self.found.append(f"asyncio: {message[:500]}")


@contextlib.contextmanager
def abandoned_tasks() -> Iterator[list[str]]:
    """The complaints of asyncio within the block, filled as they come."""
    handler, logger = AbandonedTasks(), logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)


def pending_tasks() -> frozenset[object]:
    """The asyncio tasks that are not done, of all loops; empty while nobody imported asyncio."""
    tasks = sys.modules.get("asyncio.tasks")
    # Python 3.12 renamed the set; there is no public way to ask for the tasks of loops that no longer run.
    known = getattr(tasks, "_scheduled_tasks", None) or getattr(tasks, "_all_tasks", None) or ()
    return frozenset(task for task in list(known) if not task.done())
