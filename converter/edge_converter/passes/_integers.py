"""`compensate`, `cluster` and `allocate`: passes that choose the integers of a quantized model by what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from edge_converter import compensate, graph, mixed, quantize
from edge_converter.errors import QuantizationError
from edge_converter.passes._contract import Room, Work
from edge_converter.quantize import Quantized
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision
from edge_sdk.wire import Wire

_COMPENSATED = (Precision.INT8, Precision.WEIGHT8, Precision.WEIGHT4, Precision.MIXED)


class CompensateOptions(Wire, frozen=True, kw_only=True):
    """None yet."""


class Compensate:
    """Chooses integers so that the answers stay, where that brings them closer to the float model's."""

    name = "compensate"
    version = 1
    serves_all_formats = False
    options = CompensateOptions

    def requires(self, work: Work, options: CompensateOptions, room: Room) -> str:
        """A model with 8- or 4-bit weights."""
        del options, room
        if work.is_float:
            return "the model is not quantized: put quantize before it"
        return "" if work.precision in _COMPENSATED else f"the weights of {work.precision.value} are no integers"

    def run(self, work: Work, options: CompensateOptions, room: Room) -> Work:
        """Choose.

        Raises:
            QuantizationError: The file cannot be read back.
        """
        del options
        source, made = _files(work, room)
        refined = compensate.refine(source, made, room.samples, room.rows)
        record = Record(
            name=self.name,
            parameters={"samples": len(room.rows)},
            evidence={"kept": refined.compression.parameters.get("rounding") == "compensated"},
        )
        return replace(work, content=refined.path.read_bytes(), done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: CompensateOptions) -> str:
        """The same operators and formats."""
        del options
        return _same_form(before, after)


class ClusterOptions(Wire, frozen=True, kw_only=True):
    """How few integers.

    Attributes:
        levels: Distinct integers a channel, odd.
    """

    levels: Annotated[int, Meta(ge=3, le=253)] = 49


class Cluster:
    """Leaves few distinct integers a channel, so that the file travels lighter and runs as fast as before."""

    name = "cluster"
    version = 1
    serves_all_formats = False
    options = ClusterOptions

    def requires(self, work: Work, options: ClusterOptions, room: Room) -> str:
        """An int8 model."""
        del room
        if work.is_float or work.precision is not Precision.INT8:
            return "only int8 models are clustered: put quantize before it"
        return "" if options.levels % 2 else "the levels are an even number: one is zero, the others come in pairs"

    def run(self, work: Work, options: ClusterOptions, room: Room) -> Work:
        """Choose.

        Raises:
            QuantizationError: The layers cannot be computed one by one, or there are too few samples.
        """
        source, made = _files(work, room)
        few = compensate.cluster(source, made, room.samples, room.rows, options.levels)
        record = Record(name=self.name, parameters={"levels": options.levels, "samples": len(room.rows)})
        return replace(work, content=few.path.read_bytes(), done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: ClusterOptions) -> str:
        """The same operators and formats."""
        del options
        return _same_form(before, after)


class AllocateOptions(Wire, frozen=True, kw_only=True):
    """None: the size is the request's."""


class Allocate:
    """Stores weights in 8 bits, and in 4 where that costs least."""

    name = "allocate"
    version = 1
    serves_all_formats = False
    options = AllocateOptions

    def requires(self, work: Work, options: AllocateOptions, room: Room) -> str:
        """A float model."""
        del options, room
        if work.precision is not Precision.MIXED:
            return f"it makes mixed models, not {work.precision.value}"
        return "" if work.is_float else "the model is quantized already"

    def run(self, work: Work, options: AllocateOptions, room: Room) -> Work:
        """Search.

        Raises:
            QuantizationError: No layer bears 4 bits, or the file cannot be made as small as asked.
        """
        del options
        source, into = room.folder / "float.tflite", room.folder / "mixed.tflite"
        source.write_bytes(work.floating)
        with _one_by_one(room.where):
            made = mixed.make(source, room.samples, room.rows, into, max_size=room.max_size, progress=room.progress)
        return replace(work, content=into.read_bytes(), done=(*work.done, made.compression))

    def ensures(self, before: Work, after: Work, options: AllocateOptions) -> str:
        """Another file."""
        del options
        return "the file is as it was" if after.content == before.content else ""


def _files(work: Work, room: Room) -> tuple[Path, Quantized]:
    """The float file, and the quantized one as `edge_converter.quantize` gives it."""
    source, at = room.folder / "float.tflite", room.folder / "integers.tflite"
    source.write_bytes(work.floating)
    at.write_bytes(work.content)
    return source, quantize.read_back(at, work.precision, work.done[-1], where=room.where)


def _same_form(before: Work, after: Work) -> str:
    one, other = (graph.parsed(work.content, where="a file of ours") for work in (before, after))
    if one.operators != other.operators:
        return "the operators are others"
    formats = [[op.precision for op in found.weighted] for found in (one, other)]
    return "" if formats[0] == formats[1] else "the number formats are others"


@contextmanager
def _one_by_one(where: str) -> Iterator[None]:
    """Name what the runtime says of operators it cannot compute alone.

    Raises:
        QuantizationError: It said something.
    """
    try:
        yield
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as cause:
        raise QuantizationError(f"its layers cannot be computed one by one: {cause}", where=where) from cause
