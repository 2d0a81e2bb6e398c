"""What each action would be worth in each second of a run that is known to its end: the table the oracle plans with.

Every number comes from the simulator's own `App`, so a plan means in the table what it means when it is played.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_daemon.policies.contract import Action
from edge_lab.simulate.board import App
from edge_lab.simulate.world import SUBSTEPS, Floats, World

Indices = NDArray[np.int64]

_NEVER: Final = -1.0
_POOR: Final = 0.5  # of the best quality of a second: below it an action is none to plan with


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One second of one action.

    Attributes:
        quality: Sum over the requests that arrived in it.
        joules: Above idle, per substep from the second's first on; longer than a second where an inference is.
        free_s, link_free_s: When processor and link are free again; below zero if they were not used.
    """

    quality: float
    joules: tuple[float, ...]
    free_s: float
    link_free_s: float


class Bench:
    """Serves single seconds, each as if from a given backlog, and forgets them."""

    def __init__(self, world: World) -> None:
        self._app = App(world)
        self._first: list[int] = world.first.tolist()
        self._arrive: list[float] = [*world.arrive_s.tolist(), float("inf")]

    def first_s(self, second: int) -> float:
        """When the first request from this second on arrives."""
        return self._arrive[self._first[second]]

    def serve(
        self, second: int, action: Action, free_s: float = _NEVER, link_free_s: float = _NEVER, clock: float = 1.0
    ) -> Played:
        """Serve the requests of this second by one action."""
        app = self._app
        app.free_s, app.link_free_s = free_s, link_free_s
        quality = app.serve_all(self._first[second], self._first[second + 1], action, clock)
        begin = second * SUBSTEPS
        used_s = max(app.free_s, app.link_free_s, second + 1.0)
        end = min(int(used_s * SUBSTEPS) + 1, len(app.joules))
        joules = tuple(app.joules[begin:end])
        app.joules[begin:end] = [0.0] * (end - begin)
        return Played(quality=quality, joules=joules, free_s=app.free_s, link_free_s=app.link_free_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Where an action finds the processor or the link busy with the second before: what it changes.

    Attributes:
        second, before, after: Index of the second, of the action before it and of its own, each `[pairs]`.
        quality, joules: To add, `[pairs]`.
    """

    second: Indices
    before: Indices
    after: Indices
    quality: Floats
    joules: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """The table; actions that never answer in time are left out, all but one that needs no server.

    Attributes:
        alone: `[seconds][actions]`, from an empty queue.
        quality, joules: `[seconds, actions]`, the same in arrays; joules also of what ends a second later.
        heat_j: `[seconds, actions, substeps]`, as burned while the action goes on from second to second.
    """

    bench: Bench
    actions: tuple[Action, ...]
    alone: list[list[Played]]
    quality: Floats
    joules: Floats
    heat_j: Floats
    backlog: Backlog


def tabulate(world: World) -> Seconds:
    """The table of one run, at full clock."""
    bench = Bench(world)
    columns = [(action, *_column(world, bench, action)) for action in world.setting.tasks[0].actions]
    first_local = next(action for action in world.setting.tasks[0].actions if not action.remote)
    kept = [column for column in columns if column[0] is first_local or any(played.quality > 0 for played in column[1])]
    actions = tuple(action for action, _, _ in kept)
    alone = [list(row) for row in zip(*(column for _, column, _ in kept), strict=True)]
    return Seconds(
        bench=bench,
        actions=actions,
        alone=alone,
        quality=np.array([[played.quality for played in row] for row in alone]),
        joules=np.array([[sum(played.joules) for played in row] for row in alone]),
        heat_j=np.stack([heat for _, _, heat in kept], axis=1),
        backlog=_backlog(world, bench, actions, alone),
    )


def _column(world: World, bench: Bench, action: Action) -> tuple[list[Played], Floats]:
    alone = []
    heat_j = np.zeros(world.seconds * SUBSTEPS + 1)
    free_s = link_s = _NEVER
    for second in range(world.seconds):
        went_on = played = bench.serve(second, action, free_s, link_s)
        if max(free_s, link_s) > bench.first_s(second):
            played = bench.serve(second, action)
        free_s, link_s = went_on.free_s, went_on.link_free_s
        alone.append(played)
        heat_j[second * SUBSTEPS : second * SUBSTEPS + len(went_on.joules)] += went_on.joules
    return alone, heat_j[:-1].reshape(world.seconds, SUBSTEPS)


def _backlog(world: World, bench: Bench, actions: tuple[Action, ...], alone: list[list[Played]]) -> Backlog:
    """The pairs of good actions: to think too well of a poor one raises the bound at most, and is no plan's loss."""
    best = [max(played.quality for played in row) for row in alone]
    good = [
        [index for index, played in enumerate(row) if played.quality >= _POOR * most]
        for row, most in zip(alone, best, strict=True)
    ]
    rows = []
    for second in range(1, world.seconds):
        first_s = bench.first_s(second)
        if first_s >= second + 1:
            continue
        for after in good[second]:
            action, empty = actions[after], alone[second][after]
            met: dict[tuple[float, float], tuple[float, float]] = {}
            for before in good[second - 1]:
                left = alone[second - 1][before]
                busy = _busy(action, left, first_s)
                if busy == (_NEVER, _NEVER):
                    continue
                if busy not in met:
                    played = bench.serve(second, action, *busy)
                    met[busy] = played.quality - empty.quality, sum(played.joules) - sum(empty.joules)
                if met[busy] != (0.0, 0.0):
                    rows.append((second, before, after, *met[busy]))
    table = np.array(rows).reshape(-1, 5)
    second, before, after = table[:, :3].T.astype(np.int64)
    return Backlog(second=second, before=before, after=after, quality=table[:, 3], joules=table[:, 4])


def _busy(action: Action, left: Played, first_s: float) -> tuple[float, float]:
    """Until when this action finds processor and link busy, where that matters to it."""
    here = left.free_s if left.free_s > first_s and (not action.remote or action.hedge is not None) else _NEVER
    link = left.link_free_s if left.link_free_s > first_s and action.remote else _NEVER
    return here, link
