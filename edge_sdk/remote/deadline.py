"""Until when a call may take: one moment for all that it waits for, so that no trickle can stretch it."""

from __future__ import annotations

import time

from edge_sdk.errors import RemoteTimeoutError


class Deadline:
    """A moment in the future.

    Args:
        seconds: From now.
        where: Who is waited for.
    """

    __slots__ = ("_at_s", "_seconds", "_where")

    def __init__(self, seconds: float, *, where: str) -> None:
        self._seconds, self._where = seconds, where
        self._at_s = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, more than 0.

        Raises:
            RemoteTimeoutError: It has passed.
        """
        left_s = self._at_s - time.monotonic()
        if left_s <= 0:
            raise self.passed()
        return left_s

    def leaves(self, seconds: float) -> bool:
        """Whether there is more time than that."""
        return self._at_s - time.monotonic() > seconds

    def passed(self) -> RemoteTimeoutError:
        """The error of whoever waited in vain."""
        return RemoteTimeoutError(
            f"no whole answer within {self._seconds:g} s", where=self._where, hint="look at the host, or wait longer"
        )
