"""Daemon, app and a board heated by what the app really burns, in real time. `python benchmarks/real_loop.py`.

Ten minutes by default, in which the daemon is killed once. Says whether the limit of heat was held, whether replaying
the recorded events gives the same decisions, and whether what was learned outlived the kill. Ends with status 1 if not.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from edge_daemon.policies import registry
from edge_lab.loop import AMBIENT_C, SWING_C, RealLoop

MOST_HOT_PCT = 0.5  # of the time, where the smallest variant can hold the limit


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--policy", default=registry.DEFAULT, help=f"which one (default {registry.DEFAULT})")
    parser.add_argument("--faster", type=float, default=8.0, help="heat the board so many times faster (default 8)")
    parser.add_argument(
        "--ambient", type=float, default=AMBIENT_C, help=f"temperature of the air (default {AMBIENT_C:g})"
    )
    parser.add_argument("--swing", type=float, default=SWING_C, help=f"by how much it swings (default {SWING_C:g})")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="edge-", dir="/tmp") as work,
        RealLoop(
            Path(work), policy=args.policy, faster=args.faster, ambient_c=args.ambient, swing_c=args.swing
        ) as loop,
    ):
        outcome = loop.run(args.seconds)
    found = {"machine": f"{platform.machine()}, Python {platform.python_version()}", **asdict(outcome)}
    print(json.dumps(found) if args.json else "\n".join(f"{name:18}{value}" for name, value in found.items()))
    is_well = (
        outcome.hot_pct <= MOST_HOT_PCT
        and outcome.replayed == outcome.decisions
        and outcome.kept
        and not outcome.failed
    )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
