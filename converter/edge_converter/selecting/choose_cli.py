"""`edge profiles choose`: from a bundle or a bare model to a ranking of boards, for people or as JSON."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_converter import graph
from edge_converter.graph import Graph
from edge_converter.selecting import arena, choose, evidence
from edge_converter.selecting.choose import Board, By, Model, Verdict, Wanted
from edge_sdk import bundle as bundles
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.cli.output import emit, table
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Delegate, Precision, Quality, Target, Variant
from edge_sdk.profile import Basis, Fact

_ESTIMATED = "~"
_WORDS = {Verdict.MET: "meets all limits", Verdict.UNSURE: "may", Verdict.BROKEN: "ruled out"}
_NOT_JUDGED = Quality(metric="accuracy", value=0, drop=0, interval=0, agreement=0, samples=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The result of `edge profiles choose --json`.

    Attributes:
        model: What was given.
        judged: Its variants' accuracy was measured.
        notes: What a reader should know, in sentences.
    """

    model: str
    judged: bool
    wanted: Wanted
    by: By
    boards: tuple[Board, ...]
    notes: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Rank the boards, and print the ranking."""
    if args.max_transfer is not None and args.link is None:
        raise UsageError("--max-transfer needs the speed of the link", hint="add --link MBPS")
    if args.offline and args.link is not None:
        raise UsageError(
            "--offline says that there is no link, and --link how fast it is", hint="leave one of them out"
        )
    wanted = Wanted(
        max_latency_ms=args.max_latency,
        max_power_w=args.max_power,
        budget_usd=args.budget,
        link_mbps=args.link,
        max_transfer_s=args.max_transfer,
        rate=args.rate,
        ambient_c=args.ambient,
        min_memory_mb=args.min_memory,
        offline=args.offline,
    )
    boards = [profiles.load(id_) for id_ in dict.fromkeys(args.profiles)] or profiles.load_all()
    path = Path(args.model)
    model = _bare(path) if path.is_file() and path.suffix == ".tflite" else _bundled(path)
    by = By(args.by)
    ranked = choose.rank(model, boards, wanted, by=by)
    chosen = Chosen(
        model=str(args.model), judged=model.judged, wanted=wanted, by=by, boards=ranked, notes=_notes(model, ranked)
    )
    emit(args, chosen, lambda: _text(chosen))
    return 0


def _bundled(path: Path) -> Model:
    with bundles.opened(path) as bundle:
        variants = tuple(v for v in bundle.manifest.variants if v.target.delegate is Delegate.CPU)
        compiled = tuple(v for v in bundle.manifest.variants if v.target.delegate is not Delegate.CPU)
        plain = {v.id: bundle.blob(v) for v in variants}
        known, _ = evidence.believed(evidence.read([bundle.path]) if _has_evidence(bundle) else (), variants)
        known_of = bundle.evidence().latency
        return Model(
            variants=variants,
            graphs={id_: graph.read(blob) for id_, blob in plain.items()},
            peak_bytes={id_: arena.peak_bytes(blob) for id_, blob in plain.items()},
            evidence=known,
            compiled=compiled,
            accelerated=tuple(entry for entry in known_of if any(entry.is_of(variant) for variant in compiled)),
        )


def _has_evidence(bundle: Bundle) -> bool:
    return (bundle.path / bundles.EVIDENCE).exists()


def _bare(path: Path) -> Model:
    """A model that was not converted: as it is, and in 8 bits, as `edge convert` would make it."""
    found, peak, size = graph.read(path), arena.peak_bytes(path), path.stat().st_size
    given = _variant(path, "as-given", found, found.precision, size)
    if found.precision is not Precision.FP32:
        return Model(variants=(given,), graphs={given.id: found}, peak_bytes={given.id: peak}, judged=False)
    # A byte a weight where there were four, and likewise between the layers.
    int8 = _variant(path, "int8", found, Precision.INT8, max(1, size - 3 * found.parameters))
    return Model(
        variants=(given, int8),
        graphs={given.id: found, int8.id: replace(found)},
        peak_bytes={given.id: peak, int8.id: peak // 4},
        judged=False,
    )


def _variant(path: Path, id_: str, found: Graph, precision: Precision, size_bytes: int) -> Variant:
    return Variant(
        id=id_,
        source="model",
        blob=hashlib.sha256(f"{path.name} {id_}".encode()).hexdigest(),
        size_bytes=size_bytes,
        transfer_bytes=size_bytes,
        precision=precision,
        target=Target(),
        quality=_NOT_JUDGED,
        cost=found.cost,
    )


def _notes(model: Model, boards: Sequence[Board]) -> tuple[str, ...]:
    notes = [
        "Predicted latencies come with the span in which the truth is expected; 'edge bench' on a board replaces them.",
        f"{_ESTIMATED} marks what is estimated: recalled, or derived from another board. Prices move: look them up.",
    ]
    if not model.judged:
        notes.insert(
            0,
            "The model was not converted: int8 is what 'edge convert' would make of it, its accuracy is not known, "
            "and sizes are estimates.",
        )
    notes.append(
        "Sustained is what keeps the settled board below its temperature limit, a day the whole board's energy at that "
        "rate or at --rate; both follow from the profile's [board], and a board whose heat nobody knows has neither."
    )
    if any(option.if_mapped for board in boards for option in board.options):
        notes.append("An accelerator's latency holds only if the vendor's compiler maps the whole network.")
    return tuple(notes)


def _text(chosen: Chosen) -> str:
    header = (
        "", "board", "variant", "runs on", "latency, ms", "memory", "ship", "power", "price", "energy", "sustained",
        "a day",
    )  # fmt: skip
    rows = [_row(number, board) for number, board in enumerate(chosen.boards, start=1)]
    parts = [f"{chosen.model}, {_asked(chosen.wanted)}; the least {chosen.by.value} first"]
    parts.append(table(header, rows, right=frozenset({0, *range(4, 12)})))
    for verdict in (Verdict.BROKEN, Verdict.UNSURE):
        lines = [
            (board.profile, check.limit, check.text)
            for board in chosen.boards
            if board.verdict is verdict or verdict is Verdict.UNSURE
            for check in board.checks
            if check.verdict is verdict
        ]
        if lines:
            title = "Ruled out by:" if verdict is Verdict.BROKEN else "Cannot be told:"
            parts.append(f"{title}\n{table(('board', 'limit', 'what is known'), lines)}")
    reached = [(board.profile, *_reach(board)) for board in chosen.boards if board.verdict is not Verdict.BROKEN]
    if reached:
        parts.append(table(("board", "communication", "storage"), reached))
    else:
        parts.append("No board meets these limits.")
    parts.append("\n".join(chosen.notes))
    return "\n\n".join(parts)


def _row(number: int, board: Board) -> tuple[str, ...]:
    best = board.best
    latency = "?"
    if best is not None:
        latency = f"{best.ms:.3g}"
        if best.high_ms > best.low_ms:
            latency += f" ({best.low_ms:.3g} to {best.high_ms:.3g})"
    ship = f"{board.transfer_bytes / 1e6:.3g} MB"
    if board.transfer_s is not None:
        ship += f" in {board.transfer_s:.3g} s"
    return (
        str(number) if board.verdict is not Verdict.BROKEN else "-",
        f"{board.profile} ({_WORDS[board.verdict]})",
        best.variant if best else "?",
        (best.runs_on + (" if mapped" if best.if_mapped else "")) if best else "?",
        latency,
        f"{board.memory_bytes / 1e6:,.0f} MB",
        ship,
        _fact(board.power_w, "W"),
        _fact(board.price_usd, "USD"),
        f"{board.energy_mj:.3g} mJ" if board.energy_mj is not None else "?",
        *_lasting(board),
    )


def _lasting(board: Board) -> tuple[str, str]:
    lasting = board.endurance
    if lasting is None:
        return "?", "?"
    mark = _ESTIMATED if lasting.estimated else ""
    return f"{mark}{lasting.frames_per_s:.3g}/s", f"{mark}{lasting.wh_per_day:.3g} Wh"


def _reach(board: Board) -> tuple[str, str]:
    def of(fact: Fact[tuple[str, ...]] | None) -> str:
        return ("" if fact is None or fact.basis is not Basis.ESTIMATED else _ESTIMATED) + (
            ", ".join(fact.value) if fact else "?"
        )

    return of(board.communication), of(board.storage)


def _fact(fact: Fact[float] | None, unit: str) -> str:
    if fact is None:
        return "?"
    return f"{_ESTIMATED if fact.basis is Basis.ESTIMATED else ''}{fact.value:g} {unit}"


def _asked(wanted: Wanted) -> str:
    limits = [
        f"at most {wanted.max_latency_ms:g} ms" if wanted.max_latency_ms is not None else "",
        f"at most {wanted.max_power_w:g} W" if wanted.max_power_w is not None else "",
        f"at most {wanted.budget_usd:g} USD" if wanted.budget_usd is not None else "",
        f"over {wanted.link_mbps:g} Mbit/s" if wanted.link_mbps is not None else "",
        f"within {wanted.max_transfer_s:g} s" if wanted.max_transfer_s is not None else "",
        f"{wanted.rate:g} a second" if wanted.rate is not None else "",
        f"in air of {wanted.ambient_c:g} C",
        f"{wanted.min_memory_mb:,} MB left for others" if wanted.min_memory_mb else "",
        "off the net" if wanted.offline else "",
    ]
    return ", ".join(limit for limit in limits if limit)
