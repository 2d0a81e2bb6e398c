"""How long one inference of each variant takes on this machine, for the record beside a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_sdk import rounds
from edge_sdk.engine import Engine
from edge_sdk.front import Array
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin

_PLAN = rounds.Plan()


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
    with contextlib.ExitStack() as stack:
        engines = {id_: stack.enter_context(Engine(path, threads=threads)) for id_, path in paths.items()}
        took_ms = rounds.timed_ms(engines, dict.fromkeys(engines, sample), _PLAN, advance=advance)
        runtime = next(iter(engines.values())).runtime
    return tuple(
        Latency(
            variant=id_,
            origin=Origin.MEASURED,
            machine=machine_name(),
            runtime=runtime,
            threads=threads,
            samples=len(times),
            median_ms=round(float(np.median(times)), 4),
            p95_ms=round(float(np.percentile(times, 95)), 4),
            at=at,
        )
        for id_, times in took_ms.items()
    )


def turns() -> int:
    """How often `measure` advances for each variant."""
    return _PLAN.rounds
