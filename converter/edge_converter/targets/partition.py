"""Which of the operators a delegate could compute it does compute: all, one connected part, or the largest part.

An Edge TPU file has one compiled part. What stands before it (a conversion from float) runs on the CPU first; from the
first operator within it that is left out on, everything that needs its result is left out too. This gives the operators
left over of all 14 models of google-coral/test_data @104342d that are there before and after the compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edge_converter.targets.operators import Operator
from edge_converter.targets.optable import Runs

AFTER = "comes after an operator that stays on the CPU (one connected part is compiled)"
SMALLER = "not in the largest part (only that is taken)"


def left(operators: Sequence[Operator], reasons: Sequence[str | None], runs: Runs) -> tuple[str | None, ...]:
    """Why each operator stays on the CPU, in this graph; None where it is delegated.

    Args:
        operators: In the order they run.
        reasons: Why each stays there whatever stands beside it, from `rules.refusal`.
        runs: What the delegate does with the rest.
    """
    if runs is Runs.ONE:
        return _one(operators, reasons)
    if runs is Runs.LARGEST:
        return _largest(operators, reasons)
    return tuple(reasons)


def _one(operators: Sequence[Operator], reasons: Sequence[str | None]) -> tuple[str | None, ...]:
    inside: set[int] = set()  # tensors the compiled part has made
    outside: set[int] = set()  # tensors that need the CPU after it
    found: list[str | None] = []
    for operator, reason in zip(operators, reasons, strict=True):
        needs = {tensor.index for tensor in operator.inputs if tensor is not None}
        makes = {tensor.index for tensor in operator.outputs}
        after = bool(needs & outside)
        if reason is None and after:
            found.append(AFTER)
        else:
            found.append(reason)
        if found[-1] is None:
            inside |= makes
        elif after or needs & inside:
            outside |= makes
    return tuple(found)


def _largest(operators: Sequence[Operator], reasons: Sequence[str | None]) -> tuple[str | None, ...]:
    parts = parted(operators, [reason is None for reason in reasons])
    sizes = Counter(part for part, reason in zip(parts, reasons, strict=True) if reason is None)
    most = max(sizes, key=lambda part: (sizes[part], -part), default=-1)
    return tuple(reason or (None if part == most else SMALLER) for part, reason in zip(parts, reasons, strict=True))


def parted(operators: Sequence[Operator], taken: Sequence[bool]) -> tuple[int, ...]:
    """The part each operator falls into, as the TFLite interpreter cuts a graph: as few as the dependencies allow."""
    made = {tensor.index for operator in operators for tensor in operator.outputs}
    ready: set[int] = set()
    parts = [-1] * len(operators)
    number = 0
    while -1 in parts:
        kind: bool | None = None
        for at, operator in enumerate(operators):
            waits = any(t is not None and t.index in made and t.index not in ready for t in operator.inputs)
            if parts[at] != -1 or waits or (kind is not None and taken[at] is not kind):
                continue
            kind = taken[at]
            parts[at] = number
            ready |= {tensor.index for tensor in operator.outputs}
        if kind is None:  # a state that feeds itself: no order resolves it
            return tuple(number if part == -1 else part for part in parts)
        number += 1
    return tuple(parts)
