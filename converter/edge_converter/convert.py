"""From trained models and labelled data to a bundle of measured variants, in the order it happens.

sources -> float `.tflite` files -> number formats and pruned twins -> evaluation -> latencies -> fronts -> bundle.
Everything is made in a temporary folder; the bundle appears whole at the end, or not at all.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge_converter import (
    batches,
    blob,
    cache,
    candidates,
    crew,
    destination,
    family,
    judge,
    latency,
    pipeline,
    recipe,
    sequences,
    sources,
)
from edge_converter.cache import Cache
from edge_converter.candidates import Candidate, Planned
from edge_converter.family import Family
from edge_converter.floats import float_files
from edge_converter.judge import Verdict
from edge_converter.labelled import data as labelled
from edge_converter.metrics import Metric
from edge_converter.passes import Room
from edge_converter.reporting import report
from edge_converter.request import ConvertRequest, ConvertResult, Progress, Silent
from edge_converter.selecting import evidence, selection
from edge_converter.targets import make as targets
from edge_converter.trained import Trained
from edge_sdk import bundle as bundles
from edge_sdk import profile as profiles
from edge_sdk import scratch
from edge_sdk.manifest import (
    EvidenceFile,
    Latency,
    Manifest,
    Quality,
    Refused,
    Target,
    Variant,
)
from edge_sdk.profile import Profile

# Of the way from a guess to always right: below it labels or preprocessing are more likely wrong than the model.
_SUSPICIOUS = 0.2


def convert(request: ConvertRequest, progress: Progress | None = None) -> ConvertResult:
    """Turn models into a bundle.

    Args:
        request: What to convert, on which data, for which boards.
        progress: Told how far it is.

    Returns:
        What was written. The bundle at `request.output` is whole, or untouched if this raises.

    Raises:
        SourceError: A model cannot be read.
        UnsupportedModelError: A model has something that cannot be converted.
        SignatureMismatchError: Two models answer different questions.
        DataError: The labelled data does not fit.
        MetricError: The metric does not exist, or fails on a source.
        UnknownProfileError: A board has no profile.
        MissingExtraError: A Keras source is given and TensorFlow is not installed.
        KerasProcessError: The TensorFlow process died or took too long.
        StorageError: The bundle cannot be written, or temporary files cannot.
    """
    begun = time.monotonic()
    watch = _Notes(progress or Silent())
    name, version = destination.name(request)
    destination.check(request.output)
    boards = tuple(profiles.load(id_) for id_ in dict.fromkeys(request.profiles))
    models = sources.identify(request.models)
    for path in (request.data, request.calibration, request.train):
        if path is not None:
            labelled.check_readable(path)
    elsewhere = evidence.read(request.evidence)
    request = _with_cache(request, progress or Silent())  # a place on this machine is nothing for the report
    with scratch.folder() as folder:
        with float_files(models, folder, request, watch) as (floats, train):
            shared = family.gather(models, floats, request, watch)
            trained = Trained()
            if request.trains and family.can_train(shared, watch):
                trained = train(family.training(shared, request))
        files = sorted([*floats, *trained.files], key=lambda file: [model.name for model in models].index(file.source))
        room = family.room(shared, folder, name, request, watch)
        made, unmade = _make(candidates.plan(files, recipe.chosen(request, boards), room), room, request)
        verdict = judge.judge(
            candidates.in_order(files, made),
            shared.samples,
            shared.parts.count,
            metric=shared.metric,
            max_drop=request.max_drop,
            bound=request.bound,
            progress=watch,
            cache=Cache(request.cache),
        )
        _doubt(verdict, shared.metric, watch)
        # The refused are timed as well: the report shows what was given up.
        timed = _measure([c for c, _ in (*verdict.kept, *verdict.refused)], shared, request, watch)
        measured = tuple(entry for entry in timed if any(entry.variant == c.id for c, _ in verdict.kept))
        variants = tuple(_variant(candidate, quality) for candidate, quality in verdict.kept)
        believed, doubted = evidence.believed(elsewhere, variants)
        for note in doubted:
            watch.note(note)
        refused = tuple(_variant(candidate, one.quality) for candidate, one in verdict.refused if one.quality)
        chosen = [_select(board, variants, verdict, believed, request) for board in boards]
        for board, one in zip(boards, chosen, strict=True):
            _tell(board, one, watch)
        targeted = targets.make(
            boards,
            models,
            verdict.kept,
            {variant.id: variant for variant in variants},
            folder,
            progress=watch,
            command=shlex.join(("edge", "compile", request.output.name)),
            deadline_s=request.compiler_deadline_s,
        )
        manifest = Manifest(
            format=1,
            name=name,
            version=version,
            created=destination.now(),
            sources=tuple(model.record for model in models),
            inputs=shared.inputs,
            outputs=shared.outputs,
            labels=shared.samples.classes,
            preprocessing=shared.samples.preprocessing,
            metric=shared.metric.name,
            reference=verdict.reference,
            variants=(*variants, *targeted.variants),
            fronts={one.front.profile: one.front.ids for one in chosen},
            selection={one.front.profile: one.selection for one in chosen},
            accelerated=dict(targeted.accelerated),
            missing=targeted.missing,
            refused=(*trained.refused, *unmade, *(one for _, one in verdict.refused)),
        )
        known = evidence.merged(believed, evidence.stamped(measured, variants))
        predicted = (*(entry for one in chosen for entry in one.front.predicted), *targeted.latencies)
        latencies = (*known, *predicted)
        bundles.write(
            request.output,
            manifest,
            {variant.blob: candidate.path for variant, (candidate, _) in zip(variants, verdict.kept, strict=True)}
            | dict(targeted.files),
            evidence=EvidenceFile(format=1, latency=latencies),
            report=report.render(
                manifest,
                (*timed, *predicted),
                refused=refused,
                boards=boards,
                notes=watch.notes,
                request=request,
                classes=verdict.by_class,
                elsewhere=believed,
                changes=verdict.changes,
            ),
        )
    return ConvertResult(
        bundle=request.output,
        manifest=manifest,
        latencies=latencies,
        by_class=verdict.by_class,
        notes=tuple(watch.notes),
        seconds=time.monotonic() - begun,
    )


def _with_cache(request: ConvertRequest, progress: Progress) -> ConvertRequest:
    """The request; without a cache where none can be written, which must not silently cost the next conversion."""
    trouble = "" if request.cache is None else cache.trouble(request.cache)
    if not trouble:
        return request
    progress.note(f"results are not kept for another conversion: {request.cache}: {trouble}")
    return replace(request, cache=None)


def _make(planned: Sequence[Planned], room: Room, request: ConvertRequest) -> tuple[list[Candidate], list[Refused]]:
    """Make what is planned: in child processes where it takes long, else here."""
    is_worth_it = crew.is_worth_it(planned, room)
    # Children leave what they made in a cache, if only for as long as this lasts.
    kept = Cache(request.cache or (room.folder / "cache" if is_worth_it else None))
    if request.resume:
        known = sum(pipeline.done_before(one.steps, kept) for one in planned)
        steps = sum(len(one.steps) for one in planned)
        room.progress.note(f"{known} of {steps} steps are known from an earlier conversion")
    reasons: Mapping[str, str] = {}
    watch = room.progress
    if is_worth_it:
        reasons = crew.fill(planned, room, kept, deadline_s=request.variant_deadline_s)
        room = replace(room, progress=Silent())
    found = candidates.make(planned, room, kept, reasons=reasons)
    kept.trim()
    if kept.unkept and request.cache is not None:
        watch.note(f"not all results could be kept for another conversion: the cache {kept.unkept}")
    return found


class _Notes:
    """Passes progress on, and remembers the notes for the report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: list[str] = []

    def stage(self, what: str, total: int) -> None:
        self._progress.stage(what, total)

    def advance(self, steps: int) -> None:
        self._progress.advance(steps)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._progress.note(text)


def _doubt(verdict: Verdict, metric: Metric, progress: Progress) -> None:
    value = next(quality.value for candidate, quality in verdict.kept if candidate.id == verdict.reference)
    guess = metric.guess
    if guess is not None and value < guess + _SUSPICIOUS * (100.0 - guess):
        unit = f" {metric.unit}" if metric.unit else ""
        progress.note(
            f"{verdict.reference} has {metric.name} {value:.1f}{unit}, and knowing nothing {guess:.1f}{unit}: "
            "do the labels and the preprocessing (--mean, --std, --resize) fit the model?"
        )


def _measure(
    kept: Sequence[Candidate], shared: Family, request: ConvertRequest, progress: Progress
) -> tuple[Latency, ...]:
    progress.stage("time", len(kept) * latency.turns())
    at_once = batches.size(shared.inputs)
    calls = batches.calls(shared.samples.read(shared.parts.count[:at_once]), at_once)
    sample = [sequences.one_step(each[0], spec) for each, spec in zip(calls, shared.inputs, strict=True)]
    paths = {candidate.id: candidate.path for candidate in kept}
    return latency.measure(paths, sample, threads=request.threads, at=destination.now(), advance=progress.advance)


def _variant(candidate: Candidate, quality: Quality) -> Variant:
    file = blob.of(candidate.path)
    return Variant(
        id=candidate.id,
        source=candidate.source,
        blob=file.sha256,
        size_bytes=file.size_bytes,
        transfer_bytes=file.transfer_bytes,
        precision=candidate.precision,
        compression=candidate.compression,
        exceptions=tuple(text[:1000] for text in candidate.exceptions),
        target=Target(min_runtime=candidate.graph.min_runtime),
        quality=quality,
        cost=candidate.graph.cost,
    )


def _select(
    board: Profile, variants: Sequence[Variant], verdict: Verdict, believed: Sequence[Latency], request: ConvertRequest
) -> selection.Selected:
    return selection.select(
        board,
        variants,
        {candidate.id: candidate.graph for candidate, _ in verdict.kept},
        evidence=believed,
        max_latency_ms=request.max_latency_ms,
        objective=request.objective,
    )


def _tell(board: Profile, chosen: selection.Selected, progress: Progress) -> None:
    for note in chosen.selection.notes:
        progress.note(f"{board.id}: {note}")
