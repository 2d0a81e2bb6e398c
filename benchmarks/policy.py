"""How good the policy is: ten scenarios, seeds it was not tuned on, the clairvoyant, the causal floor, the baselines.

    python benchmarks/policy.py [--json] [--seeds 10] [--seeds-from 1001] [--out FILE] [--jobs N] [--traces]
        [--daemon BUNDLE]

Every run is kept in the file named by `--out` as soon as it is done, with what its code was: an interrupted benchmark
goes on where it stopped, and after a change to one policy only that policy is played anew. Regret is what is missing to
the clairvoyant of the same seed, of the clairvoyant's; seeds in which even the smallest variant breaks a limit are left
out and counted. Decision times are taken apart, in one process that plays all policies in turn. `--traces` plays the
real bandwidths below `traces/` of EDGE_REFERENCE_DATA into net-drive as further scenarios, reported apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from figures import Figure, shown
from quiet import Others, undisturbed

import edge_daemon.policies
import edge_lab.simulate
from edge_daemon.policies import registry
from edge_lab.simulate import crew, profiled, scenario
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.score import quantile, until_s
from edge_lab.simulate.trial import Bound, Job, Played, world_of

HERE = Path(__file__).resolve().parent
POLICIES = ("optimal", "alert", "rules", "static-fast", "static")
ORACLE, FLOOR = "(oracle)", "(floor)"
TIMED = "all"  # the scenario whose decisions are timed: the most actions, everything moves
ROUNDS = 5
TIMED_S = 1200
REFERENCE = "EDGE_REFERENCE_DATA"
PLAYED_BY = ("scenario", "trace", "world", "board", "play", "profiled")

Row = dict[str, Any]
Place = tuple[str, int, str]  # scenario, seed, who


def main() -> int:
    """Print the figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        sets = {"scenarios": _scenarios(options)}
        if options.traces:
            sets["traces"] = _traces(options, Path(folder))
        jobs = [job for each in sets.values() for job in each]
        rows = _kept(options.out, jobs, options.policies)
        _play_missing(jobs, rows, options)
    names = tuple(options.policies)
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "seeds": list(_seeds(options)),
        "scenarios": _by_scenario(sets["scenarios"], rows, names),
    }
    figures = _figures(found["scenarios"])
    if options.traces:
        found["traces"] = _by_scenario(sets["traces"], rows, names)
    if not options.no_timing:
        figures += _decisions(next((j for j in sets["scenarios"] if j.scenario.name == TIMED), jobs[0]), names)
    if options.daemon:
        figures += _daemon(options.daemon)
    found["figures"] = [each.as_json() for each in figures]
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for name in ("scenarios", "traces"):
        if name in found:
            print(f"{_table(found[name], names)}\n")
    print(f"{shown(figures)}\n\n{found['machine']}; seeds {found['seeds'][0]} to {found['seeds'][-1]}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--seeds", type=int, default=10, help="of each scenario (default 10)")
    parser.add_argument(
        "--seeds-from", type=int, default=1001, help="the first seed (default 1001; 1 to 8 were tuned on)"
    )
    parser.add_argument("--policies", type=lambda text: text.split(","), default=list(POLICIES), help="comma-separated")
    parser.add_argument("--scenarios", type=Path, default=HERE / "scenarios", help="a folder of them")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of scenarios, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("policy-runs.jsonl"), help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument("--no-floor", action="store_true", help="without the causal floor")
    parser.add_argument("--no-timing", action="store_true", help="without decision times")
    parser.add_argument("--traces", action="store_true", help=f"real bandwidths, too; from {REFERENCE}")
    parser.add_argument(
        "--daemon", metavar="BUNDLE", help="memory and processor time of a daemon that serves it to a busy app, too"
    )
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------------- what is played


def _scenarios(options: argparse.Namespace) -> list[Job]:
    found = []
    for path in sorted(options.scenarios.glob("*.toml")):
        read = scenario.read(path)
        if not options.only or read.name in options.only:
            found += [_job(read, path.parent, options, seed) for seed in _seeds(options)]
    return found


def _seeds(options: argparse.Namespace) -> range:
    return range(options.seeds_from, options.seeds_from + options.seeds)


def _job(
    read: scenario.Scenario, folder: Path, options: argparse.Namespace, seed: int, trace: Path | None = None
) -> Job:
    made = profiled.whole(read, folder)
    return Job(
        scenario=made.scenario,
        board=made.board,
        trace=None if trace is None else str(trace),
        seed=seed,
        policies=tuple(options.policies),
        oracle=True,
        floor=not options.no_floor,
    )


def _traces(options: argparse.Namespace, folder: Path) -> list[Job]:
    """Each family of recordings is a scenario, each file a seed of it; what was received stands for what is sent."""
    data = Path(os.environ.get(REFERENCE, "")) / "traces"
    if not data.is_dir():
        raise SystemExit(f"--traces needs {REFERENCE}, a folder with traces/")
    base = scenario.read(options.scenarios / "net-drive.toml")
    found = []
    for family in sorted(path for path in data.iterdir() if path.is_dir()):
        files = sorted(family.glob("*.txt"))[: options.seeds]
        for seed, file in zip(_seeds(options), files, strict=False):
            made = folder / f"{family.name}-{seed}.csv"
            made.write_text(_csv(file.read_text("utf-8")), "utf-8")
            named = msgspec.structs.replace(base, name=family.name, trace=scenario.Trace(file=made.name))
            found.append(_job(named, folder, options, seed, made))
    return found


def _csv(text: str) -> str:
    """Lines of seconds, a tab and Mbit/s, as the simulator takes them."""
    rows, last = ["time_s,up_mbps"], -1.0
    for line in text.splitlines():
        second, _, mbps = line.partition("\t")
        if mbps and float(second) > last:
            last = float(second)
            rows.append(f"{last:.3f},{max(float(mbps), 0.0):.4f}")
    return "\n".join(rows) + "\n"


# ----------------------------------------------------------------------------------------------------- what was kept


def _kept(out: Path, jobs: Sequence[Job], policies: Sequence[str]) -> dict[Place, Row]:
    """The runs of this very code; a line that was cut is none."""
    known: dict[str, Row] = {}
    if out.exists():
        for line in out.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            known[row["key"]] = row
    prints = {who: _print_of(who) for who in (*policies, ORACLE, FLOOR)}
    found = {}
    for job in jobs:
        for who in (*policies, ORACLE, FLOOR):
            row = known.get(_key(job, who, prints[who]))
            if row is not None:
                found[job.scenario.name, job.seed, who] = row
    return found


def _key(job: Job, who: str, code: str) -> str:
    trace = b"" if job.trace is None else Path(job.trace).read_bytes()
    parts = [msgspec.json.encode(job.scenario), msgspec.json.encode(job.board), trace, str(job.seed).encode()]
    return hashlib.sha256(b"\0".join([*parts, who.encode(), code.encode()])).hexdigest()[:24]


def _print_of(who: str) -> str:
    """Of the code that such a run depends on."""
    simulate = Path(edge_lab.simulate.__file__).parent
    policies = Path(edge_daemon.policies.__file__).parent
    files = [simulate / f"{name}.py" for name in PLAYED_BY] + [policies / "contract.py"]
    if who == ORACLE:
        files += sorted(simulate.glob("oracle*.py"))
    elif who == FLOOR:
        files += sorted(simulate.glob("floor*.py"))
    elif who in {"alert", "rules", "static", "static-fast"}:
        files += [policies / "ladder.py", policies / f"{who.partition('-')[0]}.py"]
    else:
        files += sorted(policies.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()


def _play_missing(jobs: Sequence[Job], rows: dict[Place, Row], options: argparse.Namespace) -> None:
    missing = []
    for job in jobs:
        place = (job.scenario.name, job.seed)
        left = msgspec.structs.replace(
            job,
            policies=tuple(name for name in job.policies if (*place, name) not in rows),
            oracle=(*place, ORACLE) not in rows,
            floor=job.floor and (*place, FLOOR) not in rows,
        )
        if left.policies or left.oracle or left.floor:
            missing.append(left)
    prints = {who: _print_of(who) for who in (*options.policies, ORACLE, FLOOR)}
    for done, (number, played) in enumerate(crew.play_all(missing, options.jobs), 1):
        job = missing[number]
        with options.out.open("a", encoding="utf-8") as file:
            for who, row in _rows(job, played):
                row["key"] = _key(job, who, prints[who])
                rows[job.scenario.name, job.seed, who] = row
                file.write(json.dumps(row) + "\n")
        print(f"{job.scenario.name}, seed {job.seed}: {done} of {len(missing)}", file=sys.stderr)


def _rows(job: Job, played: Played) -> Iterator[tuple[str, Row]]:
    for run in played.runs:
        yield run.policy, _row(job, played, run)
    for who, bound in ((ORACLE, played.oracle), (FLOOR, played.floor)):
        if bound is not None:
            yield who, _row(job, played, bound.run, bound)


def _row(job: Job, played: Played, run: Run, bound: Bound | None = None) -> Row:
    hours = job.scenario.duration_s / 3600
    return {
        "scenario": job.scenario.name,
        "seed": job.seed,
        "who": run.policy if bound is None else None,
        "broken": list(played.broken),
        "effective_accuracy": run.effective_accuracy,
        "late_pct": run.late_pct,
        "hot_pct": run.hot_pct(job.scenario.limits.temp_c),
        "alive_pct": run.alive_pct(until_s(job.scenario)),
        "energy_wh": run.energy_wh[-1],
        "switches_per_h": run.switches / hours,
        "toggles_per_h": run.toggles / hours,
        "gap_pct": None if bound is None else bound.gap_pct,
        "took_s": None if bound is None else bound.took_s,
    }


# ---------------------------------------------------------------------------------------------------- what it comes to

MEANS = ("effective_accuracy", "regret_pct", "late_pct", "hot_pct", "alive_pct", "energy_wh", "switches_per_h",
         "toggles_per_h")  # fmt: skip


def _by_scenario(jobs: Sequence[Job], rows: Mapping[Place, Row], policies: Sequence[str]) -> dict[str, Any]:
    """Means over the feasible seeds, by scenario and policy."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(job.scenario.name for job in jobs):
        seeds = [job.seed for job in jobs if job.scenario.name == name]
        feasible = [seed for seed in seeds if not rows[name, seed, ORACLE]["broken"]]
        best = {seed: rows[name, seed, ORACLE]["effective_accuracy"] for seed in feasible}
        oracles = [rows[name, seed, ORACLE] for seed in feasible]
        told: dict[str, Any] = {"seeds": seeds, "infeasible": [seed for seed in seeds if seed not in feasible]}
        if not feasible:
            found[name] = told
            continue
        told["oracle"] = {
            "effective_accuracy": statistics.fmean(best.values()),
            "gap_pct": statistics.fmean(row["gap_pct"] for row in oracles),
            "gap_pct_worst": max(row["gap_pct"] for row in oracles),
            "took_s": statistics.median(row["took_s"] for row in oracles),
        }
        for who in (*policies, FLOOR):
            each = [rows[name, seed, who] for seed in feasible if (name, seed, who) in rows]
            if len(each) < len(feasible):
                continue
            for row in each:
                row["regret_pct"] = 100 * (1 - row["effective_accuracy"] / best[row["seed"]])
            means = {key: statistics.fmean(row[key] for row in each) for key in MEANS}
            ends = {key: (min(row[key] for row in each), max(row[key] for row in each)) for key in MEANS}
            dead = [row["seed"] for row in each if row["alive_pct"] < 100]  # noqa: PLR2004 - percent
            took = [row["took_s"] for row in each if row["took_s"] is not None]
            told[who] = means | {"spread": ends, "dead": dead} | ({"took_s": statistics.median(took)} if took else {})
        found[name] = told
    return found


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    """The rows of the table of issue 5 that the simulator gives."""
    held = {name: told for name, told in found.items() if "oracle" in told}
    runs = sum(len(told["seeds"]) - len(told["infeasible"]) for told in held.values())

    def each(who: str, key: str) -> list[float]:
        return [told[who][key] for told in held.values() if who in told]

    def mean(who: str, key: str, what: str, **fields: Any) -> Figure:
        values = each(who, key)
        return Figure(
            what=what, value=statistics.fmean(values), low=min(values), high=max(values), samples=runs, **fields
        )

    def worst(who: str, key: str, what: str, **fields: Any) -> Figure:
        at = max((name for name in held if who in held[name]), key=lambda name: held[name][who][key])
        return Figure(what=what, value=held[at][who][key], samples=runs, detail=at, **fields)

    ours = "optimal"
    rows: list[Figure] = []
    if not each(ours, "regret_pct"):
        return rows
    rows += [
        mean(ours, "regret_pct", "regret, mean of scenarios", unit="%", target=1.30),
        worst(ours, "regret_pct", "regret, worst scenario", unit="%", target=2.75),
    ]
    regret = rows[0].value
    if len(each(FLOOR, "regret_pct")) == len(held):
        floor = mean(FLOOR, "regret_pct", "regret of the causal floor", unit="%")
        rows += [
            floor,
            Figure(what="excess over the floor", value=regret - floor.value, unit="%", samples=runs, target=0.10),
        ]
    for other, share in (("alert", 0.55), ("rules", 1 / 3)):
        theirs = each(other, "regret_pct")
        if theirs:
            against = statistics.fmean(theirs)
            detail = f"{other} {against:.2f} %"
            rows.append(
                Figure(
                    what=f"regret over that of {other}",
                    value=regret / against,
                    samples=runs,
                    target=share,
                    detail=detail,
                )
            )
    dead = sum(len(told[ours]["dead"]) for told in held.values())
    rows += [
        mean(ours, "late_pct", "late, mean", unit="%", target=0.75),
        worst(ours, "late_pct", "late, worst scenario", unit="%", target=2.0),
        mean(ours, "hot_pct", "seconds above the limit, mean", unit="%", target=0.1),
        worst(ours, "hot_pct", "seconds above the limit, worst scenario", unit="%", target=0.5),
        Figure(what="feasible runs whose battery ended early", value=dead, samples=runs, target=0),
        mean(ours, "switches_per_h", "switches an hour, mean", target=250),
        mean(ours, "toggles_per_h", "changes between server and board an hour, mean"),
    ]
    gaps = [told["oracle"]["gap_pct"] for told in held.values()]
    worst_gap = max(told["oracle"]["gap_pct_worst"] for told in held.values())
    took = [told["oracle"]["took_s"] for told in held.values()]
    rows += [
        Figure(what="clairvoyant below its dual bound, mean", value=statistics.fmean(gaps), unit="%", samples=runs,
               low=min(gaps), high=max(gaps), target=0.5, detail=f"worst run {worst_gap:.2f} %"),
        Figure(what="planning of the clairvoyant, slowest", value=max(took), unit="s", samples=runs, target=30),
    ]  # fmt: skip
    waited = each(FLOOR, "took_s")
    if waited:
        rows.append(
            Figure(what="play of the causal floor, slowest", value=max(waited), unit="s", samples=runs, target=30)
        )
    return rows


def _decisions(job: Job, names: Sequence[str]) -> list[Figure]:
    """Decisions of all policies in turn, in one process, of the rounds that others hardly disturbed."""
    world = world_of(msgspec.structs.replace(job, scenario=msgspec.structs.replace(job.scenario, duration_s=TIMED_S)))
    rounds = []
    for _ in range(ROUNDS):
        others, taken = Others(), {}
        for name in names:
            taken[name] = np.asarray(play(world, name, registry.find(name)).decision_us)
        rounds.append((others.share(), taken))
    kept = undisturbed(rounds)
    rows = []
    for name in names:
        for share, word, target in ((0.5, "median", 30.0), (0.99, "p99", 200.0)):
            values = [quantile(taken[name], share) for taken in kept]
            bound = target if name == "optimal" else None
            rows.append(
                Figure(what=f"one decision of {name}, {word}", value=statistics.median(values), low=min(values),
                       high=max(values), unit="us", samples=len(kept) * TIMED_S, target=bound)
            )  # fmt: skip
    return rows


def _daemon(bundle: str) -> list[Figure]:
    told = subprocess.run(
        [sys.executable, str(HERE / "daemon_footprint.py"), "--json", "--bundle", bundle, "--calls", "100"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(told.stdout)
    return [
        Figure(what="daemon, private dirty", value=found["private_dirty_mb"], unit="MB", target=24),
        Figure(what="daemon, RSS", value=found["rss_mb"], unit="MB", target=40),
        Figure(what="daemon, of one core", value=found["cpu_pct_of_one_core"], unit="%", target=0.5),
    ]


def _table(found: Mapping[str, Any], policies: Sequence[str]) -> str:
    """Regret by scenario."""
    columns = (FLOOR, *policies)
    lines = [("scenario", "seeds", "oracle", *columns)]
    for name, told in found.items():
        counted = f"{len(told['seeds']) - len(told['infeasible'])}/{len(told['seeds'])}"
        best = f"{told['oracle']['effective_accuracy']:.2f}" if "oracle" in told else "-"
        cells = (f"{told[who]['regret_pct']:.2f} %" if who in told else "-" for who in columns)
        lines.append((name, counted, best, *cells))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
