"""One seed of one scenario: every policy, the clairvoyant and the floor in the same world.

A `Job` is what a process needs to play it, and `Played` what it tells; both cross a process border as MessagePack.
"""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Board, Factory
from edge_lab.errors import PolicyFailedError
from edge_lab.simulate import trace
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.scenario import Scenario
from edge_lab.simulate.world import World, draw


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to play.

    Attributes:
        scenario: With its variants inline.
        board: The profile's physics.
        trace: Path of the trace that is played into it.
        oracle: Plan the clairvoyant, too, and with `floor` the causal floor.
    """

    scenario: Scenario
    board: Board
    trace: str | None
    seed: int
    policies: tuple[str, ...]
    oracle: bool = False
    floor: bool = False


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What the clairvoyant, or the floor, came to.

    Attributes:
        gap_pct: To the dual bound, of the clairvoyant's own value.
    """

    run: Run
    gap_pct: float | None = None


class Played(msgspec.Struct, frozen=True, kw_only=True, tag="played"):
    """What came of it, the runs in the order of the job's policies.

    Attributes:
        feasible: The smallest variant can hold the limits, so that a regret means something.
    """

    seed: int
    feasible: bool
    runs: tuple[Run, ...]
    oracle: Bound | None = None
    floor: Bound | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A policy failed."""

    what: str
    where: str
    hint: str


def world_of(job: Job) -> World:
    """The world that every policy of this job meets."""
    recorded = None if job.trace is None else _recorded(job.trace)
    return draw(job.scenario, job.seed, base=job.board, trace=recorded)


def run(job: Job) -> Played:
    """Play it.

    Raises:
        PolicyFailedError: A policy raised, or answered what makes no sense.
    """
    world = world_of(job)
    return Played(
        seed=job.seed,
        feasible=is_feasible(world),
        runs=tuple(_played(world, name, registry.find(name)) for name in job.policies),
    )


def is_feasible(world: World) -> bool:
    """Whether the smallest variant holds temperature and battery in this world."""
    smallest = play(world, "static-fast", registry.find("static-fast"), replies=False)
    limits = world.setting
    return smallest.hot_pct(limits.temp_c) == 0 and smallest.alive_pct(limits.until_s or world.seconds) == 100  # noqa: PLR2004 - percent


def _played(world: World, name: str, factory: Factory) -> Run:
    try:
        return play(world, name, factory)
    except Exception as cause:
        # The border to what strangers wrote; ours are tested not to come here.
        raise PolicyFailedError(
            f"policy {name!r} failed: {type(cause).__name__}: {str(cause)[:200]}",
            where=f"{world.scenario.name}, seed {world.seed}",
            hint="a policy answers a second with one verdict for each task, with an action of its setting",
        ) from cause


@functools.lru_cache(maxsize=4)
def _recorded(path: str) -> trace.Recorded:
    return trace.read(Path(path))
