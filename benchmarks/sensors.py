"""What one reading of all sensors costs in processor time: `python benchmarks/sensors.py`.

On this machine's own files, and on the recorded boards of the tests (files in a temporary directory, so that what the
kernel's drivers take is left out). Processor time of the whole process, the reading thread included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from edge_daemon.sensors.suite import SensorSuite

BOARDS = Path(__file__).parents[1] / "tests/daemon/sensors/conftest.py"


def recorded() -> ModuleType:
    """The module of the tests that holds the recorded boards."""
    spec = importlib.util.spec_from_file_location("recorded_boards", BOARDS)
    if spec is None or spec.loader is None:
        sys.exit(f"{BOARDS} is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cost_us(root: str, readings: int, rounds: int) -> list[float]:
    """Microseconds of processor time a reading, of each round."""
    found = []
    with SensorSuite(root) as suite:
        suite.read()
        for _ in range(rounds):
            begun = time.process_time()
            for _ in range(readings):
                suite.read()
            found.append((time.process_time() - begun) / readings * 1e6)
    return found


def main() -> None:
    """Measure each board in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=200, help="of each round (default 200)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    told = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), "boards": {}}
    with tempfile.TemporaryDirectory(prefix="edge-") as work:
        roots = {"this machine": "/"}
        for name, files in recorded().RECORDED.items():
            roots[name] = str(Path(work, name))
            for path, text in files.items():
                file = Path(work, name, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            real = Path(work, name, "proc/stat")
            real.parent.mkdir(parents=True, exist_ok=True)
            for kept in ("stat", "meminfo"):
                real.with_name(kept).symlink_to(Path("/proc") / kept)
        for name, root in roots.items():
            found = cost_us(root, args.readings, args.rounds)
            told["boards"][name] = {
                "median_us": round(statistics.median(found), 1),
                "lowest_us": round(min(found), 1),
                "highest_us": round(max(found), 1),
            }
    if args.json:
        print(json.dumps(told, indent=2))
        return
    print(f"{told['machine']}, Python {told['python']}; microseconds of processor time a reading of all sensors")
    for name, row in told["boards"].items():
        share = row["median_us"] / 1e4
        print(f"{name:14} {row['median_us']:8.1f}  ({row['lowest_us']:.1f} to {row['highest_us']:.1f})  {share:.3f} %")


if __name__ == "__main__":
    main()
