"""How much processor time others take while something is measured: rounds they disturbed tell nothing of two cores."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

QUIET = 0.1  # of one core, on the average of a round


class Others:
    """Counts what other processes, the kernel for them, and the host of a virtual machine took since it was made.

    Where the system does not say (no `/proc/stat`), nobody ever takes anything.
    """

    def __init__(self) -> None:
        self._all_s, self._own_s, self._begun_s = _busy_s(), _own_s(), time.perf_counter()

    def share(self) -> float:
        """Of one core since then; counted in ticks of 10 ms, so of 100 ms or more it means something."""
        took_s = (_busy_s() - self._all_s) - (_own_s() - self._own_s)
        return max(0.0, took_s) / max(1e-3, time.perf_counter() - self._begun_s)


def undisturbed(rounds: Sequence[tuple[float, T]], *, fewest: int = 3) -> list[T]:
    """What was found in the rounds that others hardly disturbed; of a busy machine, in the least disturbed ones.

    Args:
        rounds: The share that others took, and what was found.
        fewest: So many are kept in any case.
    """
    kept = [found for share, found in rounds if share <= QUIET]
    if len(kept) >= fewest:
        return kept
    return [found for _, found in sorted(rounds, key=lambda each: each[0])[:fewest]]


def _busy_s() -> float:
    """Of all processors since they were started: all but `idle` and `iowait`, `steal` included (proc_stat(5))."""
    try:
        ticks = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return time.process_time()
