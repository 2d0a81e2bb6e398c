"""SIGINT, SIGTERM and SIGHUP as a flag that every wait looks at.

An exception raised by a signal handler can strike between making a thing and remembering to remove it. Here the
handler only notes the signal; the run ends at its next `check()` or `wait()`, where nothing is half made. So "Ctrl-C at
any moment leaves nothing behind" holds by construction and not by luck.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from edge_lab.errors import InterruptedRunError

if TYPE_CHECKING:
    from typing_extensions import Self

SLICE_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Within the block, signals that would end the process are noted instead; for the main thread only.

    Attributes:
        number: The first signal that came, or None.
        again: Another came after it: whoever takes down may stop being patient.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.again = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        else:
            self.again = True

    def check(self) -> None:
        """Go on, or not.

        Raises:
            InterruptedRunError: A signal came.
        """
        if self.number is not None:
            raise InterruptedRunError(self.number)

    def wait(self, seconds: float) -> None:
        """Sleep, but notice a signal within `SLICE_S`.

        Raises:
            InterruptedRunError: A signal came.
        """
        until = time.monotonic() + seconds
        self.check()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_S))
            self.check()
