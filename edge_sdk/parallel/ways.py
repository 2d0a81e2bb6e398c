"""How to use several cores for one model: one interpreter of many threads, many of one, or something between.

Which is best depends on the model, the batch and the machine (one interpreter of two threads gave 1.53 to 1.92 times
the throughput of one, two replicas 1.79 to 1.93), so it is measured: all ways answer the same batch, in turns.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_sdk.engine import MOST_THREADS, Engine
from edge_sdk.errors import UsageError
from edge_sdk.parallel.pool import ReplicaPool
from edge_sdk.rounds import noise

_ROUNDS = 7
_ENOUGH_S = 4.0  # of measuring, once every way had three turns
_FEWEST = 3
# Of the memory that is free, for the replicas of a way: the rest is the app's.
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Way:
    """How many engines, and how many threads each has."""

    replicas: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What one way was measured to give.

    Attributes:
        way: Which.
        samples_per_s: Median of the rounds.
        slowest: Of the rounds, in samples a second.
        fastest: Likewise.
        memory_bytes: Of its replicas, about: each what the first was seen to take.
    """

    way: Way
    samples_per_s: float
    slowest: float
    fastest: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """All ways that were measured.

    Attributes:
        timed: The best first.
        too_large: Ways that were not tried, because memory does not hold their replicas beside the others.
        batch: Samples of each call.
        rounds: Calls of each way.
        runtime: Name and version.
    """

    timed: tuple[Timed, ...]
    too_large: tuple[Way, ...]
    batch: int
    rounds: int
    runtime: str

    @property
    def best(self) -> Timed:
        """The one with the highest median."""
        return self.timed[0]


def possible(cores: int) -> tuple[Way, ...]:
    """The ways that use so many cores whole, from one replica on, and one core alone to compare with."""
    whole = [Way(replicas=count, threads=cores // count) for count in range(1, cores + 1) if cores % count == 0]
    return (Way(replicas=1, threads=1), *(way for way in whole if way != Way(replicas=1, threads=1)))


def best_way(
    path: str | os.PathLike[str],
    *,
    batch: int = 64,
    cores: int | None = None,
    memory_bytes: int | None = None,
    rounds: int = _ROUNDS,
) -> Ways:
    """Measure all ways side by side on a batch.

    Args:
        path: A `.tflite` file.
        batch: Samples of a call; of a model with a fixed batch, a multiple of that.
        cores: To use; None takes those this process may run on.
        memory_bytes: That replicas may take; None allows half of what is free.
        rounds: Turns of each way.

    Raises:
        UsageError: `batch`, `cores` or `rounds` is no positive number.
        DelegateError: The model cannot be loaded or run here.
        InputShapeError: The model does not take such a batch.
    """
    cores = min(_cores(), MOST_THREADS) if cores is None else cores
    for name, value in {"batch": batch, "cores": cores, "rounds": rounds}.items():
        if value < 1:
            raise UsageError(f"{name} is {value!r}", hint="give a whole number from 1 up")
    if cores > MOST_THREADS:
        raise UsageError(f"cores is {cores!r}", hint=f"give no more than {MOST_THREADS}")
    allowed_bytes = _free_bytes() * _MEMORY_SHARE if memory_bytes is None else float(memory_bytes)
    before_bytes = _resident_bytes()
    with Engine(path) as first:
        grown_bytes = max(Path(path).stat().st_size, _resident_bytes() - before_bytes)
        runtime = first.runtime
    ways = possible(cores)
    fitting = _fitting(ways, allowed_bytes / grown_bytes)
    engines = {
        threads: opened(path, Way(replicas=max(w.replicas for w in fitting if w.threads == threads), threads=threads))
        for threads in sorted({way.threads for way in fitting})
    }
    pools = {way: ReplicaPool(engines[way.threads][: way.replicas]) for way in fitting}
    try:
        rates = _rates(pools, batch, rounds)
    finally:
        for pool in pools.values():
            pool.close()
    timed = [
        Timed(
            way=way,
            samples_per_s=statistics.median(found),
            slowest=min(found),
            fastest=max(found),
            memory_bytes=way.replicas * grown_bytes,
        )
        for way, found in rates.items()
    ]
    timed.sort(key=lambda each: (-each.samples_per_s, each.memory_bytes))
    return Ways(
        timed=tuple(timed),
        too_large=tuple(way for way in ways if way not in fitting),
        batch=batch,
        rounds=len(next(iter(rates.values()))),
        runtime=runtime,
    )


def _fitting(ways: Sequence[Way], most: float) -> list[Way]:
    """Those whose engines are not too many to be open beside those of the ways before; one alone always is tried."""
    found: list[Way] = []
    for way in ways:
        counts = {each.threads: 0 for each in (*found, way)}
        for each in (*found, way):
            counts[each.threads] = max(counts[each.threads], each.replicas)
        if way.replicas == 1 or sum(counts.values()) <= most:
            found.append(way)
    return found


def opened(path: str | os.PathLike[str], way: Way) -> list[Engine]:
    """The engines of a way.

    Raises:
        DelegateError: The model cannot be loaded here.
    """
    engines: list[Engine] = []
    try:
        while len(engines) < way.replicas:
            engines.append(Engine(path, threads=way.threads))
    except BaseException:
        for engine in engines:
            engine.close()
        raise
    return engines


def _rates(pools: dict[Way, ReplicaPool], batch: int, rounds: int) -> dict[Way, list[float]]:
    """Samples a second of every way, round by round."""
    samples = [
        np.repeat(array, -(-batch // max(1, len(array))), axis=0)[:batch] if array.ndim else array
        for array in noise(next(iter(pools.values())).inputs)
    ]
    found: dict[Way, list[float]] = {way: [] for way in pools}
    for pool in pools.values():
        pool.run(samples)
    begun_s = time.perf_counter()
    for number in range(rounds):
        for way, pool in pools.items():
            start_s = time.perf_counter()
            pool.run(samples)
            found[way].append(batch / (time.perf_counter() - start_s))
        if number + 1 >= _FEWEST and time.perf_counter() - begun_s > _ENOUGH_S:
            break
    return found


def _cores() -> int:
    """Those this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    return 1024 * _proc("/proc/self/status", "VmRSS")


def _free_bytes() -> float:
    """Of the system; infinite where it does not say."""
    return 1024 * _proc("/proc/meminfo", "MemAvailable") or float("inf")


def _proc(path: str, key: str) -> int:
    """A value in kB, 0 where there is none."""
    try:
        lines: Sequence[str] = Path(path).read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
