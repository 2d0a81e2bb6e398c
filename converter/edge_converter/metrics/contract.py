"""What a metric is: the contract that the built-in ones and a user's own fulfil.

A metric keeps little of each answer, a row of fixed size, so that what a variant answers on a million samples fits a
file. From the rows comes a tally: the value, higher is better, and what it takes to say how sure a difference is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_converter.labelled.data import Integers, Samples
from edge_sdk.manifest import TensorSpec

Array = NDArray[Any]
Floats = NDArray[np.float64]

# Rows of answers may be as large as pictures.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a metric is made for.

    Attributes:
        samples: Where the labels are.
        rows: Those that count.
        outputs: Of the model, in its order, batch dimension included.
    """

    samples: Samples
    rows: Integers
    outputs: tuple[TensorSpec, ...]

    def labels(self) -> Iterator[Array]:
        """The labels that count, a few at a time, in order."""
        for start in range(0, len(self.rows), _AT_ONCE):
            yield np.asarray(self.samples.labels[self.rows[start : start + _AT_ONCE]])


class Tally(Protocol):
    """What a variant is worth over all samples, and over any weighting of them.

    Attributes:
        samples: How many there are.
        scores: One a sample, `[n]`, where the value is their mean; else None, and the bootstrap says how sure it is.
        by_class: The value of each class alone, by its number, where there are classes.
    """

    @property
    def samples(self) -> int: ...  # noqa: D102

    @property
    def scores(self) -> Floats | None: ...  # noqa: D102

    @property
    def by_class(self) -> Mapping[int, float]: ...  # noqa: D102

    def value(self, weights: Floats | None = None) -> float:
        """Higher is better; NaN where it cannot be said.

        Args:
            weights: How often each sample counts, `[n]`; None counts each once.
        """


class Metric(Protocol):
    """How variants are judged. Register a factory in `edge_converter.metrics`.

    Attributes:
        name: As the manifest records it.
        unit: Of its value: `%`, or empty.
        guess: The value that knowing nothing gets; None where there is no such thing.
        classes: How many the labels may name; None where labels are no class numbers.
        by_reference: The value is how close the answers are to the reference's, so no label is needed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def unit(self) -> str: ...  # noqa: D102

    @property
    def guess(self) -> float | None: ...  # noqa: D102

    @property
    def classes(self) -> int | None: ...  # noqa: D102

    @property
    def by_reference(self) -> bool: ...  # noqa: D102

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """What is kept of some answers; called by several threads at once.

        Args:
            outputs: One array per output, `[n, *shape]`, dequantized.
            labels: Of the same samples, `[n, ...]`.

        Returns:
            One row a sample, `[n, ...]`, always of the same shape and dtype.

        Raises:
            MetricError: The answers cannot be judged.
        """

    def tally(self, kept: Array, reference: Array) -> Tally:
        """The worth of a variant.

        Args:
            kept: What was kept of its answers to all samples that count, in order.
            reference: Likewise of the reference's.
        """

    def agreement(self, kept: Array, reference: Array) -> float:
        """How far the variant gives the same answers as the reference, right or wrong, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A tally whose value is the mean of a score a sample."""

    scores: Floats
    by_class: Mapping[int, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.scores)

    def value(self, weights: Floats | None = None) -> float:
        """The mean, weighted."""
        return float(self.scores.mean() if weights is None else np.average(self.scores, weights=weights))


def parts(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The same rows of several arrays, a few at a time: what lies in files is never in memory as a whole."""
    for start in range(0, len(arrays[0]), _AT_ONCE):
        yield tuple(np.asarray(each[start : start + _AT_ONCE]) for each in arrays)


def vectors(outputs: Sequence[Array]) -> Floats:
    """All outputs of each sample in one row, `[n, numbers]`."""
    return np.concatenate([np.asarray(each, np.float64).reshape(len(each), -1) for each in outputs], axis=1)
