"""Calls of a remote engine that nobody has to wait for: each on a thread of its own, a bounded number at once."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_sdk.errors import EdgeError, InputError, ModelClosedError

Run = Callable[[Sequence[Any]], list[Any]]  # as `AnyEngine.run`

_KEPT = 256  # times of the last calls, for the quantiles
_MEDIAN, _HIGH = 0.5, 0.95
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeCounts:
    """What became of the calls so far, for whoever decides.

    Attributes:
        calls: All that were begun.
        remote: Answered by the remote engine.
        local: Answered by the local one; of these the next three say why.
        hedged: The remote took too long.
        failed: The remote failed.
        full: As many remote calls were outstanding as may be; the remote was not asked.
        late: Answers of the remote that came after the local engine had begun, and were dropped.
        remote_p50_ms: Of the last answers of the remote, late ones too; None before the first.
        remote_p95_ms: Likewise.
        local_ms: What the local engine is taken to need: the 95th percentile of its last runs.
    """

    calls: int
    remote: int
    local: int
    hedged: int
    failed: int
    full: int
    late: int
    remote_p50_ms: float | None
    remote_p95_ms: float | None
    local_ms: float


class _Errand:
    """One call of the remote, which the caller waits for or no longer waits for."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = arrays
        self.is_failed = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._answer: list[Any] | None = None
        self._input_error: InputError | None = None
        self._is_awaited = True

    def wait(self, seconds: float) -> list[Any] | None:
        """The answer; None where there is none in time, or it failed.

        Raises:
            InputError: The model does not take the arrays.
        """
        self._done.wait(max(0.0, seconds))
        with self._lock:
            self._is_awaited = False
            if self._input_error is not None:
                raise self._input_error
            return self._answer

    def end(self, answer: list[Any] | None, error: EdgeError | None = None) -> bool:
        """Hand over what came of it; whether somebody still waits."""
        with self._lock:
            if self._is_awaited:
                self._answer = answer
                self.is_failed = answer is None
                self._input_error = error if isinstance(error, InputError) else None
            self._done.set()
            return self._is_awaited


class Errands:
    """Threads that call the remote, started as they are needed. They hold no `Hedged`, so that one can be forgotten."""

    def __init__(self, remote: Run, tally: Counts, *, most: int) -> None:
        self._remote, self._tally, self._most = remote, tally, most
        self._lock = threading.RLock()  # `end` may come from the collector, in whatever thread
        self._outstanding = 0
        self._waiting: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()  # never longer than `most`
        self._threads: list[threading.Thread] = []
        self._is_ended = False

    def ask(self, arrays: Sequence[Any], patience_s: float) -> tuple[bool, list[Any] | None]:
        """Whether the remote was asked, and its answer; None where it is not there in time, or never.

        Raises:
            InputError: The model does not take the arrays.
            ModelClosedError: After `end`.
        """
        begun_s = time.monotonic()
        errand = self.send(arrays)
        if errand is None:
            self._tally.add("full")
            return False, None
        answer = errand.wait(patience_s - (time.monotonic() - begun_s))
        self._tally.add("remote" if answer is not None else "failed" if errand.is_failed else "hedged")
        return True, answer

    def send(self, arrays: Sequence[Any]) -> _Errand | None:
        """Have the remote called; None where as many calls are outstanding as may be, or no thread can be had.

        Raises:
            ModelClosedError: After `end`.
        """
        with self._lock:
            if self._is_ended:
                raise ModelClosedError("the engine was closed", hint="open it again")
            if len(self._threads) < min(self._outstanding + 1, self._most):
                name = f"edge-hedge-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the process may have no more, or ends
                    return None
                self._threads.append(thread)
            if self._outstanding >= self._most:
                return None
            self._outstanding += 1
            errand = _Errand(arrays)
            self._waiting.put(errand)
            return errand

    def end(self) -> None:
        """Take no more; the threads end after what they do."""
        with self._lock:
            if not self._is_ended:
                self._is_ended = True
                for _ in self._threads:
                    self._waiting.put(None)

    def join(self) -> None:
        """Wait for the threads, bounded: a call nobody waits for has a deadline of its own, and ends by itself."""
        until_s = time.monotonic() + _JOIN_S
        for thread in tuple(self._threads):
            thread.join(max(0.0, until_s - time.monotonic()))

    def _work(self) -> None:
        try:
            while (errand := self._waiting.get()) is not None:
                self._run(errand)
                del errand
        finally:
            with self._lock:
                self._threads.remove(threading.current_thread())

    def _run(self, errand: _Errand) -> None:
        begun_s = time.perf_counter()
        answer: list[Any] | None = None
        trouble: EdgeError | None = None
        try:
            answer = self._remote(errand.arrays)
        except EdgeError as error:
            trouble = error
        finally:  # also where the remote has a fault that nobody foresaw: the caller is not left waiting
            with self._lock:
                self._outstanding -= 1
            if answer is not None:
                self._tally.remote_took(time.perf_counter() - begun_s)
            if not errand.end(answer, trouble) and answer is not None:
                self._tally.add("late")


class Counts:
    """What became of calls, and what they took. Safe for any number of threads.

    Args:
        took: Told of each answer of the remote, in time or not, in milliseconds.
    """

    def __init__(self, took: Callable[[float], None] = lambda _: None) -> None:
        self._took = took
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("calls", "remote", "local", "hedged", "failed", "full", "late"), 0)
        self._remote_s: deque[float] = deque(maxlen=_KEPT)
        self._local_s: deque[float] = deque(maxlen=_KEPT)
        self._local_high_s = 0.0

    def add(self, what: str) -> None:
        """One more of these."""
        with self._lock:
            self._counts[what] += 1

    def remote_took(self, seconds: float) -> None:
        """An answer of the remote came."""
        with self._lock:
            self._remote_s.append(seconds)
        self._took(seconds * 1e3)

    def local_took(self, seconds: float) -> None:
        """The local engine ran."""
        with self._lock:
            self._local_s.append(seconds)
            self._local_high_s = _quantile(self._local_s, _HIGH)

    def forget_local(self) -> None:
        """Another engine computes from now on."""
        with self._lock:
            self._local_s.clear()
            self._local_high_s = 0.0

    def local_s(self) -> float:
        """What the local engine is taken to need; 0 before it ran."""
        with self._lock:
            return self._local_high_s

    def counts(self) -> HedgeCounts:
        """All of them."""
        with self._lock:
            times = self._remote_s
            p50, p95 = (_quantile(times, q) * 1e3 if times else None for q in (_MEDIAN, _HIGH))
            return HedgeCounts(**self._counts, remote_p50_ms=p50, remote_p95_ms=p95, local_ms=self._local_high_s * 1e3)


def _quantile(times: deque[float], share: float) -> float:
    """The smallest of the times that at least this share of them does not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
