"""What a worker says of itself, every few seconds, through the pipe to whoever started it.

A pulse that finds the pipe full is left out: the hub may be busy, and a worker has messages to store. So neither ever
waits for the other, and who says nothing for long is in trouble as well.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from edge_sdk.wire import Count, Text, Wire, encode

PULSE_S = 2.0
SILENT_S = 12.0  # six of them: a machine under load may be late with some
# So many bytes go into a pipe whole or not at all (PIPE_BUF of Linux, pipe(7)).
MAX_BYTES = 4096
_MAX_TROUBLE_CHARS = 300  # of which JSON makes six bytes each at most


class Pulse(Wire, frozen=True, kw_only=True):
    """How a worker is.

    Attributes:
        slot: Its number, once it has one.
        trouble: What keeps it from taking its share, or None: then it does.
        waiting: Messages it has received and not stored yet.
    """

    slot: Count | None = None
    trouble: Text | None = None
    waiting: Count = 0

    @classmethod
    def of(cls, slot: int | None, trouble: str | None, waiting: int) -> Pulse:
        """With as much of the trouble as there is room for."""
        return cls(slot=slot, trouble=None if trouble is None else trouble[:_MAX_TROUBLE_CHARS], waiting=waiting)


def teller(descriptor: int) -> Callable[[Pulse], None]:
    """Tells pulses through a pipe, without ever waiting for its reader."""
    os.set_blocking(descriptor, False)

    def tell(pulse: Pulse) -> None:
        with contextlib.suppress(OSError):  # it is full, or nobody listens any more
            os.write(descriptor, encode(pulse) + b"\n")

    return tell
