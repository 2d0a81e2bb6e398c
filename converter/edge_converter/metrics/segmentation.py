"""A class a pixel: the overlap of the areas a model gives each class with those they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_converter.errors import DataError
from edge_converter.metrics.contract import Array, Floats, Judged, parts

# Pixels of this label count for nothing, as in PASCAL VOC and Cityscapes.
IGNORED = 255
_MOST_CLASSES = 255
_RANK = 4  # batch, height, width, scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pixels by sample and class.

    Attributes:
        both: That are of the class and are called so, `[n, classes]`.
        either: That are of the class or are called so.
        occur: The classes that occur in the labels.
    """

    both: Floats
    either: Floats
    occur: NDArray[np.int64]
    scores: None = None

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.both)

    @property
    def by_class(self) -> Mapping[int, float]:
        """The overlap of each class that occurs, in percent."""
        both, either = self.both.sum(axis=0), self.either.sum(axis=0)
        return {int(n): float(100.0 * both[n] / either[n]) for n in self.occur}

    def value(self, weights: Floats | None = None) -> float:
        """Mean over the classes that occur."""
        both, either = (self.both.sum(axis=0), self.either.sum(axis=0)) if weights is None else (
            weights @ self.both, weights @ self.either,
        )  # fmt: skip
        known = self.occur[either[self.occur] > 0]  # a class may be absent from a resample
        return float(100.0 * (both[known] / either[known]).mean()) if len(known) else float("nan")


class MeanIou:
    """`miou`: intersection over union of all pixels of a class, averaged over the classes that occur, in percent.

    Labels are `[n, height, width]` class numbers, 255 for pixels that do not count. The model gives scores
    `[batch, height, width, classes]`, or class numbers without the last dimension; maps of another size than the
    labels are brought to theirs by the nearest pixel. They agree on the pixels that get the same class.
    """

    name = "miou"
    unit = "%"
    guess: float | None = None
    classes = None
    by_reference = False

    def __init__(self, judged: Judged) -> None:
        where = judged.samples.where
        at = output_of(judged)
        if at is None:
            shapes = ", ".join(str(list(spec.shape)) for spec in judged.outputs)
            raise DataError(
                f"miou needs a map of classes, and the model gives {shapes}; y must be [n, height, width]", where=where
            )
        self._at, self._judged = at, judged
        shape = judged.outputs[at].shape
        occur: set[int] = set()
        for labels in judged.labels():
            if labels.dtype.kind not in "iu":
                raise DataError(f"y holds {labels.dtype}, not class numbers", where=where)
            occur |= {int(one) for one in np.unique(labels)}
        occur.discard(IGNORED)
        most = shape[3] if len(shape) == _RANK else _MOST_CLASSES
        wrong = [one for one in sorted(occur) if not 0 <= one < most]
        if wrong:
            raise DataError(
                f"a pixel is labelled {wrong[0]}, and the model has {most} classes",
                where=where,
                hint=f"{IGNORED} marks pixels that do not count",
            )
        if not occur:
            raise DataError("no pixel is labelled", where=where)
        self._occur = np.array(sorted(occur), np.int64)

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """The class of each pixel at the labels' size, `[n, height, width] uint8`; 255 where there is none."""
        scores = outputs[self._at]
        if scores.ndim == _RANK:
            found = np.where(np.isfinite(scores).all(axis=3), scores.argmax(axis=3), IGNORED)
        else:
            found = np.clip(np.nan_to_num(scores, nan=IGNORED), 0, IGNORED)
        high, wide = labels.shape[1:3]
        rows, columns = ((np.arange(new) * old // new) for new, old in ((high, found.shape[1]), (wide, found.shape[2])))
        return found.astype(np.uint8)[:, rows][:, :, columns]

    def tally(self, kept: Array, reference: Array) -> Overlaps:  # noqa: ARG002 - the contract's
        """Pixels by sample and class."""
        size = int(self._occur.max()) + 1
        both, either = np.zeros((len(kept), size)), np.zeros((len(kept), size))
        row = 0
        for (answers,), labels in zip(parts(kept), self._judged.labels(), strict=True):
            for mine, wanted in zip(answers, labels, strict=True):
                counts = wanted != IGNORED
                said, true = mine[counts].astype(np.int64), wanted[counts].astype(np.int64)
                right = np.bincount(true[said == true], minlength=size)[:size]
                both[row] = right
                # A class that occurs in no label has no union to lower: `value` looks at those that occur.
                either[row] = np.bincount(true, minlength=size)[:size] + _count(said, size) - right
                row += 1
        return Overlaps(both=both, either=either, occur=self._occur)

    def agreement(self, kept: Array, reference: Array) -> float:
        """Pixels that are given the same class."""
        same = [float((mine == theirs).mean(axis=(1, 2)).sum()) for mine, theirs in parts(kept, reference)]
        return 100.0 * sum(same) / len(kept)


def output_of(judged: Judged) -> int | None:
    """Which output is a map of classes, where the labels are maps too; None where there is none."""
    first = np.asarray(judged.samples.labels[judged.rows[:1]])
    if first.ndim != _RANK - 1 or min(first.shape) == 0:
        return None
    fits = (
        n
        for n, spec in enumerate(judged.outputs)
        if (len(spec.shape) == _RANK and spec.shape[3] > 1) or len(spec.shape) == _RANK - 1
    )
    return next(fits, None)


def _count(classes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    counted: NDArray[np.int64] = np.bincount(classes, minlength=size)[:size]
    return counted
