"""One convolution or dense layer in two files, the float one and the quantized one, and the choice of its integers.

What the layer sees is sampled from both streams of the calibration samples (`compensate`); its weights
are aimed at the trained answers, rounded with compensation (`rounding`), and written where the quantized
file keeps them: 8 or 4 bits, with a bias in integers or in float, one scale a channel or one for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter import flatbuffer
from edge_converter.quantization import rounding
from edge_converter.quantization.patches import Patches
from edge_converter.quantization.values import Array, Floats, Values

Matrix = NDArray[np.float64]

# Rows of a layer's input that its moments are taken from, at least, and for each tap. More change nothing and cost
# time: with 49,152 rows EfficientNet-Lite0's int8 answers no closer to the float file's.
_ROWS = 4096
_ROWS_A_TAP = 8
_ROWS_EACH = 1024  # of a depthwise layer, which has few taps
# How a bias is stored, and how large it may be: beside activations of 16 bits, kernels add 40 bits up.
_BIASES: dict[str, tuple[type[np.signedinteger[Any]], int]] = {
    "int32": (np.int32, 2**31 - 1),
    "int64": (np.int64, 2**39 - 1),
}
# A channel that is next to nothing still has a bias, counted in units of its scale.
_BIAS_MOST = 2.0**30
# The largest magnitude of a stored integer; -8 and -128 stay unused, so that the range is symmetric.
LARGEST = {"int8": 127, "int4": 7}
# A channel's error counts relative to what comes out of it to this power: 0 counts squares alike wherever they are, 1
# counts each channel alike. ResNet8 on CIFAR-10 loses least at 0 (ADR 18).
_OWN_SHARE = 0.0
_FAINTEST = 1e-3  # of the mean power: fainter channels' integers are as if they were
_TINY = 1e-12
_FINE = 127  # from here on the largest weight fixes the scale: clipping gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a layer's integers stand for.

    Attributes:
        weights: In the float file's layout.
        bias: `[channels]`, or None where the layer has none.
    """

    weights: Floats
    bias: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a layer sees in one stream beside what it should see.

    Attributes:
        mean: Of what there will be, `[taps]` or `[channels, taps]`.
        should: The mean of what there should be.
        moments: Of what there will be, about its mean, `[taps, taps]` or `[channels, taps, taps]`.
        cross: Of that with what it lacks; None where it is what it should be.
    """

    mean: Matrix
    should: Matrix
    moments: Matrix
    cross: Matrix | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution or dense layer in both files.

    Attributes:
        kind: Such as `CONV_2D`.
        options: Of the operator.
        weights: As trained.
        bias: As trained, `[channels]`; None where there is none.
        stored: The tensor of the quantized file that holds the integers.
        stored_bias: The one that holds the bias.
        input_scale: Of the activations it reads, where they are integers: the bias is then one, too.
        file: The quantized file.
        most: The largest magnitude of an integer, where fewer than the format's are wanted.
        kept: What the integers in the file stand for, where only the bias is to be mended.
        price: What a bit costs, as a share of the layer's output's mean square; 0: size is no object.
    """

    kind: str
    options: Any
    weights: Floats
    bias: Matrix | None
    stored: Any
    stored_bias: Any
    input_scale: float | None
    file: Any
    most: int | None = None
    price: float = 0.0
    kept: Floats | None = None

    @property
    def is_depthwise(self) -> bool:
        """Every channel has inputs of its own."""
        return self.kind == "DEPTHWISE_CONV_2D"

    def choose(self, seen: Seen) -> Chosen:
        """Choose the integers, write them into the file, and return what they stand for."""
        if self.kept is not None:
            return self._mended(seen, self.kept)
        most = self.most or LARGEST[flatbuffer.TYPE_NAMES[self.stored.type]]
        weights = self._matrix(self.weights)
        if self.is_depthwise:
            codes, scales = self._each(weights, seen, most)
            shift = (seen.should.T * weights).sum(axis=0) - (seen.mean.T * codes * scales).sum(axis=0)
        else:
            codes, scales = self._all(weights, seen, most)
            shift = seen.should @ weights - seen.mean @ (codes * scales)
        return self._write(codes, scales.astype(np.float32), None if self.bias is None else self.bias + shift)

    def _all(self, weights: Matrix, seen: Seen, most: int) -> tuple[Matrix, Matrix]:
        """Integers and scales of a layer whose channels see the same inputs."""
        wanted = (
            weights if seen.cross is None else rounding.aimed(weights, seen.moments, seen.cross, ridge=_ridge(most))
        )
        if not self.price:
            scales = self._scales(wanted, np.diag(seen.moments)[:, None], most)
            return rounding.compensated(wanted, seen.moments, scales, most=most), scales
        price = self._price_each(weights, seen.moments)
        steps = rounding.steps_for(seen.moments, price)
        scales = np.maximum(self._scales(wanted, np.diag(seen.moments)[:, None], most), steps)
        return rounding.compensated(wanted, seen.moments, scales, most=most, price=price), scales

    def _price_each(self, weights: Matrix, moments: Matrix) -> Matrix:
        """`[channels]`: what a bit costs in mean square of each channel's output."""
        power = np.einsum("ic,ij,jc->c", weights, moments, weights, optimize=True)
        mean = max(float(power.mean()), _TINY)
        shared: Matrix = self.price * len(power) * mean * np.maximum(power / mean, _FAINTEST) ** _OWN_SHARE
        return shared

    def _each(self, weights: Matrix, seen: Seen, most: int) -> tuple[Matrix, Matrix]:
        wanted = (
            weights
            if seen.cross is None
            else rounding.aimed_each(weights, seen.moments, seen.cross, ridge=_ridge(most))
        )
        scales = self._scales(wanted, np.diagonal(seen.moments, axis1=1, axis2=2).T, most)
        return rounding.compensated_each(wanted, seen.moments, scales, most=most), scales

    def _scales(self, wanted: Matrix, curve: Matrix, most: int) -> Matrix:
        """`[channels]`; all the same where the file has one scale for the layer."""
        together = len(self.stored.quantization.scale) == 1
        scales = rounding.largest(wanted, most=most)
        if together:
            scales = np.full(scales.shape, scales.max())
        if most < _FINE or together:
            scales = rounding.clipped(wanted, curve, scales, most=most, together=together)
        if self.input_scale is not None and self.bias is not None:
            floor = np.abs(self.bias) / (self.input_scale * _BIAS_MOST)
            scales = np.maximum(scales, floor.max() if together else floor)
        return scales

    def _mended(self, seen: Seen, kept: Floats) -> Chosen:
        """The integers as they are, and a bias that takes up what they put the mean off by."""
        if self.bias is None:
            return Chosen(weights=kept, bias=None)
        weights, stand = self._matrix(self.weights), self._matrix(kept)
        if self.is_depthwise:
            shift = (seen.should.T * weights).sum(axis=0) - (seen.mean.T * stand).sum(axis=0)
        else:
            shift = seen.should @ weights - seen.mean @ stand
        scales = np.broadcast_to(np.asarray(self.stored.quantization.scale, np.float32), shift.shape)
        return Chosen(weights=kept, bias=self._write_bias(self.bias + shift, scales))

    def _matrix(self, values: Floats) -> Matrix:
        """`[taps, channels]`."""
        weights = values.astype(np.float64)
        if self.is_depthwise:  # [1, h, w, channels]
            each: Matrix = weights.reshape(-1, weights.shape[-1])
            return each
        matrix: Matrix = weights.reshape(len(weights), -1).T
        return matrix  # [channels, h, w, inputs] or [channels, inputs]

    def _write(self, codes: Matrix, scales: Floats, bias: Matrix | None) -> Chosen:
        shape = self.weights.shape
        stacked = codes if self.is_depthwise else codes.T
        integers = stacked.reshape(shape).astype(np.int8)
        _put(self.file, self.stored, integers, scales)
        spread = scales if self.is_depthwise else scales.reshape(-1, *([1] * (len(shape) - 1)))
        weights = integers.astype(np.float32) * spread
        return Chosen(weights=weights, bias=None if bias is None else self._write_bias(bias, scales))

    def _write_bias(self, bias: Matrix, scales: Floats) -> Floats:
        if self.input_scale is None:
            told = bias.astype(np.float32)
            _put(self.file, self.stored_bias, told, None)
            return told
        bias_scales = np.float64(self.input_scale) * scales
        bits, most = _BIASES[flatbuffer.TYPE_NAMES[self.stored_bias.type]]
        whole = np.clip(np.rint(bias / bias_scales), -most, most).astype(bits)
        _put(self.file, self.stored_bias, whole, bias_scales.astype(np.float32))
        stands: Floats = (whole * bias_scales).astype(np.float32)
        return stands


class Looks:
    """What a layer sees in the trained stream, taken once for all files that are made of it.

    Args:
        kind: Of the operator.
        options: Of the operator.
        weights: As trained.
        trained: The layer's input as it should be.
        random: Picks the positions that are looked at, where there are many.
        centred: The layer has a bias, which mends the mean.
    """

    def __init__(
        self, kind: str, options: Any, weights: Floats, trained: Values, random: np.random.Generator, *, centred: bool
    ) -> None:
        self._is_centred = centred
        self._each = kind == "DEPTHWISE_CONV_2D"
        taps = int(np.prod(weights.shape[1:3])) if self._each else int(np.prod(weights.shape[1:]))
        most = _ROWS_EACH if self._each else max(_ROWS, _ROWS_A_TAP * taps)
        self._patches = Patches(kind, options, weights.shape, trained.shape, random=random, most=most)
        self._axis = 2 if self._each else 0
        self._should, self._mean = self._centred(trained)
        self._same: Seen | None = None

    def seen(self, stream: Values | None) -> Seen:
        """What it sees in another stream; None: in the trained one."""
        if stream is None:
            if self._same is None:
                moments = self._product(self._should, self._should)
                self._same = Seen(mean=self._mean, should=self._mean, moments=moments, cross=None)
            return self._same
        there, mean = self._centred(stream)
        lacking = self._should - there
        return Seen(
            mean=mean, should=self._mean, moments=self._product(there, there), cross=self._product(there, lacking)
        )

    def _centred(self, stream: Values) -> tuple[Floats, Matrix]:
        rows = self._patches.of(stream)
        mean = rows.mean(axis=self._axis, dtype=np.float64)
        if not self._is_centred:
            return rows, mean
        rows -= np.expand_dims(mean.astype(np.float32), self._axis)
        return rows, mean

    def _product(self, one: Floats, other: Floats) -> Matrix:
        if self._each:
            each: Matrix = np.matmul(one, other.transpose(0, 2, 1)).astype(np.float64) / one.shape[2]
            return each
        product: Matrix = (one.T @ other).astype(np.float64) / len(one)
        return product


def _ridge(most: int) -> float:
    """How strongly the trained weights hold, by the largest integer."""
    return rounding.RIDGE if most >= _FINE else rounding.RIDGE_OF_FEW_LEVELS


def _put(file: Any, tensor: Any, values: Array, scales: Floats | None) -> None:
    """Write a constant and its scales; where the file has room for one, they are all the same."""
    if scales is not None:
        tensor.quantization.scale = scales[:1] if len(tensor.quantization.scale) == 1 else scales
    flatbuffer.put(file, tensor, _nibbles(values) if flatbuffer.TYPE_NAMES[tensor.type] == "int4" else values)


def _nibbles(values: Array) -> Array:
    """4-bit integers two to a byte, the first in the lower half."""
    flat = values.reshape(-1)
    if len(flat) % 2:
        flat = np.append(flat, np.int8(0))
    packed: Array = (flat[0::2] & 0x0F) | ((flat[1::2] & 0x0F) << 4)
    return packed.astype(np.uint8)
