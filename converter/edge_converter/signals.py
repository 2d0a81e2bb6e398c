"""A polite kill ends a command as Ctrl-C does: in order, with its temporary files and child processes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALLED = 128  # and the signal's number: the exit status a shell would report


class Signalled(SystemExit):
    """The program was asked to end; unlike any other `SystemExit`, a user's code cannot have raised it."""


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, for as long as the block lasts."""

    def leave(number: int, _: FrameType | None) -> None:
        raise Signalled(_SIGNALLED + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
