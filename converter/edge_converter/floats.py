"""One float `.tflite` file for each source, and what training makes of those that come from Keras.

Every framework works in a child process of its own, started once for all its sources: importing one takes 5 to 40 s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_converter import finite, flatbuffer, imports, onnx_env, shapes, signature, sources
from edge_converter.candidates import FloatFile
from edge_converter.child import Worker
from edge_converter.imports import ImportProcess
from edge_converter.keras_process import KerasProcess
from edge_converter.request import ConvertRequest, Progress
from edge_converter.sources import Framework, SourceModel
from edge_converter.trained import Trained, Training, train
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Pass

Train = Callable[[Training], Trained]

_KERAS = (Framework.KERAS, Framework.SAVED_MODEL)


@contextlib.contextmanager
def float_files(
    models: Sequence[SourceModel], folder: Path, request: ConvertRequest, progress: Progress
) -> Iterator[tuple[list[FloatFile], Train]]:
    """The float files of the sources, in their order, and a function that trains the Keras ones.

    Raises:
        SourceError: A source cannot be read, or has weights that are no numbers.
        UnsupportedModelError: A source has a layer or an operator that cannot be converted.
        ImportMismatchError: What was made of a source answers otherwise than it does.
        UsageError: A signature or a shape was asked for that does not fit.
        MissingExtraError: TensorFlow or PyTorch is needed and not installed.
        OnnxEnvironmentError: onnx2tf could not be installed.
        ChildProcessDiedError: A process that converts died or took too long.
    """
    sources.probe([model.path for model in models if model.framework is Framework.TFLITE])
    foreign = [model for model in models if model.framework is not Framework.TFLITE]
    keras = [model for model in models if model.framework in _KERAS]
    if request.signature is not None:
        _check_signatures(models)
    # Before the stage begins: making an environment is one of its own.
    workers = _workers(models, request, folder, progress)
    if foreign:
        progress.stage("convert", len(foreign))
    numbers = {model.path: number for number, model in enumerate(models)}
    made = {
        model.path: _take(model, folder, numbers[model.path], request)
        for model in models
        if model.framework is Framework.TFLITE
    }
    for framework, worker in workers.items():
        some = {numbers[model.path]: model for model in models if model.framework is framework}
        made |= _imported(worker, some, folder, request, progress)
    with contextlib.ExitStack() as stack:
        learn: Train = lambda _: Trained()  # noqa: E731 - replaced where there is a process to ask
        if keras:
            process = stack.enter_context(KerasProcess(folder, deadline_s=request.keras_deadline_s))
            for model in keras:
                made[model.path] = _converted(process, model, folder / f"{numbers[model.path]}-fp32.tflite", request)
                progress.advance(1)
            pairs = [(model, made[model.path]) for model in models]
            learn = lambda training: train(process, pairs, training, folder, progress)  # noqa: E731
        elif request.trains:
            progress.note("nothing is pruned or trained: that needs a .keras or .h5 source, and there is none")
        for model in models:
            finite.check(made[model.path].path, where=str(model.path))
        yield [made[model.path] for model in models], learn


def _converted(process: KerasProcess, model: SourceModel, into: Path, request: ConvertRequest) -> FloatFile:
    process.convert(model.path, model.framework, into, signature=request.signature, shapes=request.input_shapes)
    return FloatFile(source=model.name, path=into)


def _check_signatures(models: Sequence[SourceModel]) -> None:
    for model in models:
        if model.framework not in {Framework.SAVED_MODEL, Framework.TFLITE}:
            raise UsageError(
                "has no signatures", where=str(model.path), hint="--signature is for SavedModel directories and .tflite"
            )


def _take(model: SourceModel, folder: Path, number: int, request: ConvertRequest) -> FloatFile:
    """A copy, so that what is measured is what is written, whatever happens to the file meanwhile.

    Byte for byte what was given, unless one signature of several was chosen, or sizes were fixed.
    """
    into, where = folder / f"{number}-given.tflite", str(model.path)
    content = signature.alone(flatbuffer.content(model.path), request.signature, where=where)
    if request.input_shapes:
        content = shapes.fix(content, request.input_shapes, where=where)
    into.write_bytes(content)
    return FloatFile(source=model.name, path=into)


def _workers(
    models: Sequence[SourceModel], request: ConvertRequest, folder: Path, progress: Progress
) -> dict[Framework, Worker]:
    """Who imports what is neither Keras nor `.tflite`, of those frameworks that are there."""
    workers = {}
    given = {model.framework for model in models}
    if Framework.TORCH in given:
        workers[Framework.TORCH] = imports.TORCH
    if Framework.ONNX in given:
        workers[Framework.ONNX] = imports.onnx(onnx_env.python(request.onnx_python, progress), folder)
    return workers


def _imported(
    worker: Worker, models: Mapping[int, SourceModel], folder: Path, request: ConvertRequest, progress: Progress
) -> dict[Path, FloatFile]:
    """Models of one framework, by their number, from a process that ends when they are done: it holds gigabytes."""
    made = {}
    with ImportProcess(worker, folder, deadline_s=request.keras_deadline_s) as process:
        for number, model in models.items():
            into = folder / f"{number}-fp32.tflite"
            path = str(model.path.absolute()) if model.repeatable else str(model.path)
            imported = process.convert(path, into, shapes=request.input_shapes)
            evidence: dict[str, bool | int | float | str] = {
                "largest_difference": float(f"{imported.difference:.3g}"),
                "samples": imported.samples,
            }
            parameters: dict[str, bool | int | float | str] = {
                "from": model.framework.value,
                "channels_last": ", ".join(imported.turned) or "none",
            }
            step = Pass(name="import", parameters=parameters, evidence=evidence)
            made[model.path] = FloatFile(source=model.name, path=into, compression=(step,))
            progress.advance(1)
    return made
