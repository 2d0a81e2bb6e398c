"""Weights in 4 and 8 bits, layer by layer, so that a file of a given size loses least.

Activations stay float: such a file is for links and storage, not for speed. Which layers bear 4 bits is measured, not
guessed: each alone is rounded to 4 bits with compensation, put into the float file, and the whole file answers samples
that chose nothing. What its scores differ by is the layer's error. Errors of layers that are rounded together very
nearly add up, so the cheapest set that saves enough bytes is a knapsack, and is found exactly.

Measuring every layer in the whole network, and on samples apart from those its integers come from, is what decides: a
dense layer with more inputs than there are samples looks faultless on those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_converter import flatbuffer
from edge_converter.errors import QuantizationError
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import answers, compensate, layerwise, quantize
from edge_converter.quantization.compensate import Replaced
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.quantize import NARROW, Quantized
from edge_converter.quantization.values import Array
from edge_converter.request import Progress
from edge_sdk.manifest import Pass, Precision

_MOST_TOLD = 500  # layers whose error is told as evidence
_FEWEST_APART = 4
_STEPS = 4096  # of the knapsack
# Where no size is asked for: the sum of errors up to which layers are stored in 4 bits. EfficientNet-Lite0 answers
# 98 % of 800 photographs as before at 0.015, 97 % at 0.028.
_TOLERATED = 0.015
# The size is known once the file is written: scales and padding move it by little.
_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What a layer costs in 4 bits, and what it saves.

    Attributes:
        operator: Its number in the float file.
        name: Of its output tensor.
        error: Mean square of what the whole network's scores differ by, relative to their variance.
        saved_bytes: Against 8 bits.
    """

    operator: int
    name: str
    error: float
    saved_bytes: int


def make(
    source: Path, samples: Samples, rows: Integers, into: Path, *, max_size: int | None, progress: Progress
) -> Quantized:
    """Write `source` with weights in 8 bits, and in 4 where that costs least.

    Args:
        source: A float file.
        samples: Calibration data.
        rows: Of it; a quarter of them tells how well a layer bears 4 bits, and all choose the integers.
        into: The file to write.
        max_size: Bytes the file may have; None stores in 4 bits what makes next to no difference.
        progress: Told of each layer that was measured.

    Raises:
        QuantizationError: No layer can be stored in 4 bits, or the file cannot be made as small as asked.
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    where = str(source)
    content = flatbuffer.prepare(source.read_bytes(), where=where)
    graph = FloatGraph(content, where=where)
    some = samples.read(rows[: layerwise.samples_that_fit(graph, len(rows))])
    count = len(some[0])
    check = count // 4
    if check < _FEWEST_APART:
        raise QuantizationError(f"{count} samples are too few to tell which layers bear 4 bits", where=where)
    progress.stage("find layers for 4 bits", sum(graph.kind(operator) in NARROW for operator in graph.operators))
    calibrating, apart = [each[: count - check] for each in some], [each[count - check :] for each in some]
    layers = sensitivities(content, calibrating, apart, where=where, advance=progress.advance)
    if not layers:
        raise QuantizationError("no layer can be stored in 4 bits", where=where)
    chosen, made = _small_enough(content, layers, max_size, where=where)
    if not chosen:
        raise QuantizationError("no layer bears 4 bits, and with 8 the file is weight8", where=where)
    into.write_bytes(compensate.compensate(content, made, graph.calls(some), where=where).content)
    compression = Pass(
        name="quantize",
        parameters={
            "precision": Precision.MIXED.value,
            "algorithm": "least sum of errors",
            "layers_in_4_bits": len(chosen),
            "expected_error": round(sum(layer.error for layer in chosen), 5),
            "rounding": "compensated",
            "samples": count,
        },
        evidence={f"layer:{layer.name[:200]}": float(f"{layer.error:.4g}") for layer in layers[:_MOST_TOLD]},
    )
    return quantize.read_back(into, Precision.MIXED, compression, where=where)


def sensitivities(
    content: bytes,
    samples: Sequence[Array],
    apart: Sequence[Array],
    *,
    where: str,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Sensitivity, ...]:
    """Measure every layer that can be stored in 4 bits.

    Args:
        content: The float file.
        samples: That the integers are chosen by: one array per input, `[samples, *shape]`.
        apart: Others, that the errors are measured on.
        where: The file's name, for errors.
        advance: Told of each layer that is done.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
        QuantizationError: The quantizer failed.
    """
    graph = FloatGraph(content, where=where)
    narrow = [n for n, operator in enumerate(graph.operators) if graph.kind(operator) in NARROW]
    names = {n: graph.name(int(graph.operators[n].outputs[0])) for n in narrow}
    four = quantize.weights(content, list(names.values()), where=where)
    alone = compensate.replacements(content, four, graph.calls(samples), where=where)
    wanted = answers.scores(content, apart)
    found = []
    for number in narrow:
        if number in alone:
            error = answers.distance(_with(content, alone[number], where=where), apart, wanted)
            elements = math.prod(graph.graph.tensors[graph.operators[number].inputs[1]].shape)
            found.append(Sensitivity(operator=number, name=names[number], error=error, saved_bytes=int(elements) // 2))
        advance(1)
    return tuple(found)


def cheapest(layers: Sequence[Sensitivity], saved_bytes: int) -> tuple[Sensitivity, ...]:
    """The layers that together save at least this much, with the least sum of errors; all of them where none suffice.

    Args:
        layers: To choose from.
        saved_bytes: To be saved.
    """
    if saved_bytes <= 0:
        return ()
    if sum(layer.saved_bytes for layer in layers) <= saved_bytes:
        return tuple(layers)
    # What is saved is counted down and what is needed up, so a choice never saves less than it seems to.
    unit = max(1.0, saved_bytes / _STEPS)
    need = math.ceil(saved_bytes / unit)
    least = np.full(need + 1, np.inf)
    least[0] = 0.0
    taken = np.zeros((len(layers), need + 1), bool)
    for number, layer in enumerate(layers):
        saves = int(layer.saved_bytes / unit)
        before = least.copy()
        reached = before[np.maximum(np.arange(need + 1) - saves, 0)] + max(layer.error, 0.0)
        taken[number] = reached < before
        least = np.minimum(before, reached)
    chosen, left = [], need
    for number in reversed(range(len(layers))):
        if left > 0 and taken[number, left]:
            chosen.append(layers[number])
            left = max(0, left - int(layers[number].saved_bytes / unit))
    return tuple(reversed(chosen))


def bearable_bytes(layers: Sequence[Sensitivity]) -> int:
    """What can be saved at a sum of errors that makes next to no difference.

    Args:
        layers: To choose from.
    """
    low, high = 0, sum(layer.saved_bytes for layer in layers)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(layer.error for layer in cheapest(layers, middle)) <= _TOLERATED:
            low = middle
        else:
            high = middle
    return low


def _small_enough(
    content: bytes, layers: Sequence[Sensitivity], max_size: int | None, *, where: str
) -> tuple[tuple[Sensitivity, ...], bytes]:
    """The layers to store in 4 bits, and the file with them.

    Raises:
        QuantizationError: It cannot be made as small as asked.
    """

    def made(chosen: Sequence[Sensitivity]) -> tuple[bytes, int]:
        file = quantize.weights(content, [layer.name for layer in chosen], where=where)
        return file, len(flatbuffer.shorten_names(file, where=where))

    if max_size is None:
        chosen = cheapest(layers, bearable_bytes(layers))
        return chosen, made(chosen)[0]
    saved = made(())[1] - max_size
    for _ in range(_TRIES):
        chosen = cheapest(layers, saved)
        file, size = made(chosen)
        if size <= max_size:
            return chosen, file
        saved += size - max_size
    raise QuantizationError(
        f"{size:,} bytes is what weights in 4 and 8 bits come to, and at most {max_size:,} are allowed", where=where
    )


def _with(content: bytes, replaced: Replaced, *, where: str) -> bytes:
    """The float file with other constants."""
    model = flatbuffer.parse(content, where=where)
    for tensor, value in replaced.items():
        flatbuffer.put(model, model.subgraphs[0].tensors[tensor], value)
    return flatbuffer.serialize(model)
