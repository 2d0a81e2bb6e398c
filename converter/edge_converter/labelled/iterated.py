"""Labelled data from a user's own function, by `module:function`.

What it gives is iterated over once and laid into files without a name, so a generator that can be run but once, that
decodes slowly or draws at random serves every variant the same samples, and memory holds one of them at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled import named, spool
from edge_converter.labelled.samples import (
    Array,
    Integers,
    Labels,
    Samples,
    as_labels,
    as_taken,
    check_kind,
    check_preprocessing,
    check_values,
    check_whole,
)
from edge_sdk import preprocess
from edge_sdk.manifest import Preprocessing, TensorSpec

# A generator without an end is found out here.
MAX_SAMPLES = 1_000_000
MAX_BYTES = 64 << 30
_PAIR = 2
_CONTRACT = ("labels", "classes", "preprocessing", "where", "digests", "read")


def open_named(name: str, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> Samples:
    """The samples that `module:function` gives.

    Args:
        name: A function without arguments, which returns pairs of sample and label (a sequence, a generator, any
            iterable), or an object with what `edge_converter.labelled.samples.Samples` asks for.
        inputs: Of the model. A sample is an array, or where there are several inputs a tuple of arrays in their order,
            or a mapping by their names; a label is a number, an array, or None for no labels.
        preprocessing: Applied to the samples; not to those of an object of its own.

    Raises:
        DataError: It cannot be imported, raises, or gives something else.
        StorageError: There is no room for what it gives.
    """
    function = named.load(name, DataError)
    if not callable(function):
        raise DataError(f"is {type(function).__name__}, which cannot be called", where=name)
    with named.guarded(name, DataError, doing="calling it"):
        given: Any = function()
        is_whole = all(hasattr(given, part) for part in _CONTRACT)
    if is_whole:
        return _Theirs(name, given, inputs)
    if not isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
        raise DataError(
            f"returned {type(given).__name__}, which gives no samples",
            where=name,
            hint="return pairs of sample and label, or yield them",
        )
    return _Laid(name, given, inputs=inputs, preprocessing=preprocessing)


class _Laid:
    """Pairs of sample and label, laid into files."""

    def __init__(self, name: str, given: Any, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> None:
        self.where, self.preprocessing = name, preprocessing
        self.classes: tuple[str, ...] = ()
        self._inputs = tuple(inputs)
        check_preprocessing(preprocessing, inputs)
        if preprocess.size_of(preprocessing) is not None:
            raise DataError("--resize and --crop are for folders of images", where=name)
        self._digests: list[bytes] = []
        stored = [np.float32 if spec.dtype == "float32" else spec.dtype for spec in inputs]
        rows = [spool.Rows(spec.shape[1:], dtype) for spec, dtype in zip(inputs, stored, strict=True)]
        try:
            labels = self._take(given, rows)
            self._arrays = [one.close() for one in rows]
            self.labels: Labels = labels
        finally:
            for one in rows:
                one.discard()

    def digests(self) -> list[bytes]:
        """The SHA-256 of each sample's numbers, over all inputs."""
        return self._digests

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These samples, one array per input."""
        return tuple(
            as_taken(np.asarray(array[rows]), spec, self.preprocessing)
            for array, spec in zip(self._arrays, self._inputs, strict=True)
        )

    def _take(self, given: Any, rows: Sequence[spool.Rows]) -> Labels:
        """Lay all samples down; returns their labels."""
        most = min(MAX_SAMPLES, MAX_BYTES // max(1, sum(one.row_bytes for one in rows)))
        labels: spool.Rows | None = None
        with named.guarded(self.where, DataError, doing="iterating over what it returned"):
            pairs = iter(given)
        number = 0
        try:
            while True:
                with named.guarded(self.where, DataError, doing=f"getting sample {number}"):
                    try:
                        pair = next(pairs)
                    except StopIteration:
                        break
                if number >= most:
                    raise DataError(
                        f"gives more than {most:,} samples", where=self.where, hint="let it end, or give fewer"
                    )
                sample, label = self._pair(pair, number)
                self._lay(sample, rows, number)
                here = self._label(label, number)
                if labels is None:
                    labels = spool.Rows(here.shape, np.int64 if here.dtype.kind in "iub" else np.float64)
                labels.append(self._like(here, labels, number))
                number += 1
            found = labels.close() if labels is not None else np.zeros((0, 0), np.float32)
        finally:
            if labels is not None:
                labels.discard()
        return as_labels(found, where=self.where)

    def _pair(self, pair: Any, number: int) -> tuple[Any, Any]:
        if not isinstance(pair, (tuple, list)) or len(pair) != _PAIR:
            says = f"{type(pair).__name__} of {len(pair)}" if hasattr(pair, "__len__") else type(pair).__name__
            raise DataError(
                f"sample {number} is {says}, where (sample, label) belongs",
                where=self.where,
                hint="give None as the label where there is none",
            )
        return pair[0], pair[1]

    def _lay(self, sample: Any, rows: Sequence[spool.Rows], number: int) -> None:
        digest = hashlib.sha256()
        for given, spec, laid in zip(self._parts(sample, number), self._inputs, rows, strict=True):
            array = self._array(given, f"sample {number}")
            called = f"sample {number}"
            check_kind(array, spec, called=called, where=self.where)
            if array.shape != spec.shape[1:]:
                raise DataError(
                    f"{called} is {list(array.shape)}, the model takes {list(spec.shape[1:])}", where=self.where
                )
            check_values(array[np.newaxis], spec, first=number, where=self.where)
            laid.append(array)
            digest.update(np.ascontiguousarray(array).tobytes())
        self._digests.append(digest.digest())

    def _parts(self, sample: Any, number: int) -> Sequence[Any]:
        """One for each input of the model."""
        if isinstance(sample, Mapping):
            missing = [spec.name for spec in self._inputs if spec.name not in sample]
            if missing:
                raise DataError(f"sample {number} has nothing for input {missing[0]!r}", where=self.where)
            return [sample[spec.name] for spec in self._inputs]
        if len(self._inputs) == 1:
            return [sample]
        if not isinstance(sample, (tuple, list)) or len(sample) != len(self._inputs):
            raise DataError(
                f"sample {number} is {type(sample).__name__}, where the model takes {len(self._inputs)} inputs",
                where=self.where,
                hint="give a tuple of arrays in their order, or a mapping by their names",
            )
        return sample

    def _label(self, label: Any, number: int) -> Array:
        if label is None:
            return np.zeros(0, np.float32)
        array = self._array(label, f"the label of sample {number}")
        if array.dtype.kind not in "fiub":
            raise DataError(f"the label of sample {number} is {array.dtype}, not a number", where=self.where)
        if array.dtype.kind == "u":  # it is laid down as one with a sign
            check_whole(array[np.newaxis], where=self.where, first=number)
        return array

    def _like(self, label: Array, labels: spool.Rows, number: int) -> Array:
        """The label, where it is as the first: one of floats after whole numbers is none."""
        if label.shape != labels.shape or (labels.dtype.kind == "i" and label.dtype.kind == "f"):
            raise DataError(
                f"the label of sample {number} is {label.dtype} {list(label.shape)}, and that of the first "
                f"{labels.dtype} {list(labels.shape)}",
                where=self.where,
                hint="boxes are filled up with class -1 to as many in each",
            )
        return label

    def _array(self, given: Any, called: str) -> Array:
        with named.guarded(self.where, DataError, doing=f"turning {called} into an array"):
            return np.asarray(given)


class _Theirs:
    """An object of the user's that fulfils the contract; what it raises is told in one line."""

    def __init__(self, name: str, given: Any, inputs: Sequence[TensorSpec]) -> None:
        self.where, self._given, self._inputs = name, given, tuple(inputs)
        with named.guarded(name, DataError, doing="reading its labels"):
            self.labels: Labels = given.labels
            self.classes = tuple(str(one) for one in given.classes)
            self.preprocessing = given.preprocessing
        if not isinstance(self.preprocessing, Preprocessing):
            raise DataError(f"its preprocessing is {type(self.preprocessing).__name__}", where=name)

    def digests(self) -> list[bytes]:
        """Of the user's samples."""
        with named.guarded(self.where, DataError, doing="asking for digests"):
            found = [bytes(one) for one in self._given.digests()]
        if len(found) != len(self.labels):
            raise DataError(f"gives {len(found)} digests and {len(self.labels)} labels", where=self.where)
        return found

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """The user's samples, checked."""
        with named.guarded(self.where, DataError, doing=f"reading sample {rows[0]}"):
            arrays = tuple(np.asarray(one) for one in self._given.read(rows))
        for array, spec in zip(arrays, self._inputs, strict=False):
            if array.shape != (len(rows), *spec.shape[1:]):
                raise DataError(
                    f"{len(rows)} samples came as {list(array.shape)}, the model takes {list(spec.shape)}",
                    where=self.where,
                )
            check_kind(array, spec, called="a sample", where=self.where)
            check_values(array, spec, first=int(rows[0]), where=self.where)
        if len(arrays) != len(self._inputs):
            raise DataError(f"gives {len(arrays)} arrays for {len(self._inputs)} inputs", where=self.where)
        return tuple(array.astype(spec.dtype, copy=False) for array, spec in zip(arrays, self._inputs, strict=True))
