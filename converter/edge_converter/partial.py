"""int8 in which the layers that cost most stay float, as few of them as a bound needs.

Whole int8 is tried first. Where it does not do, the layers are measured one by one (`edge_converter.sensitivity`), and
those with the largest errors go back to float: one, two, four and so on until the file is accepted, then as few as will
do. Who accepts is the caller: agreement or a drop on steering samples, never on those that count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_converter import compensate, quantize, sensitivity, workbench
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.posttraining import METHODS
from edge_converter.quantize import Granularity, Quantized
from edge_converter.sensitivity import LayerError
from edge_converter.workbench import Base, Workbench
from edge_sdk.manifest import Pass, Precision

# Of the layers: with more of them in float it is no int8 file any more.
_MOST = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """The file, and what was measured to get there.

    Attributes:
        quantized: The file.
        floats: Names of the layers that stay float.
        layers: What each layer alone costs, where it came to that.
        tries: Files that were made.
    """

    quantized: Quantized
    floats: tuple[str, ...]
    layers: tuple[LayerError, ...]
    tries: int


def make(
    source: Path, samples: Samples, rows: Integers, into: Path, *, accepts: Callable[[Path], bool],
    granularity: Granularity = Granularity.CHANNEL, most: float = _MOST,
) -> Partial:  # fmt: skip
    """Write `source` in int8 with as few layers in float as `accepts` asks for.

    Requires: a float `.tflite` file with one input. Ensures: the file at `into` was accepted.

    Args:
        source: The float file.
        samples: Calibration data; labels are not looked at.
        rows: Of it.
        into: The file to write.
        accepts: Whether a file will do.
        granularity: Of the weights' scales.
        most: Share of the layers that may stay float.

    Raises:
        QuantizationError: No such file was accepted, or it cannot be made.
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    with tempfile.TemporaryDirectory(prefix="edge-partial-") as folder:
        bench = workbench.open_bench(source, samples, rows, Path(folder))
        base = bench.base(granularity, METHODS)
        tried: dict[int, tuple[Quantized, bool]] = {}
        ranked: list[LayerError] = []

        def good(count: int) -> bool:
            if count not in tried:
                path = Path(folder) / f"{count}.tflite"
                made = _made(bench, base, path, [layer.name for layer in ranked[:count]], granularity)
                tried[count] = made, accepts(made.path)
            return tried[count][1]

        count = 0
        if not good(0):
            content = tried[0][0].path.read_bytes()
            measured = sensitivity.int8(base.content, content, bench.apart, where=str(source))
            ranked = sorted(measured, key=lambda layer: -layer.error)
            count = _fewest(good, int(most * len(ranked)), str(source))
            layers = measured
        else:
            layers = ()
        made = tried[count][0]
        into.write_bytes(made.path.read_bytes())
        names = tuple(layer.name for layer in ranked[:count])
        told = {"layers_in_float": count, "files_tried": len(tried)}
        compression = Pass(name=made.compression.name, parameters={**made.compression.parameters, **told})
        result = replace(made, path=into, compression=compression)
        return Partial(quantized=result, floats=names, layers=layers, tries=len(tried))


def _fewest(good: Callable[[int], bool], most: int, where: str) -> int:
    """The least count that is good, if more is never worse.

    Raises:
        QuantizationError: None up to `most` is.
    """
    low, high = 0, 1
    while high <= most and not good(high):
        low, high = high, 2 * high
    if high > most and not (low < most and good(most)):
        raise QuantizationError(f"int8 with {most} layers in float is still not good enough", where=where)
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def _made(bench: Workbench, base: Base, path: Path, floats: Sequence[str], granularity: Granularity) -> Quantized:
    made = quantize.quantize(
        base.path, Precision.INT8, path, ranges=base.ranges, granularity=granularity, floats=floats
    )  # fmt: skip
    chosen = compensate.compensate(base.content, path.read_bytes(), bench.choosing, where=str(bench.source))
    rounding = "nearest"
    if bench.error(chosen.content) < bench.error(path.read_bytes()):
        path.write_bytes(chosen.content)
        rounding = "compensated"
    parameters = {**made.compression.parameters, **base.evidence, "rounding": rounding}
    return replace(made, compression=Pass(name=made.compression.name, parameters=parameters))
