"""Numbers a sample: how much better a model predicts them than their mean does.

Both metrics are skill scores: 100 for a faultless model, 0 for one that always answers the mean of the labels, below 0
for worse. So a point is one hundredth of what there is to explain, whatever unit the labels are in, and the same bound
on the drop makes sense for degrees and for pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_converter.errors import DataError
from edge_converter.metrics.contract import Array, Floats, Judged, Scores, parts

# Answers agree that differ by less than this share of the labels' own standard deviation.
_SAME = 0.1


def output_of(judged: Judged) -> int | None:
    """Which output has as many numbers a sample as the labels; None where there is none."""
    wanted = math.prod(np.asarray(judged.samples.labels[judged.rows[:1]]).shape[1:])
    fits = (n for n, spec in enumerate(judged.outputs) if math.prod(spec.shape[1:]) == wanted)
    return next(fits, None)


class R2:
    """`r2`: 100 times R², the share of the labels' variance that the model explains; all outputs weigh by variance."""

    name = "r2"
    unit = "%"
    guess = 0.0
    classes = None
    by_reference = False
    _power = 2

    def __init__(self, judged: Judged) -> None:
        where = judged.samples.where
        at = output_of(judged)
        if at is None:
            shapes = ", ".join(str(list(spec.shape)) for spec in judged.outputs)
            raise DataError(
                f"no output has as many numbers as a label; the model gives {shapes}",
                where=where,
                hint="y holds one row a sample; --metric names what to judge by",
            )
        self._at = at
        total: Floats | float = 0.0
        for labels in judged.labels():
            flat = labels.reshape(len(labels), -1)
            if labels.dtype.kind not in "fiub" or not np.isfinite(flat).all():
                raise DataError("a label is NaN, infinite or no number", where=where)
            total = total + flat.astype(np.float64).sum(axis=0)
        mean = total / len(judged.rows)
        # What knowing nothing costs: the mean distance of the labels from their mean, to the metric's power.
        with np.errstate(over="ignore"):
            spreads = [
                (np.abs(labels.reshape(len(labels), -1) - mean) ** self._power).mean(axis=1)
                for labels in judged.labels()
            ]
            self._spread = float(np.concatenate(spreads).mean())
        if not np.isfinite(self._spread):
            raise DataError("its labels are too large to compute with", where=where, hint="scale them")
        if self._spread <= 0:
            raise DataError("all labels are the same, so there is nothing to predict", where=where)
        self._deviation = self._spread ** (1 / self._power)

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """The error of each sample, then its answers, `[n, 1 + numbers] float64`."""
        answers = np.asarray(outputs[self._at], np.float64).reshape(len(labels), -1)
        error = (np.abs(answers - labels.reshape(len(labels), -1)) ** self._power).mean(axis=1, keepdims=True)
        return np.concatenate([error, answers], axis=1)

    def tally(self, kept: Array, reference: Array) -> Scores:  # noqa: ARG002 - the contract's
        """What each sample adds to the skill."""
        return Scores(scores=100.0 * (1.0 - np.asarray(kept[:, 0], np.float64) / self._spread))

    def agreement(self, kept: Array, reference: Array) -> float:
        """Samples whose answers differ by at most a tenth of the labels' standard (or mean) deviation."""
        same = 0
        for mine, theirs in parts(kept, reference):
            apart = (np.abs(mine[:, 1:] - theirs[:, 1:]) ** self._power).mean(axis=1) ** (1 / self._power)
            same += int((apart <= _SAME * self._deviation).sum())
        return 100.0 * same / len(kept)


class MaeSkill(R2):
    """`mae-skill`: the same with absolute errors: 100 times one minus MAE over the labels' mean absolute deviation."""

    name = "mae-skill"
    _power = 1
