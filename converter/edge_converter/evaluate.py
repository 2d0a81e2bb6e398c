"""What a variant answers on labelled samples, read and answered a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_converter.data import Integers, Samples
from edge_sdk.engine import Engine

_AT_ONCE = 32
NO_ANSWER = -1


def answers(
    path: Path, samples: Samples, rows: Integers, *, threads: int, advance: Callable[[int], None]
) -> NDArray[np.int64]:
    """The class each sample is given, or `NO_ANSWER` where the scores are not numbers.

    The engine hands out dequantized scores, so the order of an int8 variant's scores is not lost to overflow.

    Args:
        path: The variant's file.
        samples: Where to read from.
        rows: Which samples.
        threads: For the interpreter.
        advance: Told how many more samples are done.
    """
    found = np.full(len(rows), NO_ANSWER, np.int64)
    with Engine(path, threads=threads) as engine:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            scores = np.asarray(engine.run([samples.read(part)])[0]).reshape(len(part), -1)
            known = np.isfinite(scores).all(axis=1)
            found[start : start + len(part)][known] = scores[known].argmax(axis=1)
            advance(len(part))
    return found
