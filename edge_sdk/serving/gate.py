"""How many requests are in the server at once: those that are read, wait, compute or are answered."""

from __future__ import annotations

import threading


class Gate:
    """Safe for any number of threads.

    Args:
        most: Requests that are let in at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """New requests are let in."""
        return not self._is_closed

    def enter(self) -> bool:
        """Whether one more is let in; whoever was leaves again."""
        with self._changed:
            if self._is_closed or self._inside >= self.most:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """It has its answer."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._is_closed = True

    def wait_empty(self, seconds: float) -> bool:
        """Whether all have left within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, seconds)
