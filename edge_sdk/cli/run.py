"""`edge run`: labelled data through a bundle, as an app would run it."""

from __future__ import annotations

import argparse
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.output import emit
from edge_sdk.errors import UsageError
from edge_sdk.machine import machine_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_sdk.manifest import Manifest, TensorSpec

_PERCENTILE = 95
# Metrics whose labels are classes: what can be counted here as right. The converter judges by the others.
_OF_CLASSES = frozenset(("accuracy", "top5", "recall"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The result of `edge run --json`.

    Attributes:
        accuracy: Of the samples with a label, in percent; None where they are not scored.
        unscored: Why not; None where they are.
        samples: By the variant that was in force when they began.
        median_ms: Of one call of the app's, conversions and waiting included.
    """

    bundle: str
    machine: str
    active: str
    samples: dict[str, int]
    accuracy: float | None
    unscored: str | None
    median_ms: float
    p95_ms: float


def run(args: argparse.Namespace) -> int:
    """Run the samples, as many a call as the model takes at once, and say what came of them."""
    import time

    import numpy as np

    from edge_sdk.model import EdgeModel

    path = Path(args.data)
    ran: Counter[str] = Counter()
    times: list[float] = []
    right = 0
    with EdgeModel(args.bundle, variant=args.variant, threads=args.threads, name="edge run") as model:
        arrays, y = _load(path, model.inputs)
        at, unscored = _scored(model.bundle.manifest, y, path)
        count = len(arrays[0]) if args.limit is None else min(args.limit, len(arrays[0]))
        at_once = max(1, *(spec.shape[0] for spec in model.inputs if spec.shape))
        model(*_call(arrays, 0, at_once))  # the first call of a process pays for what the later ones find
        for number in range(0, count, at_once):
            call = _call(arrays, number, at_once)
            there = min(at_once, count - number)
            ran[model.active] += there
            begun_s = time.perf_counter()
            answer = model(*call)
            times.append((time.perf_counter() - begun_s) * 1e3)
            if y is not None and at is not None:
                scores = answer[at] if isinstance(answer, dict) else answer
                best = np.asarray(scores).reshape(at_once, -1)[:there].argmax(axis=1)
                right += int((best == y[number : number + there]).sum())
        result = Ran(
            bundle=str(args.bundle),
            machine=machine_name(),
            active=model.active,
            samples=dict(ran),
            accuracy=None if unscored else 100 * right / count,
            unscored=unscored,
            median_ms=float(np.median(times)),
            p95_ms=float(np.percentile(times, _PERCENTILE)),
        )
    emit(args, result, lambda: _text(result))
    return 0


def _text(result: Ran) -> str:
    count = sum(result.samples.values())
    parts = ", ".join(f"{number} by {variant}" for variant, number in result.samples.items())
    right = f"not scored: {result.unscored}" if result.accuracy is None else f"{result.accuracy:.2f} % right"
    return (
        f"{count} samples: {parts}\n{right}\n"
        f"median {result.median_ms:.3g} ms, 95th percentile {result.p95_ms:.3g} ms a call, on {result.machine}"
    )


def _call(arrays: Sequence[NDArray[Any]], first: int, at_once: int) -> list[NDArray[Any]]:
    """What one call takes: these samples, the last one again where there are too few."""
    import numpy as np

    rows = np.minimum(np.arange(first, first + at_once), len(arrays[0]) - 1)
    return [array[rows] for array in arrays]


def _scored(manifest: Manifest, y: NDArray[Any] | None, path: Path) -> tuple[str | None, str | None]:
    """The name of the output with one score a class, or None and why nothing is scored.

    Raises:
        UsageError: The labels are not those of a classifier, which this is.
    """
    if y is None:
        return None, "the file has no labels y"
    if manifest.metric not in _OF_CLASSES:
        return None, f"the bundle is judged by {manifest.metric}, and edge run counts right classes"
    outputs = [spec.name for spec in manifest.outputs if len(spec.shape) == 2]  # noqa: PLR2004 - batch and classes
    if not outputs:
        return None, "the model has no output with one score a class"
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UsageError(
            f"y is {y.dtype} of shape {list(y.shape)}, where {len(y)} whole numbers belong to x", where=str(path)
        )
    return outputs[0], None


def _load(path: Path, inputs: Sequence[TensorSpec]) -> tuple[list[NDArray[Any]], NDArray[Any] | None]:
    """The samples, one array per input, and `y` where the file has it.

    Raises:
        UsageError: It is no `.npz` file of numbers with `x`, or the two do not belong together.
    """
    import numpy as np

    ways = [[f"x{number}" for number in range(len(inputs))], [spec.name for spec in inputs]]
    ways = [["x"], *ways] if len(inputs) == 1 else ways
    try:
        # Opened here: numpy leaves a file open in which it finds no archive.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            have = [] if isinstance(file, np.ndarray) else file.files
            names = next((way for way in ways if set(way) <= set(have)), None)
            if names is None:
                wanted = "array named x" if len(inputs) == 1 else f"arrays named {', '.join(ways[0])}"
                raise UsageError(f"holds no {wanted}", where=str(path), hint="numpy.savez(PATH, x=..., y=...)")
            arrays = [file[name] for name in names]
            y = file["y"] if "y" in have else None
    except OSError as cause:
        raise UsageError(f"cannot be read: {cause.strerror or cause}", where=str(path)) from cause
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as cause:
        raise UsageError("is no .npz file", where=str(path), hint="numpy.savez(PATH, x=..., y=...)") from cause
    if any(array.ndim < 1 or not len(array) for array in arrays):
        raise UsageError(f"{names[0]} holds no sample", where=str(path))
    counts = {len(array) for array in arrays} | ({len(y) if y.ndim else 1} if y is not None else set())
    if len(counts) > 1:
        raise UsageError(f"holds arrays of unequal lengths {sorted(counts)}", where=str(path))
    return arrays, y
