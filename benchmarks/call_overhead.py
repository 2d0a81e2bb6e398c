"""What `EdgeModel` costs beyond the runtime: the same file called both ways, in turn, on this machine.

    python benchmarks/call_overhead.py [--rounds 40] [--calls 500]

A model of a few microseconds is used, so that the difference is not lost in the inference. Prints the median over the
rounds of each round's median, and the smallest and largest round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_lab import digits
from edge_sdk import EdgeModel, bundle
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Cost, EvidenceFile, Manifest, Precision, Quality, Source, Target, TensorSpec, Variant
from edge_sdk.runtime import choose


def write_bundle(place: Path) -> Path:
    """The smallest digits model as a bundle of one."""
    import hashlib

    model = digits.models()[0]
    content = model.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    quality = Quality(metric="accuracy", value=97.0, drop=0.0, interval=0.0, agreement=100.0, samples=540)
    variant = Variant(
        id="fp32",
        source="small",
        blob=sha256,
        size_bytes=len(content),
        transfer_bytes=len(content),
        precision=Precision.FP32,
        target=Target(),
        quality=quality,
        cost=Cost(macs=1, parameters=1),
    )
    manifest = Manifest(
        format=1,
        name="digits",
        version="1",
        created=0.0,
        sources=(Source(name="small", framework="tflite", sha256=sha256),),
        inputs=(TensorSpec(name="image", shape=(-1, 8, 8, 1), dtype="float32"),),
        outputs=(TensorSpec(name="digit", shape=(-1, 10), dtype="float32"),),
        metric="accuracy",
        reference="fp32",
        variants=(variant,),
    )
    return bundle.write(
        place / "digits-1.edge", manifest, {sha256: model}, evidence=EvidenceFile(format=1), report=""
    ).path


def median_us(call: Callable[[], object], calls: int) -> float:
    """Of one call."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=500)
    args = parser.parse_args()
    image = digits.held_out()[0][:1].astype(np.float32)
    with tempfile.TemporaryDirectory() as place:
        path = write_bundle(Path(place))
        runtime = choose()
        raw = runtime.open(str(digits.models()[0]), threads=1)
        raw.allocate_tensors()
        given, taken = raw.get_input_details()[0]["index"], raw.get_output_details()[0]["index"]

        def by_hand() -> object:
            raw.set_tensor(given, image)
            raw.invoke()
            return raw.get_tensor(taken)

        with EdgeModel(path, variant="fp32") as model:
            ways: dict[str, Callable[[], object]] = {"interpreter": by_hand, "EdgeModel": lambda: model(image)}
            rounds: dict[str, list[float]] = {name: [] for name in ways}
            for call in ways.values():
                median_us(call, args.calls)  # warm
            for _ in range(args.rounds):
                for name, call in ways.items():
                    rounds[name].append(median_us(call, args.calls))
    print(f"{machine_name()}; {runtime.name} {runtime.version}; {args.rounds} rounds of {args.calls} calls")
    for name, found in rounds.items():
        print(f"{name:12} {statistics.median(found):7.2f} us   ({min(found):.2f} to {max(found):.2f})")
    extra = [b - a for a, b in zip(rounds["interpreter"], rounds["EdgeModel"], strict=True)]
    print(f"{'difference':12} {statistics.median(extra):7.2f} us   ({min(extra):.2f} to {max(extra):.2f})")


if __name__ == "__main__":
    main()
