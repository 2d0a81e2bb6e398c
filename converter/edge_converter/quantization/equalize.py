"""The same float network with its channels at one scale, so that one grid of integers fits all of them.

A channel may be made smaller by any factor where it is computed and larger by the same where it is read: rectifiers
and sums let positive factors through (Nagel et al., Data-free quantization through weight equalization and bias
correction, arXiv 1906.04721). There the ranges of the weights are balanced; here, too, those of the activations.

Tensors whose channels have to share their factors (the inputs and output of an addition, a pool, a rectifier) form one
group. A group counts where every operator that writes or reads it can take the factor into its weights. ReLU6 does not
let factors through: a channel behind it is scaled only where nothing seen reaches 6, and only as far as still nothing
would, with a margin; others keep their scale.

Requires: a float file of one subgraph. Ensures: the same operators, names and shapes; the answers on the samples given
differ by rounding of float32 alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edge_converter import flatbuffer
from edge_converter.quantization.layerwise import FloatGraph
from edge_converter.quantization.values import Floats

Factors = NDArray[np.float64]

_SUMS = ("ADD", "SUB")
_THROUGH = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU", "PAD", "MEAN", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SIX = 6.0
_CLIPS = _SIX - 1e-4
_MOST = 32.0  # no factor is further from 1 than this
_ROUNDS = 4
_TINY = 1e-9


class Aim(Enum):
    """What is to be at one scale."""

    ACTIVATIONS = "activations"
    WEIGHTS = "weights"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """The float file with other constants.

    Attributes:
        content: The file; as it was where nothing could be done.
        groups: Groups of tensors whose channels were scaled.
        channels: How many were.
        held: Channels that kept their scale because ReLU6 clips them.
    """

    content: bytes
    groups: int
    channels: int
    held: int


@dataclass(slots=True, kw_only=True)
class _Group:
    """Tensors whose channels share their factors.

    Attributes:
        channels: How many there are.
        writers: Operators whose weights make them.
        readers: Operators whose weights read them.
        tensors: Themselves.
        clipped: One of them comes out of ReLU6.
        free: Everything that touches them can take a factor.
    """

    channels: int
    writers: list[int] = field(default_factory=list)
    readers: list[int] = field(default_factory=list)
    tensors: list[int] = field(default_factory=list)
    clipped: bool = False
    free: bool = True


def equalize(source: bytes, largest: Mapping[str, Floats], aim: Aim, *, where: str, margin: float = 0.0) -> Equalized:
    """Bring the channels to one scale.

    Args:
        source: The float file.
        largest: The largest magnitude seen in each channel, `[channels]`, by name of tensor (`ranges.observe`).
        aim: What to balance: activations where weights have a scale for each channel, both where they have one.
        where: The file's name, for errors.
        margin: What unseen samples may exceed those seen by before ReLU6 clips them; 0 leaves all channels behind
            ReLU6 as they are.
    """
    graph = FloatGraph(source, where=where)
    groups = [group for group in _groups(graph) if group.free and group.writers and group.readers]
    groups = [group for group in groups if margin or not group.clipped]
    weights = _Weights(graph)
    scaled: dict[int, Factors] = {number: np.ones(group.channels) for number, group in enumerate(groups)}
    held = 0
    for _ in range(_ROUNDS if aim is not Aim.ACTIVATIONS else 1):
        held = 0
        for number, group in enumerate(groups):
            seen = _seen(graph, group, largest)
            if seen is None:
                continue
            before = scaled[number]
            wanted = before * _wanted(weights, group, seen / before, aim)
            factors, kept = _allowed(group, wanted, seen, margin)
            held += kept
            for operator in group.writers:
                weights.write(operator, before / factors)
            for operator in group.readers:
                weights.read(operator, factors / before)
            scaled[number] = factors
    moved = [factors for factors in scaled.values() if (np.abs(factors - 1) > _TINY).any()]
    return Equalized(
        content=weights.file() if moved else source,
        groups=len(moved),
        channels=sum(int((np.abs(factors - 1) > _TINY).sum()) for factors in moved),
        held=held,
    )


def _seen(graph: FloatGraph, group: _Group, largest: Mapping[str, Floats]) -> Factors | None:
    found = [largest[graph.name(tensor)] for tensor in group.tensors if graph.name(tensor) in largest]
    if len(found) < len(group.tensors) or any(len(one) != group.channels for one in found):
        return None
    seen: Factors = np.max(found, axis=0).astype(np.float64)
    return seen


def _wanted(weights: _Weights, group: _Group, seen: Factors, aim: Aim) -> Factors:
    """What each channel is to be divided by, before it is known what is allowed."""
    alive = seen > _TINY * max(float(seen.max()), _TINY)
    logs = np.zeros(group.channels)
    if aim is not Aim.WEIGHTS:
        logs += np.where(alive, np.log(np.maximum(seen, _TINY)), 0.0) * (1.0 if aim is Aim.ACTIVATIONS else 1 / 3)
    if aim is not Aim.ACTIVATIONS:
        written = np.max([weights.written(operator) for operator in group.writers], axis=0)
        read = np.max([weights.met(operator) for operator in group.readers], axis=0)
        balance = 0.5 * (np.log(np.maximum(written, _TINY)) - np.log(np.maximum(read, _TINY)))
        logs += np.where((written > _TINY) & (read > _TINY) & alive, balance, 0.0) * (
            1.0 if aim is Aim.WEIGHTS else 2 / 3
        )
    # What is common to all channels changes nothing, but for ReLU6: there nothing may grow beyond it.
    logs -= float(np.max(logs[alive])) if alive.any() else 0.0
    factors: Factors = np.where(alive, np.clip(np.exp(logs), 1 / _MOST, _MOST), 1.0)
    return factors


def _allowed(group: _Group, wanted: Factors, seen: Factors, margin: float) -> tuple[Factors, int]:
    """What ReLU6 leaves of the factors, and how many channels it holds at 1."""
    if not group.clipped:
        return wanted, 0
    clips = seen >= _CLIPS
    # Never below what brings the largest seen, with a margin, to 6.
    least = np.minimum(seen * margin / _SIX, 1.0)
    factors: Factors = np.where(clips, 1.0, np.maximum(wanted, least))
    return factors, int(clips.sum())


class _Weights:
    """The constants of a graph's layers, scaled in float64 and written at the end."""

    def __init__(self, graph: FloatGraph) -> None:
        self._graph = graph
        self._values: dict[int, Factors] = {}

    def written(self, operator: int) -> Factors:
        """The largest weight of each channel that comes out."""
        weights = self._of(operator, 1)
        if self._each(operator):
            return self.met(operator)
        largest: Factors = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
        return largest

    def met(self, operator: int) -> Factors:
        """The largest weight each channel is multiplied with."""
        weights = self._of(operator, 1)
        largest: Factors = np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0)
        return largest

    def write(self, operator: int, factors: Factors) -> None:
        """Multiply the channels that come out."""
        weights = self._of(operator, 1)
        weights *= factors if self._each(operator) else factors.reshape(-1, *([1] * (weights.ndim - 1)))
        bias = self._of(operator, 2)
        if bias is not None:
            bias *= factors

    def read(self, operator: int, factors: Factors) -> None:
        """Multiply the weights of the channels that come in."""
        weights = self._of(operator, 1)
        weights *= factors

    def file(self) -> bytes:
        """The graph's file with these constants."""
        tensors = self._graph.graph.tensors
        for tensor, values in self._values.items():
            flatbuffer.put(self._graph.model, tensors[tensor], values.astype(np.float32))
        return flatbuffer.serialize(self._graph.model)

    def _each(self, operator: int) -> bool:
        return self._graph.kind(self._graph.operators[operator]) == "DEPTHWISE_CONV_2D"

    def _of(self, operator: int, position: int) -> Any:
        inputs = self._graph.operators[operator].inputs
        if position >= len(inputs) or inputs[position] < 0:
            return None
        tensor = int(inputs[position])
        if tensor not in self._values:
            value = self._graph.constant(tensor)
            if value is None:
                return None
            self._values[tensor] = value.astype(np.float64)
        return self._values[tensor]


def _groups(graph: FloatGraph) -> list[_Group]:
    """The tensors of a graph by whose factors they share, and what touches them."""
    groups, used = _Groups(graph), _uses(graph)
    for number, operator in enumerate(graph.operators):
        inputs = [int(index) for index in operator.inputs if index >= 0]
        held = _empty(graph, inputs)
        moving = [index for index in inputs if index not in held]
        output, role = int(operator.outputs[0]), _role(graph, operator, moving, used)
        if role is _Role.LAYER:
            groups.of(moving[0]).readers.append(number)
            groups.of(output).writers.append(number)
        elif role is _Role.THROUGH:
            for tensor in moving:
                groups.join(tensor, output)
        else:
            for tensor in (*moving, *(int(index) for index in operator.outputs)):
                groups.of(tensor).free = False
        groups.of(output).clipped |= _activation(operator) == schema.ActivationFunctionType.RELU6
    return groups.all()


class _Groups:
    """Sets of tensors that are joined where an operator hands factors on."""

    def __init__(self, graph: FloatGraph) -> None:
        self._graph = graph
        self._by_tensor: dict[int, _Group] = {}

    def of(self, tensor: int) -> _Group:
        """The group of a tensor."""
        if tensor not in self._by_tensor:
            shape = self._graph.graph.tensors[tensor].shape
            found = _Group(channels=int(shape[-1]) if shape is not None and len(shape) > 1 else 0, tensors=[tensor])
            found.free = found.channels > 0 and tensor not in {*self._graph.inputs, *self._graph.outputs}
            self._by_tensor[tensor] = found
        return self._by_tensor[tensor]

    def join(self, one: int, other: int) -> None:
        """Two tensors share their factors."""
        first, second = self.of(one), self.of(other)
        if first is second:
            return
        first.free &= second.free and first.channels == second.channels
        first.clipped |= second.clipped
        first.writers += second.writers
        first.readers += second.readers
        first.tensors += second.tensors
        for tensor in second.tensors:
            self._by_tensor[tensor] = first

    def all(self) -> list[_Group]:
        """Each once, in the order of the graph."""
        return list({id(group): group for group in self._by_tensor.values()}.values())


class _Role(Enum):
    LAYER = "takes factors into its weights"
    THROUGH = "hands factors on"
    BORDER = "neither"


def _role(graph: FloatGraph, operator: Any, moving: list[int], used: Mapping[int, int]) -> _Role:
    """What an operator does with factors of its channels."""
    kind, output = graph.kind(operator), int(operator.outputs[0])
    clips = schema.ActivationFunctionType.RELU6
    lets = _activation(operator) in {schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU, clips}
    if not lets or not moving:
        return _Role.BORDER
    if kind in _LAYERS:
        takes = moving == [int(operator.inputs[0])] and _takes(graph, operator, used)
        return _Role.LAYER if takes else _Role.BORDER
    if kind in _SUMS:
        equal = len(moving) == 2 and _same_shape(graph, [*moving, output])  # noqa: PLR2004 - a sum of two
        return _Role.THROUGH if equal else _Role.BORDER
    through = kind in _THROUGH and len(moving) == 1 and _same_channels(graph, moving[0], output)
    return _Role.THROUGH if through else _Role.BORDER


def _activation(operator: Any) -> int:
    return int(getattr(operator.builtinOptions, "fusedActivationFunction", 0))


def _uses(graph: FloatGraph) -> dict[int, int]:
    """How many operators read each tensor."""
    found: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            found[int(index)] = found.get(int(index), 0) + 1
    return found


def _empty(graph: FloatGraph, inputs: Iterable[int]) -> set[int]:
    """Inputs the file holds in a dtype no weight has: paddings and axes."""
    return {
        index
        for index in inputs
        if (data := graph.model.buffers[graph.graph.tensors[index].buffer].data) is not None and len(data)
    }


def _takes(graph: FloatGraph, operator: Any, used: Mapping[int, int]) -> bool:
    """Whether a layer's constants are its own, and floats, and a channel in and out is one of theirs."""
    constants = [int(index) for index in operator.inputs[1:] if index >= 0]
    values = [graph.constant(index) for index in constants]
    shared = any(used[index] > 1 for index in constants)
    if shared or any(value is None or value.dtype != np.float32 for value in values):
        return False
    weights = values[0]
    shape = graph.graph.tensors[operator.inputs[0]].shape
    return weights is not None and shape is not None and len(shape) > 1 and weights.shape[-1] == int(shape[-1])


def _same_shape(graph: FloatGraph, tensors: Iterable[int]) -> bool:
    return len({tuple(int(size) for size in graph.graph.tensors[tensor].shape) for tensor in tensors}) == 1


def _same_channels(graph: FloatGraph, one: int, other: int) -> bool:
    first, second = graph.graph.tensors[one].shape, graph.graph.tensors[other].shape
    return first is not None and second is not None and len(second) > 1 and int(first[-1]) == int(second[-1])
