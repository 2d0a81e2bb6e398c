"""The memory that an app and a worker share: tensors one after another, each at a multiple of 64 bytes.

It is anonymous (memfd_create), so it needs no room in /dev/shm, has no name to clean up, and is gone with the last
process that holds it. It is reserved before it is used: where there is no memory for it, growing it is an error and
not a signal in the middle of a copy.
"""

from __future__ import annotations

import errno
import fcntl
import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import WorkerLostError

Array = NDArray[Any]
Shape = tuple[int, ...]
_ALIGN = 64
_MOST_BYTES = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where tensors lie.

    Attributes:
        end: The first byte after the last of them.
    """

    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype[Any], ...]
    offsets: tuple[int, ...]
    end: int


def layout(shapes: Sequence[Shape], dtypes: Sequence[np.dtype[Any]], *, start: int = 0) -> Layout:
    """Tensors one after another from `start` on."""
    offsets, end = [], start
    for shape, dtype in zip(shapes, dtypes, strict=True):
        at = -(-end // _ALIGN) * _ALIGN
        offsets.append(at)
        end = at + math.prod(shape) * dtype.itemsize  # not numpy's, which wraps round at 64 bits
    return Layout(shapes=tuple(shapes), dtypes=tuple(dtypes), offsets=tuple(offsets), end=end)


class SharedMemory:
    """One end of it; both ends map the same file.

    Args:
        descriptor: Of the file; this object closes it. None makes a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _sealed() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None
        self._size = 0

    def found(self, where: Layout) -> list[Array]:
        """The tensors that the other end wrote.

        Raises:
            WorkerLostError: They would lie beyond what is there.
        """
        if where.end > os.fstat(self.descriptor).st_size:
            raise WorkerLostError("the worker points beyond the memory it shares")
        return self.views(where)

    def views(self, where: Layout) -> list[Array]:
        """The tensors, to read and write; the memory grows if it must, and older views stay what they were.

        Raises:
            WorkerLostError: There is no memory for it.
        """
        self._hold(where.end)
        held = self._map
        if held is None:  # every tensor is empty
            return [np.empty(shape, dtype) for shape, dtype in zip(where.shapes, where.dtypes, strict=True)]
        return [
            np.frombuffer(held, dtype, math.prod(shape), at).reshape(shape)
            for shape, dtype, at in zip(where.shapes, where.dtypes, where.offsets, strict=True)
        ]

    def close(self) -> None:
        """Let go of it. The pages go when the last view of them does."""
        self._map = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _hold(self, size: int) -> None:
        if size <= self._size:
            return
        if size > _MOST_BYTES:
            raise WorkerLostError(f"tensors of {size} bytes are more than {_MOST_BYTES}", hint="use smaller batches")
        try:
            there = min(_MOST_BYTES, os.fstat(self.descriptor).st_size)
            if there < size:
                os.posix_fallocate(self.descriptor, 0, size)
            self._map = mmap.mmap(self.descriptor, max(size, there))
        except OSError as cause:
            if cause.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
                raise
            raise WorkerLostError(
                f"no memory for {size} bytes of tensors: {cause.strerror}", hint="free some memory"
            ) from cause
        self._size = max(size, there)


def _sealed() -> int:
    """A file that neither end can make smaller: the other would die of a bus error in the middle of a copy."""
    descriptor = os.memfd_create("edge-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor
