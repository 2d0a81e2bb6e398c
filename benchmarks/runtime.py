"""What an app loses by going through the SDK, and what it does not: every figure of the runtime in one table.

    python benchmarks/runtime.py [--json] [--quick] [--only PART ...] [--rounds N]

Each part is a module beside this one, `runtime_PART.py`, that measures both sides of a ratio in turns in one run. No
data but what it makes itself is needed. It trusts nothing to an idle machine, but on a busy one the spread says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
from dataclasses import dataclass

from figures import Figure, shown

from edge_sdk import __version__
from edge_sdk.machine import machine_name
from edge_sdk.runtime import choose

PARTS = ("calls", "swaps", "parallel", "serve", "isolation")
_BUSY = 0.5  # of a processor, before anything was begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it was measured."""

    name: str
    processors: int
    load: float
    system: str
    python: str
    runtime: str
    version: str

    @classmethod
    def here(cls) -> Machine:
        """This one, now."""
        runtime = choose()
        return cls(
            name=machine_name(),
            processors=len(os.sched_getaffinity(0)),
            load=round(os.getloadavg()[0], 2),
            system=platform.platform(),
            python=platform.python_version(),
            runtime=f"{runtime.name} {runtime.version}",
            version=__version__,
        )

    def __str__(self) -> str:
        busy = ", busy" if self.load > _BUSY else ""
        return (
            f"{self.name}, {self.processors} processors, load {self.load}{busy}; {self.system}; Python {self.python}; "
            f"{self.runtime}; adaptive-edge-sdk {self.version}"
        )


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=20, help="of each ratio (default %(default)s)")
    options = parser.parse_args()
    if options.quick:
        options.rounds = min(options.rounds, 5)
    machine = Machine.here()
    found: dict[str, list[Figure]] = {}
    missing: list[str] = []
    for part in options.only:
        name = f"runtime_{part}"
        if importlib.util.find_spec(name) is None:
            missing.append(part)
            continue
        sys.stderr.write(f"runtime: {part} ...\n")
        found[part] = importlib.import_module(name).rows(options)
    if options.json:
        figures = [{"part": part} | each.as_json() for part, rows in found.items() for each in rows]
        whole = {name: getattr(machine, name) for name in Machine.__slots__}
        print(json.dumps({"machine": whole, "figures": figures, "missing": missing}, indent=2))
    else:
        print(machine, shown([each for rows in found.values() for each in rows]), sep="\n\n")
        if missing:
            print(f"\nmissing: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
