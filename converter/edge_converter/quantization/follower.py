"""One quantized file on the walk through the float graph it was made of: which layer is which, and what it hands on.

Layers are matched by the names of their outputs, which the quantizer keeps. What cannot be matched, or is of a kind
whose integers are not chosen here, keeps the quantizer's integers; it is named, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_converter import flatbuffer
from edge_converter.quantization.layer import LARGEST, Layer
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.quantize import NARROW
from edge_converter.quantization.values import Floats, Grid, Values

_CHOSEN = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_LAYERS = (*_CHOSEN, "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL")
_SHOWN = 60  # characters of a layer's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A quantized file whose integers are to be chosen anew.

    Attributes:
        content: What the quantizer made of the float file, tensors named as there.
        most: The largest magnitude of an integer in large layers, where fewer than the format's are wanted.
        price: What a bit costs, as a share of the mean square of a layer's output; 0 takes all the format has.
        rounds: Integers are chosen. Else they stay, and only biases are mended (bias correction; Nagel et al. 2019).
        follows: Each layer is chosen for what the quantized layers before it give. Else for what the trained ones
            give, which is as good where 8-bit weights are all that is quantized, and takes no second stream.
    """

    content: bytes
    most: int | None = None
    price: float = 0.0
    rounds: bool = True
    follows: bool = True


class Follower:
    """One quantized file: what is read from it, what is written into it, and its stream.

    Attributes:
        file: Parsed; the integers are written into it.
        follows: As `Twin`.
        replaced: By operator of the float file: the constants that were chosen, by tensor.
        skipped: Layers that keep the quantizer's integers, and why.
        stream: What its operators hand on, by tensor of the float file.
    """

    def __init__(self, twin: Twin, *, where: str) -> None:
        self.file = flatbuffer.parse(twin.content, where=where)
        self.follows = twin.follows
        self.replaced: dict[int, dict[int, Floats]] = {}  # by operator: the constants that were chosen, by tensor
        self.skipped: list[str] = []
        self.stream: dict[int, Values] = {}
        self._twin = twin
        graph = _graph(self.file)
        self._tensors = {_text(entry.name): entry for entry in graph.tensors}
        self._made_by = {_text(graph.tensors[operator.outputs[0]].name): operator for operator in graph.operators}
        self._unpacked = flatbuffer.unpacked(self.file)

    def grid(self, name: str) -> Grid | None:
        """What the file rounds a tensor to; None where it keeps floats."""
        entry = self._tensors.get(name)
        if entry is None or entry.quantization is None or entry.quantization.scale is None:
            return None
        if flatbuffer.TYPE_NAMES[entry.type] != "int8" or len(entry.quantization.scale) != 1:
            return None
        return Grid(scale=float(entry.quantization.scale[0]), zero=int(entry.quantization.zeroPoint[0]))

    def _scale(self, index: int) -> float | None:
        """Of a tensor's integers, 8 bits or 16; None where it holds floats."""
        entry = _graph(self.file).tensors[index]
        if flatbuffer.TYPE_NAMES[entry.type] not in {"int8", "int16"}:
            return None
        return float(entry.quantization.scale[0])

    def layer(self, graph: FloatGraph, operator: Any) -> Layer | None:
        """The layer behind an operator, if it is one whose integers can be chosen; why not is kept in `skipped`."""
        kind, name = graph.kind(operator), graph.name(int(operator.outputs[0]))
        twin = self._made_by.get(name)
        inputs = [int(index) for index in operator.inputs]
        if kind not in _LAYERS or twin is None or graph.constant(inputs[1]) is None:
            return None
        found = self._matched(graph, operator, twin)
        if isinstance(found, str):
            self.skipped.append(f"{kind} {name[:_SHOWN]}: {found}")
            return None
        return found

    def plain(self, graph: FloatGraph, operator: Any) -> dict[int, Floats]:
        """What the quantizer's own integers of a layer stand for, by tensor of the float file."""
        twin = self._made_by.get(graph.name(int(operator.outputs[0])))
        if twin is None or graph.kind(operator) != flatbuffer.op_name(self.file, twin):
            return {}
        found = {}
        for own, other in zip(operator.inputs, twin.inputs, strict=False):
            value = graph.constant(int(own))
            stored = self._stands_for(self._unpacked.get(int(other), int(other)))
            if value is not None and value.dtype == np.float32 and stored is not None and stored.shape == value.shape:
                found[int(own)] = stored
        return found

    def _stands_for(self, index: int) -> Floats | None:
        entry = _graph(self.file).tensors[index] if index >= 0 else None
        if entry is None or flatbuffer.TYPE_NAMES[entry.type] != "int8" or not flatbuffer.is_constant(self.file, index):
            return None
        codes = np.frombuffer(bytes(self.file.buffers[entry.buffer].data), np.int8).reshape(entry.shape)
        scales = np.asarray(entry.quantization.scale, np.float32)
        spread = [1] * codes.ndim
        if codes.ndim:
            spread[int(entry.quantization.quantizedDimension)] = len(scales)
        zeros = np.asarray(entry.quantization.zeroPoint, np.float32).reshape(-1)
        values: Floats = (codes.astype(np.float32) - zeros.reshape(spread)) * scales.reshape(spread)
        return values

    def _matched(self, graph: FloatGraph, operator: Any, twin: Any) -> Layer | str:
        kind, inputs = graph.kind(operator), [int(index) for index in operator.inputs]
        if kind not in _CHOSEN:
            return "its integers are rounded to the nearest"
        weights = graph.constant(inputs[1])
        biased = len(inputs) > 2 and inputs[2] >= 0  # noqa: PLR2004 - the third input is the bias
        bias = graph.constant(inputs[2]) if biased else None
        if weights is None or weights.dtype != np.float32 or (biased and bias is None):
            return "its weights are not floats in the source"
        channels = int(graph.graph.tensors[inputs[0]].shape[-1])
        if (kind == "CONV_2D" and weights.shape[-1] != channels) or (
            kind == "DEPTHWISE_CONV_2D" and weights.shape[-1] % channels
        ):
            return "grouped: its integers are rounded to the nearest"
        tensors = _graph(self.file).tensors
        at = int(twin.inputs[1])
        stored = tensors[self._unpacked.get(at, at)]
        stored_bias = tensors[twin.inputs[2]] if biased else None
        kinds = [flatbuffer.TYPE_NAMES[each.type] if each is not None else None for each in (stored, stored_bias)]
        # Integers are multiplied with integers, and the bias counts in units of both scales; or with floats.
        input_scale = self._scale(int(twin.inputs[0]))
        biases = {"int32", "int64", None} if input_scale is not None else {"float32", None}
        if kinds[0] not in (LARGEST if input_scale is None else {"int8"}) or kinds[1] not in biases:
            return f"left in {kinds[0]}"
        return Layer(
            kind=kind,
            options=operator.builtinOptions,
            weights=weights,
            bias=None if bias is None else bias.astype(np.float64),
            stored=stored,
            stored_bias=stored_bias,
            input_scale=input_scale,
            file=self.file,
            most=self._twin.most if kind in NARROW else None,
            price=self._twin.price if kind in NARROW else 0.0,
            kept=None if self._twin.rounds else self._stands_for(self._unpacked.get(at, at)),
        )


def _graph(file: Any) -> Any:
    return file.subgraphs[0]


def _text(name: Any) -> str:
    return bytes(name or b"").decode("utf-8", "replace")
