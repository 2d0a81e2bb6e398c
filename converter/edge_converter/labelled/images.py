"""Labelled images: each with a class, boxes or a mask, decoded by Pillow as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled import boxes, folders, pictures
from edge_converter.labelled.samples import Array, Floats, Integers, Labels, check_preprocessing
from edge_sdk import preprocess
from edge_sdk.manifest import Preprocessing, TensorSpec

# A label with such a name, where the file is there, is a mask.
_MASKS = (".png", ".bmp", ".gif")


class Images:
    """Images, each with a label.

    Args:
        path: The folder.
        labelled: Its files and their labels: classes, or the names of masks; None where boxes label them.
        inputs: Of the model: one, `[batch, height, width, 1 or 3]`.
        preprocessing: Applied to each; where it says no size, images are brought to the model's.

    Raises:
        DataError: They do not fit the model, or their labels cannot be read.
    """

    def __init__(
        self,
        path: Path,
        labelled: Sequence[tuple[Path, str]] | None,
        *,
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing,
    ) -> None:
        self.where = str(path)
        if len(inputs) != 1:
            raise DataError(f"images do not fit a model that takes {len(inputs)} inputs", where=self.where)
        shape, self._dtype = inputs[0].shape[1:], np.dtype(inputs[0].dtype)
        is_plain = preprocessing == msgspec.structs.replace(preprocessing, mean=(0.0,), std=(1.0,))
        if self._dtype.kind != "f" and not is_plain:
            raise DataError(f"--mean and --std do not fit a model that takes {self._dtype}")
        if len(shape) != 3 or shape[2] not in {1, 3}:  # noqa: PLR2004 - height, width, channels
            raise DataError(f"images do not fit a model that takes {list(shape)}", where=self.where)
        check_preprocessing(preprocessing, inputs)
        self._channels = shape[2]
        self.preprocessing = _to_size(preprocessing, (shape[0], shape[1]))
        self.classes: tuple[str, ...] = ()
        self.labels: Labels
        if labelled is None:
            self._files, self.labels = boxes.read(path / boxes.FILE, self.preprocessing)
            return
        self._files = [file for file, _ in labelled]
        masks = [path / label for _, label in labelled]
        if all(mask.suffix.lower() in _MASKS and mask.is_file() for mask in masks):
            self.labels = _Masks(masks, self.preprocessing)
        else:
            self.classes, self.labels = folders.class_numbers([label for _, label in labelled])

    def digests(self) -> list[bytes]:
        """The SHA-256 of each file."""
        return [folders.digest(file) for file in self._files]

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These images, preprocessed."""
        return (np.stack([self._sample(self._files[row]) for row in rows]).astype(self._dtype, copy=False),)

    def _sample(self, file: Path) -> Floats:
        with pictures.opened(file) as image:
            return preprocess.prepare(image, self.preprocessing, channels=self._channels)


class _Masks:
    """A class a pixel, of each image: `[n, height, width] uint8`, read as they are asked for."""

    def __init__(self, files: Sequence[Path], preprocessing: Preprocessing) -> None:
        self._files, self._preprocessing = list(files), preprocessing
        self._size = preprocess.size_of(preprocessing) or (1, 1)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: Any, /) -> Array:
        wanted = np.arange(len(self._files))[rows]
        return np.stack([pictures.mask(self._files[row], self._preprocessing, self._size) for row in wanted])


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
