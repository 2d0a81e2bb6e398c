"""What a convolution or dense layer multiplies its weights with: a sample of the patches its outputs look at.

The same positions are looked at in every stream of the calibration samples, so that what comes out of them can be
compared (`edge_converter.quantization.layer`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter.quantization.values import Floats, Values

_SAME = 0  # schema: Padding.SAME


class Patches:
    """Some output positions of a layer, and what they see.

    Args:
        kind: Of the operator.
        options: Of the operator.
        weights: The shape of the layer's weights in the float file.
        shape: `(samples, *shape)` of its input.
        random: Picks the positions where there are more than `most`.
        most: Positions.
    """

    def __init__(
        self, kind: str, options: Any, weights: tuple[int, ...], shape: tuple[int, ...], *, random: np.random.Generator,
        most: int,
    ) -> None:  # fmt: skip
        self._each = weights[-1] if kind == "DEPTHWISE_CONV_2D" else 0
        self._flat = weights[-1] if kind == "FULLY_CONNECTED" else None
        if self._flat is not None:
            self._window, self._stride, self._dilation, padded, size = (1, 1), (1, 1), (1, 1), False, (1, 1)
            count = math.prod(shape) // self._flat
        else:
            self._window = weights[1], weights[2]
            self._stride = int(options.strideH), int(options.strideW)
            self._dilation = int(options.dilationHFactor), int(options.dilationWFactor)
            padded, size = options.padding == _SAME, (shape[-3], shape[-2])
            count = math.prod(shape[:-3])
        spans = [(window - 1) * apart + 1 for window, apart in zip(self._window, self._dilation, strict=True)]
        steps = [
            -(-length // stride) if padded else (length - span) // stride + 1
            for length, span, stride in zip(size, spans, self._stride, strict=True)
        ]
        self._pads = [
            max((step - 1) * stride + span - length, 0) // 2 if padded else 0
            for step, stride, span, length in zip(steps, self._stride, spans, size, strict=True)
        ]
        total = count * steps[0] * steps[1]
        picked = np.arange(total) if total <= most else np.sort(random.choice(total, most, replace=False))
        self._sample, rest = picked // (steps[0] * steps[1]), picked % (steps[0] * steps[1])
        self._row = rest // steps[1] * self._stride[0] - self._pads[0]
        self._column = rest % steps[1] * self._stride[1] - self._pads[1]

    def __len__(self) -> int:
        return len(self._sample)

    def of(self, stream: Values) -> Floats:
        """`[rows, taps]`; of a depthwise layer `[channels, taps, rows]`, which is how its moments are summed."""
        stored = stream.kept()
        if self._flat is not None:
            return stream.floats(stored.reshape(-1, self._flat)[self._sample])
        stored = stored.reshape(-1, *stored.shape[-3:])
        (high, wide), channels = self._window, stored.shape[3]
        found = np.empty((len(self), high * wide, channels), stored.dtype)
        for tap in range(high * wide):
            row = self._row + tap // wide * self._dilation[0]
            column = self._column + tap % wide * self._dilation[1]
            outside = (row < 0) | (row >= stored.shape[1]) | (column < 0) | (column >= stored.shape[2])
            row, column = np.where(outside, 0, row), np.where(outside, 0, column)
            found[:, tap] = stored[self._sample, row, column]
            found[outside, tap] = stream.nothing
        if self._each:
            if self._each != channels:
                found = np.repeat(found, self._each // channels, axis=2)  # outputs a channel
            each: NDArray[Any] = np.ascontiguousarray(found.transpose(2, 1, 0))
            return stream.floats(each)
        return stream.floats(found.reshape(len(self), -1))
