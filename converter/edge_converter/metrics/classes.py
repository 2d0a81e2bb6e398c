"""One class a sample: pictures, keywords, anything with a score a class.

Scores arrive dequantized, and only `argmax` and comparisons rank them: `argsort(-scores)` of raw int8 would overflow
at -128 and put the worst class first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_converter.errors import DataError
from edge_converter.labelled.data import check_labels
from edge_converter.metrics.contract import Array, Judged, Scores
from edge_sdk.manifest import TensorSpec

NO_ANSWER = -1
_FEWEST_CLASSES = 2
_TOP = 5
_HALF = 0.5


def output_of(outputs: Sequence[TensorSpec], *, binary: bool = False) -> int | None:
    """Which output holds one score a class: the first of `[batch, classes]`; None where there is none.

    Args:
        outputs: Of the model.
        binary: The labels are 0 and 1, so an output of one share (a sigmoid) will do as well.
    """
    flat = [n for n, spec in enumerate(outputs) if len(spec.shape) == 2]  # noqa: PLR2004 - batch and classes
    fits = [n for n in flat if outputs[n].shape[1] >= _FEWEST_CLASSES]
    single = [n for n in flat if binary and outputs[n].shape[1] == 1]
    return next(iter(fits + single), None)


def are_binary(judged: Judged) -> bool:
    """Whether the labels are class numbers, and none but 0 and 1."""
    return all(part.ndim == 1 and part.dtype.kind in "iub" and np.isin(part, (0, 1)).all() for part in judged.labels())


def best(scores: Array) -> NDArray[np.int64]:
    """The class of the highest score, `[n]`; `NO_ANSWER` where a score is no number.

    A single score is the share of class 1, which is the answer above one half.
    """
    found = np.full(len(scores), NO_ANSWER, np.int64)
    known = np.isfinite(scores).all(axis=1)
    found[known] = scores[known].argmax(axis=1) if scores.shape[1] > 1 else scores[known, 0] > _HALF
    return found


class Accuracy:
    """`accuracy`: how often the highest score is the right class, in percent; agreement is the same class."""

    name = "accuracy"
    unit = "%"
    by_reference = False
    _may_be_binary = True

    def __init__(self, judged: Judged) -> None:
        at = output_of(judged.outputs, binary=self._may_be_binary and are_binary(judged))
        if at is None:
            shapes = ", ".join(str(list(spec.shape)) for spec in judged.outputs)
            raise DataError(
                f"{self.name} needs one score a class, and the model gives {shapes}",
                where=judged.samples.where,
                hint="--metric names another",
            )
        self._at = at
        self.classes = max(_FEWEST_CLASSES, int(judged.outputs[at].shape[1]))
        check_labels(judged.samples, self.classes)
        self._labels: NDArray[np.int64] = np.concatenate([*judged.labels()]).astype(np.int64)

    @property
    def guess(self) -> float:
        """One of as many as there are classes."""
        return 100.0 / self.classes

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:  # noqa: ARG002 - the contract's
        """The class, `[n] int64`."""
        return best(outputs[self._at].reshape(len(outputs[self._at]), -1))

    def tally(self, kept: Array, reference: Array) -> Scores:  # noqa: ARG002 - the contract's
        """100 for what is right, 0 for what is wrong."""
        return self._scored(np.where(kept == self._labels, 100.0, 0.0))

    def agreement(self, kept: Array, reference: Array) -> float:
        """Samples that are given the same class."""
        return 100.0 * float((kept == reference).mean())

    def _scored(self, right: NDArray[np.float64]) -> Scores:
        occur = np.flatnonzero(np.bincount(self._labels))
        return Scores(scores=right, by_class={int(n): float(right[self._labels == n].mean()) for n in occur})


class Recall(Accuracy):
    """`recall`: the recall of each class, averaged, in percent: rare keywords weigh as much as frequent ones."""

    name = "recall"

    def tally(self, kept: Array, reference: Array) -> Scores:
        """Each sample weighs by how rare its class is, so that the mean over samples is the mean over classes."""
        plain = super().tally(kept, reference)
        counts = np.bincount(self._labels, minlength=self.classes)
        weight = len(self._labels) / ((counts > 0).sum() * counts[self._labels])
        return Scores(scores=plain.scores * weight, by_class=plain.by_class)


class Top5(Accuracy):
    """`top5`: how often the right class is among the five highest scores, in percent."""

    name = "top5"
    _may_be_binary = False

    @property
    def guess(self) -> float:
        """Five of as many as there are classes."""
        return 100.0 * min(1.0, _TOP / self.classes)

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """The class, and whether the right one is among five, `[n, 2] int64`."""
        scores = outputs[self._at].reshape(len(labels), -1)
        right = scores[np.arange(len(labels)), labels.astype(np.int64)][:, np.newaxis]
        # Ties count for the lower class number, as argmax has it; a NaN compares as false, so check it apart.
        ahead = (scores > right).sum(axis=1) + self._ties_ahead(scores, right, labels)
        hit = (ahead < _TOP) & np.isfinite(scores).all(axis=1)
        return np.stack([best(scores), hit.astype(np.int64)], axis=1)

    def tally(self, kept: Array, reference: Array) -> Scores:  # noqa: ARG002 - the contract's
        """100 for what is among five, 0 for what is not."""
        return self._scored(np.where(kept[:, 1] == 1, 100.0, 0.0))

    def agreement(self, kept: Array, reference: Array) -> float:
        """Samples that are given the same first class."""
        return super().agreement(kept[:, 0], reference[:, 0])

    @staticmethod
    def _ties_ahead(scores: Array, right: Array, labels: Array) -> NDArray[np.int64]:
        before = np.arange(scores.shape[1])[np.newaxis] < labels[:, np.newaxis]
        ties: NDArray[np.int64] = ((scores == right) & before).sum(axis=1)
        return ties
