"""Which variants are worth having on a board.

None other is at least as accurate, as fast and as small, and better in one of the three. Size is counted as it
travels, compressed: it is where a pruned variant differs from its twin.

A board's latency is predicted from the work in the graph (`edge_sdk.predict`), with its band. What was measured while
converting never decides, not even for a profile this machine is an example of: a busy moment would change the manifest,
which is to repeat byte for byte. Measurements are evidence beside it, and it is by them that a device decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_converter.graph import Graph
from edge_sdk.manifest import Latency, Origin, Precision, Variant
from edge_sdk.predict import predicted_ms
from edge_sdk.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The variants worth having on one board.

    Attributes:
        profile: The board's id.
        ids: The most accurate first.
        predicted: The latencies the choice rests on; empty where the board has no latency model.
    """

    profile: str
    ids: tuple[str, ...]
    predicted: tuple[Latency, ...]


def front(profile: Profile, variants: Sequence[Variant], graphs: Mapping[str, Graph]) -> Front:
    """The Pareto front of quality, latency and size on this board.

    Args:
        profile: The board.
        variants: All that are in the bundle.
        graphs: Of the variants, by id.
    """
    wanted = {*profile.variants.precisions, *profile.variants.accuracy_only}
    candidates = [v for v in variants if v.precision in wanted] or list(variants)
    predicted = _predict(profile, candidates, graphs)
    # Without a latency model accuracy and size decide alone: equal latencies never decide.
    latency_ms = {v.id: predicted[v.id].median_ms if v.id in predicted else math.inf for v in candidates}
    fast = [v for v in candidates if v.precision not in profile.variants.accuracy_only]
    best = max((v.quality.value for v in fast), default=-math.inf)
    kept = [v for v in candidates if v in fast or v.quality.value > best]

    def merits(v: Variant) -> tuple[float, float, float]:
        return v.quality.value, -latency_ms[v.id], -v.transfer_bytes

    def beaten(v: Variant) -> bool:
        mine = merits(v)
        return any(
            merits(other) != mine and all(a >= b for a, b in zip(merits(other), mine, strict=True)) for other in kept
        )

    chosen = sorted((v for v in kept if not beaten(v)), key=lambda v: (*(-m for m in merits(v)), v.id))
    return Front(profile=profile.id, ids=tuple(v.id for v in chosen), predicted=tuple(predicted.values()))


def _predict(profile: Profile, variants: Sequence[Variant], graphs: Mapping[str, Graph]) -> dict[str, Latency]:
    found: dict[str, Latency] = {}
    for variant in variants:
        prediction = predicted_ms(profile, graphs[variant.id].work, variant.precision)
        if prediction is None or profile.latency is None:
            continue
        found[variant.id] = Latency(
            variant=variant.id,
            origin=Origin.PREDICTED,
            machine=profile.id,
            profile=profile.id,
            threads=profile.latency.threads,
            median_ms=round(prediction[0], 4),
            band=prediction[1],
            source=(profile.latency.int8 if variant.precision is Precision.INT8 else profile.latency.fp32).source,
        )
    return found
