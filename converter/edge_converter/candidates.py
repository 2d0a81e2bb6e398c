"""Every file worth trying: each source in float, in each number format, and pruned.

Making a candidate says nothing of its worth; `edge_converter.judge` evaluates it and keeps or refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_converter import compensate, graph, mixed, quantize
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.graph import Graph
from edge_converter.quantize import Quantized
from edge_converter.request import Progress
from edge_sdk.manifest import Pass, Precision, Refused

# Whose integers are chosen by what comes out (`edge_converter.compensate`).
_COMPENSATED = (Precision.INT8, Precision.WEIGHT8, Precision.WEIGHT4)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFile:
    """A source as a `.tflite` file, to derive number formats from.

    Attributes:
        source: The member of the family it is.
        path: The file.
        label: What was done to the source before, as it goes into ids: empty, or such as `pruned50`.
        compression: The same, with parameters.
    """

    source: str
    path: Path
    label: str = ""
    compression: tuple[Pass, ...] = ()

    @property
    def roundable(self) -> bool:
        """Its weights may be rounded either way: zeros of a pruned file must stay zeros, and integers what they are."""
        return not {step.name for step in self.compression} & {"prune", "qat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that may become a variant.

    Attributes:
        id: Of the variant.
        source: The member of the family it comes from.
        path: The file.
        graph: What it computes.
        precision: Its number format.
        compression: What was done to the source.
        exceptions: Layers in another format.
        given: It is a source as it was given, not something made of it.
    """

    id: str
    source: str
    path: Path
    graph: Graph
    precision: Precision
    compression: tuple[Pass, ...]
    exceptions: tuple[str, ...]
    given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Samples that give the quantizer its ranges."""

    samples: Samples
    rows: Integers
    threads: int


def make(
    files: Sequence[FloatFile],
    precisions: Sequence[Precision],
    calibration: Calibration,
    folder: Path,
    progress: Progress,
    *,
    max_size: int | None = None,
    clusters: int = 0,
) -> tuple[list[Candidate], list[Refused]]:
    """Derive the number formats of every float file; what cannot be made is refused with the reason.

    Args:
        files: The sources in float, and their pruned twins.
        precisions: What to derive.
        calibration: For the formats that need samples.
        folder: For the files.
        progress: Told how far it is.
        max_size: Bytes that a derived file may have.
        clusters: Distinct integers a channel in the clustered twin of int8; 0 makes none.
    """
    alone = len({file.source for file in files}) == 1
    made = [_given(file, alone=alone) for file in files]
    refused: list[Refused] = []
    maker = _Maker(calibration, folder, progress, max_size)
    wanted = [
        job for file, given in zip(files, tuple(made), strict=True) for job in _jobs(given, file, precisions, clusters)
    ]
    plain = [job for job in wanted if job.precision is not Precision.MIXED]
    progress.stage("quantize", len(plain))
    # What is searched for says by itself how far it is, so it comes last.
    for job in (*plain, *(job for job in wanted if job.precision is Precision.MIXED)):
        id_ = job.id(alone=alone)
        try:
            made.append(maker.make(job, id_))
        except QuantizationError as error:
            refused.append(Refused(id=id_, reason=error.what))
        if job.precision is not Precision.MIXED:
            progress.advance(1)
    order = {file.path: number for number, file in enumerate(files)}
    origins = {candidate.id: order[maker.origin.get(candidate.path, candidate.path)] for candidate in made}
    return sorted(made, key=lambda candidate: origins[candidate.id]), refused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One file to make of another.

    Attributes:
        file: The float file.
        precision: What to make of it.
        clusters: Distinct integers a channel; 0 for as many as the format has.
    """

    file: FloatFile
    precision: Precision
    clusters: int = 0

    def id(self, *, alone: bool) -> str:
        """Of the variant."""
        parts = (
            "" if alone else self.file.source,
            self.file.label,
            f"clustered{self.clusters}" if self.clusters else "",
            self.precision.value,
        )
        return "-".join(part for part in parts if part)


class _Maker:
    """Makes one file after the other; what several formats need of a source is found once."""

    def __init__(self, calibration: Calibration, folder: Path, progress: Progress, max_size: int | None) -> None:
        self._calibration = calibration
        self._folder = folder
        self._progress = progress
        self._max_size = max_size
        self._ranges: tuple[Path, dict[str, Any]] | None = None
        self.origin: dict[Path, Path] = {}  # of each file made: the float file

    def make(self, job: _Job, id_: str) -> Candidate:
        """One number format of one file.

        Raises:
            QuantizationError: It cannot be made, or not as small as it has to be.
        """
        file, precision = job.file, job.precision
        samples, rows = self._calibration.samples, self._calibration.rows
        into = self._folder / f"{len(self.origin)}-{precision.value}.tflite"
        self.origin[into] = file.path
        if precision is Precision.MIXED:
            result = self._mixed(file, into)
        else:
            ranges = self._of(file) if quantize.needs_ranges(precision) else None
            result = quantize.quantize(file.path, precision, into, ranges=ranges)
            if job.clusters:
                result = compensate.cluster(file.path, result, samples, rows, job.clusters)
            elif precision in _COMPENSATED and file.roundable:
                result = compensate.refine(file.path, result, samples, rows)
        result = quantize.slimmed(result, precision)
        size = result.path.stat().st_size
        if self._max_size is not None and size > self._max_size:
            raise QuantizationError(
                f"{size:,} bytes, where at most {self._max_size:,} are allowed", where=str(file.path)
            )
        return Candidate(
            id=id_,
            source=file.source,
            path=result.path,
            graph=result.graph,
            precision=precision,
            compression=(*file.compression, result.compression),
            exceptions=result.exceptions,
            given=False,
        )

    def _of(self, file: FloatFile) -> dict[str, Any]:
        """The ranges of the file's activations."""
        if self._ranges is None or self._ranges[0] != file.path:
            samples, rows, threads = self._calibration.samples, self._calibration.rows, self._calibration.threads
            self._ranges = file.path, quantize.calibrate(file.path, samples, rows, threads=threads)
        return self._ranges[1]

    def _mixed(self, file: FloatFile, into: Path) -> Quantized:
        """Weights in 4 and 8 bits.

        Raises:
            QuantizationError: It cannot be made, or not as small as asked.
        """
        samples, rows = self._calibration.samples, self._calibration.rows
        try:
            return mixed.make(file.path, samples, rows, into, max_size=self._max_size, progress=self._progress)
        except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
            raise QuantizationError(
                f"its layers cannot be computed one by one: {cause}", where=str(file.path)
            ) from cause


def _given(file: FloatFile, *, alone: bool) -> Candidate:
    found = graph.read(file.path)
    return Candidate(
        id=_id(file, found.precision, alone=alone),
        source=file.source,
        path=file.path,
        graph=found,
        precision=found.precision,
        compression=file.compression,
        exceptions=() if found.precision is Precision.MIXED else found.exceptions(found.precision),
        given=not file.label,
    )


def _jobs(given: Candidate, file: FloatFile, precisions: Sequence[Precision], clusters: int) -> list[_Job]:
    """What to make: nothing of a file that is quantized already, and of a pruned one what its zeros are good for."""
    if given.precision is not Precision.FP32:
        return []
    if file.label:
        return [_Job(file=file, precision=Precision.INT8)]
    jobs = [_Job(file=file, precision=precision) for precision in quantize.DERIVED if precision in precisions]
    if clusters and Precision.INT8 in precisions:
        jobs.append(_Job(file=file, precision=Precision.INT8, clusters=clusters))
    return jobs


def _id(file: FloatFile, precision: Precision, *, alone: bool) -> str:
    parts = ("" if alone else file.source, file.label, precision.value)
    return "-".join(part for part in parts if part)
