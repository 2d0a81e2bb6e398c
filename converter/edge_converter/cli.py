"""`edge convert`: from the command line to a bundle, and what came of it in a table or as JSON."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from edge_converter import progress
from edge_converter.convert import convert
from edge_converter.request import DEFAULT_PRECISIONS, ConvertRequest, ConvertResult
from edge_sdk.bundle import REPORT, Bundle
from edge_sdk.cli.output import emit, table
from edge_sdk.manifest import EvidenceFile, Fit, Latency, Manifest, Origin, Precision, Preprocessing

_SIGNALLED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The result of `edge convert --json`: what `edge inspect --json` says, and how it came about."""

    bundle: str
    manifest_sha256: str
    manifest: Manifest
    evidence: EvidenceFile
    notes: tuple[str, ...]
    seconds: float


def run(args: argparse.Namespace) -> int:
    """Convert, and print what came of it."""
    with _ended_in_order(), progress.chosen() as watch:
        result = convert(_request(args), watch)
    bundle = Bundle(result.bundle, verify=False)
    converted = Converted(
        bundle=str(result.bundle),
        manifest_sha256=bundle.manifest_sha256,
        manifest=result.manifest,
        evidence=bundle.evidence(),
        notes=result.notes,
        seconds=round(result.seconds, 3),
    )
    emit(args, converted, lambda: _text(result))
    return 0


def _request(args: argparse.Namespace) -> ConvertRequest:
    return ConvertRequest(
        models=tuple(Path(model) for model in args.models),
        data=Path(args.data),
        output=Path(args.output),
        profiles=tuple(args.profiles),
        name=args.name,
        version=args.version,
        max_drop=args.max_drop,
        calibration=Path(args.calibration) if args.calibration else None,
        train=Path(args.train) if args.train else None,
        prune=args.prune,
        slim=args.slim,
        qat=args.qat,
        clusters=args.clusters,
        precisions=_precisions(args),
        max_size=args.max_size,
        preprocessing=Preprocessing(
            resize=args.resize, fit=Fit(args.fit), crop=args.crop, mean=args.mean, std=args.std
        ),
        seed=args.seed,
        threads=args.threads,
        keras_deadline_s=args.keras_deadline,
    )


def _precisions(args: argparse.Namespace) -> tuple[Precision, ...]:
    if args.precisions:
        return tuple(Precision(one) for one in args.precisions)
    return DEFAULT_PRECISIONS if args.max_size is None else (*DEFAULT_PRECISIONS, Precision.MIXED)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a polite kill end the conversion as Ctrl-C does: temporary files and the TensorFlow process go with it."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(_SIGNALLED + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _text(result: ConvertResult) -> str:
    manifest = result.manifest
    measured = {entry.variant: entry for entry in result.latencies if entry.origin is Origin.MEASURED}
    parts = [_variants(manifest, measured)]
    if manifest.refused:
        parts.append("\n".join(["Refused:", *(f"  {one.id}: {one.reason}" for one in manifest.refused)]))
    if manifest.fronts:
        rows = [(profile, ", ".join(ids)) for profile, ids in manifest.fronts.items()]
        parts.append(table(("profile", "worth having there, the most accurate first"), rows))
    machine = next(iter(measured.values())).machine if measured else "nowhere"
    samples = manifest.variants[0].quality.samples
    parts.append(
        f"{len(manifest.variants)} variants judged on {samples} samples and timed on {machine}, "
        f"in {result.seconds:.1f} s\n{result.bundle}\n{result.bundle / REPORT}"
    )
    return "\n\n".join(parts)


def _variants(manifest: Manifest, measured: dict[str, Latency]) -> str:
    header = ("variant", "size", "transfer", manifest.metric, "drop", "agrees", "median", "p95")
    rows = []
    for variant in manifest.variants:
        quality, latency = variant.quality, measured.get(variant.id)
        rows.append(
            (
                variant.id + (" (reference)" if variant.id == manifest.reference else ""),
                f"{variant.size_bytes / 1e3:,.1f} kB",
                f"{variant.transfer_bytes / 1e3:,.1f} kB",
                f"{quality.value:.2f} %",
                f"{quality.drop:.2f} ± {quality.interval:.2f}",
                f"{quality.agreement:.1f} %",
                f"{latency.median_ms:.3g} ms" if latency else "-",
                f"{latency.p95_ms:.3g} ms" if latency and latency.p95_ms is not None else "-",
            )
        )
    return table(header, rows, right=frozenset(range(1, len(header))))
