"""How many calls may be tried again: a share of all, so that those who retry never bring down who is busy already.

A token bucket as gRPC's retry throttling (gRFC A6) and Finagle's retry budget have it: each call puts a part of a token
in, each repetition takes one out.
"""

from __future__ import annotations

import threading


class RetryBudget:
    """Safe for any number of threads.

    Args:
        share: Of the calls that may be repeated in the long run.
        most: Tokens that can be saved up; as many are there at the start.
    """

    def __init__(self, *, share: float = 0.1, most: float = 10.0) -> None:
        self._share, self._most = share, most
        self._lock = threading.Lock()
        self._tokens = most

    def call(self) -> None:
        """A call was begun."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Whether one repetition is allowed; it is then paid for."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
