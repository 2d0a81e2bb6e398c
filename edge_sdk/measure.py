"""Times variants of a bundle on this machine: `python -m edge_sdk.measure [--deadline-s S] BUNDLE VARIANT...`.

It is a program of its own because a model may crash or hang a runtime: the daemon starts it, gives it a deadline and
reads the latencies from its standard output, a JSON array of `manifest.Latency`. It lowers its own limits before it
loads anything, and ends when its standard input is closed, so it does not outlive whoever started it.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.errors import EXIT_FAILED, EdgeError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin
from edge_sdk.rounds import noise
from edge_sdk.wire import encode

_WARM_UP = 3
_FEWEST = 10
_MOST = 200
_ENOUGH_S = 2.0  # a variant that was timed for this long is known well enough, given the fewest
_OPEN_FILES = 256
_ABANDONED = 3


def measure(bundle: Bundle, variants: Sequence[str], *, deadline_s: float, threads: int = 1) -> tuple[Latency, ...]:
    """Time one inference of each variant.

    Args:
        bundle: Where they are.
        variants: Their ids.
        deadline_s: For all together; each gets an equal share of what is left.
        threads: Of the interpreter.

    Raises:
        UnknownVariantError: The bundle has no such variant.
        DelegateError: It can't be loaded or run here.
    """
    end_s = time.monotonic() + deadline_s
    found = []
    for index, id_ in enumerate(variants):
        share_s = max(0.0, end_s - time.monotonic()) / (len(variants) - index)
        with Engine(bundle.blob(bundle.variant(id_)), threads=threads) as engine:
            times = _times_ms(engine, min(share_s, _ENOUGH_S))
            runtime = engine.runtime
        found.append(
            Latency(
                variant=id_,
                origin=Origin.MEASURED,
                machine=machine_name(),
                runtime=runtime,
                threads=threads,
                samples=len(times),
                median_ms=round(float(np.median(times)), 4),
                p95_ms=round(float(np.percentile(times, 95)), 4),
                at=max(0.0, round(time.time(), 3)),
            )
        )
    return tuple(found)


def _times_ms(engine: Engine, budget_s: float) -> list[float]:
    sample = noise(engine.inputs)
    for _ in range(_WARM_UP):
        engine.run(sample)
    times: list[float] = []
    end_s = time.monotonic() + budget_s
    while len(times) < _MOST and (len(times) < _FEWEST or time.monotonic() < end_s):
        start = time.perf_counter()
        engine.run(sample)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def limit(deadline_s: float) -> None:
    """No core dump, no file written, no more processor time than the deadline allows on all cores together."""
    cpu_s = int(deadline_s * (os.cpu_count() or 1)) + 10
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    try:  # if memory runs out, this process is the one to go, not the apps that work
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def end_with_parent() -> None:
    """Leave at once when standard input ends: whoever started us is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(_ABANDONED)

    threading.Thread(target=watch, name="edge-parent", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m edge_sdk.measure", description="Time variants of a bundle.")
    parser.add_argument("bundle")
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    parser.add_argument("--deadline-s", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    limit(args.deadline_s)
    end_with_parent()
    try:
        latencies = measure(
            Bundle(args.bundle, verify=False), args.variants, deadline_s=args.deadline_s, threads=args.threads
        )
    except EdgeError as error:
        sys.stderr.write(f"{error} [{error.code}]\n")
        return EXIT_FAILED
    sys.stdout.buffer.write(encode(latencies) + b"\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
