"""What one thread waits for and others ring."""

from __future__ import annotations

import contextlib
import threading


class Bell:
    """Wakes the one thread that waits for it; a ring that comes before the wait is not lost.

    `ring` takes no lock that anybody holds for long and never blocks: a finalizer may call it, which runs in whatever
    thread the garbage collector chose, with whatever locks that thread holds.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake who waits, or who waits next."""
        with contextlib.suppress(RuntimeError):  # it was rung already
            self._lock.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it rings; whether it did within the time."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX))
