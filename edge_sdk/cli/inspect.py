"""`edge inspect`: what a bundle holds, for people and for scripts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edge_sdk import bundle as bundles
from edge_sdk.cli.output import emit, one_line, table
from edge_sdk.deciding import common_threads
from edge_sdk.errors import BundleError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Missing, Origin, Quality, Refused, Variant
from edge_sdk.quality import drop_text, value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The result of `edge inspect --json`.

    Attributes:
        unfit: Why a variant cannot run on this machine, by its id.
    """

    bundle: str
    manifest_sha256: str
    manifest: Manifest
    evidence: EvidenceFile
    unfit: Mapping[str, str]


def run(args: argparse.Namespace) -> int:
    """Verify a bundle and print what is in it.

    Raises:
        BundleError: It is no bundle, or damaged; if only in what was measured, the rest is printed before.
    """
    damaged: BundleError | None = None
    with bundles.opened(args.bundle) as bundle:
        try:
            evidence = bundle.evidence()
        except BundleError as error:  # beside what is checked by its hash: the rest can be shown
            evidence, damaged = EvidenceFile(format=1), error
        result = Inspection(
            bundle=str(args.bundle),
            manifest_sha256=bundle.manifest_sha256,
            manifest=bundle.manifest,
            evidence=evidence,
            unfit=_unfit(bundle.manifest.variants),
        )
    emit(args, result, lambda: _text(result))
    if damaged is not None:
        raise damaged
    return 0


def _text(found: Inspection) -> str:
    manifest = found.manifest
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.created))
    sources = ", ".join(f"{source.name} ({source.framework})" for source in manifest.sources)
    headline = (
        f"{manifest.name} version {manifest.version}, made {made} from {sources}\n"
        f"{len(manifest.variants)} variants, every hash checked; manifest {found.manifest_sha256[:12]}"
    )
    parts = [headline, _variants(manifest, found.evidence)]
    if found.unfit:
        rows = [f"  {id_}: {one_line(reason)}" for id_, reason in found.unfit.items()]
        parts.append("\n".join(["Cannot run on this machine:", *rows]))
    if manifest.fronts:
        parts.append("Worth having, the most accurate first:\n" + _fronts(manifest, found.evidence))
    if manifest.selection:
        parts.append("Recommended:\n" + _recommended(manifest))
    if manifest.accelerated or manifest.missing:
        parts.append(accelerators(manifest, found.evidence))
    if manifest.refused:
        parts.append("Made, measured and left out:\n" + _refused(manifest.refused, manifest.metric))
    return "\n\n".join(parts)


def _variants(manifest: Manifest, evidence: EvidenceFile) -> str:
    header = (
        "variant",
        "precision",
        "target",
        "size",
        "transfer",
        manifest.metric,
        "drop",
        "agrees",
        "latency",
        "origin",
    )
    rows = []
    for variant in sorted(manifest.variants, key=lambda v: (-v.quality.value, v.size_bytes, v.id)):
        latency = _latency_here(variant, evidence)
        rows.append(
            (
                variant.id + (" (reference)" if variant.id == manifest.reference else ""),
                variant.precision.value,
                variant.target.delegate.value,
                _size(variant.size_bytes),
                _size(variant.transfer_bytes),
                value_text(variant.quality),
                _drop(variant.quality),
                f"{variant.quality.agreement:.1f} %",
                f"{latency.median_ms:.3g} ms" if latency else "-",
                _origin(latency) if latency else "not measured",
            )
        )
    return table(header, rows, right=frozenset({3, 4, 5, 6, 7, 8}))


def _unfit(variants: tuple[Variant, ...]) -> dict[str, str]:
    from edge_sdk.fitness import unfit
    from edge_sdk.runtime import described

    runtime = described()
    if runtime is None:
        return dict.fromkeys([variant.id for variant in variants], "no TFLite runtime is installed")
    reasons = {variant.id: unfit(variant, runtime) for variant in variants}
    return {id_: reason for id_, reason in reasons.items() if reason is not None}


def _latency_here(variant: Variant, evidence: EvidenceFile) -> Latency | None:
    """What is known of the variant's time on this machine; else the newest measurement of another, which is named.

    Of several numbers of threads that which most variants were timed with, so that rows can be compared.
    """
    here, own = machine_name(), variant.target.delegate.value
    measured = [x for x in evidence.latency if x.origin is Origin.MEASURED and x.delegate in {None, own}]
    threads = common_threads([x for x in measured if x.machine == here] or measured)
    mine = [x for x in measured if x.variant == variant.id]
    return max(mine, key=lambda x: (x.machine == here, x.threads == threads, x.at or 0), default=None)


def _origin(latency: Latency) -> str:
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    return f"{latency.origin.value} on {latency.machine}, {threads}"


def _drop(quality: Quality) -> str:
    return drop_text(quality.drop, quality.interval, quality.samples)


def _fronts(manifest: Manifest, evidence: EvidenceFile) -> str:
    rows = []
    for profile, front in sorted(manifest.fronts.items()):
        for variant in filter(None, map(manifest.variant, front)):
            known = [x for x in evidence.latency if x.is_of(variant) and x.profile == profile]
            # A measurement on such a board beats a prediction for it.
            best = max(known, key=lambda x: (x.origin is not Origin.PREDICTED, x.at or 0), default=None)
            band = f" x/÷{best.band:g}" if best and best.band else ""
            time_text = f"{best.median_ms:.3g} ms{band}, {best.origin.value}" if best else "-"
            rows.append((profile, variant.id, time_text))
    return table(("profile", "variant", "expected latency"), rows)


def _recommended(manifest: Manifest) -> str:
    rows: list[tuple[str, str, str]] = []
    for profile, choice in sorted(manifest.selection.items()):
        rows += [(profile, one.id, one.why) for one in choice.recommended]
        rows += [(profile, "", f"note: {note}") for note in choice.notes]
    return table(("profile", "variant", "what for"), rows)


def accelerators(manifest: Manifest, evidence: EvidenceFile) -> str:
    """What the bundle holds for the boards' accelerators, and what it could have had, in words."""
    rows = []
    for profile, made in sorted(manifest.accelerated.items()):
        for variant in (v for v in manifest.variants if v.id in made):
            known = [x for x in evidence.latency if x.is_of(variant) and x.profile == profile]
            best = max(known, key=lambda x: (x.origin is not Origin.PREDICTED, x.at or 0), default=None)
            covered = variant.coverage
            rows.append(
                (
                    profile,
                    variant.id,
                    f"{covered.delegated} of {covered.total}" if covered else "-",
                    f"{best.median_ms:.3g} ms, {best.origin.value}" if best else "not known",
                    variant.target.fallback or "-",
                )
            )
    parts = []
    if rows:
        header = ("profile", "variant", "operators it takes", "expected latency", "quality of, and where there is none")
        parts.append("For accelerators, not yet run on hardware:\n" + table(header, rows))
    if manifest.missing:
        lines = [f"  {one.id} ({', '.join(one.profiles)}): {_wanting(one)}" for one in manifest.missing]
        parts.append("\n".join(["Missing for accelerators:", *lines]))
    return "\n\n".join(parts)


def _wanting(one: Missing) -> str:
    predicted = one.coverage
    expected = f"; {predicted.delegated} of {predicted.total} operators expected on it" if predicted else ""
    return one_line(f"{one.reason}{expected}" + (f"; then: {one.command}" if one.command else ""))


def _refused(refused: tuple[Refused, ...], metric: str) -> str:
    rows = [
        (
            one.id,
            value_text(one.quality) if one.quality else "-",
            _drop(one.quality) if one.quality else "-",
            one.reason,
        )
        for one in refused
    ]
    return table(("variant", metric, "drop", "reason"), rows, right=frozenset({1, 2}))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1_000_000 else f"{size_bytes / 1e3:.1f} kB"  # noqa: PLR2004
