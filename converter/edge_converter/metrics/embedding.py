"""Vectors that stand for a sample: how close they stay to the reference's, and whether they tell identities apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled.data import Integers
from edge_converter.metrics.contract import Array, Floats, Judged, Scores, parts, vectors

# Vectors agree whose cosine is at least this: an angle of 8 degrees.
_SAME = 0.99
# How many others of another identity each sample is compared with.
_IMPOSTORS = 8


class Cosine:
    """`cosine`: 100 times the mean cosine between a variant's outputs and the reference's; needs no labels."""

    name = "cosine"
    unit = "%"
    guess: float | None = None
    classes = None
    by_reference = True

    def __init__(self, judged: Judged) -> None:
        self._judged = judged

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:  # noqa: ARG002 - the contract's
        """All outputs as one vector of length 1, `[n, numbers] float32`."""
        found = vectors(outputs)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return (found / np.where(length > 0, length, 1.0)).astype(np.float32)

    def tally(self, kept: Array, reference: Array) -> Scores:
        """The cosine of each sample."""
        return Scores(scores=100.0 * _cosines(kept, reference))

    def agreement(self, kept: Array, reference: Array) -> float:
        """Samples whose vectors point the same way: a cosine of at least 0.99."""
        return 100.0 * float((_cosines(kept, reference) >= _SAME).mean())


class Verification(Cosine):
    """`verification`: how often a sample is closer to one of its own identity than to one of another, in percent.

    Each sample is compared with one of its own identity and eight of others, the same for every variant, so the mean is
    an estimate of the area under the ROC curve. Labels are the identities; one that occurs once is left out.
    """

    name = "verification"
    guess = 50.0
    by_reference = False

    def __init__(self, judged: Judged) -> None:
        super().__init__(judged)
        where = judged.samples.where
        labels = np.concatenate([*judged.labels()])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError("verification needs one identity a sample, by number", where=where)
        random = np.random.default_rng(0)
        self._anchors: list[int] = []
        genuine, impostors = [], []
        members = {int(one): np.flatnonzero(labels == one) for one in np.unique(labels)}
        if len(members) < 2:  # noqa: PLR2004 - to tell apart
            raise DataError("all samples are of one identity, so there is nothing to tell apart", where=where)
        for one, own in members.items():
            others = np.flatnonzero(labels != one)
            for place, row in enumerate(own if len(own) > 1 else ()):
                self._anchors.append(int(row))
                genuine.append(own[(place + 1) % len(own)])
                impostors.append(random.choice(others, _IMPOSTORS))
        if not self._anchors:
            raise DataError("no identity occurs twice, so nothing can be verified", where=where)
        self._genuine: Integers = np.array(genuine, np.int64)
        self._impostors: Integers = np.array(impostors, np.int64)

    def tally(self, kept: Array, reference: Array) -> Scores:  # noqa: ARG002 - the contract's
        """The share of impostors that each sample is farther from than from one of its own; a tie counts half."""
        scores = np.empty(len(self._anchors))
        for number, anchor in enumerate(self._anchors):
            mine = np.asarray(kept[anchor], np.float64)
            near = float(mine @ kept[self._genuine[number]])
            far = np.asarray(kept[self._impostors[number]], np.float64) @ mine
            scores[number] = (
                100.0 * float(((far < near) + 0.5 * (far == near)).mean()) if math.isfinite(near) else np.nan
            )
        return Scores(scores=scores)


def _cosines(kept: Array, reference: Array) -> Floats:
    found: Floats = np.concatenate(
        [(mine.astype(np.float64) * theirs).sum(axis=1) for mine, theirs in parts(kept, reference)]
    )
    return np.clip(found, -1.0, 1.0)
