"""From which of samples, minutes and hours the points of a history are made. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edge_hub.store.condense import HOUR_S, MINUTE_S, Span, begin, points, widened
from edge_hub.store.records import Point
from edge_sdk.errors import UsageError

MAX_POINTS = 2000
LOG_STEP_S = 1.0
_WIDTHS_S = (LOG_STEP_S, MINUTE_S, HOUR_S)


class Assembly:
    """A history that is being put together.

    It begins with the coarsest that is fine enough; what is not kept that fine any more, of the time before, comes from
    the next.

    Attributes:
        first: Begin of the first point.
        widths_s: What is to be read, in this order: from `first` on, and before `edge` as it then is.

    Raises:
        UsageError: It is no span of time, or too many points.
    """

    def __init__(self, *, since: float, until: float, step_s: float) -> None:
        if not (0 <= since < until < math.inf and LOG_STEP_S <= step_s < math.inf):
            raise UsageError("a history needs since < until and a step of 1 s or more")
        self.first = begin(since, step_s)
        if math.ceil((until - self.first) / step_s) > MAX_POINTS:
            raise UsageError(
                f"more than {MAX_POINTS} points",
                hint=f"ask for a step of {math.ceil((until - since) / MAX_POINTS) + 1} s",
            )
        fine_s = max(width_s for width_s in _WIDTHS_S if width_s <= step_s)
        self.widths_s = tuple(width_s for width_s in _WIDTHS_S if width_s >= fine_s)
        self._until = until
        self._step_s = step_s
        self._found: dict[float, Span] = {}

    @property
    def edge(self) -> float:
        """From here on there is something."""
        return min(self._found, default=self._until)

    def add(self, told: Iterable[tuple[float, Span]], *, width_s: float) -> None:
        """What is kept so wide, by its begin."""
        edge, wide_s = self.edge, max(self._step_s, width_s)
        older = widened(told, step_s=wide_s)
        self._found.update({at: span for at, span in older.items() if not self._found or at + wide_s <= edge})

    def points(self) -> tuple[Point, ...]:
        """All there is, in ascending order."""
        return points(self._found)
