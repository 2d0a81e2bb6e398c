"""What a native library writes to the process's standard error, kept for the reason in it.

LiteRT's accelerators raise an error of two source lines and write why to file descriptor 2. Whoever else writes there
meanwhile is kept, too, so this is for processes that do nothing beside it: a probe or a worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 1 << 18

_turn = threading.Lock()


@dataclass(slots=True)
class Kept:
    """What was written.

    Attributes:
        text: Empty until the block has ended.
    """

    text: str = ""


@contextlib.contextmanager
def kept_stderr() -> Iterator[Kept]:
    """Within the block, descriptor 2 is a file; after it, what was written is in `text`, `MAX_BYTES` of it at most.

    On Linux the file lies in memory and cannot grow beyond that; what comes after is lost.
    """
    kept = Kept()
    with _turn:
        sys.stderr.flush()
        before = os.dup(2)
        file = _bounded_file()
        try:
            os.dup2(file, 2)
            try:
                yield kept
            finally:
                sys.stderr.flush()
                os.dup2(before, 2)
                end = os.lseek(file, 0, os.SEEK_CUR)
                kept.text = os.pread(file, min(end, MAX_BYTES), 0).decode("utf-8", "replace")
        finally:
            os.close(before)
            os.close(file)


def _bounded_file() -> int:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("edge-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, MAX_BYTES)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        return file
    with tempfile.TemporaryFile() as unnamed:
        return os.dup(unnamed.fileno())
