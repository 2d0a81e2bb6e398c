"""The calls that are in an engine: none begins after its end, and its end waits for them."""

from __future__ import annotations

import threading

from edge_sdk.errors import ModelClosedError


class Calls:
    """A context manager around each call. Safe for any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._count = 0
        self._why = ""

    def __enter__(self) -> None:
        with self._changed:
            if self._why:
                raise ModelClosedError(self._why, hint="open it again")
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def end(self, wait_s: float, *, why: str = "the engine was closed") -> None:
        """Let no call begin any more, and wait for those under way, no longer than this."""
        with self._changed:
            self._why = self._why or why
            self._changed.wait_for(lambda: not self._count, wait_s)


def lost() -> Calls:
    """For the child of a fork, which has none of the connections and threads of its parent."""
    calls = Calls()
    calls.end(0.0, why="the engine was opened before this process was forked")
    return calls
