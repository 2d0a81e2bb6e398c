"""One float `.tflite` file for each source, and pruned twins of those that come from Keras.

All Keras work goes through one child process: importing TensorFlow takes 20 to 40 s, once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_converter import sources
from edge_converter.candidates import FloatFile
from edge_converter.data import Integers, Samples
from edge_converter.keras_process import KerasProcess
from edge_converter.request import ConvertRequest, Progress
from edge_converter.sources import Framework, SourceModel
from edge_sdk.manifest import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """How to prune, and what to fine-tune on afterwards."""

    samples: Samples
    rows: Integers
    sparsity: float
    seed: int


Prune = Callable[[Pruning], list[FloatFile]]


@contextlib.contextmanager
def float_files(
    models: Sequence[SourceModel], folder: Path, request: ConvertRequest, progress: Progress
) -> Iterator[tuple[list[FloatFile], Prune]]:
    """The float files of the sources, in their order, and a function that prunes the Keras ones.

    Raises:
        SourceError: A source cannot be read.
        UnsupportedModelError: A source has a layer or an operator that cannot be converted.
        MissingExtraError: TensorFlow is needed and not installed.
        KerasProcessError: The TensorFlow process died or took too long.
    """
    sources.probe([model.path for model in models if model.framework is Framework.TFLITE])
    keras = [model for model in models if model.framework is not Framework.TFLITE]
    if not keras:
        if request.prune:
            progress.note("nothing is pruned: fine-tuning needs a Keras source, and these are .tflite files")
        yield [_take(model, folder, number) for number, model in enumerate(models)], lambda _: []
        return
    progress.stage("convert", len(models))
    with KerasProcess(folder, deadline_s=request.keras_deadline_s) as process:
        floats = []
        for number, model in enumerate(models):
            if model.framework is Framework.TFLITE:
                floats.append(_take(model, folder, number))
            else:
                into = folder / f"{number}-fp32.tflite"
                process.convert(model.path, model.framework, into)
                floats.append(FloatFile(source=model.name, path=into))
            progress.advance(1)
        yield floats, lambda pruning: _prune(process, models, pruning, folder, progress)


def _take(model: SourceModel, folder: Path, number: int) -> FloatFile:
    """A copy, so that what is measured is what is written, whatever happens to the file meanwhile."""
    into = folder / f"{number}-given.tflite"
    shutil.copyfile(model.path, into)
    return FloatFile(source=model.name, path=into)


def _prune(
    process: KerasProcess, models: Sequence[SourceModel], pruning: Pruning, folder: Path, progress: Progress
) -> list[FloatFile]:
    arrays = folder / "train.npz"
    (x,) = pruning.samples.read(pruning.rows)
    np.savez(arrays, x=x, y=pruning.samples.labels[pruning.rows])
    made = []
    for number, model in enumerate(models):
        if model.framework is not Framework.KERAS:
            progress.note(f"{model.name} is not pruned: only .keras and .h5 models can be fine-tuned")
            continue
        into = folder / f"{number}-pruned.tflite"
        progress.stage(f"prune {model.name}", 100)
        done = process.prune(
            model.path, arrays, into, sparsity=pruning.sparsity, seed=pruning.seed, advance=progress.advance
        )
        step = Pass(
            name="prune",
            parameters={
                "algorithm": "magnitude, cubic schedule",
                "asked": pruning.sparsity,
                "sparsity": round(done.sparsity, 4),
                "layers": done.layers,
                "steps": done.steps,
                "samples": len(pruning.rows),
                "seed": pruning.seed,
            },
        )
        label = f"pruned{round(100 * pruning.sparsity)}"
        made.append(FloatFile(source=model.name, path=into, kind="pruned", label=label, compression=(step,)))
    return made
