"""News within the hub's process: who listens hears of each change, who listens too slowly misses some and is told."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

_WAITING = 1000


class Topic(enum.Enum):
    """What a piece of news is about."""

    EVENT = "event"
    ROWS = "rows"
    COMMAND = "command"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One piece.

    Attributes:
        body: What happened, as one of the API's values.
        id: Of an event: a reader that names it later is told what came after.
    """

    topic: Topic
    body: object
    id: int | None = None


class Listener:
    """One reader's queue."""

    def __init__(self) -> None:
        self.missed = 0
        self._queue: asyncio.Queue[News] = asyncio.Queue(_WAITING)

    def offer(self, news: News) -> None:
        """Queue it, or count it as missed."""
        try:
            self._queue.put_nowait(news)
        except asyncio.QueueFull:
            self.missed += 1

    async def next(self, patience_s: float) -> News | None:
        """The next piece, or None when there was none for so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._queue.get(), patience_s)
        return None


class Feed:
    """Spreads news to whoever listens now; keeps none."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @contextlib.contextmanager
    def listen(self) -> Iterator[Listener]:
        """Listen for the length of the block."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def spread(self, news: News) -> None:
        """Tell everybody who listens."""
        for listener in self._listeners:
            listener.offer(news)

    def miss(self) -> None:
        """Something changed of which we do not know what: who listens has to read all again."""
        for listener in self._listeners:
            listener.missed += 1
