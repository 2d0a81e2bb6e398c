"""How many threads an inference is fastest with here, found out by timing: small models lose by every further one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_sdk import rounds
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.errors import UsageError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Origin
from edge_sdk.rounds import Plan
from edge_sdk.runtime import Runtime

# More threads must be worth it: each further one costs energy, and takes a core from whatever else runs.
_WORTH = 0.95
_PLAN = Plan(rounds=40, enough_s=0.5, longest_s=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One number of threads."""

    threads: int
    median_ms: float
    p95_ms: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """What is best, and what was tried, the fewest threads first."""

    threads: int
    tried: tuple[Tried, ...]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sweep(most: int) -> tuple[int, ...]:
    """The powers of two up to `most`, and `most`."""
    return tuple(sorted({most, *(1 << power for power in range(most.bit_length()))}))


def fastest(medians_ms: Mapping[int, float]) -> int:
    """The number of threads to take, by what each was measured: the fewest that is within 5 % of the fastest."""
    least_ms = min(medians_ms.values())
    return min(threads for threads, median_ms in medians_ms.items() if _WORTH * median_ms <= least_ms)


def wanted(threads: int | Literal["measured"], bundle: Bundle, id_: str) -> int:
    """How many threads a variant gets.

    Args:
        threads: A number, which it is then; or `measured`: what was measured best on this machine, 1 where nothing was.
        bundle: Whose evidence counts.
        id_: Of the variant.

    Raises:
        UnknownVariantError: The bundle has no such variant.
    """
    if threads != "measured":
        return threads
    variant, machine = bundle.variant(id_), machine_name()
    medians_ms = {
        entry.threads: entry.median_ms
        for entry in bundle.latencies()
        if entry.origin is Origin.MEASURED and entry.machine == machine and entry.is_of(variant)
    }
    return max(1, fastest(medians_ms)) if medians_ms else 1


def best(
    model: str | os.PathLike[str],
    *,
    counts: Sequence[int] = (),
    runtime: Runtime | None = None,
    plan: Plan = _PLAN,
) -> Best:
    """Time a model with each number of threads, in turns.

    Args:
        model: A file that the CPU runs.
        counts: Those to try; none tries `1..cores()`.
        runtime: From `edge_sdk.runtime`; None takes the first usable.
        plan: When enough was timed.

    Raises:
        ModelLoadError: It cannot be run here.
        UsageError: A count is no positive whole number.
    """
    tried = sorted(set(counts)) or list(range(1, cores() + 1))
    if tried[0] < 1:
        raise UsageError(f"{tried[0]} threads cannot be tried", hint="give whole numbers from 1 up")
    with contextlib.ExitStack() as stack:
        engines = {str(count): stack.enter_context(Engine(model, threads=count, runtime=runtime)) for count in tried}
        sample = rounds.noise(engines[str(tried[0])].inputs)
        times = rounds.timed_ms(engines, dict.fromkeys(engines, sample), plan)
    found = tuple(_tried(count, times[str(count)]) for count in tried)
    return Best(threads=fastest({each.threads: each.median_ms for each in found}), tried=found)


def _tried(threads: int, times_ms: Sequence[float]) -> Tried:
    return Tried(
        threads=threads,
        median_ms=round(float(np.median(times_ms)), 4),
        p95_ms=round(float(np.percentile(times_ms, 95)), 4),
        samples=len(times_ms),
    )
