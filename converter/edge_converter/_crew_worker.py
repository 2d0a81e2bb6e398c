"""Run as a child process: takes models through their passes, and leaves the results in the cache.

A quantizer or a runtime that takes its process down with it takes this one, and so costs one variant.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_converter import _crew_wire as wire
from edge_converter import _serve, pipeline
from edge_converter.cache import Cache
from edge_converter.errors import PassContractError, QuantizationError
from edge_converter.labelled.data import Integers
from edge_converter.passes import Room
from edge_sdk.manifest import Preprocessing


class _Prepared:
    """Calibration samples as the parent prepared them."""

    classes: tuple[str, ...] = ()
    preprocessing = Preprocessing()

    def __init__(self, path: str) -> None:
        self.where = path
        with np.load(path, allow_pickle=False) as arrays:
            self._inputs = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        self.labels: Integers = np.zeros(len(self._inputs[0]), np.int64)

    def digests(self) -> list[bytes]:
        """None is asked for: the parent has made the keys."""
        return []

    def read(self, rows: Integers) -> tuple[NDArray[Any], ...]:
        return tuple(each[rows] for each in self._inputs)


def main() -> int:
    """Answer until stdin closes; returns the exit status."""
    answers = _serve.answers()
    answers.write(msgspec.json.encode(wire.Ready(version="")) + b"\n")
    answers.flush()
    for line in _serve.questions():
        question = msgspec.json.decode(line, type=wire.Make)
        answers.write(msgspec.json.encode(_make(question)) + b"\n")
        answers.flush()
    return 0


def _make(question: wire.Make) -> wire.Made:
    samples = _Prepared(question.samples)
    folder = Path(question.folder)
    folder.mkdir(exist_ok=True)
    room = Room(
        samples=samples,
        rows=np.arange(len(samples.labels)),
        folder=folder,
        where=question.where,
        threads=question.threads,
        seed=question.seed,
        max_size=question.max_size,
    )
    content = Path(question.floating).read_bytes()
    begin = pipeline.begin(content, question.recipe.precision, where=question.where)
    steps = pipeline.steps(question.recipe, question.begin, max_size=question.max_size)
    try:
        pipeline.run(begin, steps, room, Cache(Path(question.cache)))
    except (QuantizationError, PassContractError) as error:
        return wire.Made(refused=error.what[:1000])
    return wire.Made()


if __name__ == "__main__":
    sys.exit(main())
