"""Labelled data: an `.npz` file or a folder of images, read a few samples at a time, and split by content.

The split is by the SHA-256 of each sample, so it does not depend on the order of the files, equal samples never lie on
both sides of it, and a sample added later moves no other.
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_converter.errors import DataError
from edge_sdk import preprocess
from edge_sdk.errors import InputError
from edge_sdk.manifest import Preprocessing, TensorSpec

Floats = NDArray[np.float32]
Array = NDArray[Any]
Integers = NDArray[np.int64]

LABELS_FILE = "labels.csv"
MAX_CALIBRATION = 128
# Of the samples, at most one in four calibrates and one in four steers, so at least half is left to count.
_SHARE = 4
MIN_SAMPLES = 10
_CHECKED_AT_ONCE = 256


class Samples(Protocol):
    """Labelled samples, preprocessed as they are read."""

    labels: Integers
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    where: str

    def digests(self) -> list[bytes]:
        """The SHA-256 of each sample's raw content."""

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These samples: one array per input, in the model's order, `[n, *shape]` of the input's dtype.

        Raises:
            DataError: A sample cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Row numbers by what they are for.

    Attributes:
        calibrate: Their activations give the quantizer its ranges; labels unused.
        steer: They fine-tune pruned models.
        count: They count towards quality, and nothing else has seen them.
    """

    calibrate: Integers
    steer: Integers
    count: Integers


def open_samples(path: Path, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> Samples:
    """Open labelled data for a model with these inputs, and check all that can be without decoding it.

    Args:
        path: An `.npz` file with `x` and `y`, or a folder of images with `labels.csv` or one sub-folder a class.
        inputs: Of the model, in its order, batch dimension included.
        preprocessing: Applied to every sample, where an input takes floats.

    Raises:
        DataError: It is missing, empty, mislabelled, or does not fit the shape.
    """
    samples: Samples = (
        _ImageFolder(path, inputs=inputs, preprocessing=preprocessing)
        if path.is_dir()
        else _Arrays(path, inputs=inputs, preprocessing=preprocessing)
    )
    if len(samples.labels) == 0:
        raise DataError("holds no samples", where=str(path))
    return samples


def check_labels(samples: Samples, outputs: int) -> None:
    """Every label is one of the model's outputs, and where classes have names, each output has one.

    Raises:
        DataError: It is not so.
    """
    if samples.classes and len(samples.classes) != outputs:
        raise DataError(
            f"names {len(samples.classes)} classes, and the model has {outputs} outputs",
            where=samples.where,
            hint=f"label by number, 0 to {outputs - 1}, where not every class occurs",
        )
    wrong = np.flatnonzero((samples.labels < 0) | (samples.labels >= outputs))
    if wrong.size:
        raise DataError(
            f"label {samples.labels[wrong[0]]} of sample {wrong[0]} is none of the model's {outputs} outputs",
            where=samples.where,
            hint=f"labels go from 0 to {outputs - 1}",
        )


def split(samples: Samples, *, apart: bool, steer: bool) -> Split:
    """Divide samples by their content.

    Args:
        samples: What to divide.
        apart: Calibration samples are given apart, so all of these count.
        steer: Something will be steered; where nothing is, its part counts too.

    Raises:
        DataError: There are too few to divide.
    """
    digests = samples.digests()
    if len(digests) < MIN_SAMPLES:
        raise DataError(
            f"holds {len(digests)} samples; at least {MIN_SAMPLES} are needed to tell a good variant from a bad one",
            where=samples.where,
        )
    if apart:
        nothing = np.zeros(0, np.int64)
        return Split(calibrate=nothing, steer=nothing, count=np.arange(len(digests), dtype=np.int64))
    rows_of: dict[bytes, list[int]] = {}
    for row, digest in enumerate(digests):
        rows_of.setdefault(digest, []).append(row)
    share = len(digests) // _SHARE
    wanted = {"calibrate": min(MAX_CALIBRATION, share), "steer": share if steer else 0}
    parts: dict[str, list[int]] = {"calibrate": [], "steer": [], "count": []}
    for digest in sorted(rows_of):
        part = next((name for name, most in wanted.items() if len(parts[name]) < most), "count")
        parts[part] += rows_of[digest]
    if not parts["count"]:
        raise DataError("holds nothing but copies of a few samples", where=samples.where)
    return Split(**{name: np.array(rows, np.int64) for name, rows in parts.items()})


def _check_preprocessing(preprocessing: Preprocessing, shape: tuple[int, ...]) -> None:
    channels = shape[-1] if shape else 1
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) not in {1, channels}:
            raise DataError(
                f"{len(values)} values of {name} for {channels} channels", hint="give one, or one a channel"
            )
    if any(value == 0 for value in preprocessing.std):
        raise DataError("a std of 0 divides by zero")


def _to_size(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """The same, bringing images to the size a model takes where it does not say how.

    Raises:
        DataError: It says how, and that comes to another size.
    """
    if preprocess.size_of(preprocessing) is None:
        return msgspec.structs.replace(preprocessing, resize=size)
    if preprocessing.crop is None and preprocessing.resize != size:
        high, wide = preprocessing.resize or (0, 0)
        larger = high >= size[0] and wide >= size[1]
        raise DataError(
            f"--resize {high}x{wide} does not fit a model that takes {size[0]}x{size[1]}",
            hint=f"add --crop {size[0]}x{size[1]}" if larger else "give the size it takes, or none",
        )
    if preprocessing.crop is not None and preprocessing.crop != size:
        raise DataError(
            f"--crop {preprocessing.crop[0]}x{preprocessing.crop[1]} does not fit a model that takes "
            f"{size[0]}x{size[1]}"
        )
    return preprocessing


class _Arrays:
    """An `.npz` file: `x` holds the samples, `y` their labels (numbers, or one-hot rows), `classes` their names.

    Where a model has several inputs, `x0`, `x1`... hold them in the model's order, or arrays of the inputs' names.
    """

    def __init__(self, path: Path, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> None:
        self.where = str(path)
        self.preprocessing = preprocessing
        self._inputs = tuple(inputs)
        for spec in self._inputs:
            if spec.dtype == "float32":
                _check_preprocessing(preprocessing, spec.shape[1:])
        if preprocess.size_of(preprocessing) is not None:
            raise DataError(
                "arrays are not resized", where=self.where, hint="--resize and --crop are for folders of images"
            )
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                names = self._names(archive.files)
                self._arrays, y = [archive[name] for name in names], archive["y"]
                self.classes = tuple(str(name) for name in archive["classes"]) if "classes" in archive.files else ()
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, KeyError) as cause:
            raise DataError(
                f"is no readable .npz file ({type(cause).__name__})",
                where=self.where,
                hint="numpy.savez(FILE, x=samples, y=labels) makes one; a folder of images works too",
            ) from cause
        self.labels = self._numbers(y)
        for name, array, spec in zip(names, self._arrays, self._inputs, strict=True):
            self._check(name, array, spec)

    def digests(self) -> list[bytes]:
        found = []
        for row in range(len(self.labels)):
            digest = hashlib.sha256()
            for array in self._arrays:
                digest.update(np.ascontiguousarray(array[row]).tobytes())
            found.append(digest.digest())
        return found

    def read(self, rows: Integers) -> tuple[Array, ...]:
        return tuple(
            preprocess.normalised(array[rows], self.preprocessing)
            if spec.dtype == "float32"
            else array[rows].astype(spec.dtype)
            for array, spec in zip(self._arrays, self._inputs, strict=True)
        )

    def _names(self, have: Sequence[str]) -> tuple[str, ...]:
        """Of the arrays that hold the samples, in the order of the model's inputs."""
        numbered = tuple(f"x{number}" for number in range(len(self._inputs)))
        called = tuple(spec.name for spec in self._inputs)
        ways = [("x",), numbered, called] if len(called) == 1 else [numbered, called]
        names = next((way for way in ways if {*way, "y"} <= set(have)), None)
        if names is None:
            wanted = " and ".join(("x", "y") if len(called) == 1 else (*numbered, "y"))
            shown = ", ".join(have)[:200] or "nothing"
            raise DataError(f"needs the arrays {wanted}, and holds {shown}", where=self.where)
        return names

    def _numbers(self, y: NDArray[np.generic]) -> Integers:
        if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "fiub":  # noqa: PLR2004 - rows and columns
            if not ((y != 0).sum(axis=1) == 1).all():
                raise DataError("the rows of y are not one-hot", where=self.where)
            return np.asarray(y.argmax(axis=1), np.int64)
        flat = y.reshape(-1)
        if flat.dtype.kind not in "fiub" or (flat.dtype.kind == "f" and not (flat == np.floor(flat)).all()):
            raise DataError(f"y holds {flat.dtype}, not whole numbers", where=self.where, hint="label by class number")
        return flat.astype(np.int64)

    def _check(self, name: str, array: Array, spec: TensorSpec) -> None:
        """Refuse what the model does not take, before minutes are spent on it."""
        if len(array) != len(self.labels):
            raise DataError(f"holds {len(array)} samples and {len(self.labels)} labels", where=self.where)
        shape = spec.shape[1:]
        if len(array) and array.shape[1:] != shape:
            whose = "its samples are" if len(self._inputs) == 1 else f"the samples in {name} are"
            raise DataError(f"{whose} {list(array.shape[1:])}, the model takes {list(shape)}", where=self.where)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{name} holds {array.dtype}, not numbers", where=self.where)
        wanted = np.dtype(spec.dtype)
        if wanted.kind != "f" and array.dtype.kind == "f":
            raise DataError(f"{name} holds {array.dtype}, and the model takes {wanted}", where=self.where)
        for start in range(0, len(array), _CHECKED_AT_ONCE):
            part = array[start : start + _CHECKED_AT_ONCE]
            fits = np.isfinite(part) if wanted.kind == "f" else part.astype(wanted) == part
            fits = fits.reshape(len(part), -1).all(axis=1)
            if not fits.all():
                says = "NaN or infinity" if wanted.kind == "f" else f"a number that is no {wanted}"
                raise DataError(f"sample {start + int(np.argmin(fits))} holds {says}", where=self.where)


class _ImageFolder:
    """A folder of images, labelled by `labels.csv` or by the sub-folder each lies in."""

    def __init__(self, path: Path, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> None:
        self.where = str(path)
        if len(inputs) != 1:
            raise DataError(f"images do not fit a model that takes {len(inputs)} inputs", where=self.where)
        shape, self._dtype = inputs[0].shape[1:], np.dtype(inputs[0].dtype)
        if self._dtype.kind != "f" and preprocessing != msgspec.structs.replace(preprocessing, mean=(0.0,), std=(1.0,)):
            raise DataError(f"--mean and --std do not fit a model that takes {self._dtype}")
        if len(shape) != 3 or shape[2] not in {1, 3}:  # noqa: PLR2004 - height, width, channels
            raise DataError(f"images do not fit a model that takes {list(shape)}", where=self.where)
        _check_preprocessing(preprocessing, shape)
        self._channels = shape[2]
        self.preprocessing = _to_size(preprocessing, (shape[0], shape[1]))
        table = path / LABELS_FILE
        labelled = self._from_table(table) if table.is_file() else self._from_folders(path)
        self._files = [file for file, _ in labelled]
        self.classes, self.labels = _class_numbers([label for _, label in labelled])

    def digests(self) -> list[bytes]:
        return [_file_digest(file) for file in self._files]

    def read(self, rows: Integers) -> tuple[Array, ...]:
        return (np.stack([self._sample(self._files[row]) for row in rows]).astype(self._dtype, copy=False),)

    def _sample(self, file: Path) -> Floats:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                return preprocess.prepare(image, self.preprocessing, channels=self._channels)
        except InputError as cause:
            raise DataError(cause.what, where=str(file), hint=cause.hint) from cause
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as cause:
            raise DataError(
                "is no readable image", where=str(file), hint=f"remove it or repair it ({cause})"
            ) from cause

    def _from_table(self, table: Path) -> list[tuple[Path, str]]:
        try:
            with table.open(encoding="utf-8-sig", newline="") as stream:
                lines = list(csv.reader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as cause:
            raise DataError(f"cannot be read: {cause}", where=str(table)) from cause
        if not lines or [cell.strip() for cell in lines[0]] != ["file", "label"]:
            raise DataError("does not begin with the header file,label", where=str(table))
        labelled = []
        for number, line in enumerate(lines[1:], start=2):
            if not any(cell.strip() for cell in line):
                continue
            if len(line) != 2 or not line[1].strip():  # noqa: PLR2004 - file and label
                raise DataError(f"line {number} is not file,label", where=str(table))
            file = table.parent / line[0].strip()
            if not file.is_file():
                raise DataError(f"line {number} names {line[0].strip()[:80]!r}, which is not there", where=str(table))
            labelled.append((file, line[1].strip()))
        return labelled

    @staticmethod
    def _from_folders(path: Path) -> list[tuple[Path, str]]:
        labelled = [
            (file, folder.name)
            for folder in sorted(path.iterdir())
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if file.is_file() and not file.name.startswith(".")
        ]
        if not labelled:
            raise DataError(
                "holds neither labels.csv nor a sub-folder with images a class",
                where=str(path),
                hint="labels.csv has the header file,label",
            )
        return labelled


def _file_digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as cause:
        raise DataError(f"cannot be read: {cause.strerror}", where=str(file)) from cause


def _class_numbers(labels: Sequence[str]) -> tuple[tuple[str, ...], Integers]:
    """Names and numbers of classes: numbers stand for themselves, names for their place in the alphabet."""
    if all(label.isascii() and label.isdigit() and len(label) <= len(str(2**31)) for label in labels):
        return (), np.array([int(label) for label in labels], np.int64)
    names = tuple(sorted(set(labels)))
    number = {name: index for index, name in enumerate(names)}
    return names, np.array([number[label] for label in labels], np.int64)


def check_readable(path: Path) -> None:
    """Refuse missing data before a minute is spent on the models it is for.

    Raises:
        DataError: There is nothing at the path.
    """
    if not path.exists():
        raise DataError("is not there", where=str(path), hint="data is an .npz file or a folder of images")


def first_by_content(samples: Samples, most: int) -> Integers:
    """At most this many rows, chosen by their content alone."""
    ordered = sorted((digest, row) for row, digest in enumerate(samples.digests()))
    return as_rows([row for _, row in ordered[:most]])


def as_rows(rows: Iterable[int]) -> Integers:
    """Row numbers as an array."""
    return np.fromiter(rows, np.int64)
