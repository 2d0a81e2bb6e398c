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
    import numpy as np
    from numpy.typing import NDArray

_PERCENTILE = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The result of `edge run --json`.

    Attributes:
        accuracy: Of the samples with a label, in percent; None without labels.
        samples: By the variant that was in force when they began.
        median_ms: Of one call of the app's, conversions and waiting included.
    """

    bundle: str
    machine: str
    active: str
    samples: dict[str, int]
    accuracy: float | None
    median_ms: float
    p95_ms: float


def run(args: argparse.Namespace) -> int:
    """Run the samples one by one and say what came of them."""
    import time

    import numpy as np

    from edge_sdk.model import EdgeModel

    x, y = _load(Path(args.data))
    count = len(x) if args.limit is None else min(args.limit, len(x))
    ran: Counter[str] = Counter()
    times: list[float] = []
    right = 0
    with EdgeModel(args.bundle, variant=args.variant, threads=args.threads, name="edge run") as model:
        model(x[:1])  # the first call of a process pays for what the later ones find
        for number in range(count):
            ran[model.active] += 1
            begun_s = time.perf_counter()
            answer = model(x[number : number + 1])
            times.append((time.perf_counter() - begun_s) * 1e3)
            if y is not None:
                scores = next(iter(answer.values())) if isinstance(answer, dict) else answer
                right += int(int(scores.argmax()) == int(y[number]))
        result = Ran(
            bundle=str(args.bundle),
            machine=machine_name(),
            active=model.active,
            samples=dict(ran),
            accuracy=None if y is None else 100 * right / count,
            median_ms=float(np.median(times)),
            p95_ms=float(np.percentile(times, _PERCENTILE)),
        )
    emit(args, result, lambda: _text(result))
    return 0


def _text(result: Ran) -> str:
    count = sum(result.samples.values())
    parts = ", ".join(f"{number} by {variant}" for variant, number in result.samples.items())
    right = "" if result.accuracy is None else f"\n{result.accuracy:.2f} % right"
    return (
        f"{count} samples: {parts}{right}\n"
        f"median {result.median_ms:.3g} ms, 95th percentile {result.p95_ms:.3g} ms a call, on {result.machine}"
    )


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """`x`, and `y` where the file has it.

    Raises:
        UsageError: It is no `.npz` file of numbers with `x`, or the two do not belong together.
    """
    import numpy as np

    try:
        # Opened here: numpy leaves a file open in which it finds no archive.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray) or "x" not in file.files:
                raise UsageError("holds no array named x", where=str(path), hint="numpy.savez(PATH, x=..., y=...)")
            x = file["x"]
            y = file["y"] if "y" in file.files else None
    except OSError as cause:
        raise UsageError(f"cannot be read: {cause.strerror or cause}", where=str(path)) from cause
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as cause:
        raise UsageError("is no .npz file", where=str(path), hint="numpy.savez(PATH, x=..., y=...)") from cause
    if x.ndim < 1 or not len(x):
        raise UsageError("x holds no sample", where=str(path))
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "iu"):
        raise UsageError(
            f"y is {y.dtype} of shape {list(y.shape)}, where {len(x)} whole numbers belong to x", where=str(path)
        )
    return x, y
