"""What all kinds of labelled data have in common: the contract, and what is checked of every array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_converter.errors import DataError
from edge_sdk import preprocess
from edge_sdk.manifest import Preprocessing, TensorSpec

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Array = NDArray[Any]

_LEAST_STD = 1e-12
_LARGEST = np.uint64(2**63 - 1)
_FLOAT_BEYOND = 2.0**63
CHECKED_AT_ONCE = 16  # samples may be as large as pictures


class Labels(Protocol):
    """What belongs to each sample: class numbers `[n] int64`, or rows of any shape, read as they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The labels of these rows, `[len(rows), ...]`."""


class Samples(Protocol):
    """Labelled samples, preprocessed as they are read; what they take of memory does not depend on their size.

    Attributes:
        labels: One a sample; `[n, 0]` where there are none.
        classes: Names of the classes, by number; empty where they have none.
        preprocessing: What was done to them, for the manifest.
        where: They come from, for errors.
    """

    @property
    def labels(self) -> Labels: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102

    @property
    def where(self) -> str: ...  # noqa: D102

    def digests(self) -> list[bytes]:
        """The SHA-256 of each sample's raw content."""

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These samples: one array per input, in the model's order, `[n, *shape]` of the input's dtype.

        Called by several threads at once.

        Raises:
            DataError: A sample cannot be read.
        """


def as_rows(rows: Iterable[int]) -> Integers:
    """Row numbers as an array."""
    return np.fromiter(rows, np.int64)


def check_preprocessing(preprocessing: Preprocessing, inputs: Iterable[TensorSpec]) -> None:
    """Mean and std fit the channels of every input that takes floats.

    Raises:
        DataError: They do not.
    """
    for spec in inputs:
        if spec.dtype != "float32":
            continue
        channels = spec.shape[-1] if len(spec.shape) > 1 else 1
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            if len(values) not in {1, channels}:
                raise DataError(
                    f"{len(values)} values of {name} for {channels} channels", hint="give one, or one a channel"
                )
    if any(value == 0 for value in preprocessing.std):
        raise DataError("a std of 0 divides by zero")
    if any(abs(value) < _LEAST_STD for value in preprocessing.std):
        raise DataError(
            f"a std below {_LEAST_STD:g} makes numbers that no model takes", hint="give --std as it was trained with"
        )


def check_kind(array: Array, spec: TensorSpec, *, called: str, where: str) -> None:
    """Refuse numbers that an input cannot hold, by their dtype.

    Raises:
        DataError: They are none, or floats for an input of integers.
    """
    if array.dtype.kind not in "fiub":
        raise DataError(f"{called} holds {array.dtype}, not numbers", where=where)
    if spec.dtype != "float32" and array.dtype.kind == "f":
        raise DataError(f"{called} holds {array.dtype}, and the model takes {spec.dtype}", where=where)


def check_values(part: Array, spec: TensorSpec, *, first: int, where: str) -> None:
    """Refuse values that an input cannot hold.

    Args:
        part: Some samples, `[n, *shape]`.
        spec: Of the input.
        first: The number of the first of them.
        where: They come from.

    Raises:
        DataError: One is NaN or infinite, or beyond the input's integers.
    """
    is_real = spec.dtype == "float32"
    fits = np.isfinite(part) if is_real else part.astype(spec.dtype) == part
    fits = fits.reshape(len(part), -1).all(axis=1)
    if not fits.all():
        says = "NaN or infinity" if is_real else f"a number that is no {spec.dtype}"
        raise DataError(f"sample {first + int(np.argmin(fits))} holds {says}", where=where)


def as_taken(raw: Array, spec: TensorSpec, preprocessing: Preprocessing) -> Array:
    """Raw samples as an input takes them: preprocessed where it takes floats, else as they are."""
    if spec.dtype != "float32":
        return raw.astype(spec.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        taken = preprocess.normalised(raw, preprocessing)
    if not np.isfinite(taken).all():
        raise DataError(
            "a sample is infinite once it is prepared", hint="check --mean, --std and the size of its numbers"
        )
    return taken


class OneHot:
    """Class numbers, `[n] int64`, that were given as one-hot rows.

    Attributes:
        columns: Of the rows: one for each class there could be.
    """

    def __init__(self, rows: Array) -> None:
        self.columns = rows.shape[1]
        starts = range(0, len(rows), CHECKED_AT_ONCE)
        found = [rows[start : start + CHECKED_AT_ONCE].argmax(axis=1) for start in starts]
        self._numbers: Integers = np.concatenate(found).astype(np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, rows: Any, /) -> Any:
        return self._numbers[rows]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self._numbers, dtype, copy=bool(copy))


def as_labels(y: Array, *, where: str) -> Labels:
    """Labels as they were given: whole numbers, one a sample, and one-hot rows become class numbers, `[n] int64`.

    Raises:
        DataError: They are no numbers, or larger ones than there are classes anywhere.
    """
    if y.dtype.kind not in "fiub":
        raise DataError(f"y holds {y.dtype}, not numbers", where=where, hint="label by class number")
    if y.ndim == 0:
        raise DataError("y is one number, not one for each sample", where=where)
    if y.ndim == 2 and y.shape[1] == 1:  # noqa: PLR2004 - a column
        y = y.reshape(-1)
    if y.ndim == 1:
        check_whole(y, where=where)
        whole = y.dtype.kind != "f" or bool((np.abs(y) < _FLOAT_BEYOND).all() and (y == np.floor(y)).all())
        return y.astype(np.int64) if whole else np.asarray(y, np.float64)
    if y.ndim == 2 and y.shape[1] > 1 and _is_one_hot(y):  # noqa: PLR2004 - rows and columns
        return OneHot(y)
    return y


def check_whole(y: Array, *, where: str, first: int = 0) -> None:
    """Refuse whole numbers without a sign that 64 bits with one do not hold: they would become others.

    Args:
        y: Labels, one a sample or one row a sample.
        where: They come from.
        first: The number of the first sample of them.

    Raises:
        DataError: One is larger.
    """
    if y.dtype.kind != "u" or y.dtype.itemsize < _LARGEST.itemsize:
        return
    fits = (y <= _LARGEST).reshape(len(y), -1)
    if not fits.all():
        row, at = np.argwhere(~fits)[0]
        raise DataError(
            f"label {y.reshape(len(y), -1)[row, at]} of sample {first + row} is larger than any class number",
            where=where,
            hint="label by class number, from 0 up",
        )


def _is_one_hot(y: Array) -> bool:
    parts = (y[start : start + CHECKED_AT_ONCE] for start in range(0, len(y), CHECKED_AT_ONCE))
    return len(y) > 0 and all(
        bool((((part != 0) == (part == 1)).all()) and (part.sum(axis=1) == 1).all()) for part in parts
    )
