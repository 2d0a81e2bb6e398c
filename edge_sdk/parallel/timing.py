"""How long each segment of a split takes on each place: what a plan rests on."""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import DelegateError, TransportError, UsageError
from edge_sdk.parallel.planning import Link

if TYPE_CHECKING:
    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.parallel.places import Place
    from edge_sdk.segments import Segment, Segments

_log = logging.getLogger(__name__)

_ROUNDS = 11
_LONGEST_S = 2.0  # of one segment on one place


def measure(
    split: Segments, places: Sequence[Place], *, links: Mapping[str, Link] | None = None, rounds: int = _ROUNDS
) -> dict[str, list[float | None]]:
    """Milliseconds of every segment on every place, for `plan`.

    The places take turns at each segment, so that a busy moment of the machine falls on all alike.

    Args:
        split: Its segments are opened one after another, and closed.
        places: That may compute.
        links: Of those that are reached over one: what their tensors need to go there and back is taken off again.
        rounds: Turns of each place at each segment.

    Returns:
        By the place's name, a number for each segment; None where the place refuses or fails it.

    Raises:
        SegmentsError: A file is not what the plan says.
        UsageError: Two places have the same name, or there is none.
    """
    names = [place.name for place in places]
    if not names or len(set(names)) < len(names) or rounds < 1:
        raise UsageError("no place, or two of the same name, or no rounds", hint="name each place once")
    found: dict[str, list[float | None]] = {name: [] for name in names}
    for segment in split.plan.segments:
        for name, ms in _segment_ms(split, segment, places, rounds).items():
            found[name].append(None if ms is None else _computing_ms(ms, segment, (links or {}).get(name)))
    return found


def boundaries(split: Segments) -> tuple[int, ...]:
    """Bytes before the first segment, between each two, and behind the last; free sizes count as 1."""
    plan = split.plan
    first = sum(_bytes([spec]) for spec in plan.segments[0].inputs if spec.source is None)
    last = _bytes(plan.segments[-1].outputs)
    return (first, *(segment.send_bytes for segment in plan.segments[:-1]), last)


def _computing_ms(ms: float, segment: Segment, link: Link | None) -> float:
    """Without the way there and back."""
    if link is None:
        return ms
    return max(0.0, ms - link.ms(_bytes(segment.inputs)) - link.ms(_bytes(segment.outputs)))


def _segment_ms(split: Segments, segment: Segment, places: Sequence[Place], rounds: int) -> dict[str, float | None]:
    """Of one segment, by the place's name."""
    arrays = [_stored(spec) for spec in segment.inputs]
    engines: dict[str, AnyEngine] = {}
    took_ms: dict[str, list[float]] = {place.name: [] for place in places}
    left = [place.name for place in places]
    try:
        for place in places:
            with _refusals(segment, place.name, left):
                engines[place.name] = place.open(split.file(segment), segment)
                engines[place.name].run(arrays)  # the first is no measure of the later ones
        end_s = time.perf_counter() + _LONGEST_S * len(places)
        for number in range(rounds):
            for name in tuple(left):
                with _refusals(segment, name, left):
                    begun_s = time.perf_counter()
                    engines[name].run(arrays)
                    took_ms[name].append(1e3 * (time.perf_counter() - begun_s))
            if number and time.perf_counter() > end_s:
                break
    finally:
        for engine in engines.values():
            engine.close()
    return {name: statistics.median(times) if name in left else None for name, times in took_ms.items()}


@contextlib.contextmanager
def _refusals(segment: Segment, name: str, left: list[str]) -> Iterator[None]:
    """A place that refuses or fails a segment is out for it."""
    try:
        yield
    except (DelegateError, TransportError) as error:
        _log.info("segment %d does not run on %s: %s", segment.number, name, str(error))
        left.remove(name)


def _bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(_stored(spec).nbytes for spec in specs)


def _stored(spec: TensorSpec) -> Any:
    """A value as the tensor stores it: noise for floats, because a runtime may be quicker on zeros."""
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    if spec.dtype.startswith("float"):
        return np.random.default_rng(0).random(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
