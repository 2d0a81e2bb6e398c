"""Every file worth trying: each source in float, in each number format, and pruned.

Making a candidate says nothing of its worth; `edge_converter.judge` evaluates it and keeps or refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_converter import compensate, graph, quantize
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.graph import Graph
from edge_converter.request import Progress
from edge_sdk.manifest import Pass, Precision, Refused


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
) -> tuple[list[Candidate], list[Refused]]:
    """Derive the number formats of every float file; what cannot be made is refused with the reason."""
    alone = len({file.source for file in files}) == 1
    made: list[Candidate] = []
    refused: list[Refused] = []
    progress.stage("quantize", len(files))
    for number, file in enumerate(files):
        given = _given(file, alone=alone)
        made.append(given)
        ranges: dict[str, Any] | None = None
        for precision in _derived(given, file, precisions):
            id_ = _id(file, precision, alone=alone)
            try:
                if ranges is None and quantize.needs_ranges(precision):
                    ranges = quantize.calibrate(
                        file.path, calibration.samples, calibration.rows, threads=calibration.threads
                    )
                into = folder / f"{number}-{precision.value}.tflite"
                result = quantize.quantize(file.path, precision, into, ranges=ranges)
                if precision is Precision.INT8 and not file.label:  # a pruned file's zeros must stay zeros
                    result = compensate.refine(file.path, result, calibration.samples, calibration.rows)
            except QuantizationError as error:
                refused.append(Refused(id=id_, reason=error.what))
                continue
            made.append(
                Candidate(
                    id=id_,
                    source=file.source,
                    path=result.path,
                    graph=result.graph,
                    precision=precision,
                    compression=(*file.compression, result.compression),
                    exceptions=result.exceptions,
                    given=False,
                )
            )
        progress.advance(1)
    return made, refused


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


def _derived(given: Candidate, file: FloatFile, precisions: Sequence[Precision]) -> list[Precision]:
    """What to make: nothing of a file that is quantized already, and of a pruned one what its zeros are good for."""
    if given.precision is not Precision.FP32:
        return []
    if file.label:
        return [Precision.INT8]
    return [precision for precision in quantize.DERIVED if precision in precisions]


def _id(file: FloatFile, precision: Precision, *, alone: bool) -> str:
    parts = ("" if alone else file.source, file.label, precision.value)
    return "-".join(part for part in parts if part)
