"""Labelled `.wav` files: PCM to floats from -1 to 1, mixed to one channel, cut or filled up to what a model takes."""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled import folders
from edge_converter.labelled.samples import Array, Floats, Integers, Labels, as_taken, check_preprocessing
from edge_sdk.manifest import Preprocessing, TensorSpec

SUFFIX = ".wav"
# Bytes a value: what 0 is stored as, and full scale.
_FORMATS = {1: (128, 2.0**7), 2: (0, 2.0**15), 3: (0, 2.0**23), 4: (0, 2.0**31)}


class Sounds:
    """A folder of `.wav` files, labelled by `labels.csv` or by the sub-folder each lies in.

    Args:
        where: The folder.
        labelled: Its files and their labels.
        inputs: Of the model: one, of as many floats as it listens to at once.
        preprocessing: Applied after scaling to -1..1.
        rate_hz: That all files must have; None takes that of the first.

    Raises:
        DataError: A file is no PCM, of another rate, or empty; or the model takes no waveform.
    """

    def __init__(
        self,
        where: Path,
        labelled: Sequence[tuple[Path, str]],
        *,
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing,
        rate_hz: int | None,
    ) -> None:
        self.where = str(where)
        shape = inputs[0].shape[1:]
        if len(inputs) != 1 or inputs[0].dtype != "float32" or math.prod(shape) != max(shape, default=0):
            takes = ", ".join(f"{list(spec.shape[1:])} {spec.dtype}" for spec in inputs)
            raise DataError(
                f"sounds do not fit a model that takes {takes}",
                where=self.where,
                hint="what takes spectrograms gets its samples from a function of yours: --data module:function",
            )
        check_preprocessing(preprocessing, inputs)
        self._input, self._length = inputs[0], math.prod(shape)
        self._files = [file for file, _ in labelled]
        for file in self._files:
            rate_hz = _rate(file, rate_hz)
        self.preprocessing = msgspec.structs.replace(preprocessing, rate_hz=rate_hz)
        self.classes, numbers = folders.class_numbers([label for _, label in labelled])
        self.labels: Labels = numbers

    def digests(self) -> list[bytes]:
        """The SHA-256 of each file."""
        return [folders.digest(file) for file in self._files]

    def read(self, rows: Integers) -> tuple[Array, ...]:
        """These sounds, in the shape the model takes."""
        raw = np.stack([self._sound(self._files[row]) for row in rows])
        return (as_taken(raw.reshape(len(rows), *self._input.shape[1:]), self._input, self.preprocessing),)

    def _sound(self, file: Path) -> Floats:
        with _opened(file) as sound:
            wide, channels = sound.getsampwidth(), sound.getnchannels()
            raw = sound.readframes(self._length)
        raw = raw[: len(raw) // (wide * channels) * (wide * channels)]  # the last frame of a cut file may be half
        zero, full = _FORMATS[wide]
        mixed = (_integers(raw, wide).reshape(-1, channels).mean(axis=1) - zero) / full
        found = np.zeros(self._length, np.float32)
        found[: len(mixed)] = mixed
        return found


def _integers(raw: bytes, wide: int) -> Array:
    """Little-endian PCM; 24 bits have no dtype, so they are shifted into the upper bytes of 32."""
    if wide != 3:  # noqa: PLR2004 - bytes
        return np.frombuffer(raw, {1: "u1", 2: "<i2", 4: "<i4"}[wide])
    filled = np.zeros((len(raw) // 3, 4), np.uint8)
    filled[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return filled.reshape(-1).view("<i4") >> 8


def _rate(file: Path, wanted: int | None) -> int:
    """Of a file, whose header is checked on the way.

    Raises:
        DataError: It is another than wanted, or the file is empty.
    """
    with _opened(file) as sound:
        rate, frames = sound.getframerate(), sound.getnframes()
        if sound.getsampwidth() not in _FORMATS:
            raise DataError(f"has {8 * sound.getsampwidth()} bits a value", where=str(file), hint="8, 16, 24 or 32")
    if wanted is not None and rate != wanted:
        raise DataError(
            f"is sampled at {rate} Hz, where {wanted} are expected",
            where=str(file),
            hint="bring all files to the rate the model was trained on, and name it by --rate",
        )
    if frames == 0:
        raise DataError("holds no sound", where=str(file), hint="remove it")
    return rate


def _opened(file: Path) -> wave.Wave_read:
    try:
        return wave.open(str(file), "rb")
    except (OSError, wave.Error, EOFError) as cause:
        raise DataError(
            f"is no PCM .wav file ({str(cause) or 'it ends too early'})",
            where=str(file),
            hint="remove it or convert it",
        ) from cause
