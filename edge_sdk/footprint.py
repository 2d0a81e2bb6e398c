"""What loading a model costs here: `python -m edge_sdk.footprint [--threads N] FILE`.

A program of its own, because memory that one model took shows in no other's account, and because a file that crashes or
hangs a runtime then takes nothing with it. It prints one JSON object, `Footprint`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from edge_sdk.engine import Engine
from edge_sdk.errors import EXIT_FAILED, EdgeError, ModelLoadError
from edge_sdk.measure import end_with_parent, limit
from edge_sdk.room import resident_bytes
from edge_sdk.runtime import choose
from edge_sdk.wire import Bytes, Millis, Wire, decode, encode

_SHOWN_CHARS = 300
_SIGNALS = {4: "an illegal instruction", 6: "an abort", 7: "a bus error", 9: "a kill (out of memory?)", 11: "a crash"}


class Footprint(Wire, frozen=True, kw_only=True):
    """What one model took.

    Attributes:
        load_ms: From the file, which the system has cached, to the first answer.
        first_ms: What of that the first inference took.
        memory_bytes: What the process grew by meanwhile; None where `/proc` does not say.
        runtime: Name and version.
    """

    load_ms: Millis
    first_ms: Millis | None = None
    memory_bytes: Bytes | None = None
    runtime: Annotated[str, Meta(max_length=100)]


def of(model: Path, *, threads: int, deadline_s: float) -> Footprint:
    """Load the model in a child process and run it once.

    Args:
        model: A `.tflite` file.
        threads: Of the interpreter.
        deadline_s: For the child; it is killed if it takes longer.

    Raises:
        ModelLoadError: It can't be loaded or run here, crashes the runtime, or takes too long.
    """
    where = str(model)
    command = [sys.executable, "-m", "edge_sdk.footprint", f"--threads={threads}", f"--deadline-s={deadline_s}", where]
    reading, writing = os.pipe()  # open while this process lives: the child ends when it closes
    try:
        done = subprocess.run(command, stdin=reading, capture_output=True, check=False, timeout=deadline_s)
    except subprocess.TimeoutExpired as cause:
        raise ModelLoadError(f"gave no answer within {deadline_s:g} s", where=where) from cause
    finally:
        os.close(reading)
        os.close(writing)
    if done.returncode < 0:
        said = _SIGNALS.get(-done.returncode, f"signal {-done.returncode}")
        raise ModelLoadError(f"ended the runtime with {said}", where=where)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it could not be run"]
        raise ModelLoadError(lines[-1][:_SHOWN_CHARS], where=where)
    return decode(done.stdout, Footprint, where=where, error=ModelLoadError)


def take(model: str, *, threads: int) -> Footprint:
    """Load the model in this process and run it once.

    Raises:
        DelegateError: It can't be loaded or run here.
    """
    runtime = choose()  # what the runtime itself takes is no model's
    before = resident_bytes()
    start = time.perf_counter()
    with Engine(model, threads=threads, runtime=runtime, warm=False) as engine:
        loaded = time.perf_counter()
        engine.compute([np.zeros(each.shape, each.dtype) for each in engine.ports[0]])
        load_ms, first_ms = (1e3 * (time.perf_counter() - each) for each in (start, loaded))
        after = resident_bytes()
        grown = None if before is None or after is None else max(0, after - before)
        return Footprint(
            load_ms=round(load_ms, 3),
            first_ms=round(first_ms, 3),
            memory_bytes=grown,
            runtime=engine.runtime[:100],
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m edge_sdk.footprint", description="Load a model and run it once.")
    parser.add_argument("model", metavar="FILE")
    parser.add_argument("--deadline-s", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    limit(args.deadline_s)
    end_with_parent()
    try:
        found = take(args.model, threads=args.threads)
    except EdgeError as error:
        sys.stderr.write(f"{error.what}\n")
        return EXIT_FAILED
    sys.stdout.buffer.write(encode(found) + b"\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
