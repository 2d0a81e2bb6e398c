"""`edge bench`: how fast the variants of a bundle are on this machine, and what they take of its memory.

Every variant is loaded once in a child process, which tells its load time and memory and is all that ends if it
crashes the runtime. Those that ran are then timed in turns, in this process, together where memory holds them all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_sdk import bundle as bundles
from edge_sdk import footprint, profile, rounds
from edge_sdk.bundle import EVIDENCE, Bundle
from edge_sdk.cli.output import emit, say, table
from edge_sdk.engine import Engine
from edge_sdk.errors import DelegateError, StorageError, UsageError
from edge_sdk.footprint import Footprint
from edge_sdk.machine import cpu_features, machine_name
from edge_sdk.manifest import Delegate, Latency, Origin, Variant
from edge_sdk.room import free_bytes
from edge_sdk.rounds import Plan

_LOAD_DEADLINE_S = 120.0
_MOST_ROUNDS = 200
_SLOWEST = 8  # times --seconds: where a model that takes seconds an inference stops
# Of what the system calls available; the rest is for what else the device does.
_MEMORY_SHARE = 0.6
_BUSY = 0.5  # of the processors: above, somebody else's work shows in the latencies
_PERCENTILE = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A variant that was not timed."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benched:
    """The result of `edge bench --json`.

    Attributes:
        profile: The class of boards this machine belongs to, where that is known.
        latency: One a variant, in the words of `evidence.json`, the fastest first.
        left: What was not timed, with the reason.
        groups: The variants that took turns with each other; one group where memory holds them all.
        written: Where the latencies were written to; None without `--write`.
    """

    bundle: str
    machine: str
    profile: str | None
    threads: int
    latency: tuple[Latency, ...]
    left: tuple[Left, ...]
    groups: tuple[tuple[str, ...], ...]
    written: str | None


def run(args: argparse.Namespace) -> int:
    """Time the variants, print what came of it, and write it down if asked to."""
    if args.write and Path(args.bundle).is_file():
        raise UsageError(
            "a packed bundle cannot be written to", where=str(args.bundle), hint="unpack it (tar -xf), or drop --write"
        )
    board = profile.load(args.profile) if args.profile else profile.match()
    _tell_if_busy()
    with bundles.opened(args.bundle) as bundle:
        result, reference = bench(
            bundle,
            args.variants or [variant.id for variant in bundle.manifest.variants],
            threads=args.threads,
            seconds=args.seconds,
            profile=board.id if board else None,
            shown=str(args.bundle),
            write=args.write,
        )
    emit(args, result, lambda: _text(result, reference))
    return 0


def bench(
    bundle: Bundle,
    ids: Sequence[str],
    *,
    threads: int,
    seconds: float,
    profile: str | None,
    shown: str,
    write: bool,
) -> tuple[Benched, str]:
    """Time variants of a bundle.

    Args:
        bundle: Where they are.
        ids: Which.
        threads: Of the interpreters.
        seconds: For each variant.
        profile: The class of boards this machine belongs to, where that is known.
        shown: The bundle as the user called it.
        write: Into the bundle's `evidence.json`.

    Returns:
        What was found, and the id of the bundle's reference.

    Raises:
        UnknownVariantError: The bundle has no such variant.
        DelegateError: None of them runs here.
        BundleError: There is evidence that it cannot be added to.
        StorageError: The evidence could not be written.
    """
    if write:
        # What cannot be added to is found out before minutes are spent.
        bundle.evidence()
        if not os.access(bundle.path, os.W_OK | os.X_OK):
            raise StorageError("cannot be written to", where=shown, hint="drop --write, or copy the bundle")
    variants = {id_: bundle.variant(id_) for id_ in dict.fromkeys(ids)}
    left: list[Left] = []
    loaded: dict[str, Footprint] = {}
    for id_, variant in variants.items():
        reason = _not_here(variant)
        if reason is None:
            say(f"edge: loading {id_} ({len(loaded) + len(left) + 1} of {len(variants)})")
            try:
                loaded[id_] = footprint.of(bundle.blob(variant), threads=threads, deadline_s=_LOAD_DEADLINE_S)
            except DelegateError as error:
                reason = error.what
        if reason is not None:
            left.append(Left(id=id_, reason=reason))
    if not loaded:
        raise DelegateError(
            f"none of {len(variants)} variants runs here: {left[0].id}: {left[0].reason}",
            where=shown,
            hint="convert for this board's profile",
        )
    groups = tuple(_groups(loaded, free_bytes()))
    plan = Plan(rounds=_MOST_ROUNDS, enough_s=seconds, longest_s=_SLOWEST * seconds)
    timed: dict[str, list[float]] = {}
    for group in groups:
        say(f"edge: timing {', '.join(group)}, {seconds:g} s each")
        timed |= _timed({id_: bundle.blob(variants[id_]) for id_ in group}, threads, plan)
    latency = tuple(_latency(variants[id_], times, loaded[id_], threads, profile) for id_, times in timed.items())
    if write:
        bundle.add_latencies(latency)
    result = Benched(
        bundle=shown,
        machine=machine_name(),
        profile=profile,
        threads=threads,
        latency=tuple(sorted(latency, key=lambda entry: (entry.median_ms, entry.variant))),
        left=tuple(left),
        groups=groups,
        written=str(Path(shown) / EVIDENCE) if write else None,
    )
    return result, bundle.manifest.reference


def _not_here(variant: Variant) -> str | None:
    """Why this machine cannot even try the variant."""
    if variant.target.delegate is not Delegate.CPU:
        return f"is for {variant.target.delegate.value}, and only CPU variants are timed so far"
    features = cpu_features()
    lacking = set(variant.target.isa) - features if features is not None else set()
    return f"needs {', '.join(sorted(lacking))}, which this CPU does not have" if lacking else None


def _groups(loaded: Mapping[str, Footprint], available_bytes: int | None) -> Iterator[tuple[str, ...]]:
    """As many at once as memory holds, in their order; one alone is tried however large it is."""
    group: list[str] = []
    room = None if available_bytes is None else int(available_bytes * _MEMORY_SHARE)
    taken = 0
    for id_, known in loaded.items():
        needs = known.memory_bytes or 0
        if group and room is not None and taken + needs > room:
            yield tuple(group)
            group, taken = [], 0
        group.append(id_)
        taken += needs
    yield tuple(group)


def _timed(paths: Mapping[str, Path], threads: int, plan: Plan) -> dict[str, list[float]]:
    with contextlib.ExitStack() as stack:
        engines = {id_: stack.enter_context(Engine(path, threads=threads)) for id_, path in paths.items()}
        samples = {id_: rounds.noise(engine.inputs) for id_, engine in engines.items()}
        return rounds.timed_ms(engines, samples, plan)


def _latency(variant: Variant, times: Sequence[float], known: Footprint, threads: int, profile: str | None) -> Latency:
    return Latency(
        variant=variant.id,
        blob=variant.blob,
        precision=variant.precision,
        macs=variant.cost.macs,
        origin=Origin.MEASURED,
        machine=machine_name(),
        profile=profile,
        runtime=known.runtime,
        threads=threads,
        samples=len(times),
        median_ms=round(float(np.median(times)), 4),
        p95_ms=round(float(np.percentile(times, _PERCENTILE)), 4),
        load_ms=known.load_ms,
        memory_bytes=known.memory_bytes,
        at=max(0.0, round(time.time(), 3)),
    )


def _tell_if_busy() -> None:
    try:
        load = os.getloadavg()[0]
    except OSError:
        return
    processors = os.cpu_count() or 1
    if load > _BUSY * processors:
        say(f"edge: this machine is busy (load {load:.1f} on {processors} processors): latencies will be too long")


def _text(result: Benched, reference: str) -> str:
    base = next((entry.median_ms for entry in result.latency if entry.variant == reference), None)
    header = ("variant", "median", "p95", "samples", "speed", "load", "memory")
    rows = [
        (
            entry.variant + (" (reference)" if entry.variant == reference else ""),
            f"{entry.median_ms:.3g} ms",
            f"{entry.p95_ms or 0:.3g} ms",
            str(entry.samples),
            f"{base / entry.median_ms:.2f} x" if base and entry.median_ms else "-",
            f"{entry.load_ms or 0:.3g} ms",
            "-" if entry.memory_bytes is None else f"{entry.memory_bytes / 1e6:.1f} MB",
        )
        for entry in result.latency
    ]
    threads = f"{result.threads} thread{'' if result.threads == 1 else 's'}"
    board = f", profile {result.profile}" if result.profile else ", which no profile knows"
    parts = [
        table(header, rows, right=frozenset(range(1, len(header)))),
        f"on {result.machine}{board}; {result.latency[0].runtime}, {threads}",
    ]
    if len(result.groups) > 1:
        parts.append(f"Timed in {len(result.groups)} groups, because memory does not hold all at once.")
    if result.left:
        parts.append("Not timed:\n" + table(("variant", "why"), [(one.id, one.reason) for one in result.left]))
    if result.written:
        parts.append(f"written to {result.written}")
    return "\n\n".join(parts)
