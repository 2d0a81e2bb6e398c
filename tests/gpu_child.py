"""The process that computes on the accelerator, one for many models: `python gpu_child.py JOBS.json ANSWERS.npz`.

It prints one JSON object: for each job what was computed and how much of it the accelerator took, or the error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.engine import Engine
from edge_sdk.errors import EdgeError
from edge_sdk.runtime._compiled import CompiledRuntime


def samples(engine: Any, count: int) -> list[np.ndarray[Any, Any]]:
    """The same for every engine of a model: `count` samples where it takes any number."""
    rng = np.random.default_rng(11)
    made = []
    for spec in engine.inputs:
        shape = [count if size < 0 else size for size in spec.shape]
        made.append(rng.random(shape).astype(np.float32) if spec.dtype == "float32" else np.ones(shape, spec.dtype))
    return made


def told(job: dict[str, Any], answers: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    try:
        return computed(job, answers)
    except EdgeError as error:
        return {"error": type(error).__name__, "text": str(error)}


def computed(job: dict[str, Any], answers: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    path = Path(job["path"])
    model = path.read_bytes() if job.get("bytes") else path
    runtime = CompiledRuntime(job.get("accelerator", "gpu"), enforce_f32=job.get("enforce_f32", False))
    with Engine(model, runtime=runtime) as engine:
        for count in job.get("counts", [1]):
            for number, answer in enumerate(engine.run(samples(engine, count))):
                answers[f"{job['name']}/{count}/{number}"] = answer
        interpreter: Any = engine._interpreter
        share = interpreter.share
        return {
            "runtime": engine.runtime,
            "delegated": share.delegated,
            "total": share.total,
            "why": list(share.why),
            "whole": share.is_whole,
            "accelerated": interpreter.is_fully_accelerated,
            "names": [[spec.name for spec in side] for side in (engine.inputs, engine.outputs)],
        }


def forked(path: Path) -> str:
    """What a fork of this process is told that opens the model anew; it ends as `multiprocessing` ends its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = told({"name": "fork", "path": path}, {})
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = json.load(answer)
    os.waitpid(child, 0)
    return str(said.get("text", "computed"))


def main() -> None:
    jobs, into = sys.argv[1:]
    answers: dict[str, np.ndarray[Any, Any]] = {}
    all_told = {job["name"]: told(job, answers) for job in json.loads(Path(jobs).read_text())}
    all_told["forked"] = {"text": forked(Path(json.loads(Path(jobs).read_text())[0]["path"]))}
    np.savez(into, **answers)
    sys.stdout.write("\n" + json.dumps(all_told) + "\n")


if __name__ == "__main__":
    main()
