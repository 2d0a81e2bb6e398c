"""Which variants to try for the accelerators of which boards, and what to make each of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_converter.candidates import Candidate
from edge_converter.targets import covering, optable
from edge_converter.targets import operators as reading
from edge_converter.targets.optable import Table
from edge_sdk.manifest import Coverage, Delegate, Precision, Quality
from edge_sdk.profile import Profile

# What each computes best; the first that was made and kept is taken.
_WANTED: dict[Delegate, tuple[Precision, ...]] = {
    Delegate.GPU: (Precision.FP16, Precision.FP32),
    Delegate.NNAPI: (Precision.INT8, Precision.FP32),
    Delegate.EDGETPU: (Precision.INT8,),
    Delegate.ETHOS_U: (Precision.INT8,),
    Delegate.TEFLON: (Precision.INT8,),
    Delegate.VX: (Precision.INT8,),
    Delegate.ARMNN: (Precision.INT8, Precision.FP32),
}
_MAX_ID_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An accelerator, and the boards that have it."""

    table: Table
    boards: tuple[Profile, ...]

    @property
    def delegate(self) -> Delegate:
        """Who computes."""
        return self.table.delegate

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it computes best, the best first."""
        return _WANTED.get(self.delegate, (Precision.FP32,))

    def id(self, stem: str) -> str:
        """Of a variant made for it of the one called `stem`."""
        return f"{stem[: _MAX_ID_CHARS - 1 - len(self.table.id)]}-{self.table.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The variant for the CPU to make another of, and what the accelerator is predicted to take of it."""

    candidate: Candidate
    quality: Quality
    coverage: Coverage


def wishes(boards: Sequence[Profile]) -> tuple[Wish, ...]:
    """One for each driver or compiler, in the order of the boards and of their delegates."""
    found: dict[str, tuple[Table, list[Profile]]] = {}
    for board in boards:
        for delegate in board.variants.delegates:
            if delegate is not Delegate.CPU:
                for table in optable.of_board(board, delegate):
                    found.setdefault(table.id, (table, []))[1].append(board)
    return tuple(Wish(table=table, boards=tuple(mine)) for table, mine in found.values())


def needs_per_tensor(boards: Sequence[Profile]) -> bool:
    """Whether an accelerator of these boards takes int8 weights only with one scale for all of a layer.

    Such a board's recipe makes a variant of that form beside `int8` (a test holds them to it), and `twin` finds it.
    """
    return any(wish.table.is_per_tensor and Precision.INT8 in wish.precisions for wish in wishes(boards))


def twin(wish: Wish, source: str, kept: Sequence[tuple[Candidate, Quality]]) -> Twin | None:
    """What to make the variant of: of the format it computes best, the file it takes most of, then the most accurate.

    Args:
        wish: The accelerator.
        source: The member of the family.
        kept: All variants for the CPU with what they are worth.

    Returns:
        None where no variant of a format it computes was kept.
    """
    for precision in wish.precisions:
        mine = [
            Twin(candidate=c, quality=q, coverage=covering.predict(reading.read(c.path), wish.table))
            for c, q in kept
            if c.source == source and c.precision is precision
        ]
        if mine:
            return max(mine, key=_merit)
    return None


def _merit(one: Twin) -> tuple[float, bool, float, int, str]:
    share = one.coverage.delegated / max(1, one.coverage.total)
    # One scale a layer is for those that take no other: what it is worth on the samples at hand may be luck.
    weights = [operator.weights for operator in reading.read(one.candidate.path)]
    is_fine = any(each is not None and each.scales > 1 for each in weights)
    return share, is_fine, one.quality.value, -len(one.candidate.compression), one.candidate.id
