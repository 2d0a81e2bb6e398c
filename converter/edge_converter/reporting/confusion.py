"""Where a variant answers otherwise than its reference: which classes it takes for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Samples of one class that the reference gave one answer, and the variant another.

    Attributes:
        label: What is right.
        reference: What the reference answered; -1 where its scores were no numbers.
        variant: What the variant answered; likewise.
        samples: How many.
    """

    label: int
    reference: int
    variant: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All that a variant answers otherwise than the reference.

    Attributes:
        lost: Samples that the reference had right, and the variant has wrong.
        gained: The other way round.
        other: Both wrong, in different ways.
        most: The most frequent changes, the most frequent first.
    """

    lost: int
    gained: int
    other: int
    most: tuple[Change, ...]


def changes(
    reference: NDArray[np.int64], variant: NDArray[np.int64], labels: NDArray[np.int64], *, most: int = _MOST
) -> Changes:
    """Compare the answers of two models to the same samples, each a class number; `-1` is no answer."""
    differ = reference != variant
    right, right_too = reference == labels, variant == labels
    rows = zip(labels[differ].tolist(), reference[differ].tolist(), variant[differ].tolist(), strict=True)
    counted = sorted(Counter(rows).items(), key=lambda found: (-found[1], found[0]))
    return Changes(
        lost=int((right & ~right_too).sum()),
        gained=int((~right & right_too).sum()),
        other=int((differ & ~right & ~right_too).sum()),
        most=tuple(
            Change(label=label, reference=was, variant=now, samples=samples)
            for (label, was, now), samples in counted[:most]
        ),
    )


def named(number: int, labels: Sequence[str]) -> str:
    """A class by its name, where it has one."""
    if number < 0:
        return "no answer"
    return labels[number] if number < len(labels) else str(number)
