"""Reads the small text files by which Linux tells its state, below a root.

Device files can be empty, answer EAGAIN, hold garbage, or vanish between listing and reading: each is a value here,
`Unavailable`. Files are opened without blocking, so that a pipe where a file should be cannot hold the reader.
"""

from __future__ import annotations

import math
import os
import re

from edge_daemon.sensors.reading import Unavailable

_MAX_BYTES = 4096
_NUMBER = re.compile(r"\A[+-]?\d{1,20}(\.\d{1,20})?\Z", re.ASCII)
_DIGITS = re.compile(r"(\d+)")
_SHOWN = 40


class Files:
    """The files below `root`; paths are relative to it."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = os.fspath(root)

    def text(self, path: str) -> str | Unavailable:
        """The first 4096 bytes of a file, stripped."""
        try:
            fd = os.open(os.path.join(self.root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)  # noqa: PTH118 - called 50 times a second
        except OSError as cause:
            return Unavailable(f"{path}: {cause.strerror}")
        except ValueError:  # a NUL in a name
            return Unavailable(f"{path[:_SHOWN]!r}: not a path")
        try:
            raw = os.read(fd, _MAX_BYTES)
        except OSError as cause:
            return Unavailable(f"{path}: {cause.strerror}")
        finally:
            os.close(fd)
        text = raw.decode("utf-8", "replace").strip(" \t\r\n\0")
        return text or Unavailable(f"{path}: is empty")

    def number(self, path: str, *, low: float = -math.inf, high: float = math.inf) -> float | Unavailable:
        """A decimal number within bounds; `nan` and its like are none."""
        text = self.text(path)
        if isinstance(text, Unavailable):
            return text
        if not _NUMBER.match(text):
            return Unavailable(f"{path}: {text[:_SHOWN]!r} is not a number")
        value = float(text)
        return value if low <= value <= high else Unavailable(f"{path}: {text} is out of range")

    def names(self, folder: str) -> tuple[str, ...]:
        """What a folder holds, numbers counted as numbers; nothing when it is not there."""
        try:
            return tuple(sorted(os.listdir(os.path.join(self.root, folder)), key=_natural))  # noqa: PTH118, PTH208 - as above
        except OSError:
            return ()

    def exists(self, path: str) -> bool:
        """Something has this name."""
        return os.path.exists(os.path.join(self.root, path))  # noqa: PTH110, PTH118 - as above


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name))
