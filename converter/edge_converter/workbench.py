"""What all post-training formats of one float file share, found once: samples, equalized channels, ranges.

Three quarters of the calibration samples choose, one quarter is kept apart to find out what helped. Nothing here reads
a label.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_converter import equalize, flatbuffer, quantize, ranges
from edge_converter.answers import distance, scores
from edge_converter.data import Integers, Samples
from edge_converter.equalize import Aim, Equalized
from edge_converter.errors import QuantizationError
from edge_converter.layerwise import FloatGraph, samples_that_fit
from edge_converter.quantize import Granularity
from edge_converter.ranges import Method
from edge_converter.values import Array, Floats
from edge_sdk.manifest import Precision

_log = logging.getLogger(__name__)

FEWEST_APART = 4
# What equalized channels are found by: only the largest magnitudes count.
_TO_EQUALIZE = 32
# Relative to the variance of the scores: what float32 makes of the same network computed with other factors is a
# millionth of a millionth.
_SAME = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A float file to quantize, and the ranges of its activations.

    Attributes:
        path: The file.
        content: What is in it.
        ranges: By name of tensor, as the quantizer takes them.
        evidence: What was tried and taken, as parameters of a pass.
    """

    path: Path
    content: bytes
    ranges: dict[str, Any]
    evidence: dict[str, bool | int | float | str]


@dataclass(slots=True)
class Workbench:
    """A float file, and calibration samples for it.

    Attributes:
        source: The file.
        folder: For files in between.
        content: The file as the quantizer understands it.
        choosing: Samples that integers and ranges are chosen by, by input tensor, batch dimension included.
        apart: Samples that tell what helped.
        wanted: What the float file answers to those.
    """

    source: Path
    folder: Path
    content: bytes
    choosing: Mapping[int, Floats]
    apart: Floats
    wanted: list[Array]
    _bases: dict[tuple[Granularity, tuple[Method, ...]], Base] = field(default_factory=dict)

    def error(self, content: bytes) -> float:
        """Mean square of what a file's scores differ by from the float file's, relative to their variance."""
        return distance(content, self.apart, self.wanted)

    def base(self, granularity: Granularity, methods: tuple[Method, ...]) -> Base:
        """The float file with channels at one scale, and the ranges of the method that answers closest to it.

        Args:
            granularity: Of the weights: with one scale a layer the weights' own channels are balanced, too.
            methods: To choose from; with one nothing is tried.

        Raises:
            QuantizationError: The quantizer failed.
            ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
        """
        key = granularity, methods
        if key not in self._bases:
            self._bases[key] = self._found(granularity, methods)
        return self._bases[key]

    def _found(self, granularity: Granularity, methods: tuple[Method, ...]) -> Base:
        where = str(self.source)
        some = {tensor: samples[:_TO_EQUALIZE] for tensor, samples in self.choosing.items()}
        largest = {name: one.channels for name, one in ranges.observe(self.content, some, where=where).items()}
        aim = Aim.ACTIVATIONS if granularity is Granularity.CHANNEL else Aim.BOTH
        made = equalize.equalize(self.content, largest, aim, where=where)
        if made.groups and not self.error(made.content) <= _SAME:
            _log.info("%s: channels are left at their scales: the answers would change", self.source.name)
            made = Equalized(content=self.content, groups=0, channels=0, held=made.held)
        path = self.folder / f"{self.source.stem}-{granularity.value}-equalized.tflite"
        path.write_bytes(made.content)
        observed = ranges.observe(made.content, self.choosing, where=where)
        tried = {method: ranges.chosen(observed, method) for method in methods}
        errors = {method: self._error_of(path, tried[method], granularity) for method in methods if len(methods) > 1}
        best = min(errors, key=lambda method: errors[method]) if errors else methods[0]
        evidence: dict[str, bool | int | float | str] = {
            "equalized_channels": made.channels,
            "ranges": best.value,
            **{f"error_{method.value}": round(error, 6) for method, error in errors.items()},
        }
        return Base(path=path, content=made.content, ranges=tried[best], evidence=evidence)

    def _error_of(self, path: Path, found: dict[str, Any], granularity: Granularity) -> float:
        into = self.folder / "tried.tflite"
        quantize.quantize(path, Precision.INT8, into, ranges=found, granularity=granularity)
        error = self.error(into.read_bytes())
        into.unlink()
        return error


def open_bench(source: Path, samples: Samples, rows: Integers, folder: Path) -> Workbench:
    """Put a float file and calibration samples on the bench.

    Args:
        source: A float `.tflite` file.
        samples: Calibration data.
        rows: Of it.
        folder: For files in between; it exists.

    Raises:
        QuantizationError: There are too few samples, or the network takes several inputs.
    """
    where = str(source)
    content = flatbuffer.prepare(source.read_bytes(), where=where)
    graph = FloatGraph(content, where=where)
    count = samples_that_fit(graph, len(rows))
    check = count // 4
    if len(graph.inputs) != 1:
        raise QuantizationError(f"{len(graph.inputs)} inputs: layers are not looked at one by one", where=where)
    if check < FEWEST_APART:
        raise QuantizationError(f"{count} samples are too few to choose the integers by", where=where)
    some = samples.read(rows[:count])
    apart = some[count - check :]
    return Workbench(
        source=source,
        folder=folder,
        content=content,
        choosing={graph.inputs[0]: some[: count - check][:, np.newaxis]},
        apart=apart,
        wanted=scores(content, apart),
    )
