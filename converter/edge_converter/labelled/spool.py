"""Arrays too large for memory, in files without a name: gone with the last reference, even after `kill -9`."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_sdk import scratch
from edge_sdk.errors import StorageError

Array = NDArray[Any]

# Below it a file is not worth its system calls.
_IN_MEMORY_BYTES = 1 << 20


def array(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros that the kernel may write out; what is small stays in memory.

    Raises:
        StorageError: The disk that temporary files lie on is full.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= _IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="edge-spool-") as file:
            # Room is taken now: a write into a hole that a full disk cannot fill would kill the process (SIGBUS).
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS has none
                file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as cause:
        raise _full(cause, size) from cause


class Rows:
    """Rows of one shape, appended one by one; how many there will be need not be known.

    Args:
        shape: Of one row.
        dtype: Of its numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="edge-spool-")  # noqa: SIM115 - closed by `close` or `discard`
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._count = 0

    def append(self, row: Array) -> None:
        """Add one.

        Raises:
            StorageError: The disk that temporary files lie on is full.
        """
        try:
            self._file.write(np.ascontiguousarray(row, self.dtype).tobytes())
        except OSError as cause:
            raise _full(cause, self.row_bytes) from cause
        self._count += 1

    def close(self) -> Array:
        """All rows, `[n, *shape]`, read from the file as they are asked for."""
        shape = (self._count, *self.shape)
        with self._file as file:
            try:
                file.flush()
            except OSError as cause:
                raise _full(cause, self.row_bytes) from cause
            return np.memmap(file, self.dtype, "r", shape=shape) if math.prod(shape) else np.zeros(shape, self.dtype)

    def discard(self) -> None:
        """Close the file; what `close` gave stays. May be repeated."""
        self._file.close()


def _full(cause: OSError, size: int) -> StorageError:
    return StorageError(
        f"cannot be written: {cause.strerror} ({size:,} bytes more are needed)",
        where=tempfile.gettempdir(),
        hint=scratch.HINT,
    )
