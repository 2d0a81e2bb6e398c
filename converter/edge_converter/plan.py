"""What a conversion would make, and about how long it would take: `edge convert --dry-run`.

Nothing is converted and nothing is written. A `.tflite` source is read and timed for one inference; models of other
frameworks would have to be converted to know more than their names.

How long is an estimate, from what passes took on EfficientNet-Lite0 (390 million multiply-accumulates) and ResNet8 in
inferences of the float model: within a factor of three, and none for training and searches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_converter import batches, candidates, crew, destination, family, graph, pipeline, recipe, sequences, sources
from edge_converter.cache import Cache
from edge_converter.candidates import FloatFile, Planned
from edge_converter.family import Family
from edge_converter.floats import float_files
from edge_converter.passes import Room
from edge_converter.request import ConvertRequest, Progress, Silent
from edge_converter.sources import Framework
from edge_sdk import profile as profiles
from edge_sdk import scratch
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision

# Inferences of the float model for each calibration sample, and seconds beside, by pass.
_COSTS: dict[str, tuple[float, float]] = {
    "fold": (1, 0.3),
    "equalize": (2, 0.5),
    "calibrate": (4, 0.5),
    "quantize": (0, 0.5),
    "compensate": (14, 0.5),
    "cluster": (14, 0.5),
}
_OTHER = (5.0, 0.5)
_SEARCHED = 60.0
# Bytes a weight takes, names and scales included.
_BYTES: dict[Precision, float] = {
    Precision.FP32: 4.0,
    Precision.FP16: 2.03,
    Precision.DYNAMIC: 1.09,
    Precision.INT8: 1.1,
    Precision.INT16X8: 1.15,
    Precision.WEIGHT8: 1.05,
    Precision.WEIGHT4: 0.65,
    Precision.MIXED: 0.75,
}
_TIMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVariant:
    """A variant that would be made.

    Attributes:
        id: Of the variant, as far as it is known.
        precision: Its number format.
        passes: In order.
        known: How many of them need not be run, because their results are kept.
        size_bytes: About what the file will have.
        seconds: About how long it will take, by one processor.
    """

    id: str
    precision: Precision
    passes: tuple[str, ...]
    known: int = 0
    size_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a conversion would make.

    Attributes:
        bundle: Where.
        variants: In the order they are shown; the sources themselves come on top.
        calibrate: Samples that choose ranges and integers; None where it takes a conversion to tell.
        count: Samples that quality rests on.
        at_once: Variants that are made side by side.
        seconds: About how long all will take, evaluation included; None where it cannot be told.
        notes: What a reader should know.
    """

    bundle: str
    variants: tuple[PlannedVariant, ...]
    calibrate: int | None = None
    count: int | None = None
    at_once: int = 1
    seconds: float | None = None
    notes: tuple[str, ...] = ()


def dry_run(request: ConvertRequest, progress: Progress | None = None) -> Plan:
    """What `convert` would make of this request.

    Raises:
        EdgeError: What `convert` would raise before it makes anything.
    """
    destination.name(request)
    destination.check(request.output)
    boards = tuple(profiles.load(id_) for id_ in dict.fromkeys(request.profiles))
    models = sources.identify(request.models)
    variants = recipe.chosen(request, boards)
    if any(model.framework is not Framework.TFLITE for model in models):
        kinds = {"given", *_twins(request)}
        wanted = [one for one in variants if one.of in kinds]
        return Plan(
            bundle=str(request.output),
            variants=tuple(
                PlannedVariant(
                    id=one.id if one.of == "given" else f"{one.of}-{one.id}",
                    precision=one.precision,
                    passes=tuple(name for name, _ in one.steps),
                )
                for one in wanted
            ),
            notes=("sizes, times and what is known are told for .tflite sources; others have to be converted first",),
        )
    with scratch.folder() as folder:
        with float_files(models, folder, request, progress or Silent()) as (floats, _):
            shared = family.gather(models, floats, request, progress or Silent())
        room = family.room(shared, folder, str(request.output), request, Silent())
        planned = candidates.plan(floats, variants, room)
        return _told(planned, floats, shared, room, request)


def _told(
    planned: Sequence[Planned], floats: Sequence[FloatFile], shared: Family, room: Room, request: ConvertRequest
) -> Plan:
    cache = Cache(request.cache)
    each_s = {file.path: _inference_s(file.path, shared) for file in floats}
    samples, counted = len(shared.calibration_rows), len(shared.parts.count)
    variants = []
    for one in planned:
        known = pipeline.done_before(one.steps, cache)
        left = [step.do.name for step in one.steps[known:]]
        searched = one.recipe.searched and left
        costs = [_COSTS.get(name, _OTHER) for name in left]
        seconds = sum(inferences * samples * each_s[one.file.path] + beside for inferences, beside in costs)
        if searched:
            seconds = _SEARCHED * samples * each_s[one.file.path]
        size = int(graph.read(one.file.path).parameters * _BYTES[one.recipe.precision])
        variants.append(
            PlannedVariant(
                id=one.id,
                precision=one.recipe.precision,
                passes=tuple(step.do.name for step in one.steps),
                known=known,
                size_bytes=size if request.max_size is None else min(size, request.max_size),
                seconds=round(seconds, 1),
            )
        )
    at_once = crew.workers(planned) if crew.is_worth_it(planned, room) else 1
    judged_s = counted * sum(each_s.values()) * (1 + len(planned) / max(1, len(floats)))
    made_s = sum(one.seconds or 0.0 for one in variants) / at_once
    return Plan(
        bundle=str(request.output),
        variants=tuple(variants),
        calibrate=samples,
        count=counted,
        at_once=at_once,
        seconds=round(made_s + judged_s, 1),
    )


def _inference_s(path: Path, shared: Family) -> float:
    """The median of a few inferences."""
    with Engine(path, threads=1) as engine:
        at_once = batches.size(shared.inputs)
        calls = batches.calls(shared.samples.read(shared.parts.count[:at_once]), at_once)
        sample = [sequences.one_step(each[0], spec) for each, spec in zip(calls, shared.inputs, strict=True)]
        times = []
        for _ in range(_TIMED):
            start = time.perf_counter()
            engine.run(sample)
            times.append(time.perf_counter() - start)
    return statistics.median(times) / at_once


def _twins(request: ConvertRequest) -> list[str]:
    wanted = {"prune": bool(request.prune), "slim": bool(request.slim), "qat": request.qat}
    return [kind for kind, is_wanted in wanted.items() if is_wanted]
