"""One seed of one scenario: every policy, the clairvoyant and the floor in the same world.

A `Job` is what a process needs to play it, and `Played` what it tells; both cross a process border as MessagePack.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

import msgspec

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Board, Factory
from edge_lab.errors import PolicyFailedError
from edge_lab.simulate import floor, oracle, trace
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
        gap_pct: The clairvoyant's, to its dual bound; None where nothing bounds it.
        took_s: Of processor time.
    """

    run: Run
    gap_pct: float | None = None
    took_s: float = 0.0


class Played(msgspec.Struct, frozen=True, kw_only=True, tag="played"):
    """What came of it, the runs in the order of the job's policies.

    Attributes:
        broken: The limits that even the smallest variant breaks, of `temp`, `battery` and `power`; a regret then
            means nothing.
        throttled: The firmware slows even the smallest variant down; a policy may then be better than the clairvoyant.
    """

    seed: int
    broken: tuple[str, ...]
    throttled: bool = False
    runs: tuple[Run, ...]
    oracle: Bound | None = None
    floor: Bound | None = None

    @property
    def feasible(self) -> bool:
        """Every limit can be held."""
        return not self.broken


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
    held = oracle.feasible(world)
    return Played(
        seed=job.seed,
        broken=_broken(held),
        throttled=not held.clock,
        runs=tuple(_played(world, name, registry.find(name)) for name in job.policies),
        oracle=_clairvoyant(world, bounded=held.all and held.clock) if job.oracle else None,
        floor=_floor(world) if job.floor else None,
    )


def _broken(found: oracle.Feasibility) -> tuple[str, ...]:
    return tuple(name for name in ("temp", "battery", "power") if not getattr(found, name))


def _clairvoyant(world: World, *, bounded: bool) -> Bound:
    found = oracle.clairvoyant(world)
    return Bound(run=found.run, gap_pct=found.gap_pct if bounded else None, took_s=found.took_s)


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


def _floor(world: World) -> Bound:
    began = time.process_time()
    run = floor.causal_floor(world)
    return Bound(run=run, took_s=time.process_time() - began)


@functools.lru_cache(maxsize=4)
def _recorded(path: str) -> trace.Recorded:
    return trace.read(Path(path))
