"""The one door through which the daemon does what blocks: SQLite, files, the broker's socket.

Each lane is one thread that works through its calls in order, so what belongs to a lane needs no locks. The threads
are daemonic: a lane that hangs in a system call (a name that does not resolve, a disk that does not answer) can't keep
the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_Call = tuple["asyncio.Future[Any]", Callable[[], Any]]


class Door(Protocol):
    """Where something is done, one thing after the other."""

    async def run(self, call: Callable[[], T]) -> T:
        """Do it, and return what it returns."""
        ...

    async def finish(self, call: Callable[[], T]) -> T:
        """The same, but who is cancelled meanwhile waits for the end of it."""
        ...


class Here:
    """A door that leads nowhere: what cannot block, such as a store in memory, is done at once."""

    async def run(self, call: Callable[[], T]) -> T:
        """See `Door`."""
        return call()

    async def finish(self, call: Callable[[], T]) -> T:
        """See `Door`."""
        return call()


class Lane:
    """One thread that does one thing after the other.

    Args:
        name: Of the thread, for `ps -L` and stack dumps.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"edge-{name}", daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """Do it in the lane, and return what it returns. Being cancelled doesn't stop what has begun."""
        return await self._asked(call)

    async def finish(self, call: Callable[[], T]) -> T:
        """The same, but being cancelled waits for the end of it: what follows from it can still be done.

        Being cancelled once more does not wait, or a disk that hangs would keep the process from ending.
        """
        future = self._asked(call)
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            try:
                await asyncio.wait({future})
            finally:
                if not future.cancel():
                    future.exception()  # nobody else asks for it
            raise
        return future.result()

    def _asked(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, call))
        return future

    def close(self, timeout_s: float) -> bool:
        """Let it finish what is queued; False if it did not within the time."""
        self._calls.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                result, error = call(), None
            except BaseException as caught:  # noqa: BLE001 - handed to whoever waits
                result, error = None, caught
            _answer(future, result, error)
            del item, future, call, result, error  # keep nothing alive while waiting


def _answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    def settle() -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    loop = future.get_loop()
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:  # closed between the question and the call
            return
