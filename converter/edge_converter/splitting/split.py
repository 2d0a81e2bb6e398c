"""A model cut into the segments of a pipeline: from a variant or a bare file to a directory that is whole or not there.

Places to cut -> times of the stages -> plan -> segments -> held against the whole, bit for bit -> directory. What the
segments are for, and how they are run, is the business of whoever reads `split.json` (`edge_sdk.segments`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_converter import flatbuffer, graph, sources
from edge_converter.errors import DataError, SourceError
from edge_converter.labelled import data
from edge_converter.request import Progress, Silent
from edge_converter.splitting import chain, cut_search, segmenting, stage_times
from edge_converter.splitting.chain import Array, Link, Loaded
from edge_converter.splitting.cutting import CutPoint, Cuttable, Span
from edge_converter.splitting.stage_times import Forecast, StageClock, Stopwatch
from edge_sdk import bundle as bundles
from edge_sdk import profile as profiles
from edge_sdk import segments
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Preprocessing
from edge_sdk.segments import SplitPlan, Timing, WholeModel

_NOISE_SAMPLES = 8
_REAL_SAMPLES = 32
_FEWEST_PARTS = 2
_TO_CONVERT = frozenset({".keras", ".h5", ".hdf5", ".pb", ".onnx", ".pt", ".pt2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequest:
    """What to cut, and how.

    Attributes:
        model: A bundle, or a `.tflite` file.
        variant: Of the bundle.
        parts: How many segments; None where `at` says it, or where nothing is to be chosen.
        at: Operators that segments begin with, instead of a choice.
        link_mb_s: 10^6 bytes a second between two stages; None where handing on costs nothing.
        profile: The board whose predicted times to go by; None measures here.
        data: Samples to verify on, beside noise.
        threads: Of each interpreter.
        seed: Of the noise.
    """

    model: Path
    variant: str | None = None
    parts: int | None = None
    at: tuple[int, ...] = ()
    link_mb_s: float | None = None
    profile: str | None = None
    data: Path | None = None
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Where a model can be cut, and what that would cost.

    Attributes:
        whole: The model.
        points: All places, in order.
        atoms_ms: Of the operators between two neighbouring places, from the first to the last.
        timing: How these are known.
        chosen: The segments that were asked for, each as its first operator and the one after its last.
    """

    whole: WholeModel
    points: tuple[CutPoint, ...]
    atoms_ms: tuple[float, ...]
    timing: Timing
    chosen: tuple[Span, ...]


def survey(request: SplitRequest, progress: Progress | None = None) -> Survey:
    """Where the model can be cut; nothing is written.

    Raises:
        EdgeError: As `split`, but for what that finds when it verifies and writes.
    """
    with _opened(request) as job:
        return job.survey(progress or Silent())


def split(request: SplitRequest, output: Path, progress: Progress | None = None) -> SplitPlan:
    """Cut the model, verify the segments, and write them to the directory `output`, whole or not at all.

    Returns:
        What was written as `split.json`.

    Raises:
        SourceError, BundleError: The model cannot be read.
        UnsupportedModelError: It cannot be cut: state, control flow, an accelerator's file.
        NoCutError: It cannot be cut there, or not into so many parts.
        UsageError: Neither parts nor places are given, or both.
        UnknownProfileError: There is no such board.
        DataError: The samples do not fit the model.
        SplitMismatchError: The segments do not compute what the whole does.
        StorageError: The directory cannot be written, or something else stands there.
    """
    if request.parts is None and not request.at:
        raise UsageError("neither --parts nor --at is given", hint="--parts 2 makes two segments that take alike")
    segments.check_place(output)
    with _opened(request) as job:
        plan, files = job.split(progress or Silent())
        segments.write(output, plan, files)
    return plan


@contextlib.contextmanager
def _opened(request: SplitRequest) -> Iterator[_Job]:
    if request.parts is not None and request.at:
        raise UsageError("both --parts and --at are given", hint="--at says how many parts there are")
    if request.parts is not None and not _FEWEST_PARTS <= request.parts <= segments.MAX_SEGMENTS:
        raise UsageError(f"{request.parts} parts", hint=f"ask for {_FEWEST_PARTS} to {segments.MAX_SEGMENTS}")
    if len(request.at) >= segments.MAX_SEGMENTS:
        raise UsageError(f"{len(request.at)} places to cut", hint=f"at most {segments.MAX_SEGMENTS - 1}")
    path = request.model
    if path.suffix.lower() in _TO_CONVERT:
        raise SourceError(f"is a {path.suffix} file", where=str(path), hint="`edge convert` makes a bundle of it first")
    if path.suffix == ".tflite":
        if request.variant is not None:
            raise UsageError("a bare file has no variants", where=str(path), hint="leave --variant out")
        yield _Job(request, path, str(path), Preprocessing())
        return
    with bundles.opened(path) as bundle:
        if request.variant is None:
            have = ", ".join(variant.id for variant in bundle.manifest.variants)
            raise UsageError("--variant is not given", where=str(path), hint=f"the bundle has {have}")
        name = f"{bundle.manifest.name}-{bundle.manifest.version}"
        blob = bundle.blob(bundle.variant(request.variant))
        yield _Job(request, blob, f"{path} ({request.variant})", bundle.manifest.preprocessing, name=name)


class _Job:
    """One model on its way into segments."""

    def __init__(
        self, request: SplitRequest, path: Path, where: str, preprocessing: Preprocessing, *, name: str | None = None
    ) -> None:
        self._request = request
        self._preprocessing = preprocessing
        board = profiles.load(request.profile) if request.profile is not None else None
        if request.data is not None:
            data.check_readable(request.data)
        content = flatbuffer.content(path)
        parsed = flatbuffer.parse(content, where=where)
        self._model = Cuttable(parsed, where=where)
        cut_search.check(self._model, parts=request.parts, at=request.at)
        sources.probe([path])
        self._graph = graph.of(parsed, where=where)
        self._about = WholeModel(
            sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), model=name, variant=request.variant
        )
        inputs, outputs = (
            tuple(map(self._model.name, tensors)) for tensors in (self._model.inputs, self._model.outputs)
        )
        self._whole = Loaded(
            Link(content=content, inputs=inputs, outputs=outputs), threads=request.threads, where=where
        )
        self._random = np.random.default_rng(request.seed)
        sample = self._whole.noise(self._random)
        self._model.settle(chain.shapes(content, sample))
        cut_search.check(self._model, parts=request.parts, at=request.at)
        self._clock: StageClock = (
            Stopwatch(self._model, sample, threads=request.threads)
            if board is None
            else Forecast(self._model, self._graph.precision, board)
        )

    def survey(self, progress: Progress) -> Survey:
        """All places, and the segments that were asked for."""
        atoms_ms = self._atoms_ms(progress)
        timing = self._clock.timing(self._clock.times_ms([self._all])[0])
        asked = self._request.parts is not None or self._request.at
        return Survey(
            whole=self._about,
            points=self._model.points,
            atoms_ms=tuple(atoms_ms),
            timing=timing,
            chosen=self._chosen(atoms_ms, progress) if asked else (),
        )

    def split(self, progress: Progress) -> tuple[SplitPlan, dict[str, bytes]]:
        """The segments, verified."""
        spans = self._chosen(None if self._request.at else self._atoms_ms(progress), progress)
        progress.stage("verify", 1)
        verified = self._verify(spans)
        progress.advance(1)
        *compute_ms, whole_ms = self._clock.times_ms([*spans, self._all])
        return segmenting.describe(
            self._model,
            self._graph,
            spans,
            about=self._about,
            link_mb_s=self._request.link_mb_s,
            compute_ms=compute_ms,
            timing=self._clock.timing(whole_ms),
            verified=verified,
            verified_with=self._whole.runtime,
        )

    @property
    def _all(self) -> Span:
        return 0, self._model.end

    def _atoms_ms(self, progress: Progress) -> list[float]:
        progress.stage("time operators", 1)
        times = self._clock.times_ms(self._model.atoms)
        progress.advance(1)
        return times

    def _chosen(self, atoms_ms: Sequence[float] | None, progress: Progress) -> tuple[Span, ...]:
        if atoms_ms is None or self._request.parts is None:
            return cut_search.given(self._model, self._request.at)
        return cut_search.best(
            self._model,
            self._clock,
            atoms_ms,
            parts=self._request.parts,
            link_mb_s=self._request.link_mb_s,
            progress=progress,
        )

    def _verify(self, spans: Sequence[Span]) -> int:
        """Hold the segments against the whole; returns on how many samples."""
        loaded = [
            Loaded(
                stage_times.link(self._model, span),
                threads=self._request.threads,
                where=f"{self._model.where} (segment {number})",
            )
            for number, span in enumerate(spans, start=1)
        ]
        return chain.compare(self._whole, loaded, self._samples())

    def _samples(self) -> Iterator[list[Array]]:
        for _ in range(_NOISE_SAMPLES):
            yield self._whole.noise(self._random)
        path = self._request.data
        if path is None:
            return
        ports = self._whole.ports()
        if any(port.shape[:1] != (1,) for port in ports):
            raise DataError(
                "is for models that take one sample at a time",
                where=str(path),
                hint="leave --data out; noise verifies every model",
            )
        preprocessing = self._preprocessing
        if not path.is_dir():  # arrays have their size
            preprocessing = msgspec.structs.replace(preprocessing, resize=None, crop=None)
        inputs = [port.spec for port in ports]
        samples = data.open_samples(path, inputs=inputs, preprocessing=preprocessing)
        for row in range(min(_REAL_SAMPLES, len(samples.labels))):
            arrays = samples.read(data.as_rows([row]))
            yield [port.take(array) for port, array in zip(ports, arrays, strict=True)]
