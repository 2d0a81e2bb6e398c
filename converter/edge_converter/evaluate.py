"""What a variant answers on labelled samples, read and answered a few at a time.

Samples are independent of each other, so every processor answers some, with an engine and one thread of its own: what
a variant answers then depends neither on their number nor on who answered which.
"""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_converter import sequences
from edge_converter.data import Integers, Samples
from edge_converter.sequences import SequenceEngine
from edge_sdk.engine import Engine

# What is being answered when Ctrl-C comes is answered to its end, so it is little.
_AT_ONCE = 8
# Each engine holds its own copy of the weights.
_MOST_ENGINES = 4
NO_ANSWER = -1


def answers(path: Path, samples: Samples, rows: Integers, *, advance: Callable[[int], None]) -> NDArray[np.int64]:
    """The class each sample is given, or `NO_ANSWER` where the scores are not numbers.

    The engine hands out dequantized scores, so the order of an int8 variant's scores is not lost to overflow.

    Args:
        path: The variant's file.
        samples: Where to read from.
        rows: Which samples.
        advance: Told how many more samples are done, by the thread that called.
    """
    found = np.full(len(rows), NO_ANSWER, np.int64)
    parts = range(0, len(rows), _AT_ONCE)
    opened = sequences.opener(path)
    free: queue.SimpleQueue[Engine | SequenceEngine] = queue.SimpleQueue()

    def answer(start: int) -> int:
        engine = free.get()
        try:
            part = rows[start : start + _AT_ONCE]
            scores = np.asarray(engine.run([samples.read(part)])[0]).reshape(len(part), -1)
        finally:
            free.put(engine)
        known = np.isfinite(scores).all(axis=1)
        found[start : start + len(part)][known] = scores[known].argmax(axis=1)
        return len(part)

    with contextlib.ExitStack() as stack:
        workers = max(1, min(_processors(), _MOST_ENGINES, len(parts)))
        for _ in range(workers):
            engine = opened()
            stack.callback(engine.close)
            free.put(engine)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")
        try:
            for done in as_completed([pool.submit(answer, start) for start in parts]):
                advance(done.result())
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _processors() -> int:
    """Those this process may use, which a container or `taskset` may have limited."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
