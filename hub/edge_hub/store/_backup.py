"""A copy of the SQLite store while it is written to: one moment of it, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from edge_hub.datadir import PRIVATE_FILE
from edge_hub.store._opening import as_store_errors, read_only
from edge_sdk import atomic

_STEP_PAGES = 256
# What is copied goes to the disk little by little: one large flush at the end would make commits of others wait for it.
_FLUSH_STEPS = 16
_LONGEST_PAUSE_S = 0.5


class StoppedError(Exception):
    """Whoever asked does not want the copy any more."""


def copy(source: Path, target: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Copy a database that others may be writing to.

    They are not held up: the copy is read from a snapshot (a transaction in WAL mode), which does not begin again when
    something is written, as a copy without one would.

    Args:
        source: The database.
        target: Replaced (0600) when the copy is whole.
        stopped: Asked between steps.

    Raises:
        StorageError: It could not be written.
        StoreError: It could not be read, or is no hub's.
        StoppedError: `stopped` said so.
    """
    with (
        atomic.named(target, mode=PRIVATE_FILE) as temporary,
        as_store_errors(source),
        contextlib.ExitStack() as opened,
    ):
        reading = opened.enter_context(contextlib.closing(read_only(source)))
        writing = opened.enter_context(contextlib.closing(sqlite3.connect(temporary, isolation_level=None)))
        # Nobody else sees the file before it is whole, and it is flushed by us.
        writing.execute("PRAGMA journal_mode = OFF")
        writing.execute("PRAGMA synchronous = OFF")
        flushed = opened.enter_context(temporary.open("rb")).fileno()
        steps, began = 0, time.monotonic()

        def progress(_status: int, _remaining: int, _total: int) -> None:
            nonlocal steps, began
            if stopped():
                raise StoppedError
            steps += 1
            if steps % _FLUSH_STEPS == 0:
                os.fdatasync(flushed)
                time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE_S))  # half of the disk's time is for others
                began = time.monotonic()

        reading.execute("BEGIN")
        reading.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # here the snapshot begins
        reading.backup(writing, pages=_STEP_PAGES, progress=progress)
