"""What each candidate is worth on samples nothing else has seen, and which are refused for it.

Two comparisons, for two questions. Against the family's reference (the most accurate float source): what does an app
lose by running this one? Against the float file of the same source: what did compression cost? Only the second can
refuse a candidate, or `--max-drop` would throw the small members out of a family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_converter import evaluate, paired
from edge_converter.candidates import Candidate
from edge_converter.confusion import Changes, changes
from edge_converter.data import Integers, Samples
from edge_converter.request import Progress
from edge_sdk.manifest import Precision, Quality, Refused

METRIC = "accuracy"
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was kept, what was refused and why, and against what all was counted."""

    reference: str
    kept: tuple[tuple[Candidate, Quality], ...]
    refused: tuple[tuple[Candidate, Refused], ...]
    changes: Mapping[str, Changes] = field(default_factory=dict)  # against the reference, by candidate


def judge(
    candidates: Sequence[Candidate],
    samples: Samples,
    rows: Integers,
    *,
    max_drop: float,
    progress: Progress,
) -> Verdict:
    """Evaluate every candidate, and refuse those that lost more than `max_drop` points to compression."""
    labels = samples.labels[rows]
    progress.stage("evaluate", len(candidates) * len(rows))
    answers = {c.id: evaluate.answers(c.path, samples, rows, advance=progress.advance) for c in candidates}
    reference = _reference(candidates, answers, labels)
    own = {c.source: c for c in candidates if c.given and c.precision is Precision.FP32}
    kept: list[tuple[Candidate, Quality]] = []
    refused: list[tuple[Candidate, Refused]] = []
    for candidate in candidates:
        mine = answers[candidate.id]
        origin = own.get(candidate.source)
        quality = _quality(mine, answers[reference.id], answers[origin.id] if origin else None, labels)
        if not candidate.given and quality.source_drop is not None and quality.source_drop > max_drop:
            reason = (
                f"{METRIC} {quality.value:.2f} %: {quality.source_drop:.2f} points below its float file, "
                f"where at most {max_drop:g} are allowed"
            )
            refused.append((candidate, Refused(id=candidate.id, reason=reason, quality=quality)))
        else:
            kept.append((candidate, quality))
    return Verdict(
        reference=reference.id,
        kept=tuple(kept),
        refused=tuple(refused),
        changes={c.id: changes(answers[reference.id], answers[c.id], labels) for c in candidates if c is not reference},
    )


def _reference(
    candidates: Sequence[Candidate], answers: Mapping[str, NDArray[np.int64]], labels: NDArray[np.int64]
) -> Candidate:
    """The most accurate float source; where every source is quantized, the most accurate of them."""
    given = [c for c in candidates if c.given]
    floats = [c for c in given if c.precision is Precision.FP32]
    return max(floats or given, key=lambda c: paired.accuracy(answers[c.id], labels))


def _quality(
    mine: NDArray[np.int64],
    reference: NDArray[np.int64],
    origin: NDArray[np.int64] | None,
    labels: NDArray[np.int64],
) -> Quality:
    against = paired.compare(reference, mine, labels)
    return Quality(
        metric=METRIC,
        value=round(paired.accuracy(mine, labels), _DIGITS),
        drop=round(against.drop, _DIGITS),
        interval=round(against.interval, _DIGITS),
        agreement=round(against.agreement, _DIGITS),
        source_drop=None if origin is None else round(paired.compare(origin, mine, labels).drop, _DIGITS),
        samples=len(labels),
    )
