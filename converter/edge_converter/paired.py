"""How much worse one model is than another on the same samples, and how sure that is.

Both models answer the same samples, so only what differs between them carries information, and three intervals do, by
what a metric says of a sample:

- right or wrong: Bonett and Price's adjusted Wald interval for a difference of paired proportions (Journal of
  Educational and Behavioral Statistics 37(4), 2012): one is added to each discordant count and two to the number of
  samples, which keeps its coverage near 95 % on small samples and its width above zero when nothing differs;
- a score: Student's interval of the mean of the differences;
- nothing that adds up, as with mAP and mIoU: the paired bootstrap (Efron and Tibshirani, An Introduction to the
  Bootstrap, 1993), which counts the same samples, drawn with replacement, for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_converter.metrics.contract import Tally

_Z95 = 1.959964
_RIGHT = 100.0
_RIGHT_OR_WRONG = (0.0, _RIGHT)
# Percentiles of 2.5 and 97.5 rest on ten resamples each.
_RESAMPLES = 400
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A variant against a reference, in percent and percentage points.

    Attributes:
        drop: The reference's accuracy minus the variant's.
        interval: Half the width of the 95 % interval of `drop`.
        agreement: Samples on which both give the same answer, right or wrong.
    """

    drop: float
    interval: float
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A variant against a reference, in points of their metric.

    Attributes:
        drop: The reference's value minus the variant's.
        interval: Half the width of the 95 % interval of `drop`.
    """

    drop: float
    interval: float


def compare(reference: NDArray[np.int64], variant: NDArray[np.int64], labels: NDArray[np.int64]) -> Comparison:
    """Compare the answers of two models to the same samples, each a class number; `-1` is no answer."""
    samples = len(labels)
    right, right_too = reference == labels, variant == labels
    lost, gained = int((right & ~right_too).sum()), int((~right & right_too).sum())
    p_lost, p_gained = (lost + 1) / (samples + 2), (gained + 1) / (samples + 2)
    error = math.sqrt((p_lost + p_gained - (p_lost - p_gained) ** 2) / (samples + 2))
    return Comparison(
        drop=100.0 * (lost - gained) / samples,
        interval=100.0 * _Z95 * error,
        agreement=100.0 * float((reference == variant).mean()),
    )


def difference(reference: Tally, variant: Tally) -> Difference:
    """How much lower a variant's value is than a reference's, on the same samples in the same order."""
    before, after = reference.scores, variant.scores
    if before is None or after is None:
        return _resampled(reference, variant)
    if np.isin(before, _RIGHT_OR_WRONG).all() and np.isin(after, _RIGHT_OR_WRONG).all():
        right = np.full(len(before), int(_RIGHT), np.int64)
        found = compare(before.astype(np.int64), after.astype(np.int64), right)
        return Difference(drop=found.drop, interval=found.interval)
    apart = before - after
    samples = len(apart)
    error = float(apart.std(ddof=1)) / math.sqrt(samples) if samples > 1 else math.inf
    return Difference(drop=reference.value() - variant.value(), interval=student_t95(samples - 1) * error)


def student_t95(freedom: int) -> float:
    """The 97.5 % point of Student's distribution, to three digits from 3 degrees of freedom up.

    Cornish and Fisher's expansion around the normal distribution (Abramowitz and Stegun 26.7.5).
    """
    if freedom < 1:
        return math.inf
    z, n = _Z95, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _resampled(reference: Tally, variant: Tally) -> Difference:
    """Percentiles of the difference over resamples that are the same for every pair of the same samples."""
    samples = reference.samples
    random = np.random.default_rng(_SEED)
    drops = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(random.integers(0, samples, samples), minlength=samples).astype(np.float64)
        drops.append(reference.value(weights) - variant.value(weights))
    low, high = np.nanpercentile(drops, (2.5, 97.5))
    return Difference(drop=reference.value() - variant.value(), interval=float(high - low) / 2)


def accuracy(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Right answers, in percent."""
    return 100.0 * float((answers == labels).mean())
