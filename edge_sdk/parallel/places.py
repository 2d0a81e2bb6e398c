"""Where the segments of a pipeline compute, and which of them are one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import SegmentsError, UsageError
from edge_sdk.parallel.stage import Part, fits

if TYPE_CHECKING:
    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.segments import Segment, Segments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """A core, an accelerator or a host; consecutive segments of one place are one stage.

        Place(name="npu", open=lambda path, segment: Engine(path, delegate="ethos-u", stored=True))
        Place(name="far", open=lambda _, segment: RemoteEngine("http://far:8080", model=f"part-{segment.number}"))

    Attributes:
        name: For reports and plans; no two places of a plan share one.
        open: Gives an engine that takes and gives the segment's tensors as they are stored. It may raise
            `DelegateError` where the place cannot run that segment.
    """

    name: str
    open: Callable[[Path, Segment], AnyEngine]


def cpu(name: str = "cpu", *, threads: int = 1) -> Place:
    """Threads of this process.

    Args:
        name: Of the place.
        threads: Of the interpreter.
    """

    def opened(path: Path, _: Segment) -> AnyEngine:
        from edge_sdk.engine import Engine

        return Engine(path, threads=threads, stored=True)

    return Place(name=name, open=opened)


def stages_of(split: Segments, places: Mapping[int, AnyEngine | Place]) -> list[tuple[str, list[Part]]]:
    """Each stage's name and parts, all engines open.

    Raises:
        SegmentsError: An engine takes or gives other tensors than its segment.
        DelegateError: One cannot be opened; those opened before are closed.
        UsageError: A place for a segment that there is not.
    """
    segments = split.plan.segments
    if unknown := sorted(set(places) - {segment.number for segment in segments}):
        raise UsageError(f"a place for segment {unknown[0]}", hint=f"there are segments 1 to {len(segments)}")
    where = {segment.number: places.get(segment.number) or cpu(f"cpu-{segment.number}") for segment in segments}
    stages: list[tuple[str, list[Part]]] = []
    opened: list[AnyEngine] = []
    try:
        for _, group in groupby(segments, key=lambda segment: id(where[segment.number])):
            parts: list[Part] = []
            name = ""
            for segment in group:
                place = where[segment.number]
                if isinstance(place, Place):
                    engine = place.open(split.file(segment), segment)
                    opened.append(engine)
                else:
                    engine = place
                _check_engine(engine, segment, str(split.path))
                parts.append(Part(segment=segment, engine=engine))
                name = place.name if isinstance(place, Place) else f"segment-{segment.number}"
            stages.append((name, parts))
    except BaseException:
        for engine in opened:
            engine.close()
        raise
    return stages


def _check_engine(engine: AnyEngine, segment: Segment, where: str) -> None:
    for said, specs, found in (("takes", segment.inputs, engine.inputs), ("gives", segment.outputs, engine.outputs)):
        same = len(specs) == len(found) and all(
            has.dtype == spec.dtype and (fits(spec.shape, has.shape) or fits(has.shape, spec.shape))
            for spec, has in zip(specs, found, strict=True)
        )
        if not same:
            tensors = ", ".join(f"{spec.dtype} {list(spec.shape)}" for spec in found)
            raise SegmentsError(
                f"the engine for segment {segment.number} {said} {tensors or 'nothing'}, the segment other tensors",
                where=where,
                hint="open that segment's file, with stored=True",
            )
