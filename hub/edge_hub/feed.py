"""News within the hub's process: who listens hears of each change, who listens too slowly misses some and is told."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from edge_hub.tasks import within

_WAITING = 1000
# Of rows, which come by the hundred in one piece: half a minute of a fleet of 5,000.
_WAITING_BYTES = 8 * 1024 * 1024


class Topic(enum.Enum):
    """What a piece of news is about."""

    EVENT = "event"
    ROWS = "rows"
    GONE = "gone"
    COMMAND = "command"
    ALERT = "alert"
    AUDIT = "audit"


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
        self._waiting_bytes = 0

    def offer(self, news: News) -> None:
        """Queue it, or count it as missed, with all that waits: who has missed something has to read all again."""
        if self.missed:
            return
        self._waiting_bytes += _size(news)
        if self._queue.full() or self._waiting_bytes > _WAITING_BYTES:
            self.miss()
        else:
            self._queue.put_nowait(news)

    def miss(self) -> None:
        """Something is missed: what waits is of no use any more, and goes at once, for its reader may never come."""
        self.missed += 1
        while not self._queue.empty():
            self._queue.get_nowait()

    async def next(self, patience_s: float) -> News | None:
        """The next piece, or None when there was none for so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            news = await within(self._queue.get(), patience_s)
            self._waiting_bytes -= _size(news)
            return news
        return None


def _size(news: News) -> int:
    """In bytes, of what is encoded already; the rest is small."""
    return len(news.body) if isinstance(news.body, msgspec.Raw) else 0


class Feed:
    """Spreads news to whoever listens now; keeps none."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, str] = {}

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @contextlib.contextmanager
    def listen(self, who: str = "") -> Iterator[Listener]:
        """Listen for the length of the block, as one of those of this name."""
        listener = Listener()
        self._listeners[listener] = who
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def listening(self, who: str) -> int:
        """How many of this name do."""
        return sum(name == who for name in self._listeners.values())

    def spread(self, news: News) -> None:
        """Tell everybody who listens."""
        for listener in self._listeners:
            listener.offer(news)

    def miss(self) -> None:
        """Something changed of which we do not know what: who listens has to read all again."""
        for listener in self._listeners:
            listener.miss()
