"""What a variant answers on labelled samples, read and answered a few at a time.

Samples are independent of each other, so every processor answers some, with an engine and one thread of its own: what
a variant answers then depends neither on their number nor on who answered which.
"""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter import batches, sequences
from edge_converter.labelled import spool
from edge_converter.labelled.data import Integers, Samples
from edge_converter.metrics import classes
from edge_converter.sequences import SequenceEngine
from edge_sdk.engine import Engine

Array = NDArray[Any]
Keep = Callable[[Sequence[Array], Array], Array]

# What is being answered when Ctrl-C comes is answered to its end, so it is little.
_AT_ONCE = 8
# Each engine holds its own copy of the weights.
_MOST_ENGINES = 4
NO_ANSWER = classes.NO_ANSWER


def answers(path: Path, samples: Samples, rows: Integers, *, advance: Callable[[int], None]) -> NDArray[np.int64]:
    """The class each sample is given, or `NO_ANSWER` where the scores are not numbers.

    The engine hands out dequantized scores, so the order of an int8 variant's scores is not lost to overflow.

    Args:
        path: The variant's file.
        samples: Where to read from.
        rows: Which samples.
        advance: Told how many more samples are done, by the thread that called.
    """

    def keep(outputs: Sequence[Array], _: Array) -> Array:
        return classes.best(outputs[0].reshape(len(outputs[0]), -1))

    return np.asarray(kept(path, samples, rows, keep, advance=advance), np.int64)


def kept(path: Path, samples: Samples, rows: Integers, keep: Keep, *, advance: Callable[[int], None]) -> Array:
    """What a metric keeps of the answers to all these samples, in their order; in a file where it is much.

    Args:
        path: The variant's file.
        samples: Where to read from.
        rows: Which samples, one at least.
        keep: As `Metric.keep`: of the outputs and labels of some samples, one row each.
        advance: Told how many more samples are done, by the thread that called.
    """
    opened = sequences.opener(path)
    free: queue.SimpleQueue[Engine | SequenceEngine] = queue.SimpleQueue()

    def answer(start: int) -> tuple[int, Array]:
        engine = free.get()
        try:
            part = rows[start : start + at_once]
            return start, keep(batches.run(engine, samples.read(part)), np.asarray(samples.labels[part]))
        finally:
            free.put(engine)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(opened()))
        calls = batches.size(first.inputs)
        at_once = max(1, _AT_ONCE // calls) * calls
        parts = range(0, len(rows), at_once)
        workers = max(1, min(_processors(), _MOST_ENGINES, len(parts)))
        for engine in (first, *(stack.enter_context(contextlib.closing(opened())) for _ in range(workers - 1))):
            free.put(engine)
        # The first few tell how large a row is.
        _, rows_of_first = answer(0)
        found = spool.array((len(rows), *rows_of_first.shape[1:]), rows_of_first.dtype)
        found[: len(rows_of_first)] = rows_of_first
        advance(len(rows_of_first))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")
        try:
            # A few are asked for at a time: what is answered and not yet fetched lies in memory.
            waiting = {pool.submit(answer, start) for start in parts[1 : 1 + 2 * workers]}
            later = iter(parts[1 + 2 * workers :])
            while waiting:
                done = next(as_completed(waiting))
                waiting.remove(done)
                start, some = done.result()
                found[start : start + len(some)] = some
                advance(len(some))
                waiting |= {pool.submit(answer, start) for start in [*_next(later)]}
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _next(numbers: Any) -> list[int]:
    one = next(numbers, None)
    return [] if one is None else [one]


def _processors() -> int:
    """Those this process may use, which a container or `taskset` may have limited."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
