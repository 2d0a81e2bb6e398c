"""What a pipeline of segments gains: a model cut in two, a thread for each segment, against the whole on one thread.

    python benchmarks/split.py MODEL.tflite [--parts 2] [--rounds 12] [--samples 60]

The model is split by `edge split`, which also verifies the segments, and run by `edge_sdk.Pipeline`. Whole and pipeline
then take turns, so that a busy moment of the machine falls on both; printed are the samples a second of each and the
ratio, round by round: median, smallest and largest. Target for two balanced segments on two idle cores: a median ratio
of at least 1.7. On a machine with other work the last line says more: the processor time of a sample in the whole over
that in the slowest stage, handing on included, which is the ratio that cores of their own would give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_converter.splitting.split import SplitRequest, split
from edge_sdk import Engine, Pipeline
from edge_sdk.machine import machine_name
from edge_sdk.rounds import noise


def pipelined(pipeline: Pipeline, samples: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Samples a second, and the processor time of one in the slowest stage."""
    before = pipeline.reports()
    begun_s = time.perf_counter()
    for _ in pipeline.map(samples):
        pass
    took_s = time.perf_counter() - begun_s
    busy_s = [each.processor_s - was.processor_s for each, was in zip(pipeline.reports(), before, strict=True)]
    return len(samples) / took_s, max(busy_s) / len(samples)


def alone(whole: Engine, samples: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Samples a second of the whole on this thread; and the processor time of one."""
    begun_s, busy_s = time.perf_counter(), time.thread_time()
    for sample in samples:
        whole.run(sample)
    busy_s = time.thread_time() - busy_s
    return len(samples) / (time.perf_counter() - begun_s), busy_s / len(samples)


def shown(name: str, found: list[float], unit: str = "") -> str:
    """Median and spread."""
    return f"{name:14} {statistics.median(found):7.2f}{unit}   ({min(found):.2f} to {max(found):.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--samples", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        plan = split(SplitRequest(model=args.model, parts=args.parts), Path(place) / "split")
        with Engine(args.model) as whole, Pipeline(Path(place) / "split") as pipeline:
            samples = [noise(whole.inputs)] * args.samples
            rounds = [(alone(whole, samples), pipelined(pipeline, samples)) for _ in range(args.rounds + 1)]
    rounds = rounds[1:]  # one warms
    cuts = ", ".join(f"{segment.first} to {segment.end - 1}" for segment in plan.segments)
    print(f"{machine_name()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {plan.verified_with}")
    print(f"{args.model.name} in operators {cuts}; {args.rounds} rounds of {args.samples} samples")
    print(shown("whole", [one[0] for one, _ in rounds], " /s"))
    print(shown("pipeline", [both[0] for _, both in rounds], " /s"))
    print(shown("ratio", [both[0] / one[0] for one, both in rounds]))
    print(shown("of processor", [one[1] / both[1] for one, both in rounds]))


if __name__ == "__main__":
    main()
