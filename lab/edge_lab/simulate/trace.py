"""What was recorded somewhere: CSV with a first line of names, one of which is `time_s`.

Columns that are not known here are left alone (`edge daemon record` writes more than the simulator plays). An empty
cell, or `nan`, is a gap: the value before it holds for at most `HOLD_S`, after that the column says nothing and the
scenario's own value counts (for the network: nothing goes through). Rows may be any time apart.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_lab.errors import ScenarioError

COLUMNS: Final = {
    "ambient_c": (-100.0, 250.0),
    "rtt_ms": (0.0, 86_400_000.0),
    "up_mbps": (0.0, 1e6),
    "down_mbps": (0.0, 1e6),
    "requests_per_s": (0.0, 10_000.0),
    "slowdown": (0.01, 1000.0),
    "battery_w": (-10_000.0, 10_000.0),
}
HOLD_S: Final = 10.0
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A trace by column; NaN is a gap.

    Attributes:
        time_s: From 0, ascending; float64, shape `(n,)`.
        columns: By name, each of the same shape.
    """

    time_s: NDArray[np.float64]
    columns: dict[str, NDArray[np.float64]]

    def sampled(self, name: str, duration_s: int, start_s: float) -> NDArray[np.float64] | None:
        """The column once a second, from `start_s` on and over again past the end; None if there is no such column.

        Returns:
            float64, shape `(duration_s,)`, NaN where nothing is known.
        """
        values = self.columns.get(name)
        if values is None:
            return None
        period_s = float(self.time_s[-1]) + 1.0
        at = (start_s + np.arange(duration_s, dtype=np.float64)) % period_s
        known = np.flatnonzero(~np.isnan(values))
        if not len(known):
            return np.full(duration_s, np.nan)
        before = np.searchsorted(self.time_s[known], at, side="right") - 1
        held = known[np.maximum(before, 0)]
        fresh = (before >= 0) & (at - self.time_s[held] <= HOLD_S)
        return np.where(fresh, values[held], np.nan)


def read(path: Path) -> Recorded:
    """The trace in this file.

    Raises:
        ScenarioError: It cannot be read, names no known column, or a cell is no number or out of bounds.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as cause:
        raise ScenarioError(f"cannot be read: {cause.strerror}", where=where) from cause
    if len(raw) > MAX_BYTES:
        raise ScenarioError(f"more than {MAX_BYTES} bytes", where=where)
    try:
        reader = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
        numbered = [(reader.line_num, row) for row in reader if row and not row[0].lstrip().startswith("#")]
    except (UnicodeDecodeError, csv.Error) as cause:
        raise ScenarioError(f"not CSV: {str(cause)[:200]}", where=where) from cause
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    if len(rows) < 2 or len(rows) > MAX_ROWS:  # noqa: PLR2004 - names and a row
        raise ScenarioError(f"{max(len(rows) - 1, 0)} rows", where=where, hint="a line of names, then numbers")
    names = [name.strip() for name in rows[0]]
    taken = [name for name in names if name in COLUMNS]
    if "time_s" not in names or not taken:
        raise ScenarioError(
            f"no column time_s, or none that is played, in {', '.join(names)[:200]}",
            where=where,
            hint=f"there are {', '.join(COLUMNS)}",
        )
    doubled = next((name for name in ("time_s", *taken) if names.count(name) > 1), None)
    if doubled is not None:
        raise ScenarioError(f"two columns are called {doubled}", where=where)
    wide = next((line for line, row in numbered if "".join(row[len(names) :]).strip()), None)
    if wide is not None:
        hint = "a decimal point is a point, and a comma between two cells"
        raise ScenarioError("more cells than names", where=f"{where}, line {wide}", hint=hint)
    table = {name: _column(rows, names.index(name), name, where, lines) for name in ("time_s", *taken)}
    time_s = table.pop("time_s")
    if np.isnan(time_s).any() or (np.diff(time_s) <= 0).any():
        row = int(np.flatnonzero(np.isnan(time_s) | np.r_[False, np.diff(time_s) <= 0])[0]) + 1
        raise ScenarioError("time_s must ascend", where=f"{where}, line {lines[row]}")
    return Recorded(time_s=time_s - time_s[0], columns=table)


def _column(rows: list[list[str]], index: int, name: str, where: str, lines: list[int]) -> NDArray[np.float64]:
    low, high = COLUMNS.get(name, (-1e12, 1e12))
    values = np.full(len(rows) - 1, np.nan)
    for at, row in enumerate(rows[1:]):
        cell = row[index].strip() if index < len(row) else ""
        if not cell or cell.lower() == "nan":  # as numpy and pandas write what they do not know
            continue
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ScenarioError(
                f"{name} is {cell[:40]!r}, no number from {low:g} to {high:g}", where=f"{where}, line {lines[at + 1]}"
            )
        values[at] = value
    return values
