"""Number formats made from one float32 file, without TensorFlow.

Each recipe is data for litert-quantizer. What comes back is stamped with the operator versions it needs and then read
again: the quantizer says nothing about layers it leaves alone, so what was quantized is what the file shows.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from edge_converter import batches, flatbuffer, graph
from edge_converter.errors import QuantizationError
from edge_converter.graph import Graph
from edge_converter.labelled.data import Integers, Samples
from edge_sdk.manifest import Pass, Precision

# What `convert` makes of every float32 source, in the order it is shown.
DERIVED = (
    Precision.FP16,
    Precision.DYNAMIC,
    Precision.INT8,
    Precision.INT16X8,
    Precision.WEIGHT8,
    Precision.WEIGHT4,
    Precision.MIXED,
)
# What may be stored in 4 bits: the quantizer leaves depthwise weights in 8 without a word, and they are few.
NARROW = ("CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A file made from another.

    Attributes:
        path: Where it lies.
        graph: What it turned out to be.
        exceptions: Layers that are not in the format asked for.
        compression: What was done, with parameters.
    """

    path: Path
    graph: Graph
    exceptions: tuple[str, ...]
    compression: Pass


def calibrate(source: Path, samples: Samples, rows: Integers, *, threads: int) -> dict[str, Any]:
    """The ranges of all activations over these samples, for the static formats: they are the same for 8 and 16 bits.

    Raises:
        QuantizationError: The quantizer failed.
    """
    with _quiet(source, "calibrate"):
        content = flatbuffer.prepare(source.read_bytes(), where=str(source))
        tool = _tool(content)
        _static(tool, 8)
        model = flatbuffer.parse(content, where=str(source))
        signature = model.signatureDefs[0]
        called = {int(entry.tensorIndex): bytes(entry.name).decode() for entry in signature.inputs}
        names = [called[int(index)] for index in model.subgraphs[0].inputs]
        at_once = batches.size(graph.read(source).inputs)
        ranges: dict[str, Any] = tool.calibrate(
            {bytes(signature.signatureKey).decode(): _Calls(samples, rows, names, at_once)}, num_threads=threads
        )
        return ranges


class Granularity(Enum):
    """What has a scale of its own: each channel of a layer's weights, or only the layer, as some NPUs need it."""

    CHANNEL = "channel"
    TENSOR = "tensor"


class Instead(Enum):
    """What an operator of an int8 file is computed in that would lose too much in int8."""

    FLOAT = "float"
    INT16 = "int16"  # activations; weights stay int8


def quantize(
    source: Path, precision: Precision, into: Path, *, ranges: dict[str, Any] | None = None,
    granularity: Granularity = Granularity.CHANNEL, others: Collection[str] = (), instead: Instead = Instead.FLOAT,
) -> Quantized:  # fmt: skip
    """Write `source` in another number format.

    Args:
        source: A float32 file.
        precision: One of `DERIVED`, except `mixed` (`edge_converter.quantization.mixed`).
        into: The file to write.
        ranges: Of the activations, from `ranges.chosen` or `calibrate`, for the static formats.
        granularity: Of the weights' scales in `int8`; the other formats have one a channel.
        others: Names of the output tensors of operators that are computed in another format.
        instead: That format.

    Raises:
        QuantizationError: The quantizer failed, or no layer is in the format asked for afterwards.
    """
    with _quiet(source, precision.value):
        tool = _tool(flatbuffer.prepare(source.read_bytes(), where=str(source)))
        each = granularity is Granularity.CHANNEL
        parameters = _static(tool, 8, each=each) if precision is Precision.INT8 else _RECIPES[precision](tool)
        _leave(tool, others, instead)
        content = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    into.write_bytes(flatbuffer.stamp(bytes(content), where=f"{source} as {precision.value}"))
    compression = Pass(name="quantize", parameters={"precision": precision.value, **parameters})
    return read_back(into, precision, compression, where=str(source))


def read_back(path: Path, precision: Precision, compression: Pass, *, where: str) -> Quantized:
    """What a file turned out to be that was to be in this number format.

    Raises:
        QuantizationError: No layer is.
    """
    made = graph.read(path)
    exceptions = () if precision is Precision.MIXED else made.exceptions(precision)
    if len(exceptions) == len(made.weighted):
        raise QuantizationError(f"no layer could be made {precision.value}", where=where)
    return Quantized(path=path, graph=made, exceptions=exceptions, compression=compression)


def weights(content: bytes, four: Collection[str], *, where: str) -> bytes:
    """The same model with weights as integers that are unpacked before use: 8 bits, and 4 in the layers named.

    Args:
        content: A float32 file.
        four: Names of the output tensors of layers to store in 4 bits.
        where: The file's name, for errors.

    Raises:
        QuantizationError: The quantizer failed.
    """
    with _quiet(where, "weights"):
        from litert_quantizer import qtyping

        ops = qtyping.TFLOperationName
        tool = _tool(content)
        tool.add_weight_only_config(".*", ops.ALL_SUPPORTED, 8)
        for name in four:
            for op in NARROW:
                tool.add_weight_only_config(f"^{re.escape(name)};?$", ops[op], 4)
        made = tool.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model
    return flatbuffer.stamp(bytes(made), where=where)


def needs_ranges(precision: Precision) -> bool:
    """Whether the ranges of the activations must be known beforehand."""
    return precision in {Precision.INT8, Precision.INT16X8}


class _Calls:
    """Calibration samples as the quantizer takes them, one call after the other, each read when it is asked for."""

    def __init__(self, samples: Samples, rows: Integers, names: Sequence[str], at_once: int) -> None:
        self._samples, self._rows, self._names, self._at_once = samples, rows, names, at_once

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._rows), self._at_once):
            arrays = self._samples.read(self._rows[start : start + self._at_once])
            call = (stacked[0] for stacked in batches.calls(arrays, self._at_once))
            yield dict(zip(self._names, call, strict=True))


def _tool(content: bytes) -> Any:
    from litert_quantizer import quantizer

    return quantizer.Quantizer(content)


def _fp16(tool: Any) -> dict[str, bool | int | float | str]:
    from litert_quantizer import algorithm_manager, qtyping

    tool.update_quantization_recipe(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    return {"algorithm": "float_casting"}


def _dynamic(tool: Any) -> dict[str, bool | int | float | str]:
    from litert_quantizer import qtyping

    ops = qtyping.TFLOperationName
    tool.add_dynamic_config(".*", ops.ALL_SUPPORTED, 8)
    # One scale a channel in a hybrid dense layer is operator version 12: no runtime before LiteRT computes it right.
    tool.add_dynamic_config(".*", ops.FULLY_CONNECTED, 8, qtyping.QuantGranularity.TENSORWISE)
    return {"algorithm": "min_max", "convolutions": "channelwise", "dense": "tensorwise"}


def _static(tool: Any, bits: int, *, each: bool = True) -> dict[str, bool | int | float | str]:
    from litert_quantizer import algorithm_manager, qtyping

    ops, grain = qtyping.TFLOperationName, qtyping.QuantGranularity
    tool.add_static_config(".*", ops.ALL_SUPPORTED, bits, 8, grain.CHANNELWISE if each else grain.TENSORWISE)
    # LiteRT 2.3.0 computes products of integers with a constant as if it had one scale: with one a channel it gives 0.
    tool.add_static_config(".*", ops.BATCH_MATMUL, bits, 8, grain.TENSORWISE)
    for border in (ops.INPUT, ops.OUTPUT):  # apps give and take float, whatever is inside
        tool.update_quantization_recipe(".*", border, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    return {"algorithm": "min_max", "weights": "channelwise" if each else "tensorwise", "activation_bits": bits}


def _leave(tool: Any, others: Collection[str], instead: Instead) -> None:
    """Take operators out of a recipe."""
    from litert_quantizer import algorithm_manager, qtyping

    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    for name in others:
        scope = f"^{re.escape(name)};?$"
        if instead is Instead.INT16:
            tool.add_static_config(scope, everything, 16, 8, qtyping.QuantGranularity.CHANNELWISE)
        else:
            tool.update_quantization_recipe(
                scope, everything, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
            )


def _weights_only(tool: Any, bits: int) -> dict[str, bool | int | float | str]:
    from litert_quantizer import qtyping

    ops = qtyping.TFLOperationName
    tool.add_weight_only_config(".*", ops.ALL_SUPPORTED, 8)
    for op in NARROW if bits < 8 else ():  # noqa: PLR2004 - what all others are stored in
        tool.add_weight_only_config(".*", ops[op], bits)
    return {"algorithm": "min_max", "weights": "channelwise", "weight_bits": bits}


_RECIPES: dict[Precision, Callable[[Any], dict[str, bool | int | float | str]]] = {
    Precision.FP16: _fp16,
    Precision.DYNAMIC: _dynamic,
    Precision.INT8: lambda tool: _static(tool, 8),
    Precision.INT16X8: lambda tool: _static(tool, 16),
    Precision.WEIGHT8: lambda tool: _weights_only(tool, 8),
    Precision.WEIGHT4: lambda tool: _weights_only(tool, 4),
}


@contextlib.contextmanager
def _quiet(source: Path | str, what: str) -> Iterator[None]:
    """Swallow the quantizer's reports and progress bars, and give its errors a name.

    Raises:
        QuantizationError: It raised.
    """
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    # What it raises for graphs it does not understand is not documented; these are what its code raises.
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError) as cause:
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise QuantizationError(f"cannot be quantized ({what}): {reason}", where=str(source)) from cause
