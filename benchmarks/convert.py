"""What int8 costs in accuracy: our converter against the quantizer's defaults, on the same samples, in one run.

    python benchmarks/convert.py [--model FILE --data PATH --mean M --std S] [--json]

Without arguments it takes EfficientNet-Lite0 and the labelled photographs of the reference data that
`EDGE_REFERENCE_DATA` names. Calibration samples never count. `agrees` (with the float model) is the sharper figure: a
drop of a point needs hundreds of samples to be told from none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from edge_converter import compensate, data, evaluate, graph, paired, quantize
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Precision, Preprocessing

_MODEL, _DATA = "efficientnet_lite0_fp32.tflite", "imagenet_500"


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a float .tflite classifier")
    parser.add_argument("--data", type=Path, help="labelled samples, as edge convert takes them")
    parser.add_argument("--calibration", type=Path, help="samples for calibration; else up to 128 of --data")
    parser.add_argument("--mean", type=float, default=127.0)
    parser.add_argument("--std", type=float, default=128.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    reference = os.environ.get("EDGE_REFERENCE_DATA")
    if args.model is None or args.data is None:
        if reference is None:
            parser.error("name --model and --data, or set EDGE_REFERENCE_DATA")
        folder = Path(reference) / "models_and_labels"
        args.model, args.data = args.model or folder / _MODEL, args.data or folder / _DATA
    rows = run(args)
    if args.json:
        print(json.dumps({"machine": machine_name(), "model": args.model.name, "variants": rows}, indent=2))
        return 0
    print(
        f"{args.model.name} on {machine_name()}; {rows[0]['samples']} samples count, {rows[0]['calibration']} calibrate"
    )
    print(f"{'':30}{'accuracy':>10}{'drop':>16}{'agrees':>10}{'bytes':>12}{'made in':>10}")
    for row in rows:
        drop = f"{row['drop']:.2f} ± {row['interval']:.2f}"
        print(
            f"{row['name']:30}{row['accuracy']:9.2f}%{drop:>16}{row['agreement']:9.2f}%{row['bytes']:12,}"
            f"{row['seconds']:8.1f} s"
        )
    return 0


def run(args: argparse.Namespace) -> list[dict[str, float | int | str]]:
    """One row a variant."""
    inputs = graph.read(args.model).inputs
    preprocessing = Preprocessing(mean=(args.mean,), std=(args.std,))
    samples = data.open_samples(args.data, inputs=inputs, preprocessing=preprocessing)
    parts = data.split(samples, apart=args.calibration is not None, steer=False)
    calibrating, rows = samples, parts.calibrate
    if args.calibration is not None:
        calibrating = data.open_samples(args.calibration, inputs=inputs, preprocessing=preprocessing)
        rows = data.first_by_content(calibrating, data.MAX_CALIBRATION)
    labels = samples.labels[parts.count]
    reference = evaluate.answers(args.model, samples, parts.count, advance=lambda _: None)
    found: list[dict[str, float | int | str]] = []

    def add(name: str, path: Path, seconds: float) -> None:
        answers = evaluate.answers(path, samples, parts.count, advance=lambda _: None)
        against = paired.compare(reference, answers, labels)
        found.append(
            {
                "name": name,
                "accuracy": round(paired.accuracy(answers, labels), 3),
                "drop": round(against.drop, 3),
                "interval": round(against.interval, 3),
                "agreement": round(against.agreement, 3),
                "bytes": path.stat().st_size,
                "seconds": round(seconds, 2),
                "samples": len(labels),
                "calibration": len(rows),
            }
        )

    with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as folder:
        add("float", args.model, 0.0)
        begun = time.monotonic()
        ranges = quantize.calibrate(args.model, calibrating, rows, threads=1)
        made = quantize.quantize(args.model, Precision.INT8, Path(folder) / "int8.tflite", ranges=ranges)
        add("int8, quantizer's defaults", made.path, time.monotonic() - begun)
        begun = time.monotonic()
        made = compensate.refine(args.model, made, calibrating, rows)
        add("int8, ours", made.path, time.monotonic() - begun)
    return found


if __name__ == "__main__":
    sys.exit(main())
