"""What an idle daemon costs: memory, processor time, threads, files. `python benchmarks/daemon_footprint.py`.

Starts `edge daemon run` in a directory of its own, alone or with a hub to reach (`--mqtt HOST:PORT`, which is tried and
need not answer), lets it settle, and reads `/proc/PID` over an interval. RSS counts shared pages in full, PSS its share
of them; USS is what would be free if the daemon ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SETTLE_S = 3.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time so far; fields 14 and 15 of proc(5) stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int) -> dict[str, float]:
    """RSS, PSS, USS, and of the last what is dirty, in MB."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0])
    unique = found["Private_Clean"] + found["Private_Dirty"]
    shown = {"rss": found["Rss"], "pss": found["Pss"], "uss": unique, "private_dirty": found["Private_Dirty"]}
    return {name: round(kb / 1024, 1) for name, kb in shown.items()}


@contextlib.contextmanager
def app(socket: Path) -> Iterator[None]:
    """One app that calls 100 times a second, as the daemon sees it: a report a second. It runs here, not there."""
    from edge_sdk.link import DaemonLink
    from edge_sdk.local import AppReport, Assignment

    link = DaemonLink(socket=socket, model="it", manifest=None, preference=None, name="footprint")
    active = [link.registered.assignment.variant]

    def report() -> AppReport:
        return AppReport(active=active[0], calls=100, arrived=100, p50_ms=4.0, p95_ms=5.0, latencies_ms=(4.0,) * 20)

    def apply(assignment: Assignment) -> None:
        active[0] = assignment.variant

    link.start(report, apply)
    try:
        yield
    finally:
        link.close()


def main() -> None:
    """Start a daemon, watch it, print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch (default 20)")
    parser.add_argument("--bundle", help="serve this one")
    parser.add_argument("--mqtt", metavar="HOST:PORT", help="report there; imports paho")
    parser.add_argument("--app", action="store_true", help="with an app that calls 100 times a second; needs --bundle")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-") as work:
        lines = ['state.directory = "state"']
        if args.bundle:
            lines.append(f'models.it = "{Path(args.bundle).absolute()}"')
        if args.mqtt:
            host, _, port = args.mqtt.rpartition(":")
            lines += ['device = {tenant = "bench", name = "footprint"}', f'mqtt = {{host = "{host}", port = {port}}}']
        config = Path(work, "daemon.toml")
        config.write_text("\n".join(lines) + "\n")
        program = [sys.executable, "-c", "import sys; from edge_sdk.cli import main; sys.exit(main())"]
        began = time.monotonic()
        daemon = subprocess.Popen(
            [*program, "daemon", "run", "--config", str(config), "--socket", str(Path(work, "s"))],
            stderr=subprocess.DEVNULL,
        )
        try:
            while not Path(work, "s").exists():
                if daemon.poll() is not None or time.monotonic() - began > 30:  # noqa: PLR2004 - patience
                    sys.exit("the daemon does not start: run it by hand")
                time.sleep(0.01)
            started_s = time.monotonic() - began
            with app(Path(work, "s")) if args.app else contextlib.nullcontext():
                time.sleep(SETTLE_S)
                before_s, before = cpu_s(daemon.pid), time.monotonic()
                time.sleep(args.seconds)
                used_s, watched_s = cpu_s(daemon.pid) - before_s, time.monotonic() - before
                memory = memory_mb(daemon.pid)
            result = {
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
                "start_s": round(started_s, 2),
                "cpu_pct_of_one_core": round(100 * used_s / watched_s, 2),
                **{f"{name}_mb": size for name, size in memory.items()},
                "threads": len(list(Path(f"/proc/{daemon.pid}/task").iterdir())),
                "files": len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())),
            }
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)
    print(json.dumps(result, indent=2) if args.json else "\n".join(f"{k:22}{v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
