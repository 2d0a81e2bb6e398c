"""What all sources of a conversion share, and the samples they are judged on, calibrated with and trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_converter import graph, metrics, sequences, sources
from edge_converter.candidates import FloatFile
from edge_converter.labelled import data as labelled
from edge_converter.labelled.data import Integers, Samples, Split
from edge_converter.metrics import Judged, Metric
from edge_converter.passes import Room
from edge_converter.request import ConvertRequest, Progress
from edge_converter.sources import Framework, SourceModel
from edge_converter.trained import Training
from edge_sdk.manifest import Precision, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that answer the same question, and samples of it.

    Attributes:
        inputs: As an app sees them, the batch free.
        outputs: Likewise.
        samples: Labelled data.
        parts: Of it, by what each is for.
        metric: What variants are worth.
        calibrating: Samples that choose ranges and integers; their labels are not looked at.
        calibration_rows: Of those.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: Samples
    parts: Split
    metric: Metric
    calibrating: Samples
    calibration_rows: Integers


def gather(
    models: Sequence[SourceModel], floats: Sequence[FloatFile], request: ConvertRequest, progress: Progress
) -> Family:
    """Check that the sources belong together, and open the data for them.

    Raises:
        SignatureMismatchError: Two answer different questions.
        UnsupportedModelError: They take or give what cannot be judged.
        DataError: The labelled data does not fit.
        MetricError: The metric does not exist.
    """
    graphs = [graph.read(file.path) for file in floats]
    inputs, outputs = sources.check_family(list(zip(models, graphs, strict=True)))
    takes = inputs
    if sequences.keep_state(list(zip(models, graphs, strict=True))):
        takes = sequences.samples_of(request.data, inputs)
    outputs = sources.settled(floats[0].path, outputs)
    samples = labelled.open_samples(
        request.data, inputs=takes, preprocessing=request.preprocessing, rate_hz=request.rate_hz
    )
    steers = request.trains and request.train is None and any(m.framework is Framework.KERAS for m in models)
    parts = labelled.split(samples, apart=request.calibration is not None, steer=steers)
    metric = metrics.choose(request.metric, Judged(samples=samples, rows=parts.count, outputs=outputs))
    calibrating, rows = samples, parts.calibrate
    if request.calibration is not None:
        calibrating = labelled.open_samples(
            request.calibration, inputs=inputs, preprocessing=request.preprocessing, rate_hz=request.rate_hz
        )
        seen = set(samples.digests()) & set(calibrating.digests())
        if seen:
            progress.note(f"{len(seen)} samples are in --calibration and in --data: quality is flattered by them")
        rows = labelled.first_by_content(calibrating, labelled.MAX_CALIBRATION)
    return Family(
        inputs=inputs,
        outputs=outputs,
        samples=samples,
        parts=parts,
        metric=metric,
        calibrating=calibrating,
        calibration_rows=rows,
    )


def _open(path: Path, family: Family, request: ConvertRequest) -> Samples:
    """Further samples, labelled as those that are judged."""
    samples = labelled.open_samples(
        path, inputs=family.inputs, preprocessing=request.preprocessing, rate_hz=request.rate_hz
    )
    if family.metric.classes is not None and labelled.has_labels(samples):
        labelled.check_labels(samples, family.metric.classes)
    return samples


def room(family: Family, folder: Path, where: str, request: ConvertRequest, progress: Progress) -> Room:
    """What passes may use.

    Args:
        family: Whose calibration samples are used.
        folder: For temporary files.
        where: The model's name, for errors.
        request: Gives seed, threads and the largest size.
        progress: Told how far it is.
    """
    return Room(
        samples=family.calibrating,
        rows=family.calibration_rows,
        folder=folder,
        where=where,
        threads=request.threads,
        seed=request.seed,
        max_size=request.max_size,
        progress=progress,
    )


def can_train(family: Family, progress: Progress) -> bool:
    """Whether the models can be fine-tuned, which takes one input; says so where they cannot."""
    if len(family.inputs) > 1:
        progress.note("nothing is pruned or trained: fine-tuning takes models with one input")
    return len(family.inputs) == 1


def training(family: Family, request: ConvertRequest) -> Training:
    """What models are trained for, and on what: never a sample that counts."""
    samples, rows = _lessons(family, request)
    return Training(
        samples=samples,
        rows=rows,
        prune=request.prune,
        slim=request.slim,
        qat=request.qat,
        labelled=family.metric.classes is not None and labelled.has_labels(samples),
        int8=not request.precisions or Precision.INT8 in request.precisions,
        slim_by=Precision.INT8 if request.precisions == (Precision.INT8,) else Precision.FP32,
        threads=request.threads,
        seed=request.seed,
        steps=request.train_steps,
    )


def _lessons(family: Family, request: ConvertRequest) -> tuple[Samples, Integers]:
    if request.train is not None:
        samples = _open(request.train, family, request)
        counted = set(family.samples.digests())
        rows = [row for row, digest in enumerate(samples.digests()) if digest not in counted]
        return samples, labelled.as_rows(rows)
    if request.calibration is not None:
        samples = _open(request.calibration, family, request)
        return samples, labelled.as_rows(range(len(samples.labels)))
    return family.samples, labelled.as_rows([*family.parts.calibrate, *family.parts.steer])
