"""The choice that never changes, which is what a team ships that has no daemon.

`static` takes the best variant whose profiled latency, and 15 % for what profiles leave out, is within the limit and
keeps up with the requests. The highest rate is no part of a setting, so it counts as it is met: the choice may step
down when the busiest second so far is outdone, and never up again. `static-fast` takes the smallest, always. Neither
asks a server: nobody can promise a network when the product is built.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from edge_daemon.policies.contract import Action, Event, Second, Setting, Task, Verdict, Why
from edge_daemon.policies.ladder import decoded, rungs

_MARGIN: Final = 1.15


@dataclass(frozen=True, slots=True)
class Chosen:
    """By task: the most requests of a second, and the action that runs; None before the first second."""

    peak: tuple[int, ...]
    action: tuple[str | None, ...]


class Static:
    """The best variant that fits by its profile."""

    def __init__(self, setting: Setting) -> None:
        self._tasks = setting.tasks
        self._rungs = tuple(rungs(task) for task in setting.tasks)

    def initial(self) -> Chosen:
        """Nothing has been chosen."""
        return Chosen((0,) * len(self._tasks), (None,) * len(self._tasks))

    def step(self, state: Chosen, event: Event) -> tuple[Chosen, tuple[Verdict, ...]]:
        """Choose at the first second, and where more requests come than ever before."""
        if not isinstance(event, Second):
            return state, ()
        peaks, actions, verdicts = [], [], []
        for index, (task, seen) in enumerate(zip(self._tasks, event.tasks, strict=True)):
            before, peak = state.action[index], max(state.peak[index], seen.requests)
            chosen = before
            if before is None or peak > state.peak[index]:
                chosen = self._best(task, self._rungs[index], peak).id
            assert chosen is not None  # noqa: S101 - the first second decides
            code = "start" if before is None else "holds" if chosen == before else "latency"
            why = Why(code=code, numbers=(("peak_per_s", float(peak)),))
            peaks.append(peak)
            actions.append(chosen)
            verdicts.append(Verdict(task=index, action=chosen, why=why))
        return Chosen(tuple(peaks), tuple(actions)), tuple(verdicts)

    def dump(self, state: Chosen) -> bytes:
        """The highest rates by task."""
        return json.dumps({task.name: peak for task, peak in zip(self._tasks, state.peak, strict=True)}).encode()

    def load(self, payload: bytes) -> Chosen:
        """The highest rates of tasks of the same name."""
        known = decoded(payload)
        peaks = (known.get(task.name) for task in self._tasks)
        return Chosen(
            tuple(peak if isinstance(peak, int) and 0 <= peak < 1_000_000 else 0 for peak in peaks),  # noqa: PLR2004
            (None,) * len(self._tasks),
        )

    def _best(self, task: Task, ladder: tuple[Action, ...], peak: int) -> Action:
        """The uppermost rung that fits, or the fastest."""
        fitting = [a for a in ladder if a.latency_ms * _MARGIN <= task.limit_ms and a.latency_ms * peak <= 1000]  # noqa: PLR2004 - ms
        return fitting[-1] if fitting else ladder[0]


class StaticFast(Static):
    """The smallest, whatever comes."""

    def _best(self, task: Task, ladder: tuple[Action, ...], peak: int) -> Action:  # noqa: ARG002 - that is the point
        return min((a for a in task.actions if not a.remote), key=lambda a: (a.latency_ms, -a.quality, a.id))
