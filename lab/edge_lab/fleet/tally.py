"""What a fleet did, counted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 20_000


@dataclass(slots=True)
class Tally:
    """Counts of all devices together.

    Attributes:
        sent: Numbered messages that were composed: reports, events, replies.
        confirmed: Of those, how many the hub has named in an acknowledgement; it has stored them.
        published: How often a numbered message went out; what was not confirmed in time goes out again.
        dropped: Numbered messages that found no room to wait.
        commands, desired: That arrived, replays among them.
        waits_s: From composing to the acknowledgement, of the last messages.
    """

    births: int = 0
    states: int = 0
    reports: int = 0
    events: int = 0
    replies: int = 0
    sent: int = 0
    published: int = 0
    confirmed: int = 0
    dropped: int = 0
    commands: int = 0
    desired: int = 0
    connections: int = 0
    reconnects: int = 0
    refused: int = 0
    lost: int = 0
    restarts: int = 0
    waits_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def wait_s(self, share: float) -> float | None:
        """A quantile of the waits; None where nothing was confirmed."""
        ordered = sorted(self.waits_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
