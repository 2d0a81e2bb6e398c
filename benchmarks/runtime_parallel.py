"""What two cores gain: replicas on the samples of a batch, and a pipeline of two segments, against raw interpreters.

    python benchmarks/runtime_parallel.py [--rounds 15] [--quick]

All ways take turns in every round; ratios are of the same round, and rounds that other processes disturbed do not count
while there are others. On a machine with other work the row of processor time says more: what a sample costs the whole
against what it costs the slowest stage, which is the ratio that cores of their own would give.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from conv_chain import CHANNELS, SIZE, conv_chain
from figures import Figure, figure, shown
from quiet import QUIET, Others

from edge_converter.splitting.split import SplitRequest, split
from edge_sdk import Engine, Pipeline, ReplicaPool
from edge_sdk.machine import machine_name
from edge_sdk.parallel import Way
from edge_sdk.runtime import RawInterpreter, choose

BATCH = 64
FEWEST = 3  # undisturbed rounds
PATIENCE_S = 60.0
LAYERS = 32  # about 5 ms on one core

Array = np.ndarray


class Raw:
    """Interpreters of the runtime itself, called as its own examples do."""

    def __init__(self, model: Path, count: int, threads: int = 1) -> None:
        self.interpreters = [choose().open(str(model), threads=threads) for _ in range(count)]
        for each in self.interpreters:
            each.allocate_tensors()
        self.given = int(self.interpreters[0].get_input_details()[0]["index"])
        self.taken = int(self.interpreters[0].get_output_details()[0]["index"])

    def run(self, batch: Array) -> Array:
        """The batch in equal parts, a thread for each interpreter."""
        answers = np.empty_like(batch)
        ends = np.linspace(0, len(batch), len(self.interpreters) + 1).astype(int)
        parts = list(zip(self.interpreters, ends[:-1], ends[1:], strict=True))
        threads = [
            threading.Thread(target=self._part, args=(each, batch[a:b], answers[a:b])) for each, a, b in parts[1:]
        ]
        for thread in threads:
            thread.start()
        each, a, b = parts[0]
        self._part(each, batch[a:b], answers[a:b])
        for thread in threads:
            thread.join()
        return answers

    def _part(self, interpreter: RawInterpreter, batch: Array, answers: Array) -> None:
        for number in range(len(batch)):
            interpreter.set_tensor(self.given, batch[number : number + 1])
            interpreter.invoke()
            answers[number : number + 1] = interpreter.get_tensor(self.taken)


def seconds(
    ways: dict[str, Callable[[], object]], rounds: int, patience_s: float
) -> tuple[dict[str, list[float]], str]:
    """How long each way took, round by round; an untimed one comes first.

    Rounds in which other processes worked do not count, until patience ends; if too few are left, the quietest do.

    Returns:
        Seconds by way, and which rounds they are.
    """
    for call in ways.values():
        call()
    found: list[tuple[float, dict[str, float]]] = []
    end_s = time.perf_counter() + patience_s
    while sum(share <= QUIET for share, _ in found) < rounds and time.perf_counter() < end_s:
        others, took_s = Others(), {}
        for name in sorted(ways, reverse=bool(len(found) % 2)):  # nobody always comes first
            begun_s = time.perf_counter()
            ways[name]()
            took_s[name] = time.perf_counter() - begun_s
        found.append((others.share(), took_s))
    quiet = [took_s for share, took_s in found if share <= QUIET]
    told = f"{len(quiet)} of {len(found)} rounds undisturbed"
    counted = quiet
    if len(quiet) < FEWEST:
        found.sort(key=lambda each: each[0])
        counted = [took_s for _, took_s in found[: max(FEWEST, len(found) // 4)]]
        told += f", the quietest {len(counted)} counted"
    return {name: [took_s[name] for took_s in counted] for name in ways}, told


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def rows(options: argparse.Namespace) -> list[Figure]:
    """Both figures, and what a reader needs to judge them."""
    batch = np.random.default_rng(0).random((BATCH, SIZE, SIZE, CHANNELS)).astype(np.float32)
    rounds, patience_s = (3, 5.0) if options.quick else (options.rounds, PATIENCE_S)
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "chain.tflite"
        model.write_bytes(conv_chain(LAYERS))
        return [
            *_pool(model, batch, rounds, patience_s),
            *_pipeline(model, Path(place) / "split", batch, rounds, patience_s),
        ]


def _pool(model: Path, batch: Array, rounds: int, patience_s: float) -> list[Figure]:
    one, two, wide = Raw(model, 1), Raw(model, 2), Raw(model, 1, threads=2)
    with ReplicaPool([Engine(model), Engine(model)]) as pool:
        same = np.array_equal(pool.run([batch])[0], one.run(batch))
        # Only these two, and one after the other: a short round is undisturbed more often.
        against_s, told_of = seconds(
            {"two": lambda: two.run(batch), "pool": lambda: pool.run([batch])}, rounds, patience_s
        )
        took_s, _ = seconds(
            {
                "one": lambda: one.run(batch),
                "two": lambda: two.run(batch),
                "wide": lambda: wide.run(batch),
                "pool": lambda: pool.run([batch]),
            },
            rounds,
            patience_s / 2,
        )
    one_ms = 1e3 * min(took_s["one"]) / BATCH
    with ReplicaPool.measured(model, batch=BATCH, cores=2) as measured:
        ways = measured.ways
    told = "; ".join(
        f"{each.way.replicas} x {each.way.threads} threads {each.samples_per_s:.0f} /s" for each in ways.timed
    )
    detail = f"{one_ms:.1f} ms model; {told_of}; " + ("bit-identical" if same else "OUTPUTS DIFFER")
    return [
        figure(
            "ReplicaPool of 2, 64 samples, over two raw interpreters in two threads",
            ratios(against_s["two"], against_s["pool"]),
            unit="x",
            target=0.97,
            at_most=False,
            detail=detail,
        ),
        figure("ReplicaPool of 2 over one raw interpreter", ratios(took_s["one"], took_s["pool"]), unit="x"),
        figure("two raw interpreters over one", ratios(took_s["one"], took_s["two"]), unit="x"),
        figure("one raw interpreter of 2 threads over one of 1", ratios(took_s["one"], took_s["wide"]), unit="x"),
        Figure(
            what="the way chosen by measuring, over one interpreter",
            value=ways.best.samples_per_s
            / next(e.samples_per_s for e in ways.timed if e.way == Way(replicas=1, threads=1)),
            unit="x",
            samples=ways.rounds,
            detail=told,
        ),
    ]


def _pipeline(model: Path, place: Path, batch: Array, rounds: int, patience_s: float) -> list[Figure]:
    plan = split(SplitRequest(model=model, parts=2), place)
    one = Raw(model, 1)
    some = batch[: BATCH // 2]  # short rounds are undisturbed more often
    with Pipeline(place) as pipeline:
        same = np.array_equal(pipeline.run([batch])[0], one.run(batch))
        spent: dict[str, list[float]] = {"whole": [], "slowest": []}

        def whole() -> None:
            begun_s = time.thread_time()
            one.run(some)
            spent["whole"].append((time.thread_time() - begun_s) / len(some))

        def piped() -> None:
            before = pipeline.reports()
            pipeline.run([batch])
            after = pipeline.reports()
            spent["slowest"].append(
                max(each.processor_s - was.processor_s for each, was in zip(after, before, strict=True)) / len(batch)
            )

        took_s, told_of = seconds({"one": whole, "pipeline": piped}, rounds, patience_s)
        stages = "; ".join(f"{each.name} {each.compute_p50_ms:.2f} ms" for each in pipeline.reports())
    cuts = ", ".join(f"{segment.first} to {segment.end - 1}" for segment in plan.segments)
    detail = f"operators {cuts}; {stages}; {told_of}; " + ("bit-identical" if same else "OUTPUTS DIFFER")
    return [
        figure(
            "Pipeline of 2 segments over the whole on one thread",
            [ratio * len(batch) / len(some) for ratio in ratios(took_s["one"], took_s["pipeline"])],
            unit="x",
            target=1.7,
            at_most=False,
            detail=detail,
        ),
        figure(
            "the same by processor time: whole over slowest stage",
            ratios(spent["whole"], spent["slowest"]),
            unit="x",
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    found = rows(args)
    print(f"{machine_name()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(shown(found))


if __name__ == "__main__":
    main()
