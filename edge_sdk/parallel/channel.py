"""What one stage hands to the next: a bounded queue with one reader, whose writers wait in the order they came."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from edge_sdk.parallel._bell import Bell

_T = TypeVar("_T")


class Channel(Generic[_T]):
    """A queue for one reader and any number of writers; a full one makes writers wait (back-pressure).

    Args:
        room: Items it holds; at least 1.
    """

    def __init__(self, room: int) -> None:
        self._gate = threading.Lock()
        self._room = room
        self._items: deque[_T] = deque()
        self._waiting: deque[tuple[Bell, _T]] = deque()
        self._reader = Bell()
        self._is_ended = self._is_stopped = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: _T, timeout_s: float | None = None) -> bool | None:
        """Hand it over; None if there was no room in time, False if nobody takes anything any more."""
        with self._gate:
            if self._is_ended:
                return False
            if len(self._items) < self._room and not self._waiting:
                self._items.append(item)
                self._reader.ring()
                return True
            ticket = Bell(), item
            self._waiting.append(ticket)
        try:
            rang = ticket[0].wait(timeout_s)
        except BaseException:
            with self._gate:
                self._leave(ticket)
            raise
        if rang:
            return not self._is_stopped
        with self._gate:
            return None if self._leave(ticket) else True

    def get(self) -> _T | None:
        """The next item; None when there will be none."""
        while True:
            with self._gate:
                if self._is_stopped:
                    return None
                if self._items:
                    item = self._items.popleft()
                    if self._waiting:  # its place is the first one's who waits
                        ticket, next_item = self._waiting.popleft()
                        self._items.append(next_item)
                        ticket.ring()
                    return item
                if self._is_ended:
                    return None
            self._reader.wait()

    def end(self) -> None:
        """Take nothing more; what is in it is still read. Takes no lock: a finalizer may call it."""
        self._is_ended = True
        self._reader.ring()

    def stop(self) -> None:
        """Take nothing and give nothing more; whoever waits is let go."""
        with self._gate:
            self._is_ended = self._is_stopped = True
            waiting = tuple(self._waiting)
            self._waiting.clear()
        self._reader.ring()
        for ticket, _ in waiting:
            ticket.ring()

    def _leave(self, ticket: tuple[Bell, _T]) -> bool:
        """Whether it was still waiting."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            return True
        return False
