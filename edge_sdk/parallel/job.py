"""One call of a pool: which of its samples nobody has taken, which are answered, and where the answers go."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import DelegateError
from edge_sdk.parallel._bell import Bell

if TYPE_CHECKING:
    from edge_sdk.parallel.replica import Replica

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Samples of one call, in a row, that one replica takes.

    Attributes:
        start: The first.
        stop: The one after the last.
    """

    job: Job
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many."""
        return self.stop - self.start

    def arrays(self) -> list[Any]:
        """Views of the call's arrays, or the arrays themselves where the call is not divided."""
        job = self.job
        if job.is_whole:
            return list(job.arrays)
        return [array[self.start * job.rows : self.stop * job.rows] for array in job.arrays]


class Job:
    """A call. Every sample is answered once, whoever answers it, and in its place.

    Args:
        arrays: What the caller gave.
        samples: How many; 1 for a call that is not divided.
        rows: Of each array that make one sample.
        is_whole: The arrays go to one replica as they are.
        most: Samples of a piece at most.
        is_rated: How long it takes tells how long a sample takes; false of a call of nobody knows how many.
    """

    def __init__(
        self,
        arrays: Sequence[Any],
        *,
        samples: int = 1,
        rows: int = 1,
        is_whole: bool = True,
        most: int = 1,
        is_rated: bool = True,
    ) -> None:
        self.arrays, self.samples, self.rows, self.is_whole, self.most = arrays, samples, rows, is_whole, most
        self.is_rated = is_rated
        self.bell = Bell()
        self.outputs: list[Any] = []
        self.error: BaseException | None = None
        self.refused: set[Replica] = set()  # replicas whose last piece of this call failed
        self._left: deque[tuple[int, int]] = deque([(0, samples)])
        self._claimed = bytearray(samples)
        self._written = 0
        self._is_shared = False  # some samples may be computed twice

    @property
    def left(self) -> int:
        """Samples that nobody has taken."""
        return sum(stop - start for start, stop in self._left)

    @property
    def is_over(self) -> bool:
        """It was answered, or failed."""
        return self.error is not None or self._written == self.samples

    def take(self, size: int) -> Piece:
        """The next samples, no more than so many; `left` must not be 0."""
        start, stop = self._left.popleft()
        end = min(stop, start + size)
        if end < stop:
            self._left.appendleft((end, stop))
        return Piece(job=self, start=start, stop=end)

    def give_back(self, piece: Piece) -> bool:
        """Those of its samples that are not answered are for anybody; whether there are any."""
        found = _runs(self._claimed, piece.start, piece.stop, value=0)
        self._is_shared = True
        self._left.extendleft(reversed(found))
        return bool(found)

    def claim(self, piece: Piece) -> list[tuple[int, int]]:
        """Those of its samples that nobody answered before; from now on they are this answer's."""
        found = _runs(self._claimed, piece.start, piece.stop, value=0)
        for start, stop in found:
            self._claimed[start:stop] = b"\1" * (stop - start)
        if self._is_shared:
            self._left = deque(run for start, stop in self._left for run in _runs(self._claimed, start, stop, value=0))
        return found

    def place(self, answers: Sequence[Array]) -> None:
        """Make room for all answers, after the pattern of the first.

        Raises:
            DelegateError: These answers are not of the kind that others gave.
        """
        if not self.outputs:
            self.outputs = [np.empty((self.samples * self.rows, *answer.shape[1:]), answer.dtype) for answer in answers]
        same = len(answers) == len(self.outputs) and all(
            answer.shape[1:] == output.shape[1:] and answer.dtype == output.dtype
            for answer, output in zip(answers, self.outputs, strict=True)
        )
        if not same:
            raise DelegateError(
                f"gave {_kinds(answers)}, where another replica gave {_kinds(self.outputs)}",
                hint="are all of them the same model?",
            )

    def write(self, piece: Piece, fresh: Sequence[tuple[int, int]], answers: Sequence[Array]) -> None:
        """Copy what was claimed to its place; needs no lock, because nobody else claimed it."""
        for start, stop in fresh:
            for output, answer in zip(self.outputs, answers, strict=True):
                rows = answer[(start - piece.start) * self.rows : (stop - piece.start) * self.rows]
                output[start * self.rows : stop * self.rows] = rows

    def written(self, fresh: Sequence[tuple[int, int]]) -> None:
        """Count what is in its place; the caller wakes with the last."""
        self._written += sum(stop - start for start, stop in fresh)
        if self.is_over:
            self.bell.ring()

    def fail(self, error: BaseException) -> None:
        """The caller gets this error, the first of them."""
        if not self.is_over:
            self.error = error
            self._left.clear()
            self.bell.ring()

    def check(self, piece: Piece, answers: Sequence[Any], outputs: int) -> None:
        """What a replica answered is as many arrays as the model has outputs, with a row for each it was given.

        Raises:
            DelegateError: It is not.
        """
        rows = piece.size * self.rows
        if not isinstance(answers, list | tuple):
            raise DelegateError(f"answered with {type(answers).__name__} instead of a list of arrays")
        right = len(answers) == outputs and (
            self.is_whole or all(isinstance(answer, np.ndarray) and answer.shape[:1] == (rows,) for answer in answers)
        )
        if not right:
            shapes = [list(getattr(answer, "shape", ())) for answer in answers]
            raise DelegateError(f"answered {rows} samples with arrays of shape {shapes}")


def _runs(flags: bytearray, start: int, stop: int, *, value: int) -> list[tuple[int, int]]:
    """Where the flags between these places have this value, as ranges."""
    found: list[tuple[int, int]] = []
    wanted, other = bytes([value]), bytes([1 - value])
    while start < stop:
        begin = flags.find(wanted, start, stop)
        if begin < 0:
            break
        end = flags.find(other, begin, stop)
        end = stop if end < 0 else end
        found.append((begin, end))
        start = end
    return found


def _kinds(arrays: Sequence[Any]) -> str:
    return ", ".join(f"{array.dtype} {list(array.shape[1:])}" for array in arrays)
