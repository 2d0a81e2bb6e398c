"""Samples as a model's calls take them: one by one, or as many at once as the file was exported for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.manifest import TensorSpec

Array = NDArray[Any]


def size(inputs: Sequence[TensorSpec]) -> int:
    """How many samples one call takes: the batch a file has fixed; 1 where it is 1 or free."""
    return max(1, *(spec.shape[0] for spec in inputs if spec.shape))


def calls(arrays: Sequence[Array], at_once: int) -> tuple[Array, ...]:
    """Samples stacked as calls; the last call is filled up with copies of the last sample.

    Args:
        arrays: One per input, `[n, *shape]`, n at least 1.
        at_once: Samples a call takes.

    Returns:
        One per input, `[calls, at_once, *shape]`.
    """
    missing = -len(arrays[0]) % at_once
    filled = [np.concatenate([each, np.repeat(each[-1:], missing, axis=0)]) if missing else each for each in arrays]
    return tuple(each.reshape(-1, at_once, *each.shape[1:]) for each in filled)


class Answers(Protocol):
    """What answers as an `Engine` does."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...  # noqa: D102

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...  # noqa: D102

    def run(self, arrays: Sequence[Array], /) -> Sequence[Array]: ...  # noqa: D102


def run(engine: Answers, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """What a model answers to samples, whatever its batch.

    Args:
        engine: The model.
        arrays: One per input, `[n, *shape]`, n at least 1.

    Returns:
        One per output, `[n, *shape]`, as an app sees it; an output without a batch dimension gets one.
    """
    count, at_once = len(arrays[0]), size(engine.inputs)
    answers = [engine.run(call) for call in zip(*calls(arrays, at_once), strict=True)]
    outputs = []
    for spec, parts in zip(engine.outputs, zip(*answers, strict=True), strict=True):
        together = spec.shape[:1] in {(at_once,), (-1,)}
        outputs.append((np.concatenate(parts) if together else np.stack(parts))[:count])
    return tuple(outputs)
