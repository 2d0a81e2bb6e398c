"""The border between an app's arrays and a model's tensors: what is taken, how it is converted, what is refused.

Floating point outside, whatever the number format inside: a quantized input is quantized here, a quantized output
dequantized. Nothing is cast that would lose information without saying so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InputDtypeError, InputShapeError, InputValueError, ModelLoadError
from edge_sdk.manifest import TensorSpec

Array = NDArray[Any]
Shape = tuple[int, ...]

_FLOAT32 = np.dtype(np.float32)
_MAX_FLOAT_BYTES = 8  # long double has digits that no cast to float32 could claim to keep
_EXACT_IN_FLOAT32 = 2**24  # every integer up to here is a float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output of a loaded model.

    Attributes:
        shape: As allocated: free dimensions are 1.
        free: Which dimensions the model leaves open.
        scale: Of a quantized tensor: `real = (stored - zero) * scale`; None where it is not quantized.
        finite: NaN and infinity are refused, because integer arithmetic behind this input has no such values.
        is_steps: Its integers are steps of a quantized number, passed as they are: any of them makes sense.
    """

    name: str
    index: int
    shape: Shape
    free: tuple[bool, ...]
    dtype: np.dtype[Any]
    scale: float | None
    zero: int
    finite: bool = False
    is_steps: bool = False

    @property
    def spec(self) -> TensorSpec:
        """What the app sees: free dimensions as -1, float32 where the tensor is quantized."""
        shape = tuple(-1 if free else size for free, size in zip(self.free, self.shape, strict=True))
        return TensorSpec(name=self.name, shape=shape, dtype=(_FLOAT32 if self.is_real else self.dtype).name)

    @property
    def is_real(self) -> bool:
        """The app passes floating-point numbers here."""
        return self.scale is not None or self.dtype.kind == "f"

    @property
    def is_plain(self) -> bool:
        """A float32 array of the right shape can be passed on untouched."""
        return self.dtype == _FLOAT32 and not self.finite

    def fits(self, shape: Shape) -> bool:
        """Whether the model takes this shape, all dimensions given."""
        return len(shape) == len(self.shape) and all(
            free or have == want for have, want, free in zip(shape, self.shape, self.free, strict=True)
        )

    def fits_sample(self, shape: Shape) -> bool:
        """Whether this is the shape of one sample, the batch dimension left out."""
        return len(shape) == len(self.shape) - 1 and all(
            free or have == want for have, want, free in zip(shape, self.shape[1:], self.free[1:], strict=True)
        )

    def take(self, given: object) -> Array:
        """The array as the tensor stores it, of the shape it came in.

        Raises:
            InputDtypeError: Its dtype can't be taken without losing information.
            InputValueError: It holds NaN or infinity and the model computes with integers.
        """
        array = given if isinstance(given, np.ndarray) else _array(given, self.name)
        if not self.is_real:
            return self._take_exact(array)
        real = _as_float32(array, self.name)
        # `reduce` rather than `all`, which costs another microsecond in Python.
        if self.finite and not np.logical_and.reduce(np.isfinite(real), axis=None):
            raise InputValueError(
                "holds NaN or infinity, which this variant's integer arithmetic cannot represent",
                where=f"input {self.name!r}",
                hint="clean the data, or switch to a floating-point variant",
            )
        if self.scale is None:
            return real.astype(self.dtype, copy=False)
        # Ties to even, as XNNPACK's own QUANTIZE rounds.
        limits = np.iinfo(self.dtype)
        steps = np.rint(real / np.float32(self.scale)) + np.float32(self.zero)
        quantized: Array = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return quantized

    def give(self, stored: Array) -> Array:
        """The tensor's value as the app sees it."""
        if self.scale is not None:
            real: Array = (stored.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)
            return real
        if self.dtype.kind == "f":
            return stored.astype(np.float32, copy=False)
        return stored

    def _take_exact(self, array: Array) -> Array:
        """Integers into an integer tensor, truth values into a boolean one, nothing else."""
        if array.dtype == self.dtype:
            return array
        if self.dtype.kind in "iu" and array.dtype.kind in "iub":
            limits = np.iinfo(self.dtype)
            if not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
                return array.astype(self.dtype)
        raise InputDtypeError(
            f"{array.dtype} does not fit {self.dtype}", where=f"input {self.name!r}", hint=f"pass {self.dtype}"
        )

    def wrong_shape(self, shape: Shape) -> InputShapeError:
        """The error for an array of this shape."""
        want = list(self.spec.shape)
        hint = f"one sample is {want[1:]}, a batch [n, ...]" if self.shape[:1] == (1,) else "pass exactly that"
        return InputShapeError(
            f"an array of shape {list(shape)}, where the model takes {want}",
            where=f"input {self.name!r}",
            hint=hint,
        )


def port(details: Mapping[str, Any], *, name: str, finite: bool = False, stored: bool = False) -> Port:
    """A `Port` from what the runtime tells of a tensor.

    Args:
        details: The runtime's own.
        name: The app knows it by.
        finite: NaN and infinity are refused in floats.
        stored: A quantized tensor is taken and given as its integers.

    Raises:
        ModelLoadError: The tensor is of a kind an app can't pass, such as text.
    """
    dtype = np.dtype(details["dtype"])
    shape = tuple(int(size) for size in details["shape"])
    signature = tuple(int(size) for size in details.get("shape_signature", ()))
    if len(signature) != len(shape):
        signature = shape
    scales = details["quantization_parameters"]["scales"]
    zeros = details["quantization_parameters"]["zero_points"]
    if dtype.kind not in "fiub" or len(scales) > 1:
        kind = f"per-channel quantized {dtype}" if len(scales) > 1 else str(dtype)
        raise ModelLoadError(f"tensor {name!r} is {kind}, which no app can pass", hint="convert the model again")
    has_steps = len(scales) == 1 and dtype.kind in "iu"
    is_quantized = has_steps and not stored
    return Port(
        name=name,
        index=int(details["index"]),
        shape=shape,
        free=tuple(size == -1 for size in signature),
        dtype=dtype,
        scale=float(scales[0]) if is_quantized else None,
        zero=int(zeros[0]) if is_quantized else 0,
        finite=finite or is_quantized,
        is_steps=has_steps and stored,
    )


def _array(given: object, name: str) -> Array:
    try:
        return np.asarray(given)
    except ValueError as cause:  # nested lists of unequal lengths
        raise InputShapeError(f"no array: {cause}", where=f"input {name!r}", hint="pass a numpy array") from cause


def _as_float32(array: Array, name: str) -> Array:
    dtype = array.dtype
    if dtype == _FLOAT32:
        return array
    if dtype.kind == "f" and dtype.itemsize <= _MAX_FLOAT_BYTES:
        with np.errstate(over="ignore"):
            real = array.astype(_FLOAT32)
        if dtype.itemsize <= _FLOAT32.itemsize or np.array_equal(np.isinf(real), np.isinf(array)):
            return real
        reason = f"{dtype} values beyond the range of float32"
    elif dtype.kind == "b" or (dtype.kind in "iu" and _is_exact(array)):
        return array.astype(_FLOAT32)
    else:
        reason = f"{dtype} integers beyond 2^24 are no float32" if dtype.kind in "iu" else f"{dtype} is no number"
    raise InputDtypeError(reason, where=f"input {name!r}", hint="pass float32")


def _is_exact(integers: Array) -> bool:
    return not integers.size or (int(integers.min()) >= -_EXACT_IN_FLOAT32 and int(integers.max()) <= _EXACT_IN_FLOAT32)
