"""One convolution or dense layer in two files, the float one and the quantized one, and the choice of its integers.

What the layer sees is sampled from both streams of the calibration samples (`edge_converter.compensate`); its weights
are aimed at the trained answers, rounded with compensation (`edge_converter.rounding`), and written where the quantized
file keeps them: 8 or 4 bits, with a bias in integers or in float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter import flatbuffer, rounding
from edge_converter.layerwise import Array

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

# Rows of a layer's input that its moments are taken from; more change nothing and cost time.
_ROWS = 49_152
_ROWS_EACH = 12_288  # of a depthwise layer, which has fewer taps
_SAME = 0  # schema: Padding.SAME
_INT32 = 2**31 - 1
# The largest magnitude of a stored integer; -8 and -128 stay unused, so that the range is symmetric.
LARGEST = {"int8": 127, "int4": 7}
_FINE = 127  # from here on the largest weight fixes the scale: clipping gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a layer's integers stand for.

    Attributes:
        weights: In the float file's layout.
        bias: `[channels]`.
    """

    weights: Floats
    bias: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution or dense layer in both files.

    Attributes:
        kind: Such as `CONV_2D`.
        options: Of the operator.
        weights: As trained.
        bias: As trained, `[channels]`.
        stored: The tensor of the quantized file that holds the integers.
        stored_bias: The one that holds the bias.
        input_scale: Of the activations it reads, where they are integers: the bias is then one, too.
        file: The quantized file.
        most: The largest magnitude of an integer, where fewer than the format's are wanted.
    """

    kind: str
    options: Any
    weights: Floats
    bias: Matrix
    stored: Any
    stored_bias: Any
    input_scale: float | None
    file: Any
    most: int | None = None

    def choose(self, trained: Floats, quantized: Floats, random: np.random.Generator) -> Chosen:
        """Choose the integers, write them into the file, and return what they stand for.

        Args:
            trained: The layer's input as it should be, `[samples, *shape]`.
            quantized: As it will be.
            random: Picks the positions that are looked at, where there are many.
        """
        rows = _Rows(self, trained.shape, random, _ROWS_EACH if self._is_depthwise else _ROWS)
        there, should = rows.of(quantized), rows.of(trained)
        most = self.most or LARGEST[flatbuffer.TYPE_NAMES[self.stored.type]]
        choose = _choose_each if self._is_depthwise else _choose
        codes, scales, shift = choose(self._matrix(), there, should, most)
        return self._write(codes, scales.astype(np.float32), self.bias + shift)

    @property
    def _is_depthwise(self) -> bool:
        return self.kind == "DEPTHWISE_CONV_2D"

    def _matrix(self) -> Matrix:
        """`[taps, channels]`."""
        weights = self.weights.astype(np.float64)
        if self._is_depthwise:  # [1, h, w, channels]
            each: Matrix = weights.reshape(-1, weights.shape[-1])
            return each
        matrix: Matrix = weights.reshape(len(weights), -1).T
        return matrix  # [channels, h, w, inputs] or [channels, inputs]

    def _write(self, codes: Matrix, scales: Floats, bias: Matrix) -> Chosen:
        shape = self.weights.shape
        stacked = codes if self._is_depthwise else codes.T
        integers = stacked.reshape(shape).astype(np.int8)
        _put(self.file, self.stored, integers, scales)
        spread = scales if self._is_depthwise else scales.reshape(-1, *([1] * (len(shape) - 1)))
        weights = integers.astype(np.float32) * spread
        if self.input_scale is None:
            told = bias.astype(np.float32)
            _put(self.file, self.stored_bias, told, None)
            return Chosen(weights=weights, bias=told)
        bias_scales = np.float64(self.input_scale) * scales
        whole = np.clip(np.rint(bias / bias_scales), -_INT32, _INT32).astype(np.int32)
        _put(self.file, self.stored_bias, whole, bias_scales.astype(np.float32))
        return Chosen(weights=weights, bias=(whole * bias_scales).astype(np.float32))


class _Rows:
    """The patches of a layer's input that some of its output positions see, the same ones of both streams."""

    def __init__(self, layer: Layer, shape: tuple[int, ...], random: np.random.Generator, most: int) -> None:
        self._each = layer.kind == "DEPTHWISE_CONV_2D"
        if layer.kind == "FULLY_CONNECTED":
            self._window, self._stride, padded, size = (1, 1), (1, 1), False, (1, 1)
            self._flat: int | None = layer.weights.shape[-1]
            count = math.prod(shape) // self._flat
        else:
            self._flat = None
            self._window = layer.weights.shape[1], layer.weights.shape[2]
            self._stride = int(layer.options.strideH), int(layer.options.strideW)
            padded, size = layer.options.padding == _SAME, (shape[-3], shape[-2])
            count = math.prod(shape[:-3])
        steps = [
            -(-length // stride) if padded else (length - window) // stride + 1
            for length, window, stride in zip(size, self._window, self._stride, strict=True)
        ]
        self._pads = [
            max((step - 1) * stride + window - length, 0) if padded else 0
            for step, stride, window, length in zip(steps, self._stride, self._window, size, strict=True)
        ]
        total = count * steps[0] * steps[1]
        picked = np.arange(total) if total <= most else np.sort(random.choice(total, most, replace=False))
        self._sample, rest = picked // (steps[0] * steps[1]), picked % (steps[0] * steps[1])
        self._row, self._column = rest // steps[1] * self._stride[0], rest % steps[1] * self._stride[1]

    def of(self, stream: Floats) -> Floats:
        """`[rows, taps]`, of a depthwise layer `[rows, taps, channels]`."""
        if self._flat is not None:
            flat: Floats = stream.reshape(-1, self._flat)[self._sample]
            return flat
        stream = stream.reshape(-1, *stream.shape[-3:])
        (high, wide), (tall, broad) = self._window, self._pads
        if tall or broad:
            stream = np.pad(stream, ((0, 0), (tall // 2, tall - tall // 2), (broad // 2, broad - broad // 2), (0, 0)))
        found = np.empty((len(self._sample), high, wide, stream.shape[3]), np.float32)
        for down in range(high):
            for right in range(wide):
                found[:, down, right] = stream[self._sample, self._row + down, self._column + right]
        patches: Floats = found.reshape(len(found), high * wide, -1) if self._each else found.reshape(len(found), -1)
        return patches


def _choose(weights: Matrix, there: Floats, should: Floats, most: int) -> tuple[Matrix, Matrix, Matrix]:
    """Integers, scales, and what the bias has to add, of a layer whose channels see the same inputs."""
    mean_there, mean_should = there.mean(axis=0, dtype=np.float64), should.mean(axis=0, dtype=np.float64)
    centred = there - mean_there.astype(np.float32)
    lacking = should - mean_should.astype(np.float32) - centred
    moments = (centred.T @ centred).astype(np.float64) / len(centred)
    cross = (centred.T @ lacking).astype(np.float64) / len(centred)
    wanted = rounding.aimed(weights, moments, cross)
    scales = rounding.largest(wanted, most=most)
    if most < _FINE:
        scales = rounding.clipped(wanted, np.diag(moments)[:, None], scales, most=most)
    codes = rounding.compensated(wanted, moments, scales, most=most)
    return codes, scales, mean_should @ weights - mean_there @ (codes * scales)


def _choose_each(weights: Matrix, there: Floats, should: Floats, most: int) -> tuple[Matrix, Matrix, Matrix]:
    """The same of a depthwise layer: `[rows, taps, channels]`."""
    mean_there, mean_should = there.mean(axis=0, dtype=np.float64), should.mean(axis=0, dtype=np.float64)
    centred = there - mean_there.astype(np.float32)
    lacking = should - mean_should.astype(np.float32) - centred
    moments = np.einsum("pic,pjc->cij", centred, centred, optimize=True).astype(np.float64) / len(centred)
    cross = np.einsum("pic,pjc->cij", centred, lacking, optimize=True).astype(np.float64) / len(centred)
    wanted = rounding.aimed_each(weights, moments, cross)
    scales = rounding.largest(wanted, most=most)
    if most < _FINE:
        scales = rounding.clipped(wanted, np.diagonal(moments, axis1=1, axis2=2).T, scales, most=most)
    codes = rounding.compensated_each(wanted, moments, scales, most=most)
    return codes, scales, (mean_should * weights).sum(axis=0) - (mean_there * codes * scales).sum(axis=0)


def _put(file: Any, tensor: Any, values: Array, scales: Floats | None) -> None:
    """Write a constant and its scales.

    Raises:
        ValueError: The file has room for one scale where there are several.
    """
    if scales is not None:
        if len(tensor.quantization.scale) == 1 and len(scales) > 1:
            raise ValueError("the quantizer gave this layer one scale for all channels")
        tensor.quantization.scale = scales
    flatbuffer.put(file, tensor, _nibbles(values) if flatbuffer.TYPE_NAMES[tensor.type] == "int4" else values)


def _nibbles(values: Array) -> Array:
    """4-bit integers two to a byte, the first in the lower half."""
    flat = values.reshape(-1)
    if len(flat) % 2:
        flat = np.append(flat, np.int8(0))
    packed: Array = (flat[0::2] & 0x0F) | ((flat[1::2] & 0x0F) << 4)
    return packed.astype(np.uint8)
