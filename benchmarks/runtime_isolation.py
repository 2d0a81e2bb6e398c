"""What it costs that an accelerator computes in a process of its own; here the CPU stands in for it.

The same model takes turns in this process and in a worker, so that what differs is the way there and back: a message
each way, a copy of the inputs and one of the outputs.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from figures import Figure, figure

from edge_lab import digits
from edge_sdk.engine import Engine
from edge_sdk.errors import WorkerLostError
from edge_sdk.isolation import IsolatedEngine

CALLS = 200


def median_us(call: Callable[[], object], calls: int) -> float:
    """Of one call."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def added_us(model: Path, sample: Sequence[np.ndarray], rounds: int, calls: int) -> list[float]:
    """Microseconds that a call in a worker takes longer, round by round."""
    with Engine(model) as here, IsolatedEngine(model) as there:
        median_us(lambda: there.run(sample), calls)  # warm
        return [
            median_us(lambda: there.run(sample), calls) - median_us(lambda: here.run(sample), calls)
            for _ in range(rounds)
        ]


def found_out_ms(model: Path, sample: Sequence[np.ndarray], rounds: int) -> list[float]:
    """Milliseconds from a call on a worker that was killed to its error, with which the twin takes over."""
    times = []
    for _ in range(rounds):
        with IsolatedEngine(model) as engine:
            assert engine.pid is not None  # noqa: S101 - it runs
            os.kill(engine.pid, signal.SIGKILL)
            begun = time.perf_counter()
            try:
                engine.run(sample)
            except WorkerLostError:
                times.append(1e3 * (time.perf_counter() - begun))
    return times


def rows(options: argparse.Namespace) -> list[Figure]:
    """The rows of this part."""
    rounds = 3 if options.quick else options.rounds
    sample = [digits.held_out()[0][:1]]
    small, _, large = digits.models()
    starts = []
    for _ in range(min(rounds, 5)):
        begun = time.perf_counter()
        with IsolatedEngine(small):
            starts.append(1e3 * (time.perf_counter() - begun))
    return [
        figure("worker: added to a 0.07 ms call", added_us(small, sample, rounds, CALLS), unit="us"),
        figure("worker: added to a 5 ms call", added_us(large, sample, rounds, CALLS // 10), unit="us"),
        figure("worker: start, load and first answer", starts, unit="ms"),
        figure("worker killed: until the call has its error", found_out_ms(small, sample, min(rounds, 5)), unit="ms"),
    ]
