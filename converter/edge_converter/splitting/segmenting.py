"""What `split.json` says of the segments of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from edge_converter.graph import Graph
from edge_converter.splitting import cut_search, stage_times
from edge_converter.splitting.cutting import Cuttable, Span
from edge_sdk.segments import ModelOutput, Segment, SegmentInput, SplitPlan, Timing, WholeModel

_DIGITS = 4  # of milliseconds
_TOO_LONG = 1.25  # of the parts' time together: what is cut takes a little longer, never so much less
_NO_GAIN = 0.95  # of the whole's time: what threads and queues cost is more than is left


def describe(
    model: Cuttable,
    graph: Graph,
    spans: Sequence[Span],
    *,
    about: WholeModel,
    link_mb_s: float | None,
    compute_ms: Sequence[float],
    timing: Timing,
    verified: int,
    verified_with: str,
) -> tuple[SplitPlan, dict[str, bytes]]:
    """The plan, and the files it names.

    Args:
        model: That was cut.
        graph: What it computes.
        spans: The segments.
        about: Where the model came from.
        link_mb_s: That handing on is counted with.
        compute_ms: Of each segment.
        timing: How these are known.
        verified: Samples on which the segments gave what the whole gives.
        verified_with: The runtime.
    """
    contents = [model.content(span) for span in spans]
    gives = {tensor: number for number, span in enumerate(spans, 1) for tensor in model.borders(span)[1]}
    crossing = {point.at: point.size_bytes for point in model.points}
    parts = (
        _Part(number=number, span=span, content=content, compute_ms=ms, send_bytes=crossing.get(span[1], 0))
        for number, (span, content, ms) in enumerate(zip(spans, contents, compute_ms, strict=True), start=1)
    )
    segments = tuple(_segment(model, part, gives, link_mb_s) for part in parts)
    plan = SplitPlan(
        format=1,
        whole=about,
        inputs=tuple(
            msgspec.structs.replace(spec, name=model.name(tensor))
            for spec, tensor in zip(graph.inputs, model.inputs, strict=True)
        ),
        outputs=tuple(
            ModelOutput(name=model.name(tensor), shape=spec.shape, dtype=spec.dtype, source=gives[tensor])
            for spec, tensor in zip(graph.outputs, model.outputs, strict=True)
        ),
        segments=segments,
        link_mb_s=link_mb_s,
        timing=timing,
        verified=verified,
        verified_with=verified_with,
        notes=tuple(_notes(segments, timing)),
    )
    return plan, {segment.file: content for segment, content in zip(segments, contents, strict=True)}


def _notes(segments: Sequence[Segment], timing: Timing) -> Iterator[str]:
    slowest = max(segments, key=lambda segment: segment.compute_ms + segment.send_ms)
    takes_ms = slowest.compute_ms + slowest.send_ms
    if takes_ms >= _NO_GAIN * timing.whole_ms:
        why = "handing on" if slowest.send_ms > slowest.compute_ms else "computing"
        yield (
            f"a pipeline of these gains nothing: stage {slowest.number} takes {takes_ms:.3g} ms, most of it {why}, "
            f"and the whole {timing.whole_ms:.3g} ms"
        )
    together_ms = sum(segment.compute_ms for segment in segments)
    if timing.whole_ms > _TOO_LONG * together_ms:
        yield (
            f"the whole took {timing.whole_ms:.3g} ms, its parts {together_ms:.3g} ms together: the machine was busy, "
            "so split it again when it is idle"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    number: int
    span: Span
    content: bytes
    compute_ms: float
    send_bytes: int


def _segment(model: Cuttable, part: _Part, gives: Mapping[int, int], link_mb_s: float | None) -> Segment:
    inputs, outputs = model.borders(part.span)
    return Segment(
        number=part.number,
        file=f"segment-{part.number}.tflite",
        sha256=hashlib.sha256(part.content).hexdigest(),
        size_bytes=len(part.content),
        first=part.span[0],
        end=part.span[1],
        inputs=tuple(_input(model, tensor, gives.get(tensor)) for tensor in inputs),
        outputs=tuple(map(model.stored, outputs)),
        macs=stage_times.graph_of(model, part.span).cost.macs,
        compute_ms=round(part.compute_ms, _DIGITS),
        send_bytes=part.send_bytes,
        send_ms=round(cut_search.send_ms(part.send_bytes, link_mb_s), _DIGITS),
    )


def _input(model: Cuttable, tensor: int, source: int | None) -> SegmentInput:
    spec = model.stored(tensor)
    return SegmentInput(name=spec.name, shape=spec.shape, dtype=spec.dtype, source=source)
