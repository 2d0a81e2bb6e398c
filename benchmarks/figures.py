"""What a benchmark found, as a table for people and JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row: what was measured, how, and what was hoped for.

    Attributes:
        what: One clause.
        value: The median, or the one number there is.
        low: The smallest of the rounds.
        high: The largest.
        unit: `us`, `ms`, `x`, `MB`, ...; nothing for a count.
        samples: How many rounds, or calls.
        target: The bound; None where there is none.
        at_most: Whether the bound is an upper one.
        detail: What else a reader wants to know.
    """

    what: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    samples: int = 1
    target: float | None = None
    at_most: bool = True
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bound was kept; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def as_json(self) -> dict[str, object]:
        """Its fields, and whether the bound was kept."""
        return asdict(self) | {"met": self.met}


def figure(what: str, found: Sequence[float], **fields: object) -> Figure:
    """The median and the spread of several rounds."""
    return Figure(
        what=what, value=statistics.median(found), low=min(found), high=max(found), samples=len(found), **fields
    )


def shown(figures: Sequence[Figure]) -> str:
    """The rows as a table."""
    rows = [("what", "median", "spread", "n", "target", "")]
    for each in figures:
        spread = "" if each.low is None or each.high is None else f"{each.low:.3g} to {each.high:.3g}"
        bound = "" if each.target is None else f"{'<=' if each.at_most else '>='} {each.target:g}"
        verdict = {None: "", True: "met", False: "MISSED"}[each.met]
        value = f"{each.value:.4g} {each.unit}".rstrip()
        rows.append((each.what, value, spread, str(each.samples), bound, f"{verdict} {each.detail}".strip()))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
