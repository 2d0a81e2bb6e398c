"""A model cut into segments for a pipeline, on disk: `edge split` writes it, a pipeline reads it.

    DIRECTORY/
        split.json            what the segments are and who gives what to whom, canonical JSON
        segment-1.tflite      the segments, in the order they compute
        segment-2.tflite

Tensors between segments are those the whole would have had there, as they are stored: an int8 boundary stays int8, and
is handed on as it is. Every tensor has one name in the whole split. A segment's input says which segment gives it,
which may be one further back than the one before (a residual connection): it is handed straight to where it is read,
never through a segment that does not use it. `docs/reference/segments.md` describes every field for people.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_sdk import atomic
from edge_sdk.content import regular, sha256
from edge_sdk.errors import SegmentsError, StorageError
from edge_sdk.manifest import Origin, TensorSpec
from edge_sdk.wire import Bytes, Count, Millis, Name, Sha256, Text, Wire, canonical, decode

FORMAT = 1
PLAN = "split.json"
MAX_SEGMENTS = 64
MAX_PLAN_BYTES = 4 * 1024 * 1024

Number = Annotated[int, Meta(ge=1, le=MAX_SEGMENTS)]
File = Annotated[str, Meta(pattern=r"\Asegment-[1-9][0-9]?\.tflite\Z")]
# Megabytes (10^6 bytes) a second.
Link = Annotated[float, Meta(gt=0, le=1_000_000)]


class WholeModel(Wire, frozen=True, kw_only=True):
    """The model that was cut.

    Attributes:
        sha256: Of its file: a variant's blob, where it came from a bundle.
        size_bytes: Of its file.
        model: The bundle's name and version, such as `digits-1`; None where a bare file was given.
        variant: Its id in that bundle.
    """

    sha256: Sha256
    size_bytes: Bytes
    model: Annotated[str, Meta(max_length=200)] | None = None
    variant: Name | None = None


class SegmentInput(TensorSpec, frozen=True, kw_only=True):
    """What a segment takes: name, shape and dtype as the tensor is stored.

    Attributes:
        source: The number of the segment that gives it; None for an input of the model, which the app gives.
    """

    source: Number | None = None


class ModelOutput(TensorSpec, frozen=True, kw_only=True):
    """An output of the model as the app sees it.

    Attributes:
        source: The number of the segment that gives it.
    """

    source: Number


class Segment(Wire, frozen=True, kw_only=True):
    """One part of the model, a model of its own.

    Attributes:
        number: From 1, in the order they compute.
        file: In this directory.
        first: Its first operator, numbered from 0 as in the whole.
        end: The operator after its last.
        inputs: In the order the file takes them.
        outputs: As they are stored, in the order the file gives them.
        macs: Multiply-accumulates of one inference.
        compute_ms: How long it computes; `SplitPlan.timing` says how that is known.
        send_bytes: What crosses the cut behind it, also where it comes from a segment further back; 0 of the last.
        send_ms: How long that takes on the link; 0 where none was stated.
    """

    number: Number
    file: File
    sha256: Sha256
    size_bytes: Bytes
    first: Count
    end: Count
    inputs: Annotated[tuple[SegmentInput, ...], Meta(max_length=1000)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=1000)]
    macs: Count
    compute_ms: Millis
    send_bytes: Bytes
    send_ms: Millis


class Timing(Wire, frozen=True, kw_only=True):
    """How the milliseconds of a split came about.

    Attributes:
        origin: `measured` here, or `predicted` for a board.
        machine: Name of the machine; for a prediction, the profile it is for.
        runtime: Name and version, where it was measured.
        threads: Of each segment's interpreter.
        samples: Inferences timed of each segment; 0 for a prediction.
        band: A prediction is expected within `ms / band .. ms * band`.
        whole_ms: The whole model, timed or predicted beside the segments.
    """

    origin: Origin
    machine: Annotated[str, Meta(max_length=200)]
    runtime: Annotated[str, Meta(max_length=100)] | None = None
    threads: Annotated[int, Meta(ge=1, le=1024)]
    samples: Count = 0
    band: Annotated[float, Meta(ge=1, le=1000)] | None = None
    whole_ms: Millis


class SplitPlan(Wire, frozen=True, kw_only=True):
    """`split.json`, format 1.

    Attributes:
        whole: What was cut.
        inputs: Of the model, as the app sees them.
        outputs: Likewise.
        segments: In the order they compute.
        link_mb_s: The speed that handing on was counted with; None where it was not counted.
        timing: How `compute_ms` is known.
        verified: Samples on which the segments gave what the whole gives, bit for bit, before they were written.
        verified_with: The runtime that was.
        notes: What a reader should know, in sentences.
    """

    format: Literal[1]
    whole: WholeModel
    inputs: Annotated[tuple[TensorSpec, ...], Meta(max_length=1000)]
    outputs: Annotated[tuple[ModelOutput, ...], Meta(min_length=1, max_length=1000)]
    segments: Annotated[tuple[Segment, ...], Meta(min_length=2, max_length=MAX_SEGMENTS)]
    link_mb_s: Link | None = None
    timing: Timing
    verified: Annotated[int, Meta(ge=1, le=2**53)]
    verified_with: Annotated[str, Meta(max_length=100)]
    notes: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Segments:
    """A split model, verified.

    Args:
        path: Its directory.
        verify: Check the SHA-256 of every segment now; without it, each is checked when it is asked for.

    Raises:
        SegmentsError: There is none, `split.json` is malformed or contradicts itself, or a file is not what it says.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = Path(path)
        self.plan = _read(self.path)
        if verify:
            for segment in self.plan.segments:
                self.file(segment)

    def file(self, segment: Segment) -> Path:
        """The segment's file, its content checked.

        Raises:
            SegmentsError: It is absent, a link or device, or its size or SHA-256 is not the plan's.
        """
        path = self.path / segment.file
        hint = "the split was damaged or changed; copy or make it again"
        try:
            with regular(path) as file:
                found_bytes = os.fstat(file.fileno()).st_size
                same = found_bytes == segment.size_bytes and sha256(file) == segment.sha256
        except OSError as cause:
            raise SegmentsError(f"cannot be read: {cause.strerror}", where=str(path), hint=hint) from cause
        if not same:
            raise SegmentsError(f"is not what {PLAN} says", where=str(path), hint=hint)
        return path


def check(plan: SplitPlan, *, where: str) -> None:
    """What the types alone can't say: numbers count up, and everything read is given by an earlier segment or the app.

    Raises:
        SegmentsError: The plan contradicts itself.
    """
    given: dict[str, tuple[int | None, TensorSpec | None]] = {spec.name: (None, None) for spec in plan.inputs}
    files = set()
    end = 0
    for number, segment in enumerate(plan.segments, start=1):
        if segment.number != number:
            raise SegmentsError(f"segment {number} has the number {segment.number}", where=where)
        if not end <= segment.first < segment.end:
            raise SegmentsError(f"segment {number} computes operators that are not its own", where=where)
        end = segment.end
        for tensor in segment.inputs:
            _check_given(tensor, given.get(tensor.name), f"segment {number} takes", where)
        for spec in segment.outputs:
            if spec.name in given:
                raise SegmentsError(f"{spec.name[:80]!r} is given twice", where=where)
            given[spec.name] = number, spec
        files.add(segment.file)
    if len(files) < len(plan.segments):
        raise SegmentsError("two segments have the same file", where=where)
    for output in plan.outputs:
        source, _ = given.get(output.name, (None, None))
        if source is None or source != output.source:
            raise SegmentsError(f"no segment {output.source} gives the output {output.name[:80]!r}", where=where)


def write(path: str | os.PathLike[str], plan: SplitPlan, files: Mapping[str, bytes]) -> Segments:
    """Write a split, whole or not at all.

    Args:
        path: The directory; a split that stands there is replaced, anything else is left alone.
        plan: Names the files given.
        files: Contents, by name.

    Raises:
        StorageError: It could not be written, or something that is no split stands there, and stands.
        SegmentsError: The plan contradicts itself, or the files are not what it says.
    """
    check(plan, where=str(path))
    target = Path(path)
    check_place(target)
    with atomic.directory(target) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / PLAN).write_bytes(canonical(plan))
        try:
            Segments(folder)
        except SegmentsError as error:
            # What is wrong would be found at a temporary name, which means nothing to a reader.
            error.where = error.where.replace(str(folder), str(target))
            raise
    return Segments(target)


def check_place(target: Path) -> None:
    """A split may stand here: there is nothing, an empty directory or another split, never what a user keeps.

    Raises:
        StorageError: Something else stands there.
    """
    with atomic.storage_errors(target):
        found = {entry.name for entry in target.iterdir()} if target.is_dir() else set()
    found = {name for name in found if not name.startswith(atomic.PREFIX)}  # a writer that was killed in it
    ours = {PLAN, *(f"segment-{number}.tflite" for number in range(1, MAX_SEGMENTS + 1))}
    if (os.path.lexists(target) and not target.is_dir()) or not found <= ours or (found and PLAN not in found):
        raise StorageError(
            "something that is no split model stands here",
            where=str(target),
            hint="choose another place, or remove it",
        )


def _check_given(
    tensor: SegmentInput, found: tuple[int | None, TensorSpec | None] | None, who: str, where: str
) -> None:
    """An input of a segment is what its source gives.

    Raises:
        SegmentsError: It is not.
    """
    by = "the app" if tensor.source is None else f"segment {tensor.source}"
    if found is None or found[0] != tensor.source:
        raise SegmentsError(f"{who} {tensor.name[:80]!r}, which {by} does not give before", where=where)
    spec = found[1]
    if spec is not None and (spec.shape, spec.dtype) != (tensor.shape, tensor.dtype):
        raise SegmentsError(f"{who} {tensor.name[:80]!r} of another shape or dtype than {by} gives", where=where)


def _read(folder: Path) -> SplitPlan:
    path = folder / PLAN
    try:
        with regular(path) as file:
            raw = file.read(MAX_PLAN_BYTES + 1)
    except (OSError, ValueError) as cause:  # ValueError: a path with a NUL in it
        raise SegmentsError(
            f"no split model here: {PLAN} cannot be read ({getattr(cause, 'strerror', None) or cause})",
            where=str(folder),
            hint="name the directory that `edge split` wrote",
        ) from cause
    plan = decode(raw, SplitPlan, where=str(path), max_bytes=MAX_PLAN_BYTES, error=SegmentsError)
    check(plan, where=str(path))
    return plan
