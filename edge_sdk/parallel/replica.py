"""One engine of a pool, and what is known of it: how fast it is, whether it fails, is hot, or has gone silent."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from edge_sdk.parallel._bell import Bell
from edge_sdk.parallel.condition import Condition, Watch, is_hot
from edge_sdk.parallel.reports import Share, State

if TYPE_CHECKING:
    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.parallel.job import Piece

# The median of so many pieces is the rate: one that the system delayed does not count, a change shows after five.
_REMEMBERED = 9
_FIRST_HOLD_S = 0.25  # after a failure; doubles with each that follows
_LONGEST_HOLD_S = 60.0
_SILENT_TIMES = 4.0  # a piece that takes so many times what it should ...
_SILENT_S = 0.1  # ... and at least this long is given to another, too
_SILENT_AT_FIRST_S = 1.0  # where it is not known how long it should take
_RECENT_S = 5.0  # the time constant of `busy`
_BUSY = 0.5  # of a replica that others use so much, a rate is stale ...
_STALE_S = 1.0  # ... after this
_LAST_WORD_S = 600.0  # a hot one whose sensor falls silent counts as hot for so long, as in the daemon (ADR 22)

READY = (0, 0.0)


class Replica:
    """An engine and its record. The pool's lock guards every field.

    Args:
        name: For reports.
        engine: It holds the whole model.
        watch: Says how it fares.
        now_s: Of a monotonic clock, as all times here.
    """

    def __init__(self, name: str, engine: AnyEngine, watch: Watch | None, now_s: float) -> None:
        self.name, self.engine, self.watch = name, engine, watch
        self.bell = Bell()
        self.is_parked = False
        self.is_closed = False
        self.piece: Piece | None = None
        self.sample_s: float | None = None
        self.condition: Condition | None = None
        self.asked_s = -math.inf
        self.asking_s: float | None = None  # since when its watch has been thinking
        self.is_late = False
        self._times_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._begun_s = self._ended_s = now_s
        self._samples = self._failures = self._in_a_row = 0
        self._retry_s = -math.inf
        self._trouble = ""
        self._is_hot = False
        self._felt_s = now_s  # when its temperature was known last
        self._busy, self._busy_s = 0.0, now_s

    def badness(self, now_s: float) -> tuple[int, float]:
        """How little it should get work: `READY`, or above it the hot ones, and above those the failed ones."""
        if now_s < self._retry_s:
            return 2, self._retry_s
        if self._is_hot:
            return 1, 0.0 if self.condition is None else self.condition.excess_c or 0.0
        return READY

    def is_unsure(self, now_s: float) -> bool:
        """It is tried with one sample: nothing is known of it, it failed, or it is busy with other people's work."""
        if self.sample_s is None or self._in_a_row:
            return True
        busy = None if self.condition is None else self.condition.busy
        return busy is not None and busy >= _BUSY and now_s - self._ended_s > _STALE_S

    def free_in_s(self, now_s: float) -> float:
        """When it will have done what it computes, as far as is known."""
        if self.piece is None or self.sample_s is None:
            return 0.0
        return max(0.0, self._begun_s + self.piece.size * self.sample_s - now_s)

    def rests_s(self, now_s: float) -> float:
        """For how long it is left out after a failure."""
        return max(0.0, self._retry_s - now_s)

    def is_silent(self, now_s: float) -> bool:
        """What it computes takes much longer than it should."""
        if self.piece is None:
            return False
        should_s = _SILENT_AT_FIRST_S if self.sample_s is None else _SILENT_TIMES * self.piece.size * self.sample_s
        return now_s - self._begun_s > max(should_s, _SILENT_S)

    def is_away(self, now_s: float) -> bool:
        """Nobody should count on it: it has gone silent, or its watch has."""
        return self.is_late or (self.asking_s is not None and now_s - self.asking_s > _SILENT_S)

    def begin(self, piece: Piece, now_s: float) -> None:
        """It computes."""
        self._count_busy(now_s)
        self.piece, self._begun_s = piece, now_s

    def end(self, now_s: float) -> None:
        """It computes no longer."""
        self._count_busy(now_s)
        self.piece, self._ended_s, self.is_late = None, now_s, False

    def answered(self, size: int, now_s: float, *, is_rated: bool = True) -> None:
        """It answered what it began; `is_rated` if that tells how long a sample takes."""
        if is_rated:
            self._times_s.append((now_s - self._begun_s) / size)
            self.sample_s = sorted(self._times_s)[len(self._times_s) // 2]
        self._samples += size
        self._in_a_row, self._retry_s, self._trouble = 0, -math.inf, ""
        self.end(now_s)

    def failed(self, error: BaseException, now_s: float) -> None:
        """It did not; it is left out for longer each time."""
        self._failures += 1
        self._in_a_row += 1
        self._retry_s = now_s + min(_LONGEST_HOLD_S, _FIRST_HOLD_S * 2.0 ** min(self._in_a_row - 1, 20))
        self._trouble = str(error)
        self.end(now_s)

    def told(self, condition: Condition | None, now_s: float) -> None:
        """Its watch answered."""
        self.condition, self.asked_s, self.asking_s = condition, now_s, None
        if condition is not None and condition.excess_c is not None:
            self._is_hot, self._felt_s = is_hot(condition.excess_c, was=self._is_hot), now_s
        elif now_s - self._felt_s > _LAST_WORD_S:
            self._is_hot = False

    def share(self, now_s: float) -> Share:
        """What it did so far."""
        self._count_busy(now_s)
        return Share(
            name=self.name,
            samples=self._samples,
            rate=None if self.sample_s is None else 1 / max(self.sample_s, 1e-9),
            failures=self._failures,
            state=self._state(),
            busy=min(1.0, self._busy),
            condition=self.condition,
            trouble=self._trouble,
        )

    def _state(self) -> State:
        if self.is_closed:
            return State.CLOSED
        if self.is_late:
            return State.LATE
        if self._in_a_row:
            return State.FAILED  # until it has answered again
        return State.HOT if self._is_hot else State.READY

    def _count_busy(self, now_s: float) -> None:
        """The exponential average of computing (1) and not (0), exact whenever it is brought up to date."""
        is_computing = float(self.piece is not None)
        kept = math.exp(-max(0.0, now_s - self._busy_s) / _RECENT_S)
        self._busy, self._busy_s = is_computing + (self._busy - is_computing) * kept, now_s
