"""What a pipeline of segments gains: a model cut in two, on two threads, against the whole on one.

    python benchmarks/split.py MODEL.tflite [--parts 2] [--rounds 12] [--samples 60]

The model is split by `edge split`, which also verifies the segments. Whole and pipeline then take turns, so that a busy
moment of the machine falls on both; printed are the samples a second of each and the ratio, round by round: median,
smallest and largest. Target for two balanced segments on two idle cores: a median ratio of at least 1.7. On a machine
with other work the last line says more: the processor time of a sample in the whole over that in the slowest stage,
handing on included, which is the ratio that cores of their own would give.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from edge_converter.splitting.chain import Array, Link, Loaded
from edge_converter.splitting.split import SplitRequest, split
from edge_sdk.machine import machine_name
from edge_sdk.segments import Segments

AHEAD = 2  # samples a stage may be ahead of the next
DEADLINE_S = 60.0


Samples = queue.Queue[dict[str, Array]]


def stage(segment: Loaded, taken: Samples, given: Samples, busy_s: list[float], count: int) -> None:
    """Run so many samples through one segment, and tell the processor time of one."""
    begun_s = time.thread_time()
    for _ in range(count):
        known = taken.get(timeout=DEADLINE_S)
        segment.step(known)
        given.put(known, timeout=DEADLINE_S)
    busy_s.append((time.thread_time() - begun_s) / count)


def pipelined(segments: list[Loaded], samples: list[dict[str, Array]]) -> tuple[float, float]:
    """Samples a second, one thread a segment; and the processor time of one in the slowest stage."""
    queues: list[Samples] = [queue.Queue(AHEAD) for _ in segments]
    done: Samples = queue.Queue()
    busy_s: list[float] = []
    threads = [
        threading.Thread(target=stage, args=(segment, taken, given, busy_s, len(samples)))
        for segment, taken, given in zip(segments, queues, [*queues[1:], done], strict=True)
    ]
    begun_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for sample in samples:
        queues[0].put(dict(sample), timeout=DEADLINE_S)
    for thread in threads:
        thread.join()
    return len(samples) / (time.perf_counter() - begun_s), max(busy_s)


def alone(whole: Loaded, samples: list[dict[str, Array]]) -> tuple[float, float]:
    """Samples a second of the whole on this thread; and the processor time of one."""
    begun_s, busy_s = time.perf_counter(), time.thread_time()
    for sample in samples:
        whole.step(dict(sample))
    busy_s = time.thread_time() - busy_s
    return len(samples) / (time.perf_counter() - begun_s), busy_s / len(samples)


def loaded(folder: Path, model: Path) -> tuple[Loaded, list[Loaded]]:
    """The whole and its segments."""
    read = Segments(folder)
    links = [
        Link(
            content=read.file(segment).read_bytes(),
            inputs=tuple(tensor.name for tensor in segment.inputs),
            outputs=tuple(tensor.name for tensor in segment.outputs),
        )
        for segment in read.plan.segments
    ]
    whole = Link(
        content=model.read_bytes(),
        inputs=tuple(spec.name for spec in read.plan.inputs),
        outputs=tuple(spec.name for spec in read.plan.outputs),
    )
    return Loaded(whole, threads=1, where="whole"), [Loaded(link, threads=1, where="segment") for link in links]


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
        whole, segments = loaded(Path(place) / "split", args.model)
    random = np.random.default_rng(0)
    samples = [dict(zip(whole.link.inputs, whole.noise(random), strict=True)) for _ in range(args.samples)]
    rounds = [(alone(whole, samples), pipelined(segments, samples)) for _ in range(args.rounds + 1)][1:]  # one warms
    cuts = ", ".join(f"{segment.first} to {segment.end - 1}" for segment in plan.segments)
    print(f"{machine_name()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {plan.verified_with}")
    print(f"{args.model.name} in operators {cuts}; {args.rounds} rounds of {args.samples} samples")
    print(shown("whole", [one[0] for one, _ in rounds], " /s"))
    print(shown("pipeline", [both[0] for _, both in rounds], " /s"))
    print(shown("ratio", [both[0] / one[0] for one, both in rounds]))
    print(shown("of processor", [one[1] / both[1] for one, both in rounds]))


if __name__ == "__main__":
    main()
