"""Which waiting messages to send now. Pure: rows and times in, rows out.

What is recorded while connected goes first. What waited when the connection came about is the backlog: it follows in
its order and paced, so that a board that was away for a day tells at once how it is now, and a fleet that comes back
together does not bury its hub. A window bounds how many are under way. A row under way is sent again when the hub has
not acknowledged it in time; while the hub acknowledges nothing at all (it is down, the broker is not), the time
doubles, so that a fleet does not hammer at a hub that is just getting up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

WINDOW: Final = 50
RESEND_S: Final = 15.0
RESEND_MAX_S: Final = 60.0
# Messages of the backlog a second. A day of batches of half a minute is 2,880 of them, told in two and a half minutes;
# a thousand boards at once are 20,000 a second, which is what a hub of one process stores at most.
BACKLOG_PER_S: Final = 20.0


class Outbox:
    """The rows under way.

    Args:
        window: How many may be under way.
        resend_s: How long an acknowledgement may take.
        backlog_per_s: Of the backlog so many a second.
    """

    def __init__(
        self, *, window: int = WINDOW, resend_s: float = RESEND_S, backlog_per_s: float = BACKLOG_PER_S
    ) -> None:
        self.window = window
        self._backlog_per_s = backlog_per_s
        self._budget, self._budget_at_s = 0.0, 0.0
        self._paced = False
        self._resend_s = resend_s
        self._patience_s = resend_s
        self._sent: dict[int, float] = {}
        self._heard = True

    def due(self, head: Sequence[int], now_s: float, *, backlog: Sequence[int] = ()) -> list[int]:
        """The rows to send now.

        Args:
            head: The first `window` waiting rows that are no backlog, the most important first.
            now_s: Monotonic clock.
            backlog: The first `window` rows of the backlog, the most important first.
        """
        both = (*head, *backlog)
        waiting = set(both)
        self._sent = {row: at_s for row, at_s in self._sent.items() if row in waiting}
        late = [row for row in both if row in self._sent and now_s - self._sent[row] >= self._patience_s]
        if late and not self._heard:
            self._patience_s = min(2 * self._patience_s, RESEND_MAX_S)
        if late:
            self._heard = False
        fresh = [row for row in head if row not in self._sent]
        old = [row for row in backlog if row not in self._sent]
        paced = old[: self._allowed(now_s)]
        self._budget -= len(paced)
        self._paced = len(paced) < len(old)
        return [*fresh, *late, *paced]

    def _allowed(self, now_s: float) -> int:
        """How much of the backlog may go now; what was not used of one second is not saved up for later ones."""
        earned = max(0.0, now_s - self._budget_at_s) * self._backlog_per_s
        self._budget, self._budget_at_s = min(self._budget + earned, max(1.0, self._backlog_per_s)), now_s
        return int(self._budget + 1e-6)  # what was waited for is earned, whatever rounding says

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
        """How long until something has to be sent, again or as more of the backlog; else the longest patience."""
        again_s = RESEND_MAX_S
        if self._sent:
            again_s = max(0.0, min(self._sent.values()) + self._patience_s - now_s)
        if self._paced:
            again_s = min(again_s, max(0.0, (1.0 - self._budget) / self._backlog_per_s))
        return again_s
