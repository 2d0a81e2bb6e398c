"""Which inputs become channels-last, and how far two sets of answers are apart.

Standard library and numpy only: it also runs in an environment that holds nothing of this product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SAMPLES = 4
# [batch, channels, height, width], and volumes with a depth before the height.
_IMAGE_RANKS = (4, 5)
_MOST_CHANNELS = 4
_MOST_ORDERS = 120
_SMALLEST = 1e-6
_FARTHEST = 1e9


class ShapeError(ValueError):
    """An input's sizes are not all known, or not what was asked for.

    Attributes:
        hint: What to try.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def fixed(taken: Mapping[str, Sequence[int]], wanted: Sequence[Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Every input's shape with batch 1, or as it was asked for.

    Args:
        taken: Shapes by the input's name, -1 where a size is free.
        wanted: Shapes in the order of the inputs; none to fix the batch alone.

    Raises:
        ShapeError: Another size than the batch is free, or what was asked for does not fit.
    """
    if wanted and len(wanted) != len(taken):
        raise ShapeError(f"has {len(taken)} inputs, and --input-shape is given {len(wanted)} times")
    shapes = {}
    for at, (name, sizes) in enumerate(taken.items()):
        shape = wanted[at] if wanted else [1 if not axis and size < 1 else size for axis, size in enumerate(sizes)]
        if len(shape) != len(sizes) or any(0 < size != want for size, want in zip(sizes, shape, strict=True)):
            raise ShapeError(f"its input {name} is {list(sizes)}, not {list(shape)}")
        if any(size < 1 for size in shape):
            free = ",".join(str(max(size, 1)) if size > 0 or not axis else "N" for axis, size in enumerate(sizes))
            what = f"its input {name} is {list(sizes)}: more than the batch is free"
            raise ShapeError(what, f"--input-shape {free} fixes it, with a number for each N")
        shapes[name] = tuple(shape)
    return shapes


def is_turned(shape: Sequence[int]) -> bool:
    """Whether an input of this shape becomes channels-last: an image, unless its channels are last already.

    Few channels behind many rows are last: models that once were TensorFlow's.
    """
    return len(shape) in _IMAGE_RANKS and not shape[-1] <= _MOST_CHANNELS < shape[1]


def turned(values: Any) -> Any:
    """An array as a model takes it after its import."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if is_turned(values.shape) else values


def distance(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference, as a share of that output's largest absolute value; never NaN or infinity.

    Outputs may have changed their order and layout: the assignment with the least difference is theirs.
    """
    if len(found) != len(expected):
        return _FARTHEST
    orders = itertools.islice(itertools.permutations(found), _MOST_ORDERS)
    return min(max((_far(*pair) for pair in zip(order, expected, strict=True)), default=0.0) for order in orders)


def _far(one: Any, other: Any) -> float:
    layouts = [other, *([np.moveaxis(other, 1, -1)] if other.ndim > 2 else [])]  # noqa: PLR2004 - batch, channels
    largest = max(float(np.abs(other).max(initial=0.0)), _SMALLEST)
    fitting = [float(np.abs(one - layout).max(initial=0.0)) for layout in layouts if layout.shape == one.shape]
    far = min(fitting, default=math.inf) / largest
    return min(_FARTHEST, far)  # in this order: NaN is the farthest
