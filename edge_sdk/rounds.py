"""How long one inference of each of several loaded models takes, timed in turns.

The models take turns, in rounds, so that a busy moment of the machine falls on all of them alike and their order stands
even where the milliseconds do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_sdk.front import Array
from edge_sdk.manifest import TensorSpec

_WARM_UP = 3


class Runs(Protocol):
    """Whatever computes an inference."""

    def run(self, arrays: Sequence[Any], /) -> object:
        """Compute one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When enough was timed.

    Attributes:
        rounds: Never more turns than this for one model.
        turn: Inferences timed in one turn, after an untimed one that brings the weights back into the caches.
        enough_s: A model that was timed for so long skips further turns, given `fewest`.
        fewest: Samples a 95th percentile can rest on.
        longest_s: One that takes seconds an inference stops here, however few it has.
    """

    rounds: int = 12
    turn: int = 5
    enough_s: float = 1.5
    fewest: int = 20
    longest_s: float = 12.0


def timed_ms(
    engines: Mapping[str, Runs],
    samples: Mapping[str, Sequence[Array]],
    plan: Plan,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Milliseconds of every timed inference, by name.

    Args:
        engines: Loaded models, by name.
        samples: What each is given.
        plan: When to stop.
        advance: Told after each turn.

    Raises:
        DelegateError: A model fails while it runs.
    """
    took_ms: dict[str, list[float]] = {name: [] for name in engines}
    for name, engine in engines.items():
        for _ in range(_WARM_UP):
            engine.run(samples[name])
    for _ in range(plan.rounds):
        left = [name for name, times in took_ms.items() if not _enough(times, plan)]
        for name, engine in engines.items():
            if name in left:
                engine.run(samples[name])
                took_ms[name] += [_one_ms(engine, samples[name]) for _ in range(plan.turn)]
            advance(1)
        if not left:
            break
    return took_ms


def noise(inputs: Sequence[TensorSpec]) -> list[Array]:
    """One sample for these inputs: the same numbers each time, and no zeros, on which a runtime may be quicker."""
    generator = np.random.default_rng(0)
    return [_input(spec, generator) for spec in inputs]


def _enough(times_ms: Sequence[float], plan: Plan) -> bool:
    spent_s = sum(times_ms) / 1e3
    return spent_s > plan.longest_s or (spent_s > plan.enough_s and len(times_ms) >= plan.fewest)


def _one_ms(engine: Runs, sample: Sequence[Array]) -> float:
    start = time.perf_counter()
    engine.run(sample)
    return 1e3 * (time.perf_counter() - start)


def _input(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    if spec.dtype.startswith("float"):
        return generator.random(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
