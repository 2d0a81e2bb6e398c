"""The engine in force, and the calls that are in it: a swap loses none.

A call takes a lease on the engine that is in force when it comes and gives it back when it has its answer. A swap puts
another engine in force; the old one is closed when its last lease ends. No call waits for a load, unless the caller of
`give_way` has said that memory does not hold two engines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edge_sdk.errors import ModelClosedError


class Loaded(Protocol):
    """What a seat needs of an engine."""

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output."""

    def close(self) -> None:
        """Free it; no call is in it."""


class Lease:
    """One engine with the calls that are in it. Owned by `Seat`, whose lock guards the count."""

    __slots__ = ("calls", "engine", "id", "is_retired")

    def __init__(self, id_: str, engine: Loaded) -> None:
        self.id = id_
        self.engine = engine
        self.calls = 0
        self.is_retired = False


class Seat:
    """Where the engine in force sits. Safe for any number of threads.

    Args:
        id_: Of the first engine's variant.
        engine: The first engine; the seat closes it.
    """

    def __init__(self, id_: str, engine: Loaded) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._lease: Lease | None = Lease(id_, engine)
        self._last_id = id_
        self._is_closed = False
        self._why = "the model was closed"

    @property
    def active(self) -> str:
        """The variant in force; while one gives way to another, the one that was."""
        return self._last_id if self._lease is None else self._lease.id

    def run(self, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        """The variant that answered, and its answers.

        Raises:
            ModelClosedError: After `close`.
            EdgeError: What the engine raises.
        """
        lease = self._take()
        try:
            return lease.id, lease.engine.run(arrays)
        finally:
            self._give_back(lease)

    def swap(self, id_: str, engine: Loaded) -> None:
        """Put another engine, loaded and warm, in force; the old one closes at its last lease.

        Raises:
            ModelClosedError: After `close`; the new engine was closed too.
        """
        with self._changed:
            is_closed = self._is_closed
            old, unwanted = self._lease, engine
            if not is_closed:
                self._lease = Lease(id_, engine)
                self._changed.notify_all()
                if old is None:
                    return
                old.is_retired = True
                if old.calls:
                    return  # whoever ends the last of them closes it
                unwanted = old.engine
        unwanted.close()
        if is_closed:
            raise self._closed()

    def give_way(self, id_: str, load: Callable[[], Loaded], again: Callable[[], Loaded]) -> float:
        """Close the engine in force before the next one is loaded; calls that come meanwhile wait.

        Args:
            id_: Of the next variant.
            load: Loads it.
            again: Loads the old one anew where `load` fails.

        Returns:
            For how many milliseconds no engine was in force.

        Raises:
            ModelClosedError: After `close`.
            EdgeError: What `load` raised; the old variant is in force again. If `again` fails too, its error is raised
                and the seat is closed, because there is nothing left to answer calls.
        """
        with self._changed:
            if self._is_closed or self._lease is None:
                raise self._closed()
            old = self._lease
            self._last_id = old.id
            self._lease = None
            begun_s = time.perf_counter()
            while old.calls:
                self._changed.wait()
        old.engine.close()
        try:
            engine, now = load(), id_
        except Exception:
            try:
                engine, now = again(), old.id
            except Exception:
                self.close()
                raise
            self._sit(now, engine)
            raise
        self._sit(now, engine)
        return (time.perf_counter() - begun_s) * 1e3

    def close(self) -> None:
        """Refuse new calls, wait for those under way, free the engine. May be repeated."""
        with self._changed:
            self._is_closed = True
            lease, self._lease = self._lease, None
            if lease is not None:
                self._last_id = lease.id
            self._changed.notify_all()
            while lease is not None and lease.calls:
                self._changed.wait()
        if lease is not None:
            lease.engine.close()

    def lose(self) -> None:
        """In the child of a fork: whoever held the lock or a lease stayed in the parent."""
        self._changed = threading.Condition(threading.Lock())
        self._is_closed, self._lease = True, None
        self._why = "the model was opened before this process was forked"

    def _sit(self, id_: str, engine: Loaded) -> None:
        with self._changed:
            if not self._is_closed:
                self._lease = Lease(id_, engine)
                self._changed.notify_all()
                return
        engine.close()
        raise self._closed()

    def _take(self) -> Lease:
        with self._changed:
            while self._lease is None:
                if self._is_closed:
                    raise self._closed()
                self._changed.wait()
            lease = self._lease
            lease.calls += 1
            return lease

    def _give_back(self, lease: Lease) -> None:
        with self._changed:
            lease.calls -= 1
            if lease.calls:
                return
            is_last = lease.is_retired
            if self._lease is not lease:
                self._changed.notify_all()
        if is_last:
            lease.engine.close()

    def _closed(self) -> ModelClosedError:
        return ModelClosedError(self._why, hint="open it again")
