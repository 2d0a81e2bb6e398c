"""Models that keep state from one call to the next: each sample is a sequence, answered from a fresh start.

`Interpreter.reset_all_variables` resets the variable tensors of old recurrent operators alone; what a `VAR_HANDLE`
names, as in streaming models, it leaves as it was (seen with ai-edge-litert 2.3.0). Only a new interpreter forgets.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter import graph
from edge_converter.errors import QuantizationError, SignatureMismatchError
from edge_converter.graph import Graph
from edge_converter.sources import SourceModel
from edge_sdk.engine import Engine
from edge_sdk.manifest import TensorSpec


class SequenceEngine:
    """Answers like an `Engine`, of a model that keeps state: a sample is a sequence of inputs, or one.

    Args:
        path: The file.
        threads: Of the interpreter.

    Attributes:
        inputs: Of one step.
        outputs: After the last.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        with Engine(path, threads=threads, warm=False) as engine:
            self.inputs, self.outputs = engine.inputs, engine.outputs

    def close(self) -> None:
        """Do nothing: nothing is kept between samples."""

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The answers after the last step of each sample.

        Args:
            arrays: One per input, `[samples, steps, *input]`, or `[samples, *input]` where each has one step; the
                input without its batch.
        """
        steps = [
            array if array.ndim > len(spec.shape) else array[:, np.newaxis]
            for array, spec in zip(arrays, self.inputs, strict=True)
        ]
        answers = [self._sample(sample) for sample in zip(*steps, strict=True)]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _sample(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        answer: list[NDArray[Any]] = []
        with Engine(self._path, threads=self._threads, warm=False) as engine:  # warming it would be a step
            for step in zip(*inputs, strict=True):
                answer = engine.run([each[np.newaxis] for each in step])
        return answer


def opener(path: Path, *, threads: int = 1) -> Callable[[], Engine | SequenceEngine]:
    """What opens a file for answering samples, by whether it keeps state.

    Raises:
        SourceError: It is no whole `.tflite` file.
        UnsupportedModelError: It holds something this converter cannot judge.
    """
    if graph.read(path).stateful:
        return lambda: SequenceEngine(path, threads=threads)
    return lambda: Engine(path, threads=threads)


def keep_state(graphs: Sequence[tuple[SourceModel, Graph]]) -> bool:
    """Whether the models of a family keep state.

    Raises:
        SignatureMismatchError: Some do and some do not: their samples differ.
    """
    first, graph_ = graphs[0]
    for other, its in graphs[1:]:
        if its.stateful != graph_.stateful:
            raise SignatureMismatchError(
                f"one of {other.name} and {first.name} keeps state between calls and the other does not",
                where=str(other.path),
                hint="convert it apart",
            )
    return graph_.stateful


def refuse(path: Path) -> None:
    """Pass if the model keeps no state; for passes that take samples, or operators, as if each stood alone.

    Raises:
        QuantizationError: It does.
    """
    found = graph.read(path)
    if found.stateful:
        raise QuantizationError(
            f"keeps state between calls ({found.variables} variables), and calibration takes each sample as if it "
            "stood alone",
            where=str(path),
            hint="quantize it where it was trained: a quantized .tflite is kept and measured as it is",
        )


def samples_of(path: Path, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What samples of a model with state look like: as its inputs, or with the steps as a dimension before.

    Args:
        path: The data.
        inputs: Of the model, for one step.
    """
    if len(inputs) != 1:
        return tuple(inputs)
    (spec,) = inputs
    shape = _sample_shape(path, spec.shape[1:])
    return (TensorSpec(name=spec.name, shape=(spec.shape[0], *shape), dtype=spec.dtype),)


def one_step(sample: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The first input of a sample, `[1, *shape]`: what one inference takes."""
    return sample[:, 0] if sample.ndim > len(spec.shape) else sample


def _sample_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the samples in this data; where `x` has one dimension more, that is the steps."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("x.npy") as array:
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            found = tuple(int(size) for size in read[np.lib.format.read_magic(array)](array)[0][1:])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        return shape
    return found if found[1:] == shape else shape
