"""The child's end of the line between the converter and a process of its own.

Nothing but the standard library: it also runs in an environment that holds nothing of this product.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import IO


def answers() -> IO[bytes]:
    """The stdout the parent reads, for answers alone: everything else that believes it prints there goes to stderr."""
    kept = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return kept


def questions() -> Iterator[bytes]:
    """The parent's questions, a line each, for ever: the process ends, wherever it is, when stdin closes.

    Then nobody wants its answer any more, so not even `kill -9` of the parent leaves it behind.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    while True:
        yield lines.get()


def _read(stdin: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in stdin:
        lines.put(line)
    os._exit(0)
