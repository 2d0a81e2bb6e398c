"""`edge simulate`: the daemon's policy, and others beside it, on a simulated board."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_daemon.policies import registry
from edge_lab.errors import ScenarioError
from edge_lab.simulate import crew, logs, overrides, plot, profiled, scenario, score, table, trace
from edge_lab.simulate.trial import Job, Played
from edge_sdk import atomic
from edge_sdk.cli.output import emit, say
from edge_sdk.errors import UsageError

_MANY_GAPS: Final = 0.05  # of the time: then it is worth a note
_INSTEAD: Final = {
    "rtt_ms": "nothing goes through",
    "up_mbps": "nothing goes through",
    "battery_w": "nothing flows besides",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """One scenario, ready to be played.

    Attributes:
        jobs: One for each seed.
        notes: What is to be said beside its figures.
    """

    scenario: scenario.Scenario
    jobs: tuple[Job, ...]
    notes: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Play, and print what came of it."""
    policies = tuple(dict.fromkeys(args.policies or [registry.DEFAULT]))
    for name in policies:
        registry.find(name)  # what is unknown or broken is told before anything is played
    staged = [_staged(Path(path), args, policies) for path in args.scenarios]
    _refuse_same_names(staged)
    if args.log is not None:
        with atomic.storage_errors(args.log):
            args.log.mkdir(parents=True, exist_ok=True)
    jobs = [job for one in staged for job in one.jobs]
    if args.plot is not None:
        _check_plot(args.plot, [*args.scenarios, *(job.trace for job in jobs if job.trace is not None)])
    tried: dict[tuple[str, int], score.Tried] = {}
    drawn: dict[str, tuple[int, Played]] = {}
    for number, played in crew.play_all(jobs, args.jobs or _cores()):
        job = jobs[number]
        name = job.scenario.name
        tried[name, job.seed] = score.tried(job.scenario, played)
        if args.log is not None:
            logs.write(args.log, job, played)
        if args.plot is not None and (name not in drawn or _is_drawn_before((number, played), drawn[name])):
            drawn[name] = number, played
        if len(jobs) > 1:
            say(f"edge: {name}, seed {played.seed} is played ({len(tried)} of {len(jobs)})")
    results = [
        score.result(one.scenario, [tried[one.scenario.name, job.seed] for job in one.jobs], one.notes)
        for one in staged
    ]
    if args.plot is not None:
        pairs = [(result, *drawn[result.scenario]) for result in results]
        page = plot.page([plot.Shown(result=result, job=jobs[at], played=played) for result, at, played in pairs])
        atomic.write_bytes(args.plot, page.encode())
    emit(args, results[0] if len(results) == 1 else results, lambda: table.shown(results))
    return 0


def _is_drawn_before(one: tuple[int, Played], other: tuple[int, Played]) -> bool:
    """Of a scenario's seeds the first is drawn that can be held, else the first."""
    return (bool(one[1].broken), one[0]) < (bool(other[1].broken), other[0])


def _staged(path: Path, args: argparse.Namespace, policies: tuple[str, ...]) -> Staged:
    read = overrides.overridden(scenario.read(path, trace=args.trace), args.settings or ())
    played, notes = None, []
    if read.trace is not None:
        played = str((path.parent / read.trace.file).absolute())
        notes = _check_trace(read, read.trace, Path(played))  # what is wrong is told before anything is played
    made = profiled.whole(read, path.parent)
    first = read.seed if args.seed is None else args.seed
    jobs = tuple(
        Job(
            scenario=made.scenario,
            board=made.board,
            trace=played,
            seed=seed,
            policies=policies,
            oracle=args.oracle or args.floor,
            floor=args.floor,
        )
        for seed in range(first, first + args.seeds)
    )
    return Staged(scenario=made.scenario, jobs=jobs, notes=(*made.notes, *notes))


def _check_trace(read: scenario.Scenario, given: scenario.Trace, path: Path) -> list[str]:
    """What is to be said of its gaps."""
    recorded = trace.read(path)
    asks = any(variant.remote for variant in read.variant)
    if asks and read.network is None and not {"rtt_ms", "up_mbps"} & recorded.columns.keys():
        raise ScenarioError(
            "a remote variant needs a network, and the trace has neither rtt_ms nor up_mbps",
            where=str(path),
            hint="give the scenario a network = { }, or drop the remote variant",
        )
    notes = []
    for name in recorded.columns:
        values = recorded.sampled(name, read.duration_s, given.start_s)
        gaps = 0.0 if values is None else float(np.isnan(values).mean())
        if gaps >= _MANY_GAPS:
            instead = _INSTEAD.get(name, "the scenario's own counts")
            notes.append(
                f"the trace says no {name} for {100 * gaps:.0f} % of the time (a value holds {trace.HOLD_S:g} s): "
                f"{instead}"
            )
    return notes


def _check_plot(page: Path, read: Sequence[str | Path]) -> None:
    """Refuse a page that could not be written, or in place of what is played, before anything is."""
    if not page.parent.is_dir():
        raise UsageError("no such folder", where=str(page.parent), hint="make it, or name another with --plot")
    if page.is_dir():
        raise UsageError("is a folder", where=str(page), hint="name a file in it with --plot")
    if os.path.realpath(page) in {os.path.realpath(each) for each in read}:
        raise UsageError("--plot would replace what is played", where=str(page), hint="name another file")


def _refuse_same_names(staged: Sequence[Staged]) -> None:
    names = [one.scenario.name for one in staged]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UsageError(f"two scenarios are called {doubled!r}", hint="each needs a name of its own")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
