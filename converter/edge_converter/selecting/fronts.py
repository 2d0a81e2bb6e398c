"""Which variants are worth having on a board, and which other each of the rest is dominated by.

Worth having is what no other dominates: none is at least as accurate, as fast and as small, and better in one of the
three. Size is counted as it travels, compressed: it is where a pruned variant differs from its twin.

A board's latency is what a device of its kind measured, where such evidence is given (`evidence`); else
it is predicted from the work in the graph (`edge_sdk.predict`), with its band. What was measured while converting never
decides, not even for a profile this machine is an example of: a busy moment would change the manifest, which is to
repeat byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_converter.graph import Graph
from edge_converter.selecting.evidence import deciding, stamped
from edge_sdk.manifest import Delegate, Dominated, Excluded, Latency, Origin, Precision, Variant
from edge_sdk.predict import predicted_ms
from edge_sdk.profile import Profile

_FAR = 10.0  # above this, a factor is told without a decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The variants worth having on one board, and why not the others.

    Attributes:
        profile: The board's id.
        ids: The most accurate first.
        predicted: Predictions made for it; empty where the board has no latency model.
        latencies: What the choice rests on, by variant; one that is not in it has no known latency.
        dominated: Each with what dominates it, which is in `ids`.
        excluded: What does not come into question, with the reason.
        notes: What a reader should know of the choice, in sentences.
    """

    profile: str
    ids: tuple[str, ...]
    predicted: tuple[Latency, ...]
    latencies: Mapping[str, Latency]
    dominated: tuple[Dominated, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    notes: tuple[str, ...] = ()


def front(
    profile: Profile,
    variants: Sequence[Variant],
    graphs: Mapping[str, Graph],
    *,
    evidence: Sequence[Latency] = (),
    max_latency_ms: float | None = None,
) -> Front:
    """The Pareto front of quality, latency and size on this board.

    Args:
        profile: The board.
        variants: All that are in the bundle.
        graphs: Of the variants that run on a CPU, by id.
        evidence: Latencies from elsewhere; those of this board decide before any prediction of ours.
        max_latency_ms: What one inference may take; a prediction whose band reaches to both sides of it passes.
    """
    excluded: dict[str, str] = {}
    runs = [v for v in variants if v.target.delegate in profile.variants.delegates]
    for variant in variants:
        if variant not in runs:
            excluded[variant.id] = f"{profile.id} has no {variant.target.delegate.value} to run it"
    wanted = {*profile.variants.precisions, *profile.variants.accuracy_only}
    fitting = [v for v in runs if v.precision in wanted] or runs
    for variant in runs:
        if variant not in fitting:
            excluded[variant.id] = f"{variant.precision.value} is not worth having on {profile.id}"
    predicted = stamped(_predict(profile, fitting, graphs), fitting)
    latencies = deciding(profile, (*evidence, *predicted))
    notes: list[str] = []
    if max_latency_ms is not None:
        notes += _bounded(fitting, latencies, max_latency_ms, excluded)
    contenders = [v for v in fitting if v.id not in excluded]
    judge = _Judge(profile, contenders, latencies)
    chosen = judge.front()
    return Front(
        profile=profile.id,
        ids=tuple(v.id for v in chosen),
        predicted=predicted,
        latencies=latencies,
        dominated=tuple(judge.dominated(v, chosen) for v in contenders if v not in chosen),
        excluded=tuple(Excluded(id=id_, reason=reason[:1000]) for id_, reason in excluded.items()),
        notes=tuple(notes),
    )


def span(latency: Latency) -> tuple[float, float]:
    """Between which milliseconds the truth is expected; a measurement is taken at its word."""
    band = (latency.band or 1.0) if latency.origin is Origin.PREDICTED else 1.0
    return latency.median_ms / band, latency.median_ms * band


def told(latency: Latency) -> str:
    """A latency in words, always with how it is known."""
    low, high = span(latency)
    within = f", {low:.3g} to {high:.3g} ms" if high > low else ""
    return f"{latency.median_ms:.3g} ms {latency.origin.value}{within}"


class _Judge:
    """Compares the variants of one board."""

    def __init__(self, profile: Profile, contenders: Sequence[Variant], latencies: Mapping[str, Latency]) -> None:
        self._all = contenders
        self._latencies = latencies
        self._slow = profile.variants.accuracy_only
        fast = [v for v in contenders if v.precision not in self._slow]
        # A slow format is kept for quality, never for anything else: the best of the fast ones must be worse.
        self._best_fast = max(fast, key=lambda v: (v.quality.value, v.id), default=None)

    def front(self) -> list[Variant]:
        """Those that nothing in the front beats, the most accurate first.

        Going by accuracy, size and time, each is met after whatever can beat it; so what is left out is always left
        out for one that stays, also where measured and predicted latencies do not order all of them.
        """

        def by_worth(v: Variant) -> tuple[float, int, float, str]:
            return -v.quality.value, v.transfer_bytes, self._ms(v), v.id

        chosen: list[Variant] = []
        for variant in sorted(self._all, key=by_worth):
            if not self._too_slow(variant) and not any(self._beats(other, variant) for other in chosen):
                chosen.append(variant)
        return sorted(chosen, key=lambda v: (-v.quality.value, self._ms(v), v.transfer_bytes, v.id))

    def _ms(self, variant: Variant) -> float:
        known = self._latencies.get(variant.id)
        return known.median_ms if known else 0.0

    def dominated(self, variant: Variant, front: Sequence[Variant]) -> Dominated:
        """By which one of the front, and how far."""
        by = next((other for other in front if self._beats(other, variant)), None)
        if by is None:  # a slow format, made superfluous by a fast one that is as accurate
            by = next(other for other in front if other.quality.value >= variant.quality.value)
            text = f"{variant.precision.value} is slow here and kept for its accuracy only, which {by.id} reaches"
        else:
            text = self._why(by, variant)
        return Dominated(id=variant.id, by=by.id, why=text)

    def _too_slow(self, variant: Variant) -> bool:
        best = self._best_fast
        return variant.precision in self._slow and best is not None and variant.quality.value <= best.quality.value

    def _beats(self, other: Variant, variant: Variant) -> bool:
        faster = self._compared(other, variant)
        if faster is None:
            return False
        gains = (other.quality.value - variant.quality.value, faster, variant.transfer_bytes - other.transfer_bytes)
        return min(gains) >= 0 and max(gains) > 0

    def _compared(self, one: Variant, other: Variant) -> float | None:
        """By how many milliseconds `one` is the faster; None where that is not known.

        Latencies of one origin are compared as they are, for what is wrong with one is wrong with all; of two origins,
        only where their spans lie apart. Where neither is known, latency does not decide.
        """
        mine, its = self._latencies.get(one.id), self._latencies.get(other.id)
        if mine is None or its is None:
            return 0.0 if mine is its else None
        if mine.origin is its.origin:
            return its.median_ms - mine.median_ms
        (mine_low, mine_high), (its_low, its_high) = span(mine), span(its)
        if mine_high <= its_low:
            return its_low - mine_high
        return its_high - mine_low if its_high <= mine_low else None

    def _why(self, by: Variant, variant: Variant) -> str:
        mine, its = self._latencies.get(by.id), self._latencies.get(variant.id)
        better = by.quality.value - variant.quality.value
        parts = [f"{better:.2f} points more accurate" if better > 0 else "as accurate"]
        if mine is not None and its is not None:
            origin = mine.origin.value if mine.origin is its.origin else f"{mine.origin.value} and {its.origin.value}"
            ratio = its.median_ms / mine.median_ms if mine.median_ms else 1.0
            parts.append(f"{_times(ratio)} as fast ({origin})" if ratio > 1 else f"as fast ({origin})")
        less = variant.transfer_bytes - by.transfer_bytes
        if less > 0:
            parts.append(f"{100 * less / variant.transfer_bytes:.0f} % less to transfer")
        else:
            parts.append("no more to transfer")
        return f"{by.id} is {', '.join(parts)}"


def _times(ratio: float) -> str:
    if ratio < 1.01:  # noqa: PLR2004 - a hundredth is no difference to tell of
        return "just"
    return f"{ratio:.1f} times" if ratio < _FAR else f"{ratio:.0f} times"


def _bounded(
    variants: Sequence[Variant], latencies: Mapping[str, Latency], bound_ms: float, excluded: dict[str, str]
) -> list[str]:
    """Exclude what is surely too slow; the notes say what may be."""
    unknown: list[str] = []
    open_: list[str] = []
    for variant in variants:
        latency = latencies.get(variant.id)
        if latency is None:
            unknown.append(variant.id)
            continue
        low, high = span(latency)
        if low > bound_ms:
            excluded[variant.id] = f"takes {told(latency)}, where at most {bound_ms:g} ms are allowed"
        elif high > bound_ms:
            open_.append(variant.id)
    notes = []
    if open_:
        notes.append(
            f"{', '.join(open_)} may take longer than the {bound_ms:g} ms allowed: the bound lies within the span of "
            f"what is predicted of {'it' if len(open_) == 1 else 'them'}"
        )
    if unknown:
        notes.append(f"nothing is known of the latency of {', '.join(unknown)}: --max-latency could not be tested")
    return notes


def _predict(profile: Profile, variants: Sequence[Variant], graphs: Mapping[str, Graph]) -> list[Latency]:
    found: list[Latency] = []
    for variant in variants:
        if variant.target.delegate is not Delegate.CPU or variant.id not in graphs:
            continue
        prediction = predicted_ms(profile, graphs[variant.id].work, variant.precision)
        if prediction is None or profile.latency is None:
            continue
        found.append(
            Latency(
                variant=variant.id,
                origin=Origin.PREDICTED,
                machine=profile.id,
                profile=profile.id,
                threads=profile.latency.threads,
                median_ms=round(prediction[0], 4),
                band=prediction[1],
                source=(profile.latency.int8 if variant.precision is Precision.INT8 else profile.latency.fp32).source,
            )
        )
    return found
