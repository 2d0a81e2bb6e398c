"""Calibration samples of a float model: most choose, a quarter kept apart tells what helped. Nobody reads a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edge_converter.errors import QuantizationError
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import answers
from edge_converter.quantization.layerwise import FloatGraph, samples_that_fit
from edge_converter.quantization.values import Array, Floats

_FEWEST_APART = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A float model and samples for it.

    Attributes:
        choosing: Samples that ranges and integers are chosen by: `[calls, *shape]` by input tensor, batch included.
        apart: Samples that choose nothing: one array per input, `[samples, *shape]`.
        wanted: What the float model answers to those.
    """

    choosing: Mapping[int, Floats]
    apart: Sequence[Array]
    wanted: Sequence[Array]

    def error(self, content: bytes) -> float:
        """Mean square of what a file's scores differ by from the float model's, relative to their variance (NMSE)."""
        return answers.distance(content, self.apart, self.wanted)

    def changed(self, content: bytes) -> float:
        """Percent of the samples apart whose best class is another than the float model's.

        Only an answer that changed can have become wrong, so accuracy drops by no more points than this.

        Raises:
            QuantizationError: The model does not give one score a class.
        """
        if len(self.wanted) != 1 or self.wanted[0].reshape(len(self.wanted[0]), -1).shape[1] == 1:
            raise QuantizationError("a bound on the drop needs a model that gives one score a class")
        (found,) = answers.scores(content, self.apart)
        one, other = (each.reshape(len(each), -1).argmax(axis=1) for each in (found, self.wanted[0]))
        return 100 * float((one != other).mean())


def open_bench(content: bytes, samples: Samples, rows: Integers, *, where: str) -> Bench:
    """Put a float model on the bench, with as many samples as fit into memory.

    Args:
        content: The model, as the quantizer understands it.
        samples: Calibration data.
        rows: Of it.
        where: The model's name, for errors.

    Raises:
        QuantizationError: There are too few.
    """
    graph = FloatGraph(content, where=where)
    count = samples_that_fit(graph, len(rows))
    check = count // 4
    if check < _FEWEST_APART:
        raise QuantizationError(f"{count} samples are too few to choose the integers by", where=where)
    some = samples.read(rows[:count])
    apart = [each[count - check :] for each in some]
    return Bench(
        choosing=graph.calls([each[: count - check] for each in some]),
        apart=apart,
        wanted=answers.scores(content, apart),
    )


@contextmanager
def one_by_one(where: str) -> Iterator[None]:
    """Name what the runtime says of operators it cannot compute alone.

    Raises:
        QuantizationError: It said something.
    """
    try:
        yield
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise QuantizationError(f"its layers cannot be computed one by one: {first}", where=where) from cause
