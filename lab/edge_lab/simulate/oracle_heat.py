"""The board's heat as two numbers that decay alone: the modes of the two thermal nodes, and grids over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_lab.simulate.board import Heat
from edge_lab.simulate.world import SUBSTEPS, Floats, World

_NARROWEST_C: Final = 0.5
_ABOVE_C: Final = 1.5  # how far above the limit a grid goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """The die's temperature is the sum of the two modes, the fast one first.

    Attributes:
        start_c: `[2]`, at the run's begin.
        keep: `[2]`, what is left of each after a second.
        gain: `[substeps, 2]`, at the end of the second, of a joule burned in each substep.
        air_c: `[2]`, at the end of a second, of a degree of the air around.
        idle_c: `[seconds, 2]`, from the air, from idling and from what others draw.
        limit_c: The die is to stay below: the limit, or the firmware's throttle if that comes first.
    """

    start_c: Floats
    keep: Floats
    gain: Floats
    air_c: Floats
    idle_c: Floats
    limit_c: float


def modes_of(world: World) -> Modes:
    """The modes of this run's board, read off the simulator's own `Heat`, which is linear."""
    heat = Heat(world)
    start = np.array([heat.die_c, heat.board_c])

    def after(die_c: float, board_c: float, power_w: float, ambient_c: float) -> list[float]:
        heat.die_c, heat.board_c = die_c, board_c
        heat.substep(power_w, ambient_c)
        return [heat.die_c, heat.board_c]

    step = np.array([after(1, 0, 0, 0), after(0, 1, 0, 0)]).T
    values, vectors = np.linalg.eig(step)
    order = np.argsort(values)
    values, vectors = values[order].real, vectors[:, order].real
    into = np.linalg.inv(vectors / vectors[0])
    left = values[None, :] ** np.arange(SUBSTEPS - 1, -1, -1)[:, None]
    gain = left * (into @ after(0, 0, SUBSTEPS, 0))
    air = left.sum(axis=0) * (into @ after(0, 0, 0, 1))
    idle_j = (world.setting.board.idle_w + world.extra_w.reshape(-1, SUBSTEPS)) / SUBSTEPS
    limits = [world.slows_above_c, *([] if world.setting.temp_c is None else [world.setting.temp_c])]
    return Modes(
        start_c=into @ start,
        keep=values**SUBSTEPS,
        gain=gain,
        air_c=air,
        idle_c=idle_j @ gain + world.ambient_c[:, None] * air,
        limit_c=min(limits),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Equally spaced points of both modes, for the begin of every second.

    Attributes:
        low_c, step_c: `[seconds + 1, 2]`.
        points: Of each mode.
    """

    low_c: Floats
    step_c: Floats
    points: int


def reachable(modes: Modes, heat_c: Floats, points: int) -> Grid:
    """A grid over what any choice of actions can reach.

    Args:
        modes: Of the board.
        heat_c: What each action adds, `[seconds, actions, 2]`.
        points: Of each mode.
    """
    low, high = [modes.start_c], [modes.start_c]
    coolest, hottest = modes.idle_c + heat_c.min(axis=1), modes.idle_c + heat_c.max(axis=1)
    for second in range(len(heat_c)):
        low.append(modes.keep * low[-1] + coolest[second])
        hot = modes.keep * high[-1] + hottest[second]
        high.append(np.minimum(hot, modes.limit_c + _ABOVE_C - low[-1][::-1]))
    low_c = np.array(low)
    return Grid(low_c=low_c, step_c=np.maximum(np.array(high) - low_c, _NARROWEST_C) / (points - 1), points=points)
