"""The engine in force, and the calls that are in it: a swap loses none.

A call takes a lease on the engine that is in force when it comes and gives it back when it has its answer. A swap puts
another engine in force; the old one is retired when its last lease ends. No call waits for a load, unless the seat was
vacated because memory does not hold two engines. Who loads, and when, is decided in `edge_sdk.switching`.

Engines that share the cores take turns for as long as they sit here: calls that still wait for the old one and those
that come for the new one are computed one after the other, in the order they came. Each in the queue of its own engine,
they computed side by side on cores that were busy, and took 1.5 to 1.7 times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edge_sdk.errors import ModelClosedError, SwitchTimeoutError
from edge_sdk.fairlock import FairLock


class Loaded(Protocol):
    """What a seat needs of an engine; one that takes turns with others has `take_turns` too, as `Engine` has."""

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output."""

    def close(self) -> None:
        """Free it; no call is in it."""


class Lease:
    """One engine with the calls that are in it. Owned by `Seat`, whose lock guards the count."""

    __slots__ = ("calls", "engine", "id")

    def __init__(self, id_: str, engine: Loaded) -> None:
        self.id = id_
        self.engine = engine
        self.calls = 0


def _give_turn(engine: Loaded, turn: FairLock) -> None:
    take = getattr(engine, "take_turns", None)
    if take is not None:
        take(turn)


def _close(_: str, engine: Loaded) -> None:
    engine.close()


class Seat:
    """Where the engine in force sits. Safe for any number of threads.

    Args:
        id_: Of the first engine's variant.
        engine: The first engine; the seat closes it.
        retire: Given each engine that was swapped out while calls were in it, once, by the thread whose call was the
            last; None closes it.
    """

    def __init__(self, id_: str, engine: Loaded, retire: Callable[[str, Loaded], None] | None = None) -> None:
        self.retire = retire or _close
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._turn = FairLock()
        _give_turn(engine, self._turn)
        self._lease: Lease | None = Lease(id_, engine)
        self._draining: list[Lease] = []  # swapped out, with calls in them
        self._last_id = id_
        self._is_closed = False
        self._why = "the model was closed"

    @property
    def active(self) -> str:
        """The variant in force; while one gives way to another, the one that was."""
        lease = self._lease
        return self._last_id if lease is None else lease.id

    @property
    def in_flight(self) -> int:
        """Calls that are in the engine in force, or wait for their turn in it."""
        lease = self._lease
        return 0 if lease is None else lease.calls

    @property
    def waited_ms(self) -> float:
        """How long the call waited that is computed now, by an engine that takes turns."""
        return self._turn.waited_s * 1e3

    @property
    def is_vacant(self) -> bool:
        """Whether calls wait for an engine."""
        return self._lease is None and not self._is_closed

    def run(self, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        """The variant that answered, and its answers.

        Raises:
            ModelClosedError: After `close`.
            EdgeError: What the engine raises.
        """
        # In line, under the bare lock: at a few microseconds an inference, calls to methods would show.
        with self._lock:
            lease = self._lease
            if lease is None:
                lease = self._awaited()
            lease.calls += 1
        try:
            return lease.id, lease.engine.run(arrays)
        finally:
            with self._lock:
                lease.calls -= 1
                is_last = not lease.calls and lease is not self._lease
            if is_last:
                self._drained(lease)

    def swap(self, id_: str, engine: Loaded) -> tuple[str, Loaded] | None:
        """Put another engine, loaded and warm, in force; the old one is retired at its last lease.

        Returns:
            The old one, where no call is in it: it is the caller's to close or to keep.

        Raises:
            ModelClosedError: After `close`; the new engine was closed too.
        """
        _give_turn(engine, self._turn)
        with self._lock:
            if not self._is_closed:
                return self._seated(Lease(id_, engine))
        engine.close()
        raise self._closed()

    def recall(self, id_: str) -> tuple[bool, tuple[str, Loaded] | None]:
        """Put an engine in force again that was swapped out and still has calls in it.

        Returns:
            Whether there was one; and what `swap` returns.
        """
        with self._lock:
            for lease in self._draining:
                if lease.id == id_ and lease.calls and not self._is_closed:
                    self._draining.remove(lease)
                    return True, self._seated(lease)
        return False, None

    def vacate(self, timeout_s: float) -> tuple[str, Loaded] | None:
        """Take the engine out of force and wait for the calls in it; calls that come wait until the next `swap`.

        Returns:
            The engine, the caller's to close; None where there is none.

        Raises:
            SwitchTimeoutError: A call did not end in time; the engine is in force as before.
        """
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is None:
                return None
            self._last_id = lease.id
            if not self._changed.wait_for(lambda: not lease.calls, timeout_s):
                if not self._is_closed:
                    self._lease = lease
                    self._changed.notify_all()
                raise SwitchTimeoutError(f"a call of {lease.id!r} did not end within {timeout_s:g} s")
        return self._parted(lease)

    def close(self) -> None:
        """Refuse new calls, wait for those under way, free the engine. May be repeated."""
        with self._lock:
            self._is_closed = True
            lease, self._lease = self._lease, None
            if lease is not None:
                self._last_id = lease.id
            self._changed.notify_all()
            while lease is not None and lease.calls:
                self._changed.wait()
        if lease is not None:
            self._parted(lease)[1].close()

    def lose(self) -> None:
        """In the child of a fork: whoever held the lock or a lease stayed in the parent."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._turn = FairLock()
        self._is_closed, self._lease, self._draining = True, None, []
        self._why = "the model was opened before this process was forked"

    def _seated(self, lease: Lease) -> tuple[str, Loaded] | None:
        """With the lock held."""
        old, self._lease = self._lease, lease
        self._changed.notify_all()
        if old is None:
            return None
        if not old.calls:
            return self._parted(old)
        self._draining.append(old)
        return None

    def _awaited(self) -> Lease:
        """The next engine in force, with the lock held again."""
        while self._lease is None:
            if self._is_closed:
                raise self._closed()
            self._changed.wait()
        return self._lease

    def _drained(self, lease: Lease) -> None:
        """The last call in an engine that is out of force has ended; with none in it, it cannot be recalled."""
        with self._lock:
            self._changed.notify_all()
            if lease not in self._draining:
                return  # whoever vacated or closed the seat waits for it
            self._draining.remove(lease)
        self.retire(*self._parted(lease))

    def _parted(self, lease: Lease) -> tuple[str, Loaded]:
        """An engine that leaves, with no call in it, and a turn of its own again: to close it must not wait."""
        _give_turn(lease.engine, FairLock())
        return lease.id, lease.engine

    def _closed(self) -> ModelClosedError:
        return ModelClosedError(self._why, hint="open it again")
