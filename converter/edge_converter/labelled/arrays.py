"""Labelled data in an `.npz` file, read row by row from the file itself.

An uncompressed array is mapped into memory, so the kernel reads what is asked for and drops it again. A compressed one
is unpacked into a file without a name first, whose size is bounded: a few kilobytes of zeros can claim to be terabytes.
"""

from __future__ import annotations

import hashlib
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from edge_converter.errors import DataError
from edge_converter.labelled import spool
from edge_converter.labelled.samples import (
    CHECKED_AT_ONCE,
    Array,
    Integers,
    Labels,
    as_labels,
    as_taken,
    check_kind,
    check_preprocessing,
    check_values,
)
from edge_sdk import preprocess
from edge_sdk.manifest import Preprocessing, TensorSpec

# What one compressed array may come to.
MAX_UNPACKED_BYTES = 16 << 30
_CHUNK = 1 << 20
_LOCAL_HEADER = 30  # of a zip entry; then its name and the extra field (APPNOTE.TXT 4.3.7)
_ENCRYPTED = 1
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Arrays:
    """An `.npz` file: `x` holds the samples, `y` their labels (numbers, one-hot rows, or rows of any shape).

    Where a model has several inputs, `x0`, `x1`... hold them in the model's order, or arrays of the inputs' names;
    `classes` may name the classes. Without `y` there are no labels.

    Args:
        path: The file.
        inputs: Of the model, in its order.
        preprocessing: Applied to the samples of inputs that take floats.

    Raises:
        DataError: It is no such file, or does not fit the model.
        StorageError: There is no room to unpack it.
    """

    def __init__(self, path: Path, *, inputs: Sequence[TensorSpec], preprocessing: Preprocessing) -> None:
        self.where = str(path)
        self.preprocessing = preprocessing
        self._inputs = tuple(inputs)
        check_preprocessing(preprocessing, inputs)
        if preprocess.size_of(preprocessing) is not None:
            raise DataError(
                "arrays are not resized", where=self.where, hint="--resize and --crop are for folders of images"
            )
        if path.exists() and not path.is_file():  # a device or a pipe has no end to find the archive's directory at
            raise DataError("is neither a file nor a folder", where=self.where, hint="numpy.savez makes an .npz file")
        try:
            with zipfile.ZipFile(path) as archive:
                have = [name.removesuffix(".npy") for name in archive.namelist()]
                names = self._names(have)
                self._arrays = [_member(archive, path, name) for name in names]
                y = _member(archive, path, "y") if "y" in have else np.zeros((len(self._arrays[0]), 0), np.float32)
                self.classes = (
                    tuple(str(name) for name in _member(archive, path, "classes")) if "classes" in have else ()
                )
        except (
            OSError,
            ValueError,
            EOFError,
            zipfile.BadZipFile,
            NotImplementedError,
            KeyError,
            RuntimeError,
            TypeError,
            OverflowError,
            MemoryError,
            zlib.error,
            lzma.LZMAError,
            tokenize.TokenError,  # NumPy reads headers as Python
        ) as cause:
            raise DataError(
                f"is no readable .npz file ({type(cause).__name__})",
                where=self.where,
                hint="numpy.savez(FILE, x=samples, y=labels) makes one; a folder of images works too",
            ) from cause
        self.labels: Labels = as_labels(y, where=self.where)
        for name, array, spec in zip(names, self._arrays, self._inputs, strict=True):
            self._check(name, array, spec)

    def digests(self) -> list[bytes]:
        """The SHA-256 of each sample's numbers, over all inputs."""
        found = []
        for row in range(len(self.labels)):
            digest = hashlib.sha256()
            for array in self._arrays:
                digest.update(np.ascontiguousarray(array[row]).tobytes())
            found.append(digest.digest())
        return found

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These samples, one array per input."""
        return tuple(
            as_taken(np.asarray(array[rows]), spec, self.preprocessing)
            for array, spec in zip(self._arrays, self._inputs, strict=True)
        )

    def _names(self, have: Sequence[str]) -> tuple[str, ...]:
        """Of the arrays that hold the samples, in the order of the model's inputs."""
        numbered = tuple(f"x{number}" for number in range(len(self._inputs)))
        called = tuple(spec.name for spec in self._inputs)
        ways = [("x",), numbered, called] if len(called) == 1 else [numbered, called]
        names = next((way for way in ways if set(way) <= set(have)), None)
        if names is None:
            wanted = " and ".join(("x", "y") if len(called) == 1 else (*numbered, "y"))
            shown = ", ".join(have)[:200] or "nothing"
            raise DataError(f"needs the arrays {wanted}, and holds {shown}", where=self.where)
        return names

    def _check(self, name: str, array: Array, spec: TensorSpec) -> None:
        """Refuse what the model does not take, before minutes are spent on it."""
        if array.ndim == 0 or len(array) != len(self.labels):
            have = len(array) if array.ndim else 1
            raise DataError(f"holds {have} samples and {len(self.labels)} labels", where=self.where)
        shape = spec.shape[1:]
        if len(array) and array.shape[1:] != shape:
            whose = "its samples are" if len(self._inputs) == 1 else f"the samples in {name} are"
            raise DataError(f"{whose} {list(array.shape[1:])}, the model takes {list(shape)}", where=self.where)
        check_kind(array, spec, called=name, where=self.where)
        for start in range(0, len(array), CHECKED_AT_ONCE):
            check_values(array[start : start + CHECKED_AT_ONCE], spec, first=start, where=self.where)


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> Array:
    """One array of the archive, in a file: the archive itself, or one it is unpacked into.

    Raises:
        ValueError, EOFError, zipfile.BadZipFile: It is damaged, or holds Python objects.
        DataError: It is larger than anything should be.
    """
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the .npy format")
        shape, by_column, dtype = _HEADERS[version](stream)
        header = stream.tell()
        size = math.prod(shape) * dtype.itemsize
        # What a header claims must be there, before room is made for it.
        if dtype.hasobject or entry.file_size != header + size or entry.flag_bits & _ENCRYPTED:
            raise ValueError(f"{name} holds objects, or not what its header says")
        if entry.compress_type == zipfile.ZIP_STORED and not by_column and size:
            while stream.read(_CHUNK):  # to its end, where its checksum is compared
                pass
            return np.memmap(path, dtype, "r", offset=_begin(path, entry) + header, shape=shape)
        if size > MAX_UNPACKED_BYTES:
            raise DataError(
                f"{name} unpacks to {size:,} bytes, and at most {MAX_UNPACKED_BYTES:,} are taken",
                where=str(path),
                hint="numpy.savez, uncompressed, has no such bound",
            )
        room = spool.array((size,), np.uint8)
        at = 0
        while chunk := stream.read(_CHUNK):
            room[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        found = room.view(dtype)
        return found.reshape(shape[::-1]).T if by_column else found.reshape(shape)


def _begin(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's content begins: its name and extra field are as long as the header before them says."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(_LOCAL_HEADER)
    name, extra = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    return entry.header_offset + _LOCAL_HEADER + name + extra
