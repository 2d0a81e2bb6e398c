"""News as server-sent events (WHATWG HTML, section 9.2), and what a reader missed while it was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from edge_hub.api import MAX_PAGE, EventView, to_json
from edge_hub.errors import TooManyRequestsError
from edge_hub.feed import News, Topic

if TYPE_CHECKING:
    from edge_hub.service import Hub

MAX_STREAMS = 400
MAX_OF_A_TOKEN = 100
_BEAT_S = 15.0
_POLL_S = 0.5
_RETRY_MS = 2000


def refuse_too_many(hub: Hub, who: str) -> None:
    """Leave room for the others and for the rest of the API: each stream is a connection for as long as it lasts.

    Raises:
        TooManyRequestsError: The hub tells as many already, or as many with this token.
    """
    if hub.feed.listening(who) >= MAX_OF_A_TOKEN or hub.feed.listeners >= MAX_STREAMS:
        raise TooManyRequestsError(
            f"too many streams are open, {MAX_OF_A_TOKEN} of a token and {MAX_STREAMS} together are the most",
            wait_s=_BEAT_S,
            hint="close some",
        )


async def stream(hub: Hub, *, after: int | None, stopping: asyncio.Event, who: str = "") -> AsyncIterator[bytes]:
    """The events after `after` that are stored, then all news as they come.

    A reader that is too slow is sent `missed` and cut off; it comes again with the last id it saw.
    """
    with hub.feed.listen(who) as listener:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        last = after
        while last is not None:
            page = await hub.store.events(after=last, limit=MAX_PAGE)
            for event in page:
                yield _frame(News(topic=Topic.EVENT, id=event.id, body=EventView.of(event)))
                last = event.id
            if len(page) < MAX_PAGE:
                break
        quiet_s = 0.0
        while not stopping.is_set():
            if listener.missed:
                yield b"event: missed\ndata: {}\n\n"
                return
            news = await listener.next(_POLL_S)
            if news is None:
                quiet_s += _POLL_S
                if quiet_s >= _BEAT_S:
                    quiet_s = 0.0
                    yield b": still here\n\n"
                continue
            if news.id is not None and last is not None and news.id <= last:
                continue  # was among the stored ones
            yield _frame(news)


def _frame(news: News) -> bytes:
    # JSON of msgspec has no line breaks, which would end the frame.
    head = f"id: {news.id}\n" if news.id is not None else ""
    return f"{head}event: {news.topic.value}\n".encode() + b"data: " + to_json(news.body) + b"\n\n"
