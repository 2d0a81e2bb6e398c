"""What changed from one bundle to another: variants, what they are worth, how fast they are, and what is chosen.

Latencies are compared only like with like: of the same variant, origin, machine, runtime and number of threads. A
difference in quality that lies within the wider of the two intervals is marked: these samples cannot tell it from none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Origin, Variant


class Fate(enum.Enum):
    """What became of a variant."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """A variant's figures in one bundle."""

    value: float
    drop: float
    interval: float
    agreement: float
    size_bytes: int
    transfer_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantChange:
    """One variant of either bundle.

    Attributes:
        before: None where it was added.
        after: None where it was removed.
        same_file: The model file is the same to the byte.
        gained: Points of quality, after less before; None where one is missing or the metrics differ.
        within_interval: Too little for these samples to tell it from no change.
        what: Facts that differ besides the figures, such as its precision or delegate.
    """

    id: str
    fate: Fate
    before: Worth | None
    after: Worth | None
    same_file: bool
    gained: float | None
    within_interval: bool
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyChange:
    """One variant on one machine, as both bundles know it."""

    variant: str
    origin: Origin
    machine: str
    runtime: str | None
    threads: int
    delegate: str
    before_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceChange:
    """What one board gains and loses; `recommended` where both bundles recommend something for it."""

    profile: str
    front_added: tuple[str, ...]
    front_removed: tuple[str, ...]
    recommended_added: tuple[str, ...]
    recommended_removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """From bundle `a` to bundle `b`.

    Attributes:
        identical: The manifests are the same to the byte.
        variants: Those of both, in the order of `b`, then those removed.
        latencies: Where both know the same thing.
        choices: Boards of either bundle whose choice changed.
        notes: What stands in the way of comparing, or changed for all variants.
    """

    identical: bool
    variants: tuple[VariantChange, ...]
    latencies: tuple[LatencyChange, ...]
    choices: tuple[ChoiceChange, ...]
    notes: tuple[str, ...]


def compare(
    a: Manifest, b: Manifest, *, evidence: tuple[EvidenceFile, EvidenceFile], identical: bool = False
) -> Comparison:
    """What changed from `a` to `b`.

    Args:
        a: The older bundle's manifest.
        b: The newer one's.
        evidence: Of both, in this order.
        identical: Their manifests have the same SHA-256.
    """
    alike = a.metric == b.metric
    ids = [*(v.id for v in b.variants), *(v.id for v in a.variants if b.variant(v.id) is None)]
    return Comparison(
        identical=identical,
        variants=tuple(_variant(id_, a.variant(id_), b.variant(id_), alike=alike) for id_ in ids),
        latencies=tuple(_latencies(a, evidence[0].latency, evidence[1].latency)),
        choices=tuple(_choices(a, b)),
        notes=tuple(_notes(a, b)),
    )


def _variant(id_: str, before: Variant | None, after: Variant | None, *, alike: bool) -> VariantChange:
    if before is None or after is None:
        return VariantChange(
            id=id_,
            fate=Fate.ADDED if before is None else Fate.REMOVED,
            before=_worth(before),
            after=_worth(after),
            same_file=False,
            gained=None,
            within_interval=False,
            what=(),
        )
    gained = after.quality.value - before.quality.value if alike else None
    wider = max(before.quality.interval, after.quality.interval)
    what = tuple(_differences(before, after))
    same = before.blob == after.blob and before.quality == after.quality and not what
    return VariantChange(
        id=id_,
        fate=Fate.SAME if same else Fate.CHANGED,
        before=_worth(before),
        after=_worth(after),
        same_file=before.blob == after.blob,
        gained=gained,
        within_interval=gained is not None and gained != 0 and abs(gained) <= wider,
        what=what,
    )


def _worth(variant: Variant | None) -> Worth | None:
    if variant is None:
        return None
    quality = variant.quality
    return Worth(
        value=quality.value,
        drop=quality.drop,
        interval=quality.interval,
        agreement=quality.agreement,
        size_bytes=variant.size_bytes,
        transfer_bytes=variant.transfer_bytes,
    )


def _differences(before: Variant, after: Variant) -> Iterator[str]:
    pairs = {
        "source": (before.source, after.source),
        "precision": (before.precision.value, after.precision.value),
        "delegate": (before.target.delegate.value, after.target.delegate.value),
        "falls back to": (before.target.fallback, after.target.fallback),
        "CPU features": (" ".join(before.target.isa) or "none", " ".join(after.target.isa) or "none"),
        "lowest runtime": (before.target.min_runtime, after.target.min_runtime),
        "compression": _passes(before, after),
        "layers in another format": (len(before.exceptions), len(after.exceptions)),
        "delegated operators": (_covered(before), _covered(after)),
        "multiply-accumulates": (before.cost.macs, after.cost.macs),
    }
    for name, (old, new) in pairs.items():
        if old != new:
            yield f"{name}: {'none' if old is None else old} -> {'none' if new is None else new}"


def _passes(before: Variant, after: Variant) -> tuple[str, str]:
    """What was done to each; where the steps are the same, only the parameters that differ."""
    names = [[step.name for step in variant.compression] for variant in (before, after)]
    if names[0] != names[1]:
        return " then ".join(names[0]) or "none", " then ".join(names[1]) or "none"
    told: tuple[list[str], list[str]] = [], []
    for one, other in zip(before.compression, after.compression, strict=True):
        for name in sorted({*one.parameters, *other.parameters}):
            old, new = one.parameters.get(name), other.parameters.get(name)
            if old != new:
                told[0].append(f"{one.name} {name}={old}")
                told[1].append(f"{name}={new}")
    return ", ".join(told[0]), ", ".join(told[1])


def _covered(variant: Variant) -> str | None:
    return f"{variant.coverage.delegated} of {variant.coverage.total}" if variant.coverage else None


def _latencies(a: Manifest, before: Sequence[Latency], after: Sequence[Latency]) -> Iterator[LatencyChange]:
    own = {variant.id: variant.target.delegate.value for variant in a.variants}

    def computed_by(entry: Latency) -> str:
        return entry.delegate or own.get(entry.variant, "")

    def key(entry: Latency) -> tuple[str, str, str, str, int, str]:
        place = entry.variant, entry.origin.value, entry.machine, entry.runtime or "", entry.threads
        return *place, computed_by(entry)

    old = {key(entry): entry for entry in before}
    for entry in sorted(after, key=key):
        other = old.get(key(entry))
        if other is not None:
            yield LatencyChange(
                variant=entry.variant,
                origin=entry.origin,
                machine=entry.machine,
                runtime=entry.runtime,
                threads=entry.threads,
                delegate=computed_by(entry),
                before_ms=other.median_ms,
                after_ms=entry.median_ms,
            )


def _choices(a: Manifest, b: Manifest) -> Iterator[ChoiceChange]:
    for profile in sorted({*a.fronts, *b.fronts, *a.selection, *b.selection}):
        both = profile in a.selection and profile in b.selection
        shipped = [tuple(one.id for one in m.selection[profile].recommended) if both else () for m in (a, b)]
        fronts = [m.fronts.get(profile, ()) for m in (a, b)]
        change = ChoiceChange(
            profile=profile,
            front_added=_less(fronts[1], fronts[0]),
            front_removed=_less(fronts[0], fronts[1]),
            recommended_added=_less(shipped[1], shipped[0]),
            recommended_removed=_less(shipped[0], shipped[1]),
        )
        if change.front_added or change.front_removed or change.recommended_added or change.recommended_removed:
            yield change


def _less(these: Sequence[str], those: Sequence[str]) -> tuple[str, ...]:
    return tuple(id_ for id_ in these if id_ not in those)


def _notes(a: Manifest, b: Manifest) -> Iterator[str]:
    if a.name != b.name:
        yield f"these are different models: {a.name} and {b.name}"
    if a.metric != b.metric:
        yield f"their quality is not comparable: {a.metric} and {b.metric}"
    counts = {m.variants[0].quality.samples for m in (a, b)}
    if len(counts) > 1:
        yield (
            f"judged on {a.variants[0].quality.samples:,} and on {b.variants[0].quality.samples:,} samples: "
            "differences in quality may come from that"
        )
    if a.reference != b.reference:
        yield f"drops are counted against another reference: {a.reference}, now {b.reference}"
    if {(s.name, s.sha256) for s in a.sources} != {(s.name, s.sha256) for s in b.sources}:
        yield "they come of other source files"
    for name, old, new in (
        ("inputs", a.inputs, b.inputs), ("outputs", a.outputs, b.outputs),
        ("preprocessing", a.preprocessing, b.preprocessing), ("labels", a.labels, b.labels),
    ):  # fmt: skip
        if old != new:
            yield f"their {name} differ: an app may have to change"
