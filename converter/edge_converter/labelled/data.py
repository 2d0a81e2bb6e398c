"""Labelled data of every kind, opened, checked and split by content.

The split is by the SHA-256 of each sample, so it does not depend on the order of the files, equal samples never lie on
both sides of it, and a sample added later moves no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled import boxes, folders, iterated, named
from edge_converter.labelled.arrays import Arrays
from edge_converter.labelled.images import Images
from edge_converter.labelled.samples import CHECKED_AT_ONCE, Array, Floats, Integers, Labels, OneHot, Samples, as_rows
from edge_converter.labelled.sounds import SUFFIX, Sounds
from edge_sdk.manifest import Preprocessing, TensorSpec

__all__ = [
    "MAX_CALIBRATION", "Array", "Floats", "Integers", "Labels", "Samples", "Split", "as_rows", "check_labels",
    "check_one_hot", "check_readable", "first_by_content", "has_labels", "open_samples", "split",
]  # fmt: skip

MAX_CALIBRATION = 128
# Of the samples, at most one in four calibrates and one in four steers, so at least half is left to count.
_SHARE = 4
MIN_SAMPLES = 10
_LONGEST_CLASS = 1000  # as the manifest takes


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


def open_samples(
    path: Path, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing, rate_hz: int | None = None
) -> Samples:
    """Open labelled data for a model with these inputs, and check all that can be without decoding it.

    Args:
        path: An `.npz` file; a folder of images or `.wav` files with `labels.csv` or one sub-folder a class, or of
            images with boxes in `annotations.json`; or `module:function`.
        inputs: Of the model, in its order, batch dimension included.
        preprocessing: Applied to every sample, where an input takes floats.
        rate_hz: Of sounds; None takes that of the first.

    Raises:
        DataError: It is missing, empty, mislabelled, or does not fit the model.
        StorageError: It has to be unpacked, and there is no room for it.
    """
    samples: Samples
    if path.is_dir():
        try:
            samples = _folder(path, inputs, preprocessing, rate_hz)
        except OSError as cause:
            raise DataError(f"cannot be read: {cause.strerror}", where=str(cause.filename or path)) from cause
    elif named.is_named(str(path)) and not path.exists():
        samples = iterated.open_named(str(path), inputs=inputs, preprocessing=preprocessing)
    else:
        samples = Arrays(path, inputs=inputs, preprocessing=preprocessing)
    if len(samples.labels) == 0:
        raise DataError("holds no samples", where=samples.where)
    if any(len(name) > _LONGEST_CLASS for name in samples.classes):
        raise DataError(f"names a class in more than {_LONGEST_CLASS} characters", where=samples.where)
    return samples


def _folder(path: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing, rate_hz: int | None) -> Samples:
    if (path / boxes.FILE).is_file() and not (path / folders.LABELS_FILE).is_file():
        return Images(path, None, inputs=inputs, preprocessing=preprocessing)
    labelled = folders.labelled_files(path)
    sounds = [file for file, _ in labelled if file.suffix.lower() == SUFFIX]
    if not sounds:
        return Images(path, labelled, inputs=inputs, preprocessing=preprocessing)
    other = next((file for file, _ in labelled if file.suffix.lower() != SUFFIX), None)
    if other is not None:
        raise DataError("is no .wav file, as others in the folder are", where=str(other), hint="one kind a folder")
    return Sounds(path, labelled, inputs=inputs, preprocessing=preprocessing, rate_hz=rate_hz)


def has_labels(samples: Samples) -> bool:
    """Whether there is a label for each sample, and not nothing for all."""
    return np.asarray(samples.labels[np.arange(min(1, len(samples.labels)))]).size > 0


def check_labels(samples: Samples, outputs: int) -> None:
    """Every label is one of the model's outputs, and where classes have names, each output has one.

    Raises:
        DataError: It is not so.
    """
    check_one_hot(samples)
    labels = np.asarray(samples.labels[np.arange(min(1, len(samples.labels)))])
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        says = f"rows of {list(labels.shape[1:])}" if labels.ndim > 1 else str(labels.dtype)
        raise DataError(f"its labels are {says}, not class numbers", where=samples.where, hint="one a sample")
    if samples.classes and len(samples.classes) != outputs:
        raise DataError(
            f"names {len(samples.classes)} classes, and the model has {outputs} outputs",
            where=samples.where,
            hint=f"label by number, 0 to {outputs - 1}, where not every class occurs",
        )
    if isinstance(samples.labels, OneHot) and samples.labels.columns != outputs:
        raise DataError(
            f"its one-hot labels have {samples.labels.columns} columns, and the model has {outputs} outputs",
            where=samples.where,
            hint=f"give a column for each output, or label by number, 0 to {outputs - 1}",
        )
    numbers = np.asarray(samples.labels[np.arange(len(samples.labels))])
    wrong = np.flatnonzero((numbers < 0) | (numbers >= outputs))
    if wrong.size:
        raise DataError(
            f"label {numbers[wrong[0]]} of sample {wrong[0]} is none of the model's {outputs} outputs",
            where=samples.where,
            hint=f"labels go from 0 to {outputs - 1}",
        )


def check_one_hot(samples: Samples) -> None:
    """Refuse one-hot rows of which a few are none: as mere numbers they would be judged by something else.

    Rows of zeros and ones of which not even half are one-hot are taken for what they are: numbers, or several labels.

    Raises:
        DataError: Most rows hold a single 1, and one does not.
    """
    sums: list[Array] = []
    for start in range(0, len(samples.labels), CHECKED_AT_ONCE):
        rows = np.arange(start, min(start + CHECKED_AT_ONCE, len(samples.labels)))
        part = np.asarray(samples.labels[rows])
        if part.ndim != 2 or part.shape[1] < 2 or not ((part == 0) | (part == 1)).all():  # noqa: PLR2004 - rows and columns
            return
        sums.append(part.sum(axis=1))
    ones = np.concatenate(sums)
    if 2 * (ones == 1).sum() > len(ones):
        row = int(np.argmax(ones != 1))
        raise DataError(
            f"its labels are one-hot rows, but that of sample {row} holds {int(ones[row]) or 'no'} ones",
            where=samples.where,
            hint="label by class number, or name a --metric that takes rows of numbers, such as r2",
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


def check_readable(path: Path) -> None:
    """Refuse missing data before a minute is spent on the models it is for.

    Raises:
        DataError: There is nothing at the path.
    """
    if not path.exists() and not named.is_named(str(path)):
        raise DataError(
            "is not there",
            where=str(path),
            hint="data is an .npz file, a folder of images or sounds, or module:function",
        )


def first_by_content(samples: Samples, most: int) -> Integers:
    """At most this many rows, chosen by their content alone."""
    ordered = sorted((digest, row) for row, digest in enumerate(samples.digests()))
    return as_rows([row for _, row in ordered[:most]])
