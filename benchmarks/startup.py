"""How long `edge --help` takes from its start to its end, as a user feels it.

    python benchmarks/startup.py [--runs 20]

Prints the smallest, the median and the largest of the runs, the first of which (cold caches) is shown apart. Target: a
median below 0.3 s. What it is made of: `python -X importtime -m edge_sdk.cli --help`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edge_sdk.machine import machine_name

TARGET_S = 0.3


def seconds(command: list[str]) -> float:
    """Of one run."""
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> int:
    """Measure and print; returns 1 where the median misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    print(f"{machine_name()}; Python {sys.version.split()[0]}; {args.runs} runs")
    rows = {
        "edge --help": [str(Path(sys.prefix) / "bin" / "edge"), "--help"],
        "python -c ''": [sys.executable, "-c", ""],
    }
    medians = {}
    for name, command in rows.items():
        first, *rest = (seconds(command) for _ in range(args.runs + 1))
        medians[name] = statistics.median(rest)
        print(f"{name:13} min {min(rest):.3f}  median {medians[name]:.3f}  max {max(rest):.3f} s  (first {first:.3f})")
    return int(medians["edge --help"] >= TARGET_S)


if __name__ == "__main__":
    sys.exit(main())
