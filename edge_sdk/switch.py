"""An order to run another variant, as whoever gave it holds it, and the load it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_sdk.errors import SwitchCancelledError, UsageError
from edge_sdk.lease import Loaded

_LONGEST_DEADLINE_S = 3600.0


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """A load that can be called off.

    Attributes:
        run: Gives the engine, loaded and warm.
        cancel: Called from another thread while `run` is under way: makes it raise soon, where that is possible.
    """

    run: Callable[[], Loaded]
    cancel: Callable[[], None] = _nothing


class Switch:
    """An order, and what became of it. Made by `Switcher`, which alone settles and ends it.

    Attributes:
        variant: The one that was ordered.
        error: Why it does not run; None while that is open, and where it does.
        replaced: The variant that it took the place of; None until then, and where it ran already.
        took_ms: From the order until it answered calls.
    """

    def __init__(self, variant: str, call_off: Callable[[Switch, Exception], bool]) -> None:
        self.variant = variant
        self.error: Exception | None = None
        self.replaced: str | None = None
        self.took_ms: float | None = None
        self._is_settled = False
        self._call_off = call_off
        self._begun_s = time.perf_counter()
        self._ended = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over; whether it is."""
        return self._ended.wait(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))

    def cancel(self) -> bool:
        """Call it off; whether that came in time. What ran before goes on."""
        return self._call_off(self, SwitchCancelledError(f"the switch to {self.variant!r} was called off"))

    def is_open(self) -> bool:
        """Whether it is not known yet what becomes of it."""
        return not self._is_settled

    def settle(self, error: Exception | None) -> bool:
        """Say what became of it, with the switcher's lock held; whether that was open until now."""
        if self._is_settled:
            return False
        self._is_settled, self.error = True, error
        if error is None and self.replaced is not None:
            self.took_ms = (time.perf_counter() - self._begun_s) * 1e3
        return True

    def end(self) -> None:
        """Let go whoever waits."""
        self._ended.set()


def check_deadline(deadline_s: float | None) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: With what it takes instead.
    """
    if deadline_s is not None and not 0 < deadline_s <= _LONGEST_DEADLINE_S:  # NaN fails as well
        raise UsageError(f"deadline_s is {deadline_s!r}", hint="give seconds, more than 0 and at most an hour")
