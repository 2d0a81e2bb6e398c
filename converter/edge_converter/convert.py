"""From trained models and labelled data to a bundle of measured variants, in the order it happens.

sources -> float `.tflite` files -> number formats and pruned twins -> evaluation -> latencies -> fronts -> bundle.
Everything is made in a temporary folder; the bundle appears whole at the end, or not at all.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_converter import candidates, fronts, graph, judge, latency, report, sources
from edge_converter import data as labelled
from edge_converter.candidates import Calibration, Candidate, FloatFile
from edge_converter.data import Integers, Samples, Split
from edge_converter.floats import float_files
from edge_converter.judge import Verdict
from edge_converter.request import ConvertRequest, ConvertResult, Progress, Silent
from edge_converter.sources import Framework, SourceModel
from edge_converter.trained import Trained, Training
from edge_sdk import bundle as bundles
from edge_sdk import profile as profiles
from edge_sdk.errors import UsageError
from edge_sdk.manifest import (
    EvidenceFile,
    Latency,
    Manifest,
    Precision,
    Quality,
    Target,
    TensorSpec,
    Variant,
)
from edge_sdk.profile import Profile

_ZSTD_LEVEL = 19
_MOST_DIGITS = 10  # of SOURCE_DATE_EPOCH: until 2286
_NAMED_OUTPUT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)(?:-(?P<version>[0-9][A-Za-z0-9.]*?))?(?:\.edge)?\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
# Of the way from a guess to always right: below it labels or preprocessing are more likely wrong than the model.
_SUSPICIOUS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What all sources share, and the samples they are judged on."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: Samples
    parts: Split
    calibration: Calibration


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
        UnknownProfileError: A board has no profile.
        MissingExtraError: A Keras source is given and TensorFlow is not installed.
        KerasProcessError: The TensorFlow process died or took too long.
        StorageError: The bundle cannot be written.
    """
    begun = time.monotonic()
    watch = _Notes(progress or Silent())
    name, version = _name(request)
    _check_output(request.output)
    boards = tuple(profiles.load(id_) for id_ in dict.fromkeys(request.profiles))
    models = sources.identify(request.models)
    for path in (request.data, request.calibration, request.train):
        if path is not None:
            labelled.check_readable(path)
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as temporary:
        folder = Path(temporary)
        with float_files(models, folder, request, watch) as (floats, train):
            family = _family(models, floats, request, watch)
            trained = train(_training(family, request)) if request.trains else Trained()
        files = sorted([*floats, *trained.files], key=lambda file: [model.name for model in models].index(file.source))
        made, unmade = candidates.make(
            files,
            request.precisions,
            family.calibration,
            folder,
            watch,
            max_size=request.max_size,
            clusters=request.clusters,
        )
        verdict = judge.judge(
            made,
            family.samples,
            family.parts.count,
            max_drop=request.max_drop,
            progress=watch,
        )
        _doubt(verdict, family.outputs[0].shape[1], watch)
        # The refused are timed as well: the report shows what was given up.
        timed = _measure([c for c, _ in (*verdict.kept, *verdict.refused)], family, request, watch)
        measured = tuple(entry for entry in timed if any(entry.variant == c.id for c, _ in verdict.kept))
        variants = tuple(_variant(candidate, quality) for candidate, quality in verdict.kept)
        refused = tuple(_variant(candidate, one.quality) for candidate, one in verdict.refused if one.quality)
        chosen = [_front(board, variants, verdict, watch) for board in boards]
        manifest = Manifest(
            format=1,
            name=name,
            version=version,
            created=_now(),
            sources=tuple(model.record for model in models),
            inputs=family.inputs,
            outputs=family.outputs,
            labels=family.samples.classes,
            preprocessing=family.samples.preprocessing,
            metric=judge.METRIC,
            reference=verdict.reference,
            variants=variants,
            fronts={one.profile: one.ids for one in chosen},
            refused=(*trained.refused, *unmade, *(one for _, one in verdict.refused)),
        )
        latencies = (*measured, *(entry for one in chosen for entry in one.predicted))
        bundles.write(
            request.output,
            manifest,
            {variant.blob: candidate.path for variant, (candidate, _) in zip(variants, verdict.kept, strict=True)},
            evidence=EvidenceFile(format=1, latency=latencies),
            report=report.render(
                manifest,
                (*timed, *(entry for one in chosen for entry in one.predicted)),
                refused=refused,
                boards=boards,
                notes=watch.notes,
                request=request,
            ),
        )
    return ConvertResult(
        bundle=request.output,
        manifest=manifest,
        latencies=latencies,
        notes=tuple(watch.notes),
        seconds=time.monotonic() - begun,
    )


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


def _name(request: ConvertRequest) -> tuple[str, str]:
    found = _NAMED_OUTPUT.match(request.output.name)
    name = request.name or (found["name"] if found else request.models[0].stem if request.models else "")
    version = request.version or (found["version"] if found else None) or "1"
    for what, value in (("name", name), ("version", version)):
        if not _NAME.match(value):
            raise UsageError(f"{value[:80]!r} is no {what}", hint="letters, digits, dots, hyphens; at most 64")
    if not request.models:
        raise UsageError("no model is given")
    return name, version


def _check_output(output: Path) -> None:
    """Refuse, before minutes are spent, to put a bundle where something else stands."""
    if output.is_dir():
        if any(output.iterdir()) and not (output / bundles.MANIFEST).is_file():
            raise UsageError("is a directory that holds no bundle", where=str(output), hint="name a new one")
    elif output.exists() or output.is_symlink():
        raise UsageError("is a file; a bundle is a directory", where=str(output), hint="such as digits-1.edge")
    parent = next((place for place in output.absolute().parents if place.exists()), Path("/"))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError("cannot be written to", where=str(parent), hint="choose another place for -o")


def _family(
    models: Sequence[SourceModel], floats: Sequence[FloatFile], request: ConvertRequest, progress: Progress
) -> _Family:
    graphs = [graph.read(file.path) for file in floats]
    inputs, outputs = sources.check_family(list(zip(models, graphs, strict=True)))
    shape, classes = inputs[0].shape[1:], outputs[0].shape[1]
    samples = _open(request.data, shape, classes, request)
    steers = request.trains and request.train is None and any(m.framework is Framework.KERAS for m in models)
    parts = labelled.split(samples, apart=request.calibration is not None, steer=steers)
    calibration = Calibration(samples=samples, rows=parts.calibrate, threads=request.threads)
    if request.calibration is not None:
        apart = labelled.open_samples(request.calibration, shape=shape, preprocessing=request.preprocessing)
        seen = set(samples.digests()) & set(apart.digests())
        if seen:
            progress.note(f"{len(seen)} samples are in --calibration and in --data: quality is flattered by them")
        rows = labelled.first_by_content(apart, labelled.MAX_CALIBRATION)
        calibration = Calibration(samples=apart, rows=rows, threads=request.threads)
    return _Family(inputs=inputs, outputs=outputs, samples=samples, parts=parts, calibration=calibration)


def _open(path: Path, shape: tuple[int, ...], classes: int, request: ConvertRequest) -> Samples:
    samples = labelled.open_samples(path, shape=shape, preprocessing=request.preprocessing)
    labelled.check_labels(samples, classes)
    return samples


def _training(family: _Family, request: ConvertRequest) -> Training:
    """What models are trained for, and on what: never a sample that counts."""
    samples, rows = _lessons(family, request)
    return Training(
        samples=samples,
        rows=rows,
        prune=request.prune,
        slim=request.slim,
        qat=request.qat,
        int8=Precision.INT8 in request.precisions,
        threads=request.threads,
        seed=request.seed,
    )


def _lessons(family: _Family, request: ConvertRequest) -> tuple[Samples, Integers]:
    shape, classes = family.inputs[0].shape[1:], family.outputs[0].shape[1]
    if request.train is not None:
        samples = _open(request.train, shape, classes, request)
        counted = set(family.samples.digests())
        rows = [row for row, digest in enumerate(samples.digests()) if digest not in counted]
        return samples, labelled.as_rows(rows)
    if request.calibration is not None:
        samples = _open(request.calibration, shape, classes, request)
        return samples, labelled.as_rows(range(len(samples.labels)))
    return family.samples, labelled.as_rows([*family.parts.calibrate, *family.parts.steer])


def _doubt(verdict: Verdict, classes: int, progress: Progress) -> None:
    value = next(quality.value for candidate, quality in verdict.kept if candidate.id == verdict.reference)
    guess = 100.0 / classes
    if value < guess + _SUSPICIOUS * (100.0 - guess):
        progress.note(
            f"{verdict.reference} answers only {value:.1f} % right, and guessing {guess:.1f} %: "
            "do the labels and the preprocessing (--mean, --std, --resize) fit the model?"
        )


def _measure(
    kept: Sequence[Candidate], family: _Family, request: ConvertRequest, progress: Progress
) -> tuple[Latency, ...]:
    progress.stage("time", len(kept) * latency.rounds())
    sample = family.samples.read(family.parts.count[:1])
    paths = {candidate.id: candidate.path for candidate in kept}
    return latency.measure(paths, sample, threads=request.threads, at=_now(), advance=progress.advance)


def _variant(candidate: Candidate, quality: Quality) -> Variant:
    import hashlib

    import zstandard

    content = candidate.path.read_bytes()
    return Variant(
        id=candidate.id,
        source=candidate.source,
        blob=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        transfer_bytes=len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)),
        precision=candidate.precision,
        compression=candidate.compression,
        exceptions=tuple(text[:1000] for text in candidate.exceptions),
        target=Target(min_runtime=candidate.graph.min_runtime),
        quality=quality,
        cost=candidate.graph.cost,
    )


def _front(
    board: Profile,
    variants: Sequence[Variant],
    verdict: Verdict,
    progress: Progress,
) -> fronts.Front:
    accelerators = [delegate.value for delegate in board.variants.delegates if delegate.value != "cpu"]
    if accelerators:
        progress.note(
            f"{board.id}: the bundle holds its CPU variants; files for {', '.join(accelerators)} come with the "
            "vendor's compiler"
        )
    graphs = {candidate.id: candidate.graph for candidate, _ in verdict.kept}
    return fronts.front(board, variants, graphs)


def _now() -> float:
    """Whole seconds since 1970, or what SOURCE_DATE_EPOCH says, for builds that must repeat."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return (
        float(given) if given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS else float(int(time.time()))
    )
