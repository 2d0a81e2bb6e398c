"""int8 in which the layers that cost most stay float or have activations of 16 bits, as few of them as a bound needs.

Whole int8 is tried first. Where it does not do, the layers are measured one by one (`sensitivity`), and
those with the largest errors go to the other format: one, two, four and so on until the file is accepted, then as few
as will do. Who accepts is the caller, by samples that do not count.

What a layer costs in int8 is mostly its output's rounding. A float layer hands on floats; one with activations of 16
bits whose readers stay in 8 has its output rounded to 8 bits all the same, so its readers go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_converter.errors import QuantizationError
from edge_converter.quantization import compensate, quantize, sensitivity
from edge_converter.quantization.bench import Bench
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.quantize import Granularity, Instead
from edge_converter.quantization.sensitivity import LayerError
from edge_sdk.manifest import Precision

# Of the layers: with more of them in float it is no int8 file any more.
_MOST = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """The file, and what was measured to get there.

    Attributes:
        content: The file.
        others: Names of the layers in the other format, and of what reads them where that has to go with them.
        layers: What each layer alone costs, where it came to that.
        tries: Files that were made.
    """

    content: bytes
    others: tuple[str, ...]
    layers: tuple[LayerError, ...]
    tries: int


def make(
    floating: bytes, ranges: Mapping[str, Any], bench: Bench, folder: Path, *, accepts: Callable[[bytes], bool],
    where: str, granularity: Granularity = Granularity.CHANNEL, most: float = _MOST, instead: Instead = Instead.FLOAT,
) -> Partial:  # fmt: skip
    """Make int8 with as few layers in another format as `accepts` asks for.

    Requires: a float file whose operators the runtime computes alone. Ensures: what is returned was accepted.

    Args:
        floating: The float file.
        ranges: Of its activations.
        bench: Samples that choose integers, and some apart.
        folder: For temporary files.
        accepts: Whether a file will do.
        where: The file's name, for errors.
        granularity: Of the weights' scales.
        most: Share of the layers that may be in the other format.
        instead: That format.

    Raises:
        QuantizationError: No such file was accepted, or it cannot be made.
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    source = folder / "float.tflite"
    source.write_bytes(floating)
    tried: dict[int, tuple[bytes, bool]] = {}
    ranked: list[LayerError] = []

    def others(count: int) -> tuple[str, ...]:
        names = [layer.name for layer in ranked[:count]]
        return tuple(names) if instead is Instead.FLOAT else _with_readers(floating, names, where)

    def good(count: int) -> bool:
        if count not in tried:
            into = folder / "partial.tflite"
            quantize.quantize(
                source, Precision.INT8, into, ranges=dict(ranges), granularity=granularity, others=others(count),
                instead=instead,
            )  # fmt: skip
            content = _closest(floating, into.read_bytes(), bench, where)
            tried[count] = content, accepts(content)
        return tried[count][1]

    count = 0
    layers: tuple[LayerError, ...] = ()
    if not good(0):
        layers = sensitivity.int8(floating, tried[0][0], bench.apart, where=where)
        ranked += sorted(layers, key=lambda layer: -layer.error)
        count = _fewest(good, int(most * len(ranked)), instead, where)
    return Partial(
        content=tried[count][0],
        others=others(count),
        layers=layers,
        tries=len(tried),
    )


def _closest(floating: bytes, quantized: bytes, bench: Bench, where: str) -> bytes:
    """The file with integers chosen anew, where that brings its answers closer."""
    chosen = compensate.compensate(floating, quantized, bench.choosing, where=where).content
    return chosen if bench.error(chosen) < bench.error(quantized) else quantized


def _with_readers(floating: bytes, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Layers and what reads them, in the order of the graph, by the names of their outputs."""
    graph = FloatGraph(floating, where=where)
    wanted = set(names)
    read = {tensor for operator in graph.operators for tensor in operator.outputs if graph.name(tensor) in wanted}
    wanted |= {graph.name(operator.outputs[0]) for operator in graph.operators if read & {*operator.inputs}}
    outputs = (graph.name(operator.outputs[0]) for operator in graph.operators)
    return tuple(name for name in outputs if name in wanted)


def _fewest(good: Callable[[int], bool], most: int, instead: Instead, where: str) -> int:
    """The least count that is good, if more is never worse.

    Raises:
        QuantizationError: None up to `most` is.
    """
    low, high = 0, 1
    while high <= most and not good(high):
        low, high = high, 2 * high
    if high > most and not (low < most and good(most)):
        raise QuantizationError(f"int8 with {most} layers in {instead.value} is still not good enough", where=where)
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
