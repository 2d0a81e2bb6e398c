"""How long one inference of each variant takes on this machine.

The variants take turns, in rounds, so that a busy moment of the machine falls on all of them alike and their order
stands even where the milliseconds do not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_sdk.engine import Array, Engine
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin

_WARM_UP = 3
# Timed in one turn, after one untimed inference that brings the variant's weights back into the caches.
_TURN = 5
_ROUNDS = 12
# A variant that has been timed for this long skips further rounds, once it has the fewest samples a p95 can rest on.
_ENOUGH_S = 1.5
_FEWEST = 20
# One that takes seconds an inference gets this few.
_LONGEST_S = 12.0


def measure(
    paths: Mapping[str, Path], sample: Sequence[Array], *, threads: int, at: float, advance: Callable[[int], None]
) -> tuple[Latency, ...]:
    """Time one inference of each variant.

    Args:
        paths: Files by variant id.
        sample: What one call takes: one array per input, batch dimension included.
        threads: For the interpreters.
        at: When this is, in seconds since 1970, for the record.
        advance: Told after each turn.
    """
    took_s: dict[str, list[float]] = {id_: [] for id_ in paths}
    with contextlib.ExitStack() as stack:
        engines = {id_: stack.enter_context(Engine(path, threads=threads)) for id_, path in paths.items()}
        for engine in engines.values():
            for _ in range(_WARM_UP):
                engine.run(sample)
        for _ in range(_ROUNDS):
            for id_, engine in engines.items():
                spent_s = sum(took_s[id_])
                enough = spent_s > _LONGEST_S or (spent_s > _ENOUGH_S and len(took_s[id_]) >= _FEWEST)
                if not enough:
                    engine.run(sample)
                    took_s[id_] += [_timed(engine, sample) for _ in range(_TURN)]
                advance(1)
        runtime = next(iter(engines.values())).runtime
    return tuple(
        Latency(
            variant=id_,
            origin=Origin.MEASURED,
            machine=machine_name(),
            runtime=runtime,
            threads=threads,
            samples=len(times),
            median_ms=round(1e3 * float(np.median(times)), 4),
            p95_ms=round(1e3 * float(np.percentile(times, 95)), 4),
            at=at,
        )
        for id_, times in took_s.items()
    )


def rounds() -> int:
    """How often `measure` advances for each variant."""
    return _ROUNDS


def _timed(engine: Engine, sample: Sequence[Array]) -> float:
    start = time.perf_counter()
    engine.run(sample)
    return time.perf_counter() - start
