"""`edge split`: from the command line to segments, and what came of it in a table or as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_converter import progress
from edge_converter.signals import ended_in_order
from edge_converter.splitting import cut_search
from edge_converter.splitting.cutting import CutPoint
from edge_converter.splitting.split import SplitRequest, Survey, split, survey
from edge_sdk.cli.output import emit, table
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Origin
from edge_sdk.segments import PLAN, Segment, SplitPlan, Timing, WholeModel

_MAX_NAME_CHARS = 32
_MOST_TAKEN = 2  # tensors that are named; split.json has all
_KB, _MB = 1_000, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of `edge split --json`: where it lies, and what `split.json` says."""

    directory: str
    split: SplitPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place to cut, as `--list --json` tells it.

    Attributes:
        at: The operator that the later segment begins with.
        before: What that operator is.
        chosen: It is one of the cuts asked for.
        tensors: What crosses.
        size_bytes: Of these.
        send_ms: How long that takes on the link; 0 where none was stated.
        before_ms: What all operators before it take.
        after_ms: What it and all after it take.
    """

    at: int
    before: str
    chosen: bool
    tensors: tuple[str, ...]
    size_bytes: int
    send_ms: float
    before_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The result of `edge split --list --json`."""

    whole: WholeModel
    places: tuple[Place, ...]
    link_mb_s: float | None
    timing: Timing


def run(args: argparse.Namespace) -> int:
    """Split, or list where one could, and print what came of it."""
    request = SplitRequest(
        model=Path(args.model),
        variant=args.variant,
        parts=args.parts,
        at=args.at,
        link_mb_s=args.link,
        profile=args.profile,
        data=Path(args.data) if args.data else None,
        threads=args.threads,
        seed=args.seed,
    )
    if args.dry_run:
        with ended_in_order(), progress.chosen() as watch:
            found = survey(request, watch)
        listed = _listed(found, args.link)
        emit(args, listed, lambda: _list_text(listed))
        return 0
    if not args.output:
        raise UsageError("-o is not given", hint="name a directory for the segments, or --list the places to cut")
    with ended_in_order(), progress.chosen() as watch:
        plan = split(request, Path(args.output), watch)
    emit(args, Written(directory=str(args.output), split=plan), lambda: _split_text(plan, args.output))
    return 0


def _listed(found: Survey, link_mb_s: float | None) -> Listed:
    total, before = sum(found.atoms_ms), 0.0
    begins = {start for start, _ in found.chosen}
    places = []
    for point, atom_ms in zip(found.points, found.atoms_ms, strict=False):
        before += atom_ms
        places.append(_place(point, before, total, link_mb_s, begins))
    return Listed(whole=found.whole, places=tuple(places), link_mb_s=link_mb_s, timing=found.timing)


def _place(point: CutPoint, before_ms: float, total_ms: float, link_mb_s: float | None, begins: set[int]) -> Place:
    return Place(
        at=point.at,
        before=point.before,
        chosen=point.at in begins,
        tensors=point.tensors,
        size_bytes=point.size_bytes,
        send_ms=round(cut_search.send_ms(point.size_bytes, link_mb_s), 4),
        before_ms=round(before_ms, 4),
        after_ms=round(max(0.0, total_ms - before_ms), 4),
    )


def _list_text(listed: Listed) -> str:
    header = ["cut", "at", "operator", "before", "after", "handed on", "tensors", "of them"]
    rows = []
    for place in listed.places:
        rows.append(
            [
                "*" if place.chosen else "",
                str(place.at),
                place.before,
                _ms(place.before_ms),
                _ms(place.after_ms),
                _bytes(place.size_bytes),
                str(len(place.tensors)),
                _names(place.tensors),
            ]
        )
        if listed.link_mb_s is not None:
            rows[-1].insert(6, _ms(place.send_ms))
    if listed.link_mb_s is not None:
        header.insert(6, f"at {listed.link_mb_s:g} MB/s")
    numbers = frozenset({1, *range(3, len(header) - 1)})
    if not rows:
        return "No place to cut: leave it whole"
    told = table(tuple(header), [tuple(row) for row in rows], right=numbers)
    places = f"{len(rows)} place{'' if len(rows) == 1 else 's'}"
    return f"{told}\n\n{places} to cut; each operator alone, {_origin(listed.timing)}"


def _split_text(plan: SplitPlan, directory: str) -> str:
    header = ("segment", "operators", "size", "MACs", "computes", "hands on", "takes")
    rows = [
        (
            segment.file,
            f"{segment.first} to {segment.end - 1}",
            _bytes(segment.size_bytes),
            f"{segment.macs / 1e6:,.1f} M",
            _ms(segment.compute_ms),
            _sent(segment, plan),
            _takes(segment),
        )
        for segment in plan.segments
    ]
    slowest = max(segment.compute_ms + segment.send_ms for segment in plan.segments)
    faster = f", {plan.timing.whole_ms / slowest:.3g} times its throughput" if slowest > 0 else ""
    notes = "".join(f"Note: {note}\n" for note in plan.notes)
    return (
        f"{table(header, rows, right=frozenset(range(1, 6)))}\n\n{notes}"
        f"The slowest stage takes {_ms(slowest)}, the whole {_ms(plan.timing.whole_ms)}{faster}; "
        f"{_origin(plan.timing)}\n"
        f"Bit-identical to the whole on {plan.verified} samples with {plan.verified_with}\n"
        f"{Path(directory) / PLAN}"
    )


def _sent(segment: Segment, plan: SplitPlan) -> str:
    if segment.number == len(plan.segments):
        return "-"
    return _bytes(segment.send_bytes) + (f" in {_ms(segment.send_ms)}" if plan.link_mb_s is not None else "")


def _takes(segment: Segment) -> str:
    """Each tensor and who gives it, where that is not the segment just before."""
    told = []
    for tensor in segment.inputs[:_MOST_TAKEN]:
        by = "" if tensor.source == segment.number - 1 else f" of {tensor.source or 'the app'}"
        told.append(f"{_short(tensor.name)} {list(tensor.shape)} {tensor.dtype}{by}")
    more = len(segment.inputs) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _origin(timing: Timing) -> str:
    threads = f"{timing.threads} thread{'' if timing.threads == 1 else 's'}"
    if timing.origin is Origin.MEASURED:
        return f"measured on {timing.machine}, {threads}, {timing.samples} rounds"
    return f"predicted for {timing.machine}, {threads}, within x/÷{timing.band:g}"


def _names(tensors: Iterable[str]) -> str:
    return ", ".join(map(_short, tensors))


def _short(name: str) -> str:
    """The end of the name of the first of what was fused, which is where names differ."""
    first = name.split(";", maxsplit=1)[0] or name
    return first if len(first) <= _MAX_NAME_CHARS else f"...{first[-_MAX_NAME_CHARS:]}"


def _ms(ms: float) -> str:
    return f"{ms:.2f} ms" if ms >= 1 else f"{ms:.3f} ms"


def _bytes(size_bytes: int) -> str:
    if size_bytes < _KB:
        return f"{size_bytes} B"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= _MB else f"{size_bytes / 1e3:.1f} kB"
