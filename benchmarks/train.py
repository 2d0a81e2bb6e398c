"""What training makes of a Keras model: pruned, with fewer channels, and trained for int8, measured in one run.

    python benchmarks/train.py [--model FILE.keras --train FILE.npz --test FILE.npz] [--slim 1.6] [--steps N] [--json]

Without arguments it takes the ResNet8 and the CIFAR-10 images of the reference data that `EDGE_REFERENCE_DATA` names.
Everything is fine-tuned and calibrated on the training images; the test images only count. `drop` is against the float
model as it was given, paired on the same images, with its 95 % interval; `latency_ratio` is the time of the given model
in the same number format by this one's (minima of interleaved rounds, one thread), so above 1 is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from edge_converter import candidates, evaluate, graph, paired, recipe, slim
from edge_converter.cache import Cache
from edge_converter.candidates import FloatFile
from edge_converter.errors import ConversionError
from edge_converter.keras_process import KerasProcess
from edge_converter.labelled import data
from edge_converter.passes import Room
from edge_converter.request import Silent
from edge_converter.sources import identify
from edge_converter.trained import Training, train
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Preprocessing

Row = dict[str, float | int | str]

_MODEL = "mlperf_tiny/pretrainedResnet.h5"
_DATA = "cifar10/cifar10_8000train_2000test.npz"
_DEADLINE_S = 3600.0
# docs/adr/0014: tensorflow-model-optimization 0.8.1 with its published recipe, one epoch, 3000 other images.
_TFMOT = {"name": "pruned50-int8, tfmot 0.8.1 (published recipe, not run here)", "accuracy": 66.43, "drop": 12.74}


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a .keras or .h5 classifier")
    parser.add_argument("--train", type=Path, help="labelled samples to learn from, an .npz file of x and y")
    parser.add_argument("--test", type=Path, help="labelled samples that count, likewise")
    parser.add_argument("--slim", type=float, default=1.6, metavar="SPEEDUP", help="0 leaves it out (default 1.6)")
    parser.add_argument("--prune", type=float, default=0.5, metavar="SHARE", help="0 leaves it out (default 0.5)")
    parser.add_argument("--no-qat", action="store_true", help="leave out quantization-aware fine-tuning")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="of fine-tuning; else as the samples ask for")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the files that were made in this directory")
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as temporary:
        folder = Path(temporary)
        if args.model is None or args.train is None or args.test is None:
            reference = os.environ.get("EDGE_REFERENCE_DATA")
            if reference is None:
                parser.error("name --model, --train and --test, or set EDGE_REFERENCE_DATA")
            _cifar(args, Path(reference) / "models_and_labels", folder)
        rows = []
        for row in run(args, folder):
            rows.append(row)
            if not args.json:
                _show(row, first=len(rows) == 1, model=args.model.name)
    if args.json:
        print(json.dumps(rows, indent=2))
    return 0


def _show(row: Row, *, first: bool, model: str) -> None:
    """Print a row as soon as it is known: training takes minutes."""
    if first:
        print(f"{model} on {machine_name()}; {row['samples']} samples count")
        print(f"{'':60}{'accuracy':>9}{'drop':>15}{'agrees':>9}{'bytes':>10}{'zstd':>9}{'faster':>8}{'made in':>9}")
    drop = f"{row['drop']:.2f}" + (f" ± {row['interval']:.2f}" if "interval" in row else "")
    print(f"{row['name']:60}{row['accuracy']:8.2f}%{drop:>15}", end="")
    if "bytes" in row:
        print(f"{row['agreement']:8.2f}%{row['bytes']:10,}{row['zstd_bytes']:9,}", end="")
        print(f"{row['latency_ratio']:7.2f}x{row['seconds']:7.0f} s", end="")
    print(flush=True)


def _cifar(args: argparse.Namespace, reference: Path, folder: Path) -> None:
    args.model = args.model or reference / _MODEL
    with np.load(reference / _DATA) as arrays:
        for part in ("train", "test"):
            if getattr(args, part) is None:
                setattr(args, part, folder / f"cifar-{part}.npz")
                np.savez(getattr(args, part), x=arrays[f"x_{part}"], y=arrays[f"y_{part}"])


def run(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """One row a variant, each as soon as it is measured."""
    (model,) = identify([args.model])
    source = FloatFile(source=model.name, path=folder / "fp32.tflite")
    with KerasProcess(folder, deadline_s=_DEADLINE_S) as process:
        process.convert(model.path, model.framework, source.path)
        inputs = graph.read(source.path).inputs
        lessons, samples = (
            data.open_samples(path, inputs=inputs, preprocessing=Preprocessing()) for path in (args.train, args.test)
        )
        rows = data.as_rows(range(len(samples.labels)))
        calibrating = data.first_by_content(lessons, data.MAX_CALIBRATION)
        timing = slim.Timing(samples=samples, rows=rows, threads=1, int8=False)
        reference = evaluate.answers(source.path, samples, rows, advance=lambda _: None)

        def row(name: str, path: Path, original: Path, begun: float) -> Row:
            seconds = time.monotonic() - begun
            answers = evaluate.answers(path, samples, rows, advance=lambda _: None)
            against = paired.compare(reference, answers, samples.labels)
            content = path.read_bytes()
            return {
                "name": name,
                "accuracy": round(paired.accuracy(answers, samples.labels), 3),
                "drop": round(against.drop, 3),
                "interval": round(against.interval, 3),
                "agreement": round(against.agreement, 3),
                "bytes": len(content),
                "zstd_bytes": len(zstandard.ZstdCompressor(level=19).compress(content)),
                "latency_ratio": round(slim.Clock(original, timing, folder).time(path)["fp32"].by_minima, 3),
                "seconds": round(seconds, 1),
                "samples": len(rows),
            }

        def quantized(file: FloatFile, name: str) -> Path:
            """Its int8, by the recipe that `edge convert` uses."""
            own = folder / name
            own.mkdir()
            room = Room(samples=lessons, rows=calibrating, folder=own, where=file.path.name)
            variants = [one for one in recipe.load("default").variant if (one.id, one.of) == ("int8", file.kind)]
            made, refused = candidates.make(candidates.plan([file], variants, room), room, Cache(None))
            if refused:
                raise RuntimeError(refused[0].reason)
            return made[0].path

        begun = time.monotonic()
        yield row("fp32, as given", source.path, source.path, begun)
        twin = quantized(source, "int8")
        yield row("int8, after training", twin, twin, begun)
        if args.model.name == Path(_MODEL).name:
            yield {**_TFMOT, "samples": 3000}
        everything = data.as_rows(range(len(lessons.labels)))
        for job in _jobs(args):
            begun = time.monotonic()
            training = Training(samples=lessons, rows=everything, steps=args.steps, **job)
            try:
                made = train(process, [(model, source)], training, folder, Silent())
            except ConversionError as error:
                print(f"{job}: {error}", file=sys.stderr)
                continue
            for refused in made.refused:
                print(f"{refused.id}: {refused.reason}", file=sys.stderr)
            for file in made.files:
                yield row(f"{file.label}-fp32", file.path, source.path, begun)
                yield row(f"{file.label}-int8", quantized(file, f"{file.label}-int8"), twin, begun)
                if args.keep is not None:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file.path, args.keep / f"{args.model.stem}-{file.label}.tflite")
                print(f"{file.label}: {file.compression[0].evidence}", file=sys.stderr)


def _jobs(args: argparse.Namespace) -> list[dict[str, float | bool]]:
    jobs: list[dict[str, float | bool]] = []
    if args.prune:
        jobs.append({"prune": args.prune})
    if args.slim:
        jobs.append({"slim": args.slim})
    if not args.no_qat:
        jobs.append({"qat": True})
    return jobs


if __name__ == "__main__":
    sys.exit(main())
