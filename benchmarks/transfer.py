"""What a transfer costs by our plan, by a plain download and by a delta updater, against the best in hindsight.

    python benchmarks/transfer.py [--seeds N] [--traces DIR] [--json]

Costs are seconds of waiting, with money and energy as the plan prices them. `best` tries every encoding at several
moments and knows what the link will carry. Sizes and shares of encodings are those measured on int8 and fp32 files of
MobileNetV2 (docs/explanation/transfer.md); links are made, or recorded ones of DIR (files of seconds and Mbit/s).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, figure, shown

from edge_daemon.transfer.types import Device, Encoding, File, Kind, Order, Terms
from edge_lab.simulate.transfer import (
    Case,
    Picker,
    Trace,
    always_full,
    always_smallest,
    best,
    from_lines,
    joined,
    made,
    picker,
    played,
)

OLD = "a" * 64
PICKERS: dict[str, Picker] = {"plan": picker, "always full": always_full, "always smallest": always_smallest}

# Share of the file: zstd-19 of the whole, the best delta, and whether the base is here. From the project's own
# measurement of deltas; `aggressive` has moved all weights, `retrained` shares nothing with the old file.
CHANGES = {
    "head": (0.842, 0.004),
    "gentle": (0.842, 0.121),
    "aggressive": (0.842, 0.565),
    "pruned": (0.332, 0.264),
    "retrained": (0.842, None),
}
SIZES_MB = (1.77, 5.47, 22.0)
# Of one megabyte of the file on a small board, estimates: zstd at 100 MB/s; a delta in Python over both files.
ZSTD_S_PER_MB, DELTA_S_PER_MB = 0.01, 0.35


def orders() -> Iterator[tuple[str, Order]]:
    """Every size with every change."""
    for size_mb in SIZES_MB:
        size = int(size_mb * 1e6)
        for name, (zstd, delta) in CHANGES.items():
            encodings = [
                Encoding(id="full", kind=Kind.FULL, size_bytes=size),
                Encoding(id="zstd", kind=Kind.ZSTD, size_bytes=int(size * zstd), apply_s=size_mb * ZSTD_S_PER_MB),
            ]
            if delta is not None:
                apply_s = size_mb * DELTA_S_PER_MB
                encodings.append(
                    Encoding(
                        id="delta", kind=Kind.TENSOR_DELTA, size_bytes=int(size * delta), base=OLD, apply_s=apply_s
                    )
                )
            yield (
                f"{name} {size_mb:g} MB",
                Order(wanted=File(variant=name, size_bytes=size, encodings=tuple(encodings))),
            )


def links(seed: int) -> Iterator[tuple[str, Trace, dict[str, object]]]:
    """Made links: name, trace and what else holds there."""
    on_battery = Device(id=f"acme/{seed}", has=frozenset({OLD}), charging=False, battery_pct=60.0, price_s_per_j=2.0)
    lte = {"rtt_ms": 60.0, "outage": 0.01}
    yield "lan 100 Mbit/s", made("lan", 100, sd=0.05, seed=seed, rtt_ms=2), {}
    yield "home 20 Mbit/s", made("home", 20, sd=0.2, seed=seed, rtt_ms=20), {}
    yield "lte 6 Mbit/s", made("lte", 6, sd=0.6, seed=seed, **lte), {}
    yield "lte, on battery", made("lte", 6, sd=0.6, seed=seed, **lte), {"device": on_battery}
    yield "lte, metered", made("lte", 6, sd=0.6, seed=seed, **lte), {"metered_until_s": math.inf}
    patient = Terms(unmetered_within_s=3600.0)
    for name, at_s in (("1 min", 60), ("20 min", 1200)):
        parked = joined(made("lte", 6, sd=0.6, seed=seed, **lte), made("home", 20, sd=0.2, seed=seed), at_s)
        yield f"lte, metered, home in {name}", parked, {"metered_until_s": float(at_s), "terms": patient}
    tunnel = joined(made("tunnel", 0.05, sd=0.5, seed=seed), made("lte", 6, sd=0.6, seed=seed, **lte), 300)
    yield "0.05 Mbit/s, lte in 5 min", tunnel, {}
    yield "3g 1.3 Mbit/s", made("3g", 1.3, sd=0.5, seed=seed, rtt_ms=100, outage=0.03), {}
    yield "edge of coverage", made("edge", 0.2, sd=0.8, seed=seed, rtt_ms=300, outage=0.15, outage_s=20), {}


def recorded(folder: Path) -> Iterator[tuple[str, Trace, dict[str, object]]]:
    """Recorded links."""
    for path in sorted(folder.rglob("*.txt")):
        trace = from_lines(path.stem, path.read_text("utf-8"))
        if len(trace.bytes_per_s) >= 60 and any(trace.bytes_per_s):  # noqa: PLR2004 - shorter ones tell nothing
            yield f"recorded {path.parent.name}", trace, {}


def ratios(found: Iterator[tuple[str, Trace, dict[str, object]]]) -> dict[str, dict[str, list[float]]]:
    """Cost over the best in hindsight, by link and picker."""
    told: dict[str, dict[str, list[float]]] = {}
    for name, trace, extra in found:
        for _, order in orders():
            settings = {"device": Device(id="acme/1", has=frozenset({OLD})), "terms": Terms(), **extra}
            case = Case(order=order, trace=trace, most_s=7200, **settings)
            least_s = best(case, waits_s=(0, 60, 300, 900, 1200)).cost_s
            for label, pick in PICKERS.items():
                ratio = played(case, pick).cost_s / least_s
                told.setdefault(name, {each: [] for each in PICKERS})[label].append(ratio)
    return told


def main() -> int:
    """Play everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="so many draws of each made link (default 3)")
    parser.add_argument("--traces", metavar="DIR", type=Path, help="recorded links beside the made ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    told: dict[str, dict[str, list[float]]] = {}
    sources = [links(seed) for seed in range(args.seeds)] + ([recorded(args.traces)] if args.traces else [])
    for source in sources:
        for name, by_picker in ratios(source).items():
            for label, values in by_picker.items():
                told.setdefault(name, {each: [] for each in PICKERS})[label].extend(values)
    rows: list[Figure] = []
    for name, by_picker in told.items():
        rows += [figure(f"{name}: {label}", values, unit="x") for label, values in by_picker.items()]
    for label in PICKERS:
        logs = [math.log(value) for by_picker in told.values() for value in by_picker[label]]
        mean = math.exp(statistics.fmean(logs))
        rows.append(Figure(what=f"geometric mean: {label}", value=mean, unit="x", samples=len(logs)))
    if args.json:
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        print(json.dumps(machine | {"figures": [row.as_json() for row in rows]}, indent=2))
    else:
        print(shown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
