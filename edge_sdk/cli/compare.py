"""`edge inspect A B`: what changed from one bundle to another, for people and for scripts."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from edge_sdk import bundle as bundles
from edge_sdk.cli.output import emit, table
from edge_sdk.comparison import ChoiceChange, Comparison, Fate, LatencyChange, VariantChange, Worth, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two bundles."""

    bundle: str
    name: str
    version: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The result of `edge inspect A B --json`."""

    a: Side
    b: Side
    comparison: Comparison


def run(args: argparse.Namespace) -> int:
    """Verify both bundles and print what changed."""
    with bundles.opened(args.bundle) as a, bundles.opened(args.other) as b:
        comparison = compare(
            a.manifest,
            b.manifest,
            evidence=(a.evidence(), b.evidence()),
            identical=a.manifest_sha256 == b.manifest_sha256,
        )
        sides = [
            Side(
                bundle=str(path),
                name=found.manifest.name,
                version=found.manifest.version,
                manifest_sha256=found.manifest_sha256,
            )
            for path, found in ((args.bundle, a), (args.other, b))
        ]
        metric = b.manifest.metric
    result = Compared(a=sides[0], b=sides[1], comparison=comparison)
    emit(args, result, lambda: _text(result, metric))
    return 0


def _text(result: Compared, metric: str) -> str:
    a, b, found = result.a, result.b, result.comparison
    names = [f"{side.name} version {side.version} (manifest {side.manifest_sha256[:12]})" for side in (a, b)]
    parts = [f"from {names[0]} to {names[1]}"]
    if found.identical:
        parts.append("The manifests are the same to the byte.")
    parts += [f"Note: {note}." for note in found.notes]
    changed = [change for change in found.variants if change.fate is not Fate.SAME]
    if changed:
        header = ("variant", "", metric, "change", "agrees", "size", "transfer", "what else")
        parts.append(table(header, [_row(change) for change in changed], right=frozenset({2, 3, 4, 5, 6})))
    same = len(found.variants) - len(changed)
    if same:
        parts.append(f"{same} variant{'' if same == 1 else 's'} of the same file and worth.")
    slower_or_faster = [change for change in found.latencies if change.before_ms != change.after_ms]
    if slower_or_faster:
        times = ("variant", "before", "after", "factor", "how known")
        parts.append(table(times, [_latency(change) for change in slower_or_faster], right=frozenset({1, 2, 3})))
    elif found.latencies:
        parts.append(f"{len(found.latencies)} latencies that both know are the same.")
    else:
        parts.append("No latency is known of both on the same machine, from the same origin.")
    if found.choices:
        parts.append(table(("profile", "front", "recommended"), [_choice(change) for change in found.choices]))
    return "\n\n".join(parts)


def _row(change: VariantChange) -> tuple[str, ...]:
    before, after = change.before, change.after
    gained = "-"
    if change.gained is not None:
        gained = f"{change.gained:+.2f}" + (" (within its interval)" if change.within_interval else "")
    what = [*change.what, *(["the same file"] if change.same_file else [])]
    return (
        change.id,
        change.fate.value,
        _arrow(*(f"{one.value:.2f}" if one else None for one in (before, after))),
        gained,
        _arrow(*(f"{one.agreement:.1f} %" if one else None for one in (before, after))),
        _bytes(before, after, "size_bytes"),
        _bytes(before, after, "transfer_bytes"),
        "; ".join(what),
    )


def _bytes(before: Worth | None, after: Worth | None, field: str) -> str:
    def told(worth: Worth | None) -> str | None:
        return None if worth is None else f"{getattr(worth, field) / 1e3:,.1f} kB"

    return _arrow(told(before), told(after))


def _arrow(before: str | None, after: str | None) -> str:
    if before is None or after is None or before == after:
        return after or before or "-"
    return f"{before} -> {after}"


def _latency(change: LatencyChange) -> tuple[str, ...]:
    threads = f"{change.threads} thread{'' if change.threads == 1 else 's'}"
    runtime = f", {change.runtime}" if change.runtime else ""
    who = "" if change.delegate in {"", "cpu"} else f", {change.delegate}"
    factor = f"{change.after_ms / change.before_ms:.2f} x" if change.before_ms else "-"
    return (
        change.variant,
        f"{change.before_ms:.3g} ms",
        f"{change.after_ms:.3g} ms",
        factor,
        f"{change.origin.value} on {change.machine}{runtime}{who}, {threads}",
    )


def _choice(change: ChoiceChange) -> tuple[str, ...]:
    def told(added: tuple[str, ...], removed: tuple[str, ...]) -> str:
        return " ".join([*(f"+{id_}" for id_ in added), *(f"-{id_}" for id_ in removed)]) or "as before"

    return (
        change.profile,
        told(change.front_added, change.front_removed),
        told(change.recommended_added, change.recommended_removed),
    )
