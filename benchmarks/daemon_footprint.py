"""What a daemon costs: memory, processor time, threads, files. `python benchmarks/daemon_footprint.py`.

Starts `edge daemon run` in a directory of its own, alone or with a hub to reach (`--mqtt HOST:PORT`, which is tried and
need not answer), lets it settle, and reads `/proc/PID` over an interval. RSS counts shared pages in full, PSS its share
of them; USS is what would be free if the daemon ended, and private dirty what of that is no file's.

Python compiles what it finds no bytecode of, and some of what that takes is never given back. So bytecode is kept in a
cache made here: `--bytecode cached` is an installation as pip leaves it, `none` one that was never compiled (the
standard library is).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SETTLE_S = 5.0
START_S, END_S = 60.0, 20.0
PROGRAM = [sys.executable, "-c", "import sys; from edge_sdk.cli import main; sys.exit(main())"]
PACKAGES = ("edge_sdk", "edge_daemon", "edge_converter", "edge_hub", "edge_lab")
CACHES = ("cached", "none")


def cpu_s(pid: int) -> float:
    """Time on a processor so far, of all threads, in ns; the ticks of proc(5) stat are too coarse for so little."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory_mb(pid: int) -> dict[str, float]:
    """RSS, PSS and USS in MB."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0])
    unique = found["Private_Clean"] + found["Private_Dirty"]
    shown = (("rss", found["Rss"]), ("pss", found["Pss"]), ("uss", unique), ("private_dirty", found["Private_Dirty"]))
    return {f"{name}_mb": round(kb / 1024, 1) for name, kb in shown}


@contextlib.contextmanager
def calling(rate: float, socket: Path) -> Iterator[None]:
    """An app that calls its model so often."""
    argv = ["--model", "digits", "--socket", str(socket), "--rate", str(rate), "--batch", "1"]
    app = subprocess.Popen([sys.executable, "-m", "edge_lab.loop_app", *argv], stdout=subprocess.PIPE)
    try:
        assert app.stdout is not None  # noqa: S101 - we asked for a pipe
        app.stdout.readline()
        yield
    finally:
        app.terminate()
        app.communicate(timeout=END_S)


@contextlib.contextmanager
def running(work: Path, env: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A daemon with the configuration in `work`: its process, and how long it took to serve in seconds."""
    socket = work / "s"
    began = time.monotonic()
    argv = [*PROGRAM, "daemon", "run", "--config", str(work / "daemon.toml"), "--socket", str(socket)]
    daemon = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=os.environ | env)
    try:
        while not socket.exists():
            if daemon.poll() is not None or time.monotonic() - began > START_S:
                sys.exit("the daemon does not start: run it by hand")
            time.sleep(0.01)
        yield daemon.pid, time.monotonic() - began
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(END_S)


def configure(work: Path, args: argparse.Namespace) -> None:
    """Write what the daemon is to read."""
    lines = ['state.directory = "state"']
    if args.bundle:
        lines.append(f'models.it = "{Path(args.bundle).absolute()}"')
    if args.mqtt:
        host, _, port = args.mqtt.rpartition(":")
        lines += ['device = {tenant = "bench", name = "footprint"}', f'mqtt = {{host = "{host}", port = {port}}}']
    if args.policy:
        lines.append(f'policy.use = "{args.policy}"')
    if args.calls:
        from edge_lab.loop import digits_bundle

        digits_bundle(work / "digits-1.edge")
        lines.append('models.digits = "digits-1.edge"')
    (work / "daemon.toml").write_text("\n".join(lines) + "\n")


def once(work: Path, args: argparse.Namespace, env: dict[str, str]) -> dict[str, float]:
    """Start a daemon, watch it, end it."""
    app = calling(args.calls, work / "s") if args.calls else contextlib.nullcontext()
    with running(work, env) as (pid, started_s), app:
        time.sleep(SETTLE_S)
        before_s, before = cpu_s(pid), time.monotonic()
        time.sleep(args.seconds)
        used_s, watched_s = cpu_s(pid) - before_s, time.monotonic() - before
        return {
            "start_s": round(started_s, 2),
            "cpu_pct_of_one_core": round(100 * used_s / watched_s, 3),
            **memory_mb(pid),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
            "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        }


def caches(work: Path, args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The environment under which bytecode is cached, and that under which only the standard library's is."""
    prefixes = {name: work / f"bytecode-{name}" for name in CACHES}
    fill = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(prefixes["cached"])}
    once(work, argparse.Namespace(**vars(args) | {"seconds": 1.0}), fill)
    shutil.copytree(prefixes["cached"], prefixes["none"])
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    ours = [spec.submodule_search_locations[0] for spec in specs if spec and spec.submodule_search_locations]
    for folder in (*ours, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        shutil.rmtree(prefixes["none"] / Path(folder).relative_to("/"), ignore_errors=True)
    return {name: {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(path)} for name, path in prefixes.items()}


def shown(found: list[dict[str, float]]) -> dict[str, str]:
    """Medians, with the lowest and highest."""
    values = {name: [one[name] for one in found] for name in found[0]}
    return {key: f"{statistics.median(v):g}  ({min(v):g} to {max(v):g})" for key, v in values.items()}


def main() -> None:
    """Measure, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch (default 20)")
    parser.add_argument("--rounds", type=int, default=1, help="how often; prints medians (default 1)")
    parser.add_argument(
        "--bytecode", choices=(*CACHES, "both"), default="cached", help="what is cached (default cached)"
    )
    parser.add_argument("--bundle", help="serve this one")
    parser.add_argument("--mqtt", metavar="HOST:PORT", help="report there; imports paho")
    parser.add_argument("--policy", help="which one decides")
    parser.add_argument("--calls", type=float, metavar="RATE", help="let an app call a model so often a second")
    parser.add_argument("--json", action="store_true", help="one object for each --bytecode")
    args = parser.parse_args()
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory(prefix="edge-") as name:
        work = Path(name)
        configure(work, args)
        kinds = {kind: env for kind, env in caches(work, args).items() if args.bytecode in {kind, "both"}}
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind, env in kinds.items():  # in turn, so that what else runs here troubles both
                found[kind].append(once(work, args, env))
    for kind, rounds in found.items():
        what = {"machine": machine, "bytecode": kind, "rounds": args.rounds}
        if args.json:
            medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            print(json.dumps(what | medians))
        else:
            print("\n".join(f"{key:22}{value}" for key, value in (what | shown(rounds)).items()) + "\n")


if __name__ == "__main__":
    main()
