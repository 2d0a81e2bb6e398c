"""Samples changed a little, so that few teach much: moved as far as the model itself does not mind, and mixed.

A mirrored street is a street, a mirrored 2 is nothing. Nobody is asked which it is: a kind of move is used where the
original model answers most moved samples as it answers them unmoved.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Of the height and width that an image is shifted at most.
_SHIFT = 0.1
_SMALLEST_SIDE = 8
_MOST_OF_ANOTHER = 0.5
_TRIED = 512
# A ResNet8 that is right on 80 % of CIFAR-10 answers nine of ten mirrored images as before.
_AGREES = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """How samples may be moved.

    Attributes:
        mirror: Left and right change places.
        shift: By this share of height and width at most, the edge repeated.
    """

    mirror: bool = False
    shift: float = 0.0

    def of(self, x: Floats, draw: np.random.Generator) -> Floats:
        """The samples moved, each in its own way."""
        if self.mirror:
            chosen = draw.random(len(x)) < 0.5  # noqa: PLR2004
            x = np.where(chosen[:, None, None, None], x[:, :, ::-1], x)
        if self.shift:
            high, wide = x.shape[1:3]
            most = int(np.ceil(self.shift * high)), int(np.ceil(self.shift * wide))
            rows = _places(high, most[0], len(x), draw)
            columns = _places(wide, most[1], len(x), draw)
            x = x[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
        return x


def harmless(classes: Callable[[Floats], NDArray[np.int64]], x: Floats, *, seed: int) -> Moves:
    """The moves that the model does not mind.

    Args:
        classes: What it answers.
        x: Samples; only those with the shape of images are moved.
        seed: For the moves that are tried.
    """
    if x.ndim != 4 or x.shape[3] not in {1, 3} or min(x.shape[1:3]) < _SMALLEST_SIDE:  # noqa: PLR2004 - images
        return Moves()
    tried = x[:_TRIED]
    before = classes(tried)

    def agrees(moved: Floats) -> bool:
        return float((classes(moved) == before).mean()) >= _AGREES

    return Moves(
        mirror=agrees(np.ascontiguousarray(tried[:, :, ::-1])),
        shift=_SHIFT if agrees(Moves(shift=_SHIFT).of(tried, np.random.default_rng(seed))) else 0.0,
    )


def mixed(x: Floats, labels: Floats, share: float, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """A share of the samples, each with up to half of another laid over it, and their labels likewise.

    The model that is learned from says what it sees in the mixture, so it teaches as much as a new sample would (Zhang
    and others, "mixup", 2018, arXiv:1710.09412; Beyer and others, "Knowledge distillation: a good teacher is patient
    and consistent", 2022, arXiv:2106.05237). Whole numbers, which may be names of things, are not mixed.
    """
    count = int(share * len(x)) if np.issubdtype(x.dtype, np.floating) else 0
    part = draw.uniform(0.0, _MOST_OF_ANOTHER, count).astype(np.float32)
    other = draw.permutation(count)
    x, labels = x.copy(), labels.copy()
    for values in (x, labels):
        mine = values[:count]
        weight = part.reshape(-1, *[1] * (values.ndim - 1))
        values[:count] = (1 - weight) * mine + weight * mine[other]
    return x, labels


def _places(length: int, most: int, count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """For each sample, where every row or column is taken from."""
    offsets = draw.integers(-most, most + 1, count)
    places: NDArray[np.int64] = np.clip(np.arange(length)[None] + offsets[:, None], 0, length - 1)
    return places
