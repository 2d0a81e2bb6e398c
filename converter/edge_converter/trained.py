"""What training makes of Keras models: pruned, slimmed and quantization-aware twins of their float files.

Each is a job for the TensorFlow process, with a label for ids and a pass for the manifest. A model that a job cannot be
done to is refused there with the reason, and the rest of the bundle is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_converter import _keras_wire as wire
from edge_converter import slim
from edge_converter.candidates import FloatFile
from edge_converter.errors import KerasProcessError, UnsupportedModelError
from edge_converter.keras_process import KerasProcess
from edge_converter.labelled.data import Integers, Samples
from edge_converter.request import Progress
from edge_converter.sources import Framework, SourceModel
from edge_sdk.manifest import Pass, Precision, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What to make, and what to learn it from.

    Attributes:
        samples: What to fine-tune on.
        rows: Of the samples.
        labelled: Their labels are classes and may be used; else models learn to answer as before, whatever they answer.
        prune: Share of the weights to remove; 0 for none.
        slim: How many times as fast to become by removing channels; 0 for none.
        qat: Fine-tune for int8.
        int8: int8 files are made, so they are timed too.
        slim_by: The number format that has to become as fast as `slim` says.
        threads: Of the interpreters that are timed.
        seed: For everything random.
        steps: Of fine-tuning; 0 for as many as the samples ask for.
    """

    samples: Samples
    rows: Integers
    labelled: bool = True
    prune: float = 0.0
    slim: float = 0.0
    qat: bool = False
    int8: bool = True
    slim_by: Precision = Precision.FP32
    threads: int = 1
    seed: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it."""

    files: tuple[FloatFile, ...] = ()
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What a job works with."""

    process: KerasProcess
    model: SourceModel
    original: FloatFile
    arrays: Path
    into: Path
    training: Training
    progress: Progress


def train(
    process: KerasProcess,
    models: Sequence[tuple[SourceModel, FloatFile]],
    training: Training,
    folder: Path,
    progress: Progress,
) -> Trained:
    """Do every job that is asked for to every Keras model.

    What cannot be done to a model, takes too long or takes the process down is refused, and the rest is made.

    Raises:
        SourceError: A source cannot be read any more.
        KerasProcessError: The TensorFlow process cannot be started again.
    """
    jobs = _jobs(training)
    if not jobs:
        return Trained()
    arrays = folder / "train.npz"
    _save(arrays, training)
    files: list[FloatFile] = []
    refused: list[Refused] = []
    for number, (model, original) in enumerate(models):
        if model.framework is not Framework.KERAS:
            words = " or ".join(done for _, done, _ in jobs)
            progress.note(f"{model.name} is not {words}: only .keras and .h5 models can be fine-tuned")
            continue
        for label, done, job in jobs:
            into = folder / f"{number}-{label}.tflite"
            desk = _Desk(
                process=process,
                model=model,
                original=original,
                arrays=arrays,
                into=into,
                training=training,
                progress=progress,
            )
            begun = time.monotonic()
            try:
                step = job(desk)
            except (UnsupportedModelError, KerasProcessError) as error:
                if isinstance(error, KerasProcessError):
                    process.renew()  # it died, or is still at it
                id_ = "-".join(part for part in (model.name if len(models) > 1 else "", label, "fp32") if part)
                refused.append(Refused(id=id_, reason=error.what))
                progress.note(f"{model.name} is not {done}: {error.what}")
                continue
            progress.note(f"{model.name} was {done} in {time.monotonic() - begun:.0f} s")
            files.append(FloatFile(source=model.name, path=into, kind=step.name, label=label, compression=(step,)))
    return Trained(files=tuple(files), refused=tuple(refused))


def _save(arrays: Path, training: Training) -> None:
    (x,) = training.samples.read(training.rows)
    if training.labelled:
        np.savez(arrays, x=x, y=training.samples.labels[training.rows])
    else:
        np.savez(arrays, x=x)


def _jobs(training: Training) -> list[tuple[str, str, Callable[[_Desk], Pass]]]:
    """Label for ids, word for notes, and what to do."""
    jobs: list[tuple[str, str, Callable[[_Desk], Pass]]] = []
    if training.prune:
        jobs.append((f"pruned{round(100 * training.prune)}", "pruned", _prune))
    if training.slim:
        jobs.append((f"slim{training.slim:g}", "slimmed", _slim))
    if training.qat:
        jobs.append(("qat", "trained for int8", _qat))
    return jobs


def _prune(desk: _Desk) -> Pass:
    training = desk.training
    desk.progress.stage(f"prune {desk.model.name}", 100)
    question = wire.Prune(
        path=_path(desk),
        arrays=str(desk.arrays),
        into=str(desk.into),
        sparsity=training.prune,
        seed=training.seed,
        steps=training.steps,
    )
    done = desk.process.train(question, desk.progress.advance)
    return Pass(
        name="prune",
        parameters={
            "algorithm": "layer-adaptive magnitude, cubic schedule, distillation",
            "asked": training.prune,
            "sparsity": round(done.sparsity, 4),
            **_learned(desk, done),
        },
        evidence={"layers": done.layers},
    )


def _slim(desk: _Desk) -> Pass:
    training = desk.training
    desk.progress.stage(f"teach {desk.model.name}, and time it with fewer channels", 100)
    timing = slim.Timing(samples=training.samples, rows=training.rows, threads=training.threads, int8=training.int8)
    clock = slim.Clock(desk.original.path, timing, desk.into.parent)

    def ask(rung: int, *, tune: bool) -> wire.Done:
        question = wire.Slim(
            path=_path(desk),
            arrays=str(desk.arrays),
            into=str(desk.into),
            rung=rung,
            tune=tune,
            seed=training.seed,
            steps=training.steps,
        )
        # Before its first answer the process teaches the original, which takes as long as it says here.
        return desk.process.train(question, desk.progress.advance)

    def make(rung: int) -> Path:
        ask(rung, tune=False)
        return desk.into

    found = slim.find(training.slim, make, clock, by=training.slim_by.value)
    desk.progress.stage(f"fine-tune {desk.model.name} with fewer channels", 100)
    done = ask(found.rung, tune=True)
    measured = clock.time(desk.into)
    for name, each in measured.items():
        if each.by_minima < training.slim:
            desk.progress.note(
                f"{desk.model.name} with fewer channels is {each.by_minima:.2f} times as fast in {name}, "
                f"not {training.slim:g} times: the rest of its time does not depend on channels"
            )
    return Pass(
        name="slim",
        parameters={
            "algorithm": "group Fisher, widths by measured loss, distillation",
            "asked": training.slim,
            "asked_of": training.slim_by.value,
            "rung": found.rung,
            "taught": done.taught,
            **_learned(desk, done),
        },
        evidence={
            "channels": done.channels[1],
            "removed": done.channels[0],
            "macs_before": done.macs[0],
            "macs": done.macs[1],
            **{f"{name}_speedup_minima": round(each.by_minima, 2) for name, each in measured.items()},
            **{f"{name}_speedup_medians": round(each.by_medians, 2) for name, each in measured.items()},
        },
    )


def _qat(desk: _Desk) -> Pass:
    desk.progress.stage(f"fine-tune {desk.model.name} for int8", 100)
    training = desk.training
    question = wire.Qat(
        path=_path(desk), arrays=str(desk.arrays), into=str(desk.into), seed=training.seed, steps=training.steps
    )
    done = desk.process.train(question, desk.progress.advance)
    return Pass(
        name="qat",
        parameters={"algorithm": "fake quantization, straight-through, distillation", **_learned(desk, done)},
        evidence={"layers": done.layers},
    )


def _path(desk: _Desk) -> str:
    return str(desk.model.path.absolute())


def _learned(desk: _Desk, done: wire.Done) -> dict[str, bool | int | float | str]:
    training = desk.training
    return {
        "steps": done.steps,
        "samples": len(training.rows),
        "labels": training.labelled,
        "seed": training.seed,
    }
