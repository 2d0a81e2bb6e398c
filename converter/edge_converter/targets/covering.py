"""How much of a model an accelerator takes, and why the rest stays on the CPU: predicted from the tables.

TensorFlow's own Analyzer calls every file compatible with everything, also one compiled for another accelerator; so
each operator is held against what its driver's or compiler's source says. Where the compiler itself runs here, its
word replaces this (`edge_converter.targets.vela`, `edge_converter.targets.edgetpu`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_converter.targets import operators as reading
from edge_converter.targets import partition, rules
from edge_converter.targets.operators import Operator
from edge_converter.targets.optable import Table
from edge_converter.targets.optable import table as table_of
from edge_sdk.manifest import Coverage

_MAX_TEXT = 1000


def coverage(model: Path, delegate: str, *, level: int | None = None) -> Coverage:
    """What of the model the delegate takes.

    Operators that only unpack a constant when the model is loaded are not counted.

    Args:
        model: A `.tflite` file; a free batch is taken as 1.
        delegate: A table's id, such as `edgetpu`, `ethos-u65` or `nnapi`.
        level: The API level, for NNAPI; None takes the table's.

    Raises:
        SourceError: It is no whole `.tflite` file.
        UnsupportedModelError: It has several subgraphs.
        UsageError: There is no such table.
    """
    return predict(reading.read(model), table_of(delegate), level=level)


def predict(operators: Sequence[Operator], table: Table, *, level: int | None = None) -> Coverage:
    """The same for operators that are read already."""
    reasons = stays(operators, table, level=level)
    return summary(operators, reasons)


def stays(operators: Sequence[Operator], table: Table, *, level: int | None = None) -> tuple[str | None, ...]:
    """For each operator why it stays on the CPU, or None."""
    at = (level or table.level) if table.level is not None else None
    alone = [rules.refusal(operator, table, at) for operator in operators]
    return partition.left(operators, alone, table.runs)


def summary(operators: Sequence[Operator], reasons: Sequence[str | None]) -> Coverage:
    """Counted, and in words: one line for each operator and reason, in the order they first appear."""
    counted = Counter((o.op, reason) for o, reason in zip(operators, reasons, strict=True) if reason is not None)
    lines = [
        f"{op}{f' x{count}' if count > 1 else ''}: {reason}"[:_MAX_TEXT] for (op, reason), count in counted.items()
    ]
    return Coverage(delegated=len(operators) - sum(counted.values()), total=len(operators), why=tuple(lines))
