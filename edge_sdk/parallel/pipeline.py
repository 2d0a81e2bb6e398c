"""The segments of a split model at work one behind the other: model parallel.

While the second stage computes one sample the first computes the next, so as many come out a second as the slowest
stage computes. Stages are threads with bounded queues between them: a slow one slows down who gives samples
(back-pressure), nothing piles up. A tensor goes straight to whoever reads it, by reference within this process.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import EdgeError, InputShapeError, UsageError
from edge_sdk.living import Living
from edge_sdk.parallel.ends import Ends
from edge_sdk.parallel.line import Line
from edge_sdk.parallel.places import Place, stages_of
from edge_sdk.parallel.pool import LONGEST_DEADLINE_S
from edge_sdk.parallel.reports import StageReport
from edge_sdk.parallel.stage import Array, Flight, Stage, finish, readers
from edge_sdk.segments import Segments

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.parallel.planning import Assignment, Link

_AHEAD = 2
_CLOSE_S = 10.0
_EXIT_S = 2.0  # for the pipelines that nobody closed, when the program ends


class Pipeline:
    """A split model whose segments compute at once, each on another sample; itself an engine.

        with Pipeline("digits-int8-in-2") as pipeline:
            scores = pipeline.run([images])
            for scores in pipeline.map([image] for image in camera):
                ...

    Args:
        split: The directory that `edge split` wrote.
        places: Where segments compute, by their numbers: a `Place`, or an engine that is open already. Consecutive
            segments of one `Place` are one stage; a segment that is not named gets a thread of the CPU to itself.
        ahead: Samples that may wait before each stage.
        deadline_s: For room for a sample, and for the next answer of `run` and `map`.

    Raises:
        SegmentsError: There is no split, it is damaged, or an engine takes or gives other tensors than its segment.
        DelegateError: A segment cannot be loaded.
        UsageError: A place for a segment that there is not; `ahead` or `deadline_s` makes no sense.
    """

    def __init__(
        self,
        split: str | os.PathLike[str] | Segments,
        places: Mapping[int, AnyEngine | Place] | None = None,
        *,
        ahead: int = _AHEAD,
        deadline_s: float = 60.0,
    ) -> None:
        if ahead < 1 or not 0 < deadline_s <= LONGEST_DEADLINE_S:
            raise UsageError(
                f"ahead is {ahead!r}, deadline_s {deadline_s!r}", hint="both are above 0, a deadline is up to a day"
            )
        self.split = split if isinstance(split, Segments) else Segments(split)
        plan = self.split.plan
        self._ends = Ends(self.split)
        kept = readers(plan.segments, plan.outputs)
        outputs = tuple(spec.name for spec in plan.outputs)
        self._line = Line(outputs)
        for name, parts in stages_of(self.split, places or {}):
            last = parts[-1].segment.number
            self._line.add(Stage(name, parts, kept=kept[last], room=ahead, arrived=self._line.arrive))
        self._window = len(self._line.stages) * (ahead + 1)
        self._deadline_s = deadline_s
        self._names = tuple(each.name for each in self._ends.inputs)
        self.assignment: Assignment | None = None
        self._line.start()
        # Threads hold the line, not the pipeline: one that is forgotten without `close` ends when it is collected.
        self._end = weakref.finalize(self, self._line.stages[0].inbox.end)
        self._end.atexit = False  # `_LIVE` waits for them, too
        _LIVE.add(self)

    @classmethod
    def planned(
        cls,
        split: str | os.PathLike[str],
        places: Sequence[Place],
        *,
        links: Mapping[str, Link] | None = None,
        deadline_s: float = 60.0,
    ) -> Self:
        """A pipeline of which the slowest stage is as fast as these places allow.

        Every segment is timed on every place, so split finer than there are places: `edge split --parts 8`.

        Args:
            split: The directory that `edge split` wrote.
            places: That may compute; each gets one stage or none.
            links: How those of other hosts are reached, by their names.
            deadline_s: Of the pipeline.

        Returns:
            A pipeline whose `assignment` is the plan. Where that has one stage, the whole model on that place would be
            as fast, and the split is of no use here.

        Raises:
            SegmentsError: There is no split, or it is damaged.
            UsageError: Some segment runs on none of the places.
        """
        from edge_sdk.parallel import planning, timing

        read = Segments(split)
        costs = timing.measure(read, places, links=links)
        found = planning.plan(costs, timing.boundaries(read), links=links)
        named = {place.name: place for place in places}
        where = {segment.number: named[found.place_of(segment.number)] for segment in read.plan.segments}
        pipeline = cls(read, where, deadline_s=deadline_s)
        pipeline.assignment = found
        return pipeline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order."""
        return tuple(each.spec for each in self._ends.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return tuple(each.spec for each in self._ends.outputs)

    def run(self, arrays: Sequence[Any]) -> list[Array]:
        """One answer per output, bit for bit the whole model's.

        Args:
            arrays: One per input: a sample, or a batch whose samples follow each other through the stages.

        Raises:
            InputError: An array the model does not take.
            StageFailedError: A stage failed, or gave no answer in time.
            PipelineFullError: Others keep it full.
            ModelClosedError: After `close`.
        """
        samples, is_single = self._ends.take(arrays)
        return self._ends.give(list(self._stream(samples)), is_single=is_single)

    def map(
        self, samples: Iterable[Sequence[Any]], *, return_exceptions: bool = False
    ) -> Iterator[list[Array] | EdgeError]:
        """The answers of a stream of samples, in order; no more are taken from it than the stages have room for.

        Args:
            samples: Each the arrays of one sample.
            return_exceptions: Give the error of a sample that failed in its place and go on, instead of raising it.

        Raises:
            EdgeError: As of `run`.
        """
        singles: deque[bool] = deque()

        def tensors() -> Iterator[list[Array]]:
            for arrays in samples:
                found, is_single = self._ends.take(arrays)
                singles.append(is_single)
                yield _own(_only(found), arrays)

        for answer in self._stream(tensors(), return_exceptions=return_exceptions):
            is_single = singles.popleft()
            yield answer if isinstance(answer, EdgeError) else self._ends.give([answer], is_single=is_single)

    def submit(self, arrays: Sequence[Any], timeout_s: float | None = None) -> Future[list[Array]]:
        """Give it one sample; the future has the answer, or the error of the stage that failed.

        Args:
            arrays: Of one sample.
            timeout_s: How long to wait for room; None takes `deadline_s`.

        Raises:
            InputError: An array the model does not take, or a batch.
            PipelineFullError: There was no room in time.
            ModelClosedError: After `close`.
        """
        samples, is_single = self._ends.take(arrays)
        flight = self._flight(_own(_only(samples), arrays))
        given: Future[list[Array]] = Future()

        def convert(done: Future[list[Array]]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            finish(given, error if error is not None else self._ends.give([done.result()], is_single=is_single))

        def cancel(asked: Future[list[Array]]) -> None:
            flight.is_dropped |= asked.cancelled()

        flight.future.add_done_callback(convert)
        given.add_done_callback(cancel)
        self._line.put(flight, self._deadline_s if timeout_s is None else timeout_s)
        return given

    def reports(self) -> tuple[StageReport, ...]:
        """What every stage did so far."""
        return tuple(stage.report() for stage in self._line.stages)

    def close(self, deadline_s: float = _CLOSE_S, *, drain: bool = True) -> None:
        """End the threads and close the engines; samples that come later raise `ModelClosedError`. May be repeated.

        Args:
            deadline_s: For samples under way, and for the stages to end; a stage that hangs is left to itself.
            drain: Answer the samples under way; else they fail with `ModelClosedError` at once.
        """
        self._line.close(deadline_s, drain=drain)
        _LIVE.discard(self)

    def _flight(self, tensors: Sequence[Array]) -> Flight:
        return Flight(dict(zip(self._names, tensors, strict=True)))

    def _stream(self, samples: Iterable[list[Array]], *, return_exceptions: bool = False) -> Iterator[Any]:
        flying: deque[Flight] = deque()
        try:
            for tensors in samples:
                while len(flying) >= self._window:
                    yield self._line.landed(flying.popleft(), self._deadline_s, return_exceptions=return_exceptions)
                flight = self._flight(tensors)
                self._line.put(flight, self._deadline_s)
                flying.append(flight)
            while flying:
                yield self._line.landed(flying.popleft(), self._deadline_s, return_exceptions=return_exceptions)
        finally:
            for flight in flying:
                flight.is_dropped = True


def _only(samples: list[list[Array]]) -> list[Array]:
    if len(samples) != 1:
        raise InputShapeError(f"a batch of {len(samples)} where one sample is taken", hint="`run` takes a batch")
    return samples[0]


def _own(tensors: list[Array], given: Sequence[Any]) -> list[Array]:
    """Tensors that stay as they are when the caller writes the next image into its array."""
    return [
        array.copy() if isinstance(whose, np.ndarray) and np.may_share_memory(array, whose) else array
        for array, whose in zip(tensors, given, strict=True)
    ]


_LIVE: Living[Pipeline] = Living(lambda line: line._line.lose(), lambda line: line.close(_EXIT_S))  # noqa: SLF001 - this module's own
