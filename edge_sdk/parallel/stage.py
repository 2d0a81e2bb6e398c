"""One stage of a pipeline: a thread that runs its segments on one sample after another and hands each on."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import StageFailedError
from edge_sdk.parallel.channel import Channel
from edge_sdk.parallel.reports import StageReport

if TYPE_CHECKING:
    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.segments import Segment

Array = NDArray[Any]

_REMEMBERED = 1000  # samples that times are told of


class Flight:
    """A sample on its way.

    Args:
        known: Its tensors, by name.
    """

    __slots__ = ("future", "is_dropped", "known")

    def __init__(self, known: dict[str, Array]) -> None:
        self.known = known
        self.future: Future[list[Array]] = Future()
        self.is_dropped = False  # nobody waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A segment and the engine that computes it."""

    segment: Segment
    engine: AnyEngine


class Stage:
    """The segments of one place, computed one after the other on a thread of their own.

    Args:
        name: Of the place.
        parts: In their order.
        kept: Names of the tensors that later stages or the app read: all others are let go behind this one.
        room: Samples that may wait before it.
        arrived: Told of each sample that passed the last stage.
    """

    def __init__(
        self, name: str, parts: Sequence[Part], *, kept: Iterable[str], room: int, arrived: Callable[[Flight], None]
    ) -> None:
        self.name, self.parts = name, tuple(parts)
        self.inbox: Channel[Flight] = Channel(room)
        self.next: Stage | None = None
        self._kept = frozenset(kept)
        self._arrived = arrived
        made = {spec.name for part in parts for spec in part.segment.outputs}
        self._handed_on = tuple(sorted(made & self._kept))
        self.is_computing = False
        self._samples = self._failures = self._bytes = 0
        self._processor_s = 0.0
        self._compute_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._starved_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._blocked_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.thread = threading.Thread(target=self._work, name=f"edge-stage-{name}"[:60], daemon=True)

    def report(self) -> StageReport:
        """What it did so far."""
        compute_s = tuple(self._compute_s)  # in one step, while the thread goes on
        computed = self._samples - self._failures
        return StageReport(
            name=self.name,
            segments=tuple(part.segment.number for part in self.parts),
            samples=self._samples,
            failures=self._failures,
            compute_p50_ms=_median_ms(compute_s),
            compute_p95_ms=1e3 * float(np.percentile(compute_s, 95)) if compute_s else None,
            starved_p50_ms=_median_ms(tuple(self._starved_s)),
            blocked_p50_ms=_median_ms(tuple(self._blocked_s)),
            queue=len(self.inbox),
            processor_s=self._processor_s,
            handed_on_bytes=self._bytes / computed if computed else 0.0,
        )

    def _work(self) -> None:
        try:
            while (flight := self._next_flight()) is not None:
                self._pass(flight)
                del flight  # else its tensors stay while the thread sleeps
        finally:
            self.inbox.stop()
            if self.next is not None:
                self.next.inbox.end()
            for part in self.parts:
                part.engine.close()

    def _next_flight(self) -> Flight | None:
        begun_s = time.perf_counter()
        flight = self.inbox.get()
        self._starved_s.append(time.perf_counter() - begun_s)
        return flight

    def _pass(self, flight: Flight) -> None:
        if not (flight.is_dropped or flight.future.done()):
            self._compute(flight)
        self._processor_s = time.thread_time()
        begun_s = time.perf_counter()
        if self.next is None:
            self._arrived(flight)
        else:
            self.next.inbox.put(flight)
        self._blocked_s.append(time.perf_counter() - begun_s)

    def _compute(self, flight: Flight) -> None:
        begun_s = time.perf_counter()
        known = flight.known
        self._samples += 1
        self.is_computing = True
        try:
            for part in self.parts:
                taken = [known[spec.name] for spec in part.segment.inputs]
                answers = part.engine.run(taken)
                _check(part.segment, answers)
                known.update(zip((spec.name for spec in part.segment.outputs), answers, strict=True))
        except BaseException as cause:  # noqa: BLE001 - whatever an engine raises, this sample alone has failed
            self._failures += 1
            error = StageFailedError(f"failed: {cause}", stage=self.name, where=f"stage {self.name}")
            error.__cause__ = cause
            known.clear()
            finish(flight.future, error)
            return
        finally:
            self.is_computing = False
        for name in [name for name in known if name not in self._kept]:
            del known[name]
        self._bytes += sum(known[name].nbytes for name in self._handed_on)
        self._compute_s.append(time.perf_counter() - begun_s)


def finish(future: Future[list[Array]], outcome: list[Array] | BaseException) -> None:
    """Give a future its outcome, unless it has one: its pipeline may have been closed, or it was cancelled."""
    from concurrent.futures import InvalidStateError

    try:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return


def readers(segments: Sequence[Segment], outputs: Iterable[TensorSpec]) -> Mapping[int, frozenset[str]]:
    """By the number of each segment, the tensors that are read behind it."""
    found: dict[int, frozenset[str]] = {}
    read = frozenset(spec.name for spec in outputs)
    for segment in reversed(segments):
        found[segment.number] = read
        read |= {spec.name for spec in segment.inputs}
    return found


def _check(segment: Segment, answers: Sequence[Any]) -> None:
    """What an engine gave is what the segment gives.

    Raises:
        StageFailedError: It is not; a remote one may say anything.
    """
    if not isinstance(answers, list | tuple):
        raise StageFailedError(f"segment {segment.number} gave {type(answers).__name__} instead of a list of arrays")
    right = len(answers) == len(segment.outputs) and all(
        isinstance(answer, np.ndarray) and answer.dtype.name == spec.dtype and fits(answer.shape, spec.shape)
        for answer, spec in zip(answers, segment.outputs, strict=True)
    )
    if not right:
        found = ", ".join(f"{getattr(each, 'dtype', '?')} {list(getattr(each, 'shape', ()))}" for each in answers)
        raise StageFailedError(f"segment {segment.number} gave {found[:200] or 'nothing'}, which is not what it gives")


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether it is that shape, where -1 is any size."""
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def _median_ms(times_s: Sequence[float]) -> float | None:
    return 1e3 * statistics.median(times_s) if times_s else None
