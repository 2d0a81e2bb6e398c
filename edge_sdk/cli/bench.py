"""`edge bench`: how fast the variants of a bundle are on this machine, and what they take of its memory and energy."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge_sdk import bundle as bundles
from edge_sdk import profile, threads
from edge_sdk.bench import Benched, bench
from edge_sdk.bench.cases import Wanted
from edge_sdk.bench.result import Raw
from edge_sdk.cli import asked
from edge_sdk.cli.output import emit, say, table
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Latency

_BUSY = 0.5  # of the processors: above, somebody else's work shows in the latencies
_CPU = "cpu"
_MOST_NAMED = 3  # of variants that were not timed for one reason
_PLAIN_FROM_MS = 100  # from here on three digits would be 2.3e+03


def run(args: argparse.Namespace) -> int:
    """Time the variants, print what came of it, and write it down if asked to."""
    if args.write and Path(args.bundle).is_file():
        raise UsageError(
            "a packed bundle cannot be written to", where=str(args.bundle), hint="unpack it (tar -xf), or drop --write"
        )
    board = profile.load(args.profile) if args.profile else profile.match()
    wanted = Wanted(
        requests=asked.delegates(args.delegates),
        counts=args.threads or threads.sweep(threads.cores()),
        raw=not args.no_raw,
    )
    with bundles.opened(args.bundle) as bundle:
        result = bench(
            bundle,
            args.variants or [variant.id for variant in bundle.manifest.variants],
            wanted,
            seconds=args.seconds,
            profile=board.id if board else None,
            shown=str(args.bundle),
            write=args.write,
            told=_progress(),
        )
        reference = bundle.manifest.reference
    emit(args, result, lambda: _text(result, reference))
    return 0


def _few(ids: Sequence[str]) -> str:
    """Names, or how many more there are: a bundle of twelve variants fills no line with them."""
    return (
        ", ".join(ids)
        if len(ids) <= _MOST_NAMED
        else f"{', '.join(ids[:_MOST_NAMED])} and {len(ids) - _MOST_NAMED} more"
    )


def _progress() -> Callable[[str], None]:
    """Tells what is done now; before the first, once it is known that there is something to do, how busy it is here."""
    is_first = True

    def told(text: str) -> None:
        nonlocal is_first
        if is_first:
            _tell_if_busy()
            is_first = False
        say(f"edge: {text}")

    return told


def _tell_if_busy() -> None:
    try:
        load = os.getloadavg()[0]
    except OSError:
        return
    processors = os.cpu_count() or 1
    if load > _BUSY * processors:
        say(f"edge: this machine is busy (load {load:.1f} on {processors} processors): latencies will be too long")


def _text(result: Benched, reference: str) -> str:
    return "\n\n".join(["\n".join(_table(result, reference)), *_notes(result)])


def _table(result: Benched, reference: str) -> Iterator[str]:
    """A variant's rows stand together, the fastest variant first; a column that says nothing is left out."""
    place = reference, _CPU, result.threads[0]
    base = next((x.median_ms for x in result.latency if (x.variant, x.delegate, x.threads) == place), None)
    columns = {
        "variant": True,
        "on": any(entry.delegate != _CPU for entry in result.latency),
        "threads": len(result.threads) > 1,
        "median": True, "p95": True, "p99": True, "samples": True,
        "speed": base is not None,
        "over raw": bool(result.raw),
        "load": True, "first": True, "memory": True,
        "energy": result.energy.sensor is not None,
    }  # fmt: skip
    rows = []
    order = {id_: place for place, id_ in enumerate(dict.fromkeys(entry.variant for entry in result.latency))}
    for entry in sorted(result.latency, key=lambda x: (order[x.variant], x.delegate != _CPU, x.delegate, x.threads)):
        raw = next((x for x in result.raw if _is_beside(x, entry)), None)
        rows.append(_row(entry, raw, base, reference))
        if raw is not None:
            rows.append(_raw_row(raw))
    kept = [index for index, shown in enumerate(columns.values()) if shown]
    names = tuple(columns)
    left = {"variant", "on"}
    yield table(
        tuple(names[i] for i in kept),
        [tuple(row[i] for i in kept) for row in rows],
        right=frozenset(at for at, i in enumerate(kept) if names[i] not in left),
    )


def _is_beside(raw: Raw, entry: Latency) -> bool:
    return (raw.variant, raw.threads, _CPU) == (entry.variant, entry.threads, entry.delegate)


def _row(entry: Latency, raw: Raw | None, base: float | None, reference: str) -> tuple[str, ...]:
    return (
        entry.variant + (" (reference)" if entry.variant == reference else ""),
        entry.delegate or _CPU,
        str(entry.threads),
        _ms(entry.median_ms),
        _ms(entry.p95_ms),
        _ms(entry.p99_ms),
        str(entry.samples),
        f"{base / entry.median_ms:.2f} x" if base and entry.median_ms else "-",
        f"{raw.ratio:.2f} x" if raw else "-",
        _ms(entry.load_ms),
        _ms(entry.first_ms),
        "-" if entry.memory_bytes is None else f"{entry.memory_bytes / 1e6:.1f} MB",
        "-" if entry.energy_mj is None else f"{entry.energy_mj:.3g} mJ",
    )


def _raw_row(raw: Raw) -> tuple[str, ...]:
    times = _ms(raw.median_ms), _ms(raw.p95_ms), _ms(raw.p99_ms)
    return ("  raw", _CPU, str(raw.threads), *times, str(raw.samples), "", "", "", "", "", "")


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} ms" if value < _PLAIN_FROM_MS else f"{value:.0f} ms"


def _notes(result: Benched) -> Iterator[str]:
    count = result.threads[0]
    threads = f", {count} thread{'' if count == 1 else 's'}" if len(result.threads) == 1 else ""
    board = f", profile {result.profile}" if result.profile else ", which no profile knows"
    yield f"on {result.machine}{board}; {result.latency[0].runtime}{threads}"
    if result.best_threads:
        told = [f"{x.variant} {x.threads} ({x.gain:.2f} x of {count})" for x in result.best_threads]
        yield f"Best number of threads, the fewest within 5 % of the fastest: {', '.join(told)}."
    if result.isolation:
        told = [f"{x.variant} {x.cost_ms:.3g} ms" for x in result.isolation]
        yield (
            "Delegates compute in a process of their own, whose crash ends no app. The way there and back, which is in "
            f"their times, was measured on the CPU: {', '.join(told)}."
        )
    if result.energy.sensor:
        yield f"Energy by {result.energy.sensor}, the {result.energy.idle_w or 0:.3g} W of the idle machine subtracted."
    else:
        yield f"Energy is not measured: {result.energy.reason}."
    if len(result.groups) > 1:
        yield f"Timed in {len(result.groups)} groups, because memory does not hold all at once."
    if result.left:
        alike: dict[tuple[str, str], list[str]] = {}
        for x in result.left:
            alike.setdefault((x.delegate, f"{x.reason}; {x.hint}" if x.hint else x.reason), []).append(x.id)
        yield "Not timed:\n" + "\n".join(f"on {delegate}: {_few(ids)}: {why}" for (delegate, why), ids in alike.items())
    if result.written:
        yield f"written to {result.written}"
