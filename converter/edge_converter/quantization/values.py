"""One tensor of the graph for every calibration sample, kept as a file would keep it: floats, or integers on a grid.

Integers take a quarter of the memory, which is what bounds how many samples can be looked at, and what is read back
is exactly what a quantized file hands from one operator to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What an int8 tensor's integers stand for: `(integer - zero) * scale`."""

    scale: float
    zero: int

    def codes(self, values: Array) -> NDArray[np.int8]:
        """The integers for these values, rounded to the nearest; what lies beyond the grid is clipped."""
        moved = values * np.float32(1.0 / self.scale)
        np.rint(moved, out=moved)
        moved += np.float32(self.zero)
        np.clip(moved, -128, 127, out=moved)
        codes: NDArray[np.int8] = moved.astype(np.int8)
        return codes

    def values(self, codes: Array) -> Floats:
        """What these integers stand for."""
        floats: Floats = codes.astype(np.float32)
        floats -= np.float32(self.zero)
        floats *= np.float32(self.scale)
        return floats


class Values:
    """A tensor for all samples.

    Args:
        count: Of samples.
        grid: It is rounded to; None keeps what is put.
    """

    def __init__(self, count: int, grid: Grid | None = None) -> None:
        self.count = count
        self.grid = grid
        self._kept: Array | None = None

    @classmethod
    def of(cls, samples: Array, grid: Grid | None = None) -> Values:
        """The same as samples that are there already, `[samples, *shape]`."""
        made = cls(len(samples), grid)
        made._kept = samples if grid is None else np.stack([grid.codes(sample) for sample in samples])
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """`(samples, *shape)`."""
        return self._all().shape

    def put(self, sample: int, value: Array) -> None:
        """Keep one sample's tensor."""
        stored = value if self.grid is None or value.dtype != np.float32 else self.grid.codes(value)
        if self._kept is None:
            self._kept = np.empty((self.count, *stored.shape), stored.dtype)
        self._kept[sample] = stored

    def get(self, sample: int) -> Array:
        """One sample's tensor, as the next operator reads it."""
        return self.floats(self._all()[sample])

    def kept(self) -> Array:
        """`[samples, *shape]` as they are stored: give parts of it to `floats`."""
        return self._all()

    def floats(self, stored: Array) -> Array:
        """What stored numbers stand for."""
        return self.grid.values(stored) if self.grid is not None and stored.dtype == np.int8 else stored

    @property
    def nothing(self) -> int:
        """The stored number that stands for 0."""
        return self.grid.zero if self.grid is not None and self._all().dtype == np.int8 else 0

    def _all(self) -> Array:
        if self._kept is None:
            raise ValueError("a tensor is read before it was computed")
        return self._kept
