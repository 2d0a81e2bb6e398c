"""The objects of one kind that are alive, each told when the process is forked and when the program ends.

In the child of a fork the threads, locks and sockets of the parent mean nothing, and whoever holds some has to let go
of them there. An object that is forgotten is no longer among them: they are not kept alive.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """Add an object when it is open, discard it when it is closed.

    Args:
        lose: Told of each in the child of a fork.
        close: Told of each that is still there at the end of the program.
    """

    def __init__(self, lose: Callable[[T], None], close: Callable[[T], None] | None = None) -> None:
        self._found: weakref.WeakSet[T] = weakref.WeakSet()
        os.register_at_fork(after_in_child=partial(self._tell, lose))
        if close is not None:
            atexit.register(self._tell, close)

    def add(self, one: T) -> None:
        """It is open."""
        self._found.add(one)

    def discard(self, one: T) -> None:
        """It is closed."""
        self._found.discard(one)

    def _tell(self, what: Callable[[T], None]) -> None:
        for one in tuple(self._found):
            what(one)
