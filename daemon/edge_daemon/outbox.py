"""Which waiting messages to send now. Pure: rows and times in, rows out.

A window bounds how many are under way. A row under way is sent again when the hub has not acknowledged it in time;
while the hub acknowledges nothing at all (it is down, the broker is not), the time doubles, so that a fleet does not
hammer at a hub that is just getting up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

WINDOW: Final = 50
RESEND_S: Final = 15.0
RESEND_MAX_S: Final = 60.0


class Outbox:
    """The rows under way.

    Args:
        window: How many may be under way.
        resend_s: How long an acknowledgement may take.
    """

    def __init__(self, *, window: int = WINDOW, resend_s: float = RESEND_S) -> None:
        self.window = window
        self._resend_s = resend_s
        self._patience_s = resend_s
        self._sent: dict[int, float] = {}
        self._heard = True

    def due(self, head: Sequence[int], now_s: float) -> list[int]:
        """The rows to send now.

        Args:
            head: The first `window` waiting rows, the most important first.
            now_s: Monotonic clock.
        """
        waiting = set(head)
        self._sent = {row: at_s for row, at_s in self._sent.items() if row in waiting}
        late = [row for row in head if row in self._sent and now_s - self._sent[row] >= self._patience_s]
        if late and not self._heard:
            self._patience_s = min(2 * self._patience_s, RESEND_MAX_S)
        if late:
            self._heard = False
        fresh = [row for row in head if row not in self._sent]
        return [*fresh, *late]

    def sent(self, rows: Collection[int], now_s: float) -> None:
        """These were handed to the connection."""
        for row in rows:
            self._sent[row] = now_s

    def heard(self) -> None:
        """The hub acknowledged something: it lives."""
        self._heard = True
        self._patience_s = self._resend_s

    def forget(self) -> None:
        """The connection is a new one: nothing is under way."""
        self._sent.clear()
        self.heard()

    def next_s(self, now_s: float) -> float:
        """How long until something has to be sent again; the longest patience if nothing is under way."""
        if not self._sent:
            return RESEND_MAX_S
        return max(0.0, min(self._sent.values()) + self._patience_s - now_s)
