"""How much worse one model is than another on the same samples, and how sure that is.

Both models answer the same samples, so only the discordant ones carry information: those one gets right and the other
wrong. The interval is Bonett and Price's adjusted Wald interval for a difference of paired proportions (Journal of
Educational and Behavioral Statistics 37(4), 2012): one is added to each discordant count and two to the number of
samples, which keeps its coverage near 95 % on small samples and its width above zero when nothing differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964


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


def accuracy(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Right answers, in percent."""
    return 100.0 * float((answers == labels).mean())
