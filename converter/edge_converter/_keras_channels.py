"""Which channels of a Keras model stand or fall together.

A channel that is taken out of one layer leaves every tensor it flows into: through activations, normalization,
depthwise kernels and pooling it keeps its place, additions tie it to the channels it is added to, concatenation moves
it, and flattening spreads it. So every tensor carries the vector of the channels along its last axis, each layer says
what it does to that vector, and what is tied is one *unit*: it is kept or removed as a whole. The idea of a dependency
graph is that of Fang and others, "DepGraph: towards any structural pruning", 2023, arXiv:2301.12900.

A layer nobody has described here keeps all channels of what it takes and gives, so a model may have any.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge_converter import _keras_graph

Ids = NDArray[np.int64]
_L = keras.layers
_PINNED = -1
# Kernels make this many output channels at once, whether they are wanted or not: with it the times of 14 smaller
# ResNet8 follow the multiplications to 2 % (fp32) and 3 % (int8), without it to 7 and 5 (XNNPACK, AVX-512).
TILE = 16
# What a multiplication of a depthwise kernel takes, of one of an ordinary kernel.
DEPTHWISE_COST = 4

_PASSING = (
    *(_L.ReLU, _L.LeakyReLU, _L.ELU, _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.GaussianNoise),
    *(_L.GaussianDropout, _L.ActivityRegularization, _L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D),
    *(_L.AveragePooling2D, _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalMaxPooling1D),
    *(_L.GlobalMaxPooling2D, _L.UpSampling1D, _L.UpSampling2D, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D),
    *(_L.Cropping2D, _L.Identity),
)
_MERGING = (_L.Add, _L.Multiply, _L.Subtract, _L.Average, _L.Maximum, _L.Minimum)
_CONVOLUTIONS = (_L.Conv1D, _L.Conv2D)
_DEPTHWISE = (_L.DepthwiseConv1D, _L.DepthwiseConv2D)
_SEPARABLE = (_L.SeparableConv1D, _L.SeparableConv2D)
_TRANSPOSED = (_L.Conv1DTranspose, _L.Conv2DTranspose)
# Operators that write `x + y` or `keras.ops.relu(x)` into a graph without a layer.
_MERGING_OPERATORS = {"Add", "Multiply", "Subtract", "Maximum", "Minimum"}
_PASSING_OPERATORS = {"Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "HardSigmoid", "HardSilu", "Gelu", "Elu", "Swish"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One axis of a weight that is indexed by channels.

    Attributes:
        weight: The attribute of the layer.
        axis: Of the weight.
        units: The unit of each index, -1 where the index is always kept.
    """

    weight: str
    axis: int
    units: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The multiplications of one use of a layer: `each` for every pair of an input and an output channel.

    Attributes:
        each: Multiplications for one pair.
        inputs: Units of the input channels; for depthwise kernels of the outputs, and `outputs` is empty.
        outputs: Units of the output channels.
    """

    each: int
    inputs: Ids
    outputs: Ids

    def macs(self, keep: NDArray[np.bool_], *, tile: int = 1) -> int:
        """With these units kept (the last entry of `keep`, for -1, is true), made in tiles of so many channels."""
        inputs, outputs = int(keep[self.inputs].sum()), int(keep[self.outputs].sum())
        if self.outputs.size:
            return self.each * inputs * _tiled(outputs, tile)
        return self.each * _tiled(inputs, tile)

    def cost(self, keep: NDArray[np.bool_]) -> int:
        """How long that takes, as multiply-accumulates of an ordinary convolution."""
        return self.macs(keep, tile=TILE) * (1 if self.outputs.size else DEPTHWISE_COST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channels of a model.

    Attributes:
        spaces: Units that the same layers make together, the members of each in order.
        slots: Of each layer, by its `id`.
        counts: The setting of each layer that says how many channels it has, by its `id`, and their units.
        gates: Of each node that reads channels, by its `id`: their units.
        work: What every node that multiplies has to do.
        units: How many there are.
    """

    spaces: tuple[Ids, ...]
    slots: dict[int, tuple[Slot, ...]]
    counts: dict[int, tuple[str, Ids]]
    gates: dict[int, Ids]
    work: tuple[Work, ...]
    units: int

    def all_kept(self) -> NDArray[np.bool_]:
        """The choice that keeps everything; its last entry stands for what can only be kept."""
        return np.ones(self.units + 1, np.bool_)

    def macs(self, keep: NDArray[np.bool_]) -> int:
        """Multiply-accumulates of an inference with these units kept."""
        return sum(work.macs(keep) for work in self.work)

    def cost(self, keep: NDArray[np.bool_]) -> int:
        """How long an inference takes with these units kept, as multiply-accumulates of an ordinary convolution."""
        return sum(work.cost(keep) for work in self.work)


def _tiled(channels: int, tile: int) -> int:
    return -(-channels // tile) * tile


def trace(model: Any) -> Channels:
    """The channels of a functional or sequential model.

    Raises:
        NoGraphError: It is neither.
    """
    tracer = _Tracer()
    inputs = _keras_graph.graph_of(model).inputs
    outputs = _keras_graph.walk(model, [_Signal(t.shape, tracer.fresh(t.shape, "input")) for t in inputs], tracer.call)
    for signal in outputs:
        tracer.pin(signal.ids)
    return tracer.channels()


@dataclass(frozen=True, slots=True)
class _Signal:
    """A tensor's shape, and the identity of each channel along its last axis."""

    shape: tuple[int | None, ...]
    ids: Ids


@dataclass(slots=True)
class _Tracer:
    parent: list[int] = field(default_factory=list)
    maker: list[str] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    slots: dict[int, dict[tuple[str, int], Ids]] = field(default_factory=dict)
    counts: dict[int, tuple[str, Ids]] = field(default_factory=dict)
    gates: dict[int, Ids] = field(default_factory=dict)
    work: list[tuple[int, Ids, Ids]] = field(default_factory=list)

    def fresh(self, shape: Any, maker: str) -> Ids:
        """New channels for a tensor of this shape; those of an input can only be kept."""
        count = (shape[-1] or 1) if len(shape) > 1 else 1
        first = len(self.parent)
        self.parent += range(first, first + count)
        self.maker += [maker] * count
        ids = np.arange(first, first + count, dtype=np.int64)
        if maker == "input":
            self.pin(ids)
        return ids

    def pin(self, ids: Ids) -> None:
        self.pinned += [int(one) for one in np.unique(ids)]

    def tie(self, one: Ids, other: Ids) -> Ids:
        """The channels stand and fall together from here on."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            roots = self._root(a), self._root(b)
            self.parent[max(roots)] = min(roots)
        return one

    def _root(self, one: int) -> int:
        while self.parent[one] != one:
            self.parent[one] = self.parent[self.parent[one]]
            one = self.parent[one]
        return one

    def call(self, node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        layer = node.operation
        signals = [v for v in keras.tree.flatten((args, keywords)) if isinstance(v, _Signal)]
        shapes = [tensor.shape for tensor in node.outputs]
        if len(shapes) == 1:
            ids = self._through(node, layer, signals, shapes[0])
            if ids is not None:
                if _normalizes(layer):
                    self.pin(ids)
                return _Signal(shapes[0], ids)
        for signal in signals:
            self.pin(signal.ids)
        made = [_Signal(shape, self.fresh(shape, "input")) for shape in shapes]
        return made if len(made) > 1 else made[0]

    def _through(self, node: Any, layer: Any, signals: list[_Signal], shape: tuple[int | None, ...]) -> Ids | None:
        """The channels of the output; None where nobody has described the layer."""
        if getattr(layer, "data_format", "channels_last") != "channels_last" or not signals:
            return None
        name = type(layer).__name__
        if isinstance(layer, _MERGING) or (name in _MERGING_OPERATORS and len(signals) == 2):  # noqa: PLR2004
            return self._merge(signals, shape)
        if len(signals) > 1:
            return self._concatenate(layer, signals) if isinstance(layer, _L.Concatenate) else None
        (signal,) = signals
        for kinds, rule in _RULES:
            if isinstance(layer, kinds):
                return rule(self, node, layer, signal, shape)
        return signal.ids if name in _PASSING_OPERATORS else None

    def _slot(self, layer: Any, weight: str, axis: int, ids: Ids) -> None:
        """Index the axis of a weight by channels; a layer that is used twice ties those of both uses."""
        if getattr(layer, weight, None) is None:
            return
        mine = self.slots.setdefault(id(layer), {})
        mine[weight, axis] = self.tie(mine[weight, axis], ids) if (weight, axis) in mine else ids

    def _out(self, layer: Any, setting: str, shape: tuple[int | None, ...]) -> Ids:
        """The channels a layer makes: the same at each use."""
        if id(layer) not in self.counts:
            self.counts[id(layer)] = setting, self.fresh(shape, f"{layer.name} {id(layer)}")
        return self.counts[id(layer)][1]

    def _merge(self, signals: list[_Signal], shape: tuple[int | None, ...]) -> Ids | None:
        if any(len(signal.shape) < 2 for signal in signals):  # noqa: PLR2004 - a batch and channels
            return None
        wide = [signal.ids for signal in signals if len(signal.ids) == shape[-1]]
        for signal in signals:
            if len(signal.ids) != shape[-1]:  # one channel, spread over all
                self.pin(signal.ids)
        first = wide[0]
        for other in wide[1:]:
            self.tie(first, other)
        return first

    def _concatenate(self, layer: Any, signals: list[_Signal]) -> Ids:
        if layer.axis in {-1, len(signals[0].shape) - 1}:
            return np.concatenate([signal.ids for signal in signals])
        for signal in signals[1:]:
            self.tie(signals[0].ids, signal.ids)
        return signals[0].ids

    def _multiply(self, layer: Any, kernel: Any, signal: _Signal, setting: str, shape: tuple[int | None, ...]) -> Ids:
        """A kernel that reads all channels for each it makes."""
        out = self._out(layer, setting, shape)
        places = _keras_graph.positions(signal.shape if isinstance(layer, _TRANSPOSED) else shape)
        self.work.append((places * int(np.prod(kernel.shape[:-2], dtype=np.int64)), signal.ids, out))
        self._slot(layer, "bias", 0, out)
        return out

    def _convolution(self, node: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids | None:
        if layer.groups != 1:
            return None
        self.gates[id(node)] = signal.ids
        out = self._multiply(layer, layer.kernel, signal, "filters", shape)
        self._slot(layer, "kernel", -2, signal.ids)
        self._slot(layer, "kernel", -1, out)
        return out

    def _transposed(self, node: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids:
        self.gates[id(node)] = signal.ids
        out = self._multiply(layer, layer.kernel, signal, "filters", shape)
        self._slot(layer, "kernel", -1, signal.ids)
        self._slot(layer, "kernel", -2, out)
        return out

    def _dense(self, node: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids:
        self.gates[id(node)] = signal.ids
        out = self._multiply(layer, layer.kernel, signal, "units", shape)
        self._slot(layer, "kernel", 0, signal.ids)
        self._slot(layer, "kernel", 1, out)
        return out

    def _depthwise(self, _: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids:
        out = np.repeat(signal.ids, layer.depth_multiplier)
        weight = "kernel" if hasattr(layer, "kernel") else "depthwise_kernel"
        taps = int(np.prod(getattr(layer, weight).shape[:-2], dtype=np.int64))
        self.work.append((_keras_graph.positions(shape) * taps, out, np.zeros(0, np.int64)))
        self._slot(layer, weight, -2, signal.ids)
        self._slot(layer, "bias", 0, out)
        return out

    def _separable(self, node: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids:
        self.gates[id(node)] = signal.ids
        between = np.repeat(signal.ids, layer.depth_multiplier)
        taps = int(np.prod(layer.depthwise_kernel.shape[:-2], dtype=np.int64))
        self.work.append((_keras_graph.positions(shape) * taps, between, np.zeros(0, np.int64)))
        out = self._multiply(layer, layer.pointwise_kernel, _Signal(shape, between), "filters", shape)
        self._slot(layer, "depthwise_kernel", -2, signal.ids)
        self._slot(layer, "pointwise_kernel", -2, between)
        self._slot(layer, "pointwise_kernel", -1, out)
        return out

    def _normalization(self, _: Any, layer: Any, signal: _Signal, __: tuple[int | None, ...]) -> Ids | None:
        axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
        if axis not in {-1, len(signal.shape) - 1}:
            return None
        for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
            self._slot(layer, weight, 0, signal.ids)
        return signal.ids

    def _parametric(self, _: Any, layer: Any, signal: _Signal, __: tuple[int | None, ...]) -> Ids:
        if layer.alpha.shape[-1] == len(signal.ids):
            self._slot(layer, "alpha", -1, signal.ids)
        return signal.ids

    def _passing(self, _: Any, __: Any, signal: _Signal, ___: tuple[int | None, ...]) -> Ids:
        return signal.ids

    def _flatten(self, _: Any, __: Any, signal: _Signal, ___: tuple[int | None, ...]) -> Ids | None:
        if None in signal.shape[1:]:
            return None
        return np.tile(signal.ids, _keras_graph.positions(signal.shape))

    def _reshape(self, _: Any, layer: Any, signal: _Signal, shape: tuple[int | None, ...]) -> Ids | None:
        """To a vector as flattening does, or from a vector to one place with these channels."""
        if None in signal.shape[1:] or None in shape[1:]:
            return None
        spread: Ids = np.tile(signal.ids, _keras_graph.positions(signal.shape)).reshape(-1, shape[-1] or 1)
        if not (spread == spread[0]).all():
            return None
        ids: Ids = spread[0]
        self.counts.setdefault(id(layer), ("target_shape", ids))
        return ids

    def channels(self) -> Channels:
        """What was found."""
        roots = [self._root(one) for one in range(len(self.parent))]
        kept = {roots[one] for one in self.pinned}
        numbers = {root: number for number, root in enumerate(sorted(set(roots) - kept))}
        unit_of = np.array([numbers.get(root, _PINNED) for root in roots], np.int64)
        makers: dict[int, set[str]] = {}
        for one, unit in enumerate(unit_of.tolist()):
            makers.setdefault(unit, set()).add(self.maker[one])
        spaces: dict[frozenset[str], list[int]] = {}
        for unit in range(len(numbers)):
            spaces.setdefault(frozenset(makers[unit]), []).append(unit)
        return Channels(
            spaces=tuple(np.array(units, np.int64) for units in spaces.values()),
            slots={
                layer: tuple(Slot(weight=w, axis=axis, units=unit_of[ids]) for (w, axis), ids in mine.items())
                for layer, mine in self.slots.items()
            },
            counts={layer: (setting, unit_of[ids]) for layer, (setting, ids) in self.counts.items()},
            gates={node: unit_of[ids] for node, ids in self.gates.items()},
            work=tuple(Work(each=e, inputs=unit_of[i], outputs=unit_of[o]) for e, i, o in self.work),
            units=len(numbers),
        )


def _normalizes(layer: Any) -> bool:
    """The layer divides by a sum over its channels, so none of them can go unnoticed."""
    return getattr(getattr(layer, "activation", None), "__name__", "") in {"softmax", "log_softmax", "sparsemax", "glu"}


_Rule = Callable[[_Tracer, Any, Any, _Signal, tuple[int | None, ...]], Ids | None]
_RULES: tuple[tuple[tuple[type, ...], _Rule], ...] = (
    (_DEPTHWISE, _Tracer._depthwise),  # noqa: SLF001 - before the convolutions, which some derive from
    (_SEPARABLE, _Tracer._separable),  # noqa: SLF001
    (_TRANSPOSED, _Tracer._transposed),  # noqa: SLF001
    (_CONVOLUTIONS, _Tracer._convolution),  # noqa: SLF001
    ((_L.Dense,), _Tracer._dense),  # noqa: SLF001
    ((_L.BatchNormalization,), _Tracer._normalization),  # noqa: SLF001
    ((_L.PReLU,), _Tracer._parametric),  # noqa: SLF001
    ((_L.Flatten,), _Tracer._flatten),  # noqa: SLF001
    ((_L.Reshape,), _Tracer._reshape),  # noqa: SLF001
    ((*_PASSING, _L.Activation), _Tracer._passing),  # noqa: SLF001
)
