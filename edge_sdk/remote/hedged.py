"""A remote engine with a local one behind it: who waits too long for the network is answered here.

The remote is asked first. If it has not answered by the deadline minus the time the local engine takes, the local one
computes, and what the remote says later is dropped. If the remote fails, the local one computes at once.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import EdgeError, InputError, InputShapeError, ModelClosedError, UsageError
from edge_sdk.living import Living
from edge_sdk.remote.calls import Calls, lost

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec

_KEPT = 256  # times of the last calls, for the quantiles
_WARM = 3  # runs of the local engine at the start, so that its time is known
_MOST_OUTSTANDING = 64
_LONGEST_DEADLINE_S = 3600.0
_MEDIAN, _HIGH = 0.5, 0.95
_JOIN_S = 5.0
_LONGEST_LOCAL_S = 60.0  # that `close` waits for a local run


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


class Hedged:
    """Two engines of one model as one; safe for any number of threads.

    Args:
        remote: Asked first. Its own deadline must be bounded, since nobody takes a call back from it.
        local: Takes and gives the same.
        deadline_s: By when a call shall be answered. Where the local engine alone takes longer than that, the remote
            has all of it, and the local one answers only after that, late.
        outstanding: Remote calls that may be under way at once, those nobody waits for any more included: a remote that
            stalls costs this many calls their wait, and the others nothing.

    Closes both engines. Raises:
        UsageError: An argument makes no sense.
        InputShapeError: The two do not take or give the same.
    """

    def __init__(self, remote: AnyEngine, local: AnyEngine, *, deadline_s: float, outstanding: int = 4) -> None:
        if not 0 < deadline_s <= _LONGEST_DEADLINE_S:  # NaN fails as well
            raise UsageError(f"deadline_s is {deadline_s!r}", hint="give seconds, more than 0 and at most an hour")
        if not 1 <= outstanding <= _MOST_OUTSTANDING:
            raise UsageError(f"outstanding is {outstanding!r}", hint=f"give a number from 1 to {_MOST_OUTSTANDING}")
        _check_same(remote, local)
        self._local, self._deadline_s = local, deadline_s
        self._remote = remote
        self._calls = Calls()
        self._tally = _Tally()
        self._errands = _Errands(remote, self._tally, most=outstanding)
        zeros = [np.zeros([max(1, size) for size in each.shape], each.dtype) for each in local.inputs]
        for _ in range(_WARM):
            self._run_locally(zeros)
        self._forgotten = weakref.finalize(self, self._errands.end)
        _LIVE.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order."""
        return self._local.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return self._local.outputs

    @property
    def counts(self) -> HedgeCounts:
        """What became of the calls so far."""
        return self._tally.counts()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output, of whichever engine; fresh arrays that belong to the caller.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: Neither engine could; the local one's error.
        """
        with self._calls:
            return self._run(arrays)

    def close(self) -> None:
        """Wait for calls under way, then close both engines. May be repeated."""
        self._calls.end(self._deadline_s + _LONGEST_LOCAL_S)
        self._forgotten()
        self._errands.join()
        self._remote.close()
        self._local.close()
        _LIVE.discard(self)

    def _run(self, arrays: Sequence[Any]) -> list[Any]:
        begun_s = time.monotonic()
        self._tally.add("calls")
        errand = self._errands.send(arrays)
        if errand is None:
            self._tally.add("full")
        else:
            local_s = self._tally.local_s()
            patience_s = self._deadline_s - (local_s if local_s < self._deadline_s else 0.0)
            answer = errand.wait(patience_s - (time.monotonic() - begun_s))
            if answer is not None:
                self._tally.add("remote")
                return answer
            self._tally.add("failed" if errand.is_failed else "hedged")
        answer = self._run_locally(arrays)
        self._tally.add("local")
        return answer

    def _run_locally(self, arrays: Sequence[Any]) -> list[Any]:
        begun_s = time.perf_counter()
        answer = self._local.run(arrays)
        self._tally.local_took(time.perf_counter() - begun_s)
        return answer

    def _lose(self) -> None:
        """In the child of a fork: the threads stayed in the parent."""
        self._calls = lost()
        self._forgotten.detach()


_LIVE: Living[Hedged] = Living(Hedged._lose)  # noqa: SLF001 - this module's own


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


class _Errands:
    """Threads that call the remote, started as they are needed. They hold no `Hedged`, so that one can be forgotten."""

    def __init__(self, remote: AnyEngine, tally: _Tally, *, most: int) -> None:
        self._remote, self._tally, self._most = remote, tally, most
        self._lock = threading.RLock()  # `end` may come from the collector, in whatever thread
        self._outstanding = 0
        self._waiting: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()  # never longer than `most`
        self._threads: list[threading.Thread] = []
        self._is_ended = False

    def send(self, arrays: Sequence[Any]) -> _Errand | None:
        """Have the remote called; None where as many calls are outstanding as may be.

        Raises:
            ModelClosedError: After `end`.
        """
        with self._lock:
            if self._is_ended:
                raise ModelClosedError("the engine was closed", hint="open it again")
            if self._outstanding >= self._most:
                return None
            if self._outstanding >= len(self._threads):
                name = f"edge-hedge-{self._outstanding + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
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
            answer = self._remote.run(errand.arrays)
        except EdgeError as error:
            trouble = error
        finally:  # also where the remote has a fault that nobody foresaw: the caller is not left waiting
            with self._lock:
                self._outstanding -= 1
            if answer is not None:
                self._tally.remote_took(time.perf_counter() - begun_s)
            if not errand.end(answer, trouble) and answer is not None:
                self._tally.add("late")


class _Tally:
    """Counts and times. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("calls", "remote", "local", "hedged", "failed", "full", "late"), 0)
        self._remote_s: deque[float] = deque(maxlen=_KEPT)
        self._local_s: deque[float] = deque(maxlen=_KEPT)
        self._local_high_s = 0.0

    def add(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def remote_took(self, seconds: float) -> None:
        with self._lock:
            self._remote_s.append(seconds)

    def local_took(self, seconds: float) -> None:
        with self._lock:
            self._local_s.append(seconds)
            self._local_high_s = _quantile(self._local_s, _HIGH)

    def local_s(self) -> float:
        with self._lock:
            return self._local_high_s

    def counts(self) -> HedgeCounts:
        with self._lock:
            times = self._remote_s
            p50, p95 = (_quantile(times, q) * 1e3 if times else None for q in (_MEDIAN, _HIGH))
            return HedgeCounts(**self._counts, remote_p50_ms=p50, remote_p95_ms=p95, local_ms=self._local_high_s * 1e3)


def _quantile(times: deque[float], share: float) -> float:
    """The smallest of the times that at least this share of them does not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _check_same(remote: AnyEngine, local: AnyEngine) -> None:
    """The dtypes and shapes of the two agree; names may differ, since arrays go by position.

    Raises:
        InputShapeError: They do not.
    """
    for what, far, near in (("inputs", remote.inputs, local.inputs), ("outputs", remote.outputs, local.outputs)):
        told = [[(each.dtype, tuple(each.shape)[1:]) for each in specs] for specs in (far, near)]
        names = [[each.name for each in specs] for specs in (far, near)]
        # Names may differ; the same ones in another order would mix up what looks alike.
        if told[0] != told[1] or (names[0] != names[1] and sorted(names[0]) == sorted(names[1])):
            raise InputShapeError(
                f"the {what} of the remote engine are {_shown(far)}, of the local one {_shown(near)}",
                hint="serve the same model, or another variant of it",
            )


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{each.name!r} {each.dtype} {list(each.shape)}" for each in specs)
