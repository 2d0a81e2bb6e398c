"""One float `.tflite` file for each source, and what training makes of those that come from Keras.

All Keras work goes through one child process: importing TensorFlow takes 20 to 40 s, once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge_converter import sources
from edge_converter.candidates import FloatFile
from edge_converter.keras_process import KerasProcess
from edge_converter.request import ConvertRequest, Progress
from edge_converter.sources import Framework, SourceModel
from edge_converter.trained import Trained, Training, train

Train = Callable[[Training], Trained]


@contextlib.contextmanager
def float_files(
    models: Sequence[SourceModel], folder: Path, request: ConvertRequest, progress: Progress
) -> Iterator[tuple[list[FloatFile], Train]]:
    """The float files of the sources, in their order, and a function that trains the Keras ones.

    Raises:
        SourceError: A source cannot be read.
        UnsupportedModelError: A source has a layer or an operator that cannot be converted.
        MissingExtraError: TensorFlow is needed and not installed.
        KerasProcessError: The TensorFlow process died or took too long.
    """
    sources.probe([model.path for model in models if model.framework is Framework.TFLITE])
    keras = [model for model in models if model.framework is not Framework.TFLITE]
    if not keras:
        if request.trains:
            progress.note("nothing is pruned or trained: that needs a Keras source, and these are .tflite files")
        yield [_take(model, folder, number) for number, model in enumerate(models)], lambda _: Trained()
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
        yield (
            floats,
            lambda training: train(process, list(zip(models, floats, strict=True)), training, folder, progress),
        )


def _take(model: SourceModel, folder: Path, number: int) -> FloatFile:
    """A copy, so that what is measured is what is written, whatever happens to the file meanwhile."""
    into = folder / f"{number}-given.tflite"
    shutil.copyfile(model.path, into)
    return FloatFile(source=model.name, path=into)
