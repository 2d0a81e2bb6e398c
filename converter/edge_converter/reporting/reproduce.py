"""The commands that make a bundle again, for its report; of paths only the last part, which is no machine's secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from edge_converter.request import DEFAULT_MAX_DROP, DEFAULT_SPARSITY, Bound, ConvertRequest
from edge_sdk.manifest import Fit, Manifest, Objective


def commands(request: ConvertRequest, manifest: Manifest) -> tuple[str, ...]:
    """The conversion as it was asked for, then what looks at its bundle and measures it on a board."""
    bundle = request.output.name
    convert = " ".join(shlex.quote(word) for word in ("edge", "convert", *_words(request, manifest)))
    shown = shlex.quote(bundle)
    return (
        f"SOURCE_DATE_EPOCH={manifest.created:.0f} {convert}",
        f"edge inspect {shown}",
        f"edge bench {shown} --write",
    )


def _words(request: ConvertRequest, manifest: Manifest) -> Iterator[str]:
    yield from (path.name for path in request.models)
    yield from ("--data", request.data.name)
    for profile in request.profiles:
        yield from ("--profile", profile)
    prepared = request.preprocessing
    given = {
        "--calibration": _name(request.calibration),
        "--train": _name(request.train),
        "--max-drop": _unless(f"{request.max_drop:g}", f"{DEFAULT_MAX_DROP:g}"),
        "--bound": _unless(request.bound.value, Bound.POINT.value),
        "--metric": request.metric,
        "--rate": str(request.rate_hz) if request.rate_hz is not None else None,
        "--max-size": str(request.max_size) if request.max_size is not None else None,
        "--max-latency": f"{request.max_latency_ms:g}" if request.max_latency_ms is not None else None,
        "--objective": _unless(request.objective.value, Objective.ACCURACY.value),
        "--prune": _unless(f"{request.prune:g}", f"{DEFAULT_SPARSITY:g}"),
        "--slim": _unless(f"{request.slim:g}", "0"),
        "--train-steps": _unless(str(request.train_steps), "0"),
        "--signature": request.signature,
        "--recipe": Path(request.recipe).name if request.recipe else None,
        "--resize": _by(prepared.resize),
        "--fit": _unless(prepared.fit.value, Fit.COVER.value),
        "--crop": _by(prepared.crop),
        "--mean": _unless(_numbers(prepared.mean), "0"),
        "--std": _unless(_numbers(prepared.std), "1"),
        "--threads": _unless(str(request.threads), "1"),
        "--seed": _unless(str(request.seed), "0"),
    }
    for option, value in given.items():
        if value is not None:
            yield from (f"{option}={value}",) if value.startswith("-") else (option, value)
    if request.qat:
        yield "--qat"
    repeated = {
        "--input-shape": [",".join(map(str, shape)) for shape in request.input_shapes],
        "--set": request.settings,
        "--precision": [precision.value for precision in request.precisions],
        "--evidence": [path.name for path in request.evidence],
    }
    for option, values in repeated.items():
        for value in values:
            yield from (option, value)
    if request.name is not None:
        yield from ("--name", manifest.name)
    if request.version is not None:
        yield from ("--version", manifest.version)
    yield from ("-o", request.output.name)


def _name(path: Path | None) -> str | None:
    return path.name if path is not None else None


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


def _by(pair: tuple[int, int] | None) -> str | None:
    return f"{pair[0]}x{pair[1]}" if pair else None


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
