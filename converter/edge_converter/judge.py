"""What each candidate is worth on samples nothing else has seen, and which are refused for it.

Two comparisons, for two questions. Against the family's reference (the best float source): what does an app lose by
running this one? Against the float file of the same source: what did compression cost? Only the second can refuse a
candidate, or `--max-drop` would throw the small members out of a family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_converter import paired
from edge_converter.answered import Answered
from edge_converter.cache import Cache
from edge_converter.candidates import Candidate
from edge_converter.errors import MetricError, UnsupportedModelError
from edge_converter.labelled.data import Integers, Samples
from edge_converter.metrics.classes import Accuracy
from edge_converter.metrics.contract import Array, Metric, Tally
from edge_converter.reporting.confusion import Changes, changes
from edge_converter.request import Bound, Progress
from edge_sdk.manifest import Precision, Quality, Refused
from edge_sdk.quality import drop_text

_DIGITS = 4
_LARGEST = 1e9  # of the manifest's numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was kept, what was refused and why, and against what all was counted.

    Attributes:
        changes: What they answer otherwise than the reference, by variant, where answers are classes.
        by_class: The metric's value of each class alone, by variant and class number.
    """

    reference: str
    kept: tuple[tuple[Candidate, Quality], ...]
    refused: tuple[tuple[Candidate, Refused], ...]
    by_class: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    changes: Mapping[str, Changes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What a candidate answered: its worth, and how often it agrees with the reference."""

    tally: Tally
    agreement: float


def judge(
    candidates: Sequence[Candidate],
    samples: Samples,
    rows: Integers,
    *,
    metric: Metric,
    max_drop: float,
    bound: Bound = Bound.POINT,
    progress: Progress,
    cache: Cache | None = None,
) -> Verdict:
    """Evaluate every candidate, and refuse those that lost more than `max_drop` points to compression.

    Args:
        candidates: To be judged.
        samples: Labelled data.
        rows: Those that count.
        metric: What a candidate is worth.
        max_drop: In points of the metric.
        bound: Whether the drop itself or the upper end of its interval may not exceed it.
        progress: Told how far it is.
        cache: Of what files answered before; None asks all anew.

    Raises:
        MetricError: The metric fails on a source.
        UnsupportedModelError: A source answers nothing that can be judged.
    """
    progress.stage("evaluate", len(candidates) * len(rows))

    answered = Answered(samples, rows, metric, cache or Cache(None))

    def kept_of(candidate: Candidate) -> Array:
        return answered.kept(candidate.path, advance=progress.advance)

    reference, rows_of_reference, judged = _reference(candidates, metric, kept_of)
    refused: list[tuple[Candidate, Refused]] = []
    changed: dict[str, Changes] = {}
    for candidate in candidates:
        if candidate.id in judged:
            continue
        try:
            found = kept_of(candidate)
            judged[candidate.id] = _judged(metric, found, rows_of_reference)
            changed |= _changed(candidate, metric, found, rows_of_reference, samples.labels[rows])
        except MetricError as error:
            refused.append((candidate, Refused(id=candidate.id, reason=f"{metric.name}: {error}"[:1000])))
    own = {c.source: c for c in candidates if c.given and c.precision is Precision.FP32}
    kept: list[tuple[Candidate, Quality]] = []
    for candidate in (c for c in candidates if c.id in judged):
        origin = own.get(candidate.source)
        quality = _quality(metric, judged[candidate.id], judged[reference.id], judged[origin.id] if origin else None)
        reason = _too_bad(quality, metric, max_drop, bound)
        if quality is None:
            reason = f"{metric.name} is no number: some of its answers are NaN or infinite"
            if candidate.given:
                raise UnsupportedModelError("answers NaN or infinity", where=candidate.id, hint="is the data right?")
        if reason and not candidate.given:
            refused.append((candidate, Refused(id=candidate.id, reason=reason, quality=quality)))
        elif quality is not None:
            kept.append((candidate, quality))
    _warn(kept, max_drop, bound, progress)
    order = [candidate.id for candidate in candidates]
    return Verdict(
        reference=reference.id,
        kept=tuple(kept),
        refused=tuple(sorted(refused, key=lambda one: order.index(one[0].id))),
        changes=changed,
        by_class={id_: dict(one.tally.by_class) for id_, one in judged.items()},
    )


def _changed(candidate: Candidate, metric: Metric, found: Array, reference: Array, labels: Array) -> dict[str, Changes]:
    """What it answers otherwise than the reference, where each answer is one class."""
    if not isinstance(metric, Accuracy) or found.ndim != 1:
        return {}
    return {candidate.id: changes(reference, found, np.asarray(labels, np.int64))}


def _reference(
    candidates: Sequence[Candidate], metric: Metric, kept_of: Callable[[Candidate], Array]
) -> tuple[Candidate, Array, dict[str, _Judged]]:
    """The best float source, what it answered, and what all that were in question are worth.

    Where every source is quantized, the best of them; where the value itself is how close a model is to the reference,
    the largest.
    """
    given = [c for c in candidates if c.given]
    floats = [c for c in given if c.precision is Precision.FP32] or given
    if metric.by_reference:
        floats = [max(floats, key=lambda c: c.graph.cost.macs)]
    # What a metric keeps of much is in files, one for each of the few that may become the reference.
    answered = {c.id: kept_of(c) for c in floats}
    values = {c.id: metric.tally(answered[c.id], answered[c.id]).value() for c in floats}
    best = max(floats, key=lambda c: values[c.id] if math.isfinite(values[c.id]) else -math.inf)
    reference = answered[best.id]
    return best, reference, {id_: _judged(metric, found, reference) for id_, found in answered.items()}


def _judged(metric: Metric, found: Array, reference: Array) -> _Judged:
    return _Judged(tally=metric.tally(found, reference), agreement=metric.agreement(found, reference))


def _too_bad(quality: Quality | None, metric: Metric, max_drop: float, bound: Bound) -> str:
    """Why a candidate is refused; empty where it is not."""
    if quality is None or quality.source_drop is None:
        return ""
    interval = quality.source_interval or 0.0
    lost = quality.source_drop + (interval if bound is Bound.INTERVAL else 0.0)
    if lost <= max_drop:
        return ""
    text = drop_text(quality.source_drop, interval, quality.samples)
    end = f", up to {lost:.2f}," if bound is Bound.INTERVAL else ""
    unit = f" {metric.unit}" if metric.unit else ""
    return (
        f"{metric.name} {quality.value:.2f}{unit}: {text}{end} below its float file, "
        f"where at most {max_drop:g} are allowed"
    )


def _warn(kept: Sequence[tuple[Candidate, Quality]], max_drop: float, bound: Bound, progress: Progress) -> None:
    """Say where a drop is known less well than it is bounded."""
    wide = [q for c, q in kept if not c.given and q.source_interval is not None and q.source_interval > max_drop]
    if wide and bound is Bound.POINT:
        widest = max(wide, key=lambda q: q.source_interval or 0.0)
        text = drop_text(widest.source_drop or 0.0, widest.source_interval or 0.0, widest.samples)
        progress.note(
            f"{len(wide)} of the drops {'is' if len(wide) == 1 else 'are'} known less well than --max-drop "
            f"{max_drop:g} asks, the widest {text}: "
            "more labelled samples make them surer, --bound interval refuses what may be worse"
        )


def _quality(metric: Metric, mine: _Judged, reference: _Judged, origin: _Judged | None) -> Quality | None:
    """A variant's worth; None where it cannot be said."""
    value = mine.tally.value()
    if not math.isfinite(value):
        return None
    against = paired.difference(reference.tally, mine.tally)
    cost = None if origin is None else paired.difference(origin.tally, mine.tally)
    return Quality(
        metric=metric.name,
        value=_number(value),
        drop=_number(against.drop),
        interval=_number(against.interval),
        agreement=_number(mine.agreement),
        source_drop=None if cost is None else _number(cost.drop),
        source_interval=None if cost is None else _number(cost.interval),
        samples=mine.tally.samples,
    )


def _number(value: float) -> float:
    # Adding 0 turns -0.0, which the mean of nothing lost can be, into 0.0.
    return round(min(max(value, -_LARGEST), _LARGEST), _DIGITS) + 0.0 if math.isfinite(value) else _LARGEST
