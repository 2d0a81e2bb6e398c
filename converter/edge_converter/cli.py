"""`edge convert`: from the command line to a bundle, and what came of it in a table or as JSON."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from edge_converter import cache as caching
from edge_converter import plan, progress
from edge_converter.convert import convert
from edge_converter.request import Bound, ConvertRequest, ConvertResult
from edge_converter.signals import ended_in_order
from edge_sdk.bundle import REPORT, Bundle
from edge_sdk.cli.inspect import accelerators
from edge_sdk.cli.output import emit, table
from edge_sdk.errors import UsageError
from edge_sdk.manifest import (
    Delegate,
    EvidenceFile,
    Fit,
    Latency,
    Manifest,
    Objective,
    Origin,
    Precision,
    Preprocessing,
    Variant,
)
from edge_sdk.quality import drop_text, value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The result of `edge convert --json`: what `edge inspect --json` says, and how it came about."""

    bundle: str
    manifest_sha256: str
    manifest: Manifest
    evidence: EvidenceFile
    by_class: dict[str, dict[int, float]]
    notes: tuple[str, ...]
    seconds: float


def run(args: argparse.Namespace) -> int:
    """Convert, and print what came of it; or say what would be made."""
    if args.dry_run:
        with ended_in_order():
            planned = plan.dry_run(_request(args))
        emit(args, planned, lambda: _plan_text(planned))
        return 0
    with ended_in_order(), progress.chosen() as watch:
        result = convert(_request(args), watch)
    bundle = Bundle(result.bundle, verify=False)
    converted = Converted(
        bundle=str(result.bundle),
        manifest_sha256=bundle.manifest_sha256,
        manifest=result.manifest,
        evidence=bundle.evidence(),
        by_class={id_: {n: round(value, 4) for n, value in each.items()} for id_, each in result.by_class.items()},
        notes=result.notes,
        seconds=round(result.seconds, 3),
    )
    emit(args, converted, lambda: _text(result))
    return 0


def _request(args: argparse.Namespace) -> ConvertRequest:
    _check(args)
    return ConvertRequest(
        models=tuple(Path(model) for model in args.models),
        data=Path(args.data),
        output=Path(args.output),
        profiles=tuple(args.profiles),
        name=args.name,
        version=args.version,
        max_drop=args.max_drop,
        max_latency_ms=args.max_latency,
        objective=Objective(args.objective or Objective.ACCURACY),
        evidence=tuple(Path(path) for path in args.evidence),
        bound=Bound(args.bound),
        metric=args.metric,
        rate_hz=args.rate,
        calibration=Path(args.calibration) if args.calibration else None,
        train=Path(args.train) if args.train else None,
        prune=args.prune,
        recipe=args.recipe,
        settings=tuple(args.settings),
        precisions=tuple(Precision(one) for one in args.precisions),
        slim=args.slim,
        qat=args.qat,
        train_steps=args.train_steps,
        max_size=args.max_size,
        preprocessing=Preprocessing(
            resize=args.resize, fit=Fit(args.fit), crop=args.crop, mean=args.mean, std=args.std
        ),
        seed=args.seed,
        threads=args.threads,
        cache=_cache(args),
        resume=args.resume,
        variant_deadline_s=args.variant_deadline,
        keras_deadline_s=args.keras_deadline,
        compiler_deadline_s=args.compiler_deadline,
        signature=args.signature,
        input_shapes=tuple(args.input_shapes),
        onnx_python=Path(args.onnx_python) if args.onnx_python else None,
    )


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, or would do nothing.

    Raises:
        UsageError: They do.
    """
    for option, is_given in (("--max-latency", args.max_latency is not None), ("--objective", args.objective)):
        if is_given and not args.profiles:
            raise UsageError(
                f"{option} is for what is recommended for a board, and no board is named",
                hint="add --profile, such as --profile rpi4 ('edge profiles list' names them all)",
            )
    for option in ("cache", "resume"):
        if args.no_cache and getattr(args, option):
            raise UsageError(
                f"--{option} needs the results that --no-cache does not keep", hint="leave one of them out"
            )


def _cache(args: argparse.Namespace) -> Path | None:
    """Where results are kept.

    Raises:
        UsageError: Nothing can be kept where `--cache` says; where a default cannot be written, a note will do.
    """
    if args.no_cache:
        return None
    if not args.cache:
        return caching.folder()
    trouble = "" if args.dry_run else caching.trouble(Path(args.cache))
    if trouble:
        raise UsageError(
            f"no results can be kept here: {trouble}", where=args.cache, hint="name another --cache, or --no-cache"
        )
    return Path(args.cache)


def _plan_text(found: plan.Plan) -> str:
    header = ("variant", "format", "passes", "known", "size, about", "time, about")
    rows = [
        (
            one.id,
            one.precision.value,
            ", ".join(one.passes),
            f"{one.known} of {len(one.passes)}",
            "-" if one.size_bytes is None else f"{one.size_bytes / 1e3:,.0f} kB",
            "-" if one.seconds is None else f"{one.seconds:,.0f} s",
        )
        for one in found.variants
    ]
    parts = [table(header, rows, right=frozenset({3, 4, 5}))]
    if found.seconds is not None:
        parts.append(
            f"{found.calibrate} samples calibrate and {found.count} count; {found.at_once} variants at once; "
            f"about {found.seconds:,.0f} s in all, within a factor of three"
        )
    parts += [f"note: {note}" for note in found.notes]
    parts.append(f"{found.bundle} was not touched")
    return "\n\n".join(parts)


def _text(result: ConvertResult) -> str:
    manifest = result.manifest
    measured = {entry.variant: entry for entry in result.latencies if entry.origin is Origin.MEASURED}
    parts = [_variants(manifest, measured)]
    if manifest.refused:
        parts.append("\n".join(["Refused:", *(f"  {one.id}: {one.reason}" for one in manifest.refused)]))
    if manifest.fronts:
        rows = [(profile, ", ".join(ids)) for profile, ids in manifest.fronts.items()]
        parts.append(table(("profile", "worth having there, the most accurate first"), rows))
        why = [
            (profile, one.id, one.why) for profile, choice in manifest.selection.items() for one in choice.recommended
        ]
        parts.append(table(("profile", "recommended", "what for"), why))
    if manifest.accelerated or manifest.missing:
        parts.append(accelerators(manifest, EvidenceFile(format=1, latency=result.latencies)))
    machine = next(iter(measured.values())).machine if measured else "nowhere"
    samples = manifest.variants[0].quality.samples
    judged = sum(_is_cpu(variant) for variant in manifest.variants)
    parts.append(
        f"{judged} variant{'' if judged == 1 else 's'} judged on {samples} samples and timed on {machine}, "
        f"in {result.seconds:.1f} s\n{result.bundle}\n{result.bundle / REPORT}"
    )
    return "\n\n".join(parts)


def _is_cpu(variant: Variant) -> bool:
    return variant.target.delegate is Delegate.CPU


def _variants(manifest: Manifest, measured: dict[str, Latency]) -> str:
    header = ("variant", "size", "transfer", manifest.metric, "drop", "agrees", "median", "p95")
    rows = []
    for variant in filter(_is_cpu, manifest.variants):
        quality, latency = variant.quality, measured.get(variant.id)
        rows.append(
            (
                variant.id + (" (reference)" if variant.id == manifest.reference else ""),
                f"{variant.size_bytes / 1e3:,.1f} kB",
                f"{variant.transfer_bytes / 1e3:,.1f} kB",
                value_text(quality),
                drop_text(quality.drop, quality.interval, quality.samples),
                f"{quality.agreement:.1f} %",
                f"{latency.median_ms:.3g} ms" if latency else "-",
                f"{latency.p95_ms:.3g} ms" if latency and latency.p95_ms is not None else "-",
            )
        )
    return table(header, rows, right=frozenset(range(1, len(header))))
