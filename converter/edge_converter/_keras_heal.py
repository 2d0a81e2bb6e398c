"""The layers of a model with fewer channels, solved anew to give what the original's give.

A layer that reads fewer channels than before can make up for most of what is gone with those that are left, for
channels are alike: its kernel is the least-squares answer to "give the original's output from the inputs you have now",
layer after layer, so that each corrects the errors of those before it as well (He and others, "Channel pruning for
accelerating very deep neural networks", 2017, arXiv:1707.06168). No labels and no training are needed, and training
that follows begins far nearer.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_converter import _keras_graph
from edge_converter._keras_channels import Channels

Floats = NDArray[np.float32]

# Larger systems take long, and a layer with so many inputs misses few of them.
_MOST_INPUTS = 4608
_CHUNK = 32
# How many places of the images are enough, of those drawn at random: neighbours say much the same.
_ROWS, _ROWS_PER_INPUT = 16384, 32
# How much a weight is held to where it was, as a share of the mean of the Gram matrix's diagonal.
_HELD = 1e-3


@dataclass(frozen=True, slots=True)
class _Pair:
    """A value in the original, and in the smaller model."""

    original: Any
    smaller: Any


def heal(model: Any, layers: dict[int, Any], channels: Channels, keep: NDArray[np.bool_], x: Floats) -> int:
    """Solve every layer of a smaller model that reads channels.

    Args:
        model: The original.
        layers: Those of the smaller model, by the `id` of the original's.
        channels: Of the original.
        keep: Which units the smaller model has.
        x: Samples.

    Returns:
        How many layers were solved.
    """
    solved: set[int] = set()

    def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        layer = node.operation
        whole = _run(layer, *_side(args, keywords, "original"))
        smaller = layers.get(id(layer), layer)
        mine = _side(args, keywords, "smaller")
        if id(node) in channels.gates and id(layer) not in solved and _solvable(smaller):
            solved.add(id(layer))
            outputs = keep[channels.counts[id(layer)][1]]
            before = keras.tree.flatten(_side(args, keywords, "original"))[0]
            _solve(smaller, keras.tree.flatten(mine)[0], np.compress(outputs, _linear(layer, before), axis=-1))
        return keras.tree.map_structure(_Pair, whole, _run(smaller, *mine))

    _keras_graph.walk(model, [_Pair(tf.constant(x), tf.constant(x))], call)
    return len(solved)


def _side(args: tuple[Any, ...], keywords: dict[str, Any], side: str) -> tuple[Any, Any]:
    def of(value: Any) -> Any:
        return getattr(value, side) if isinstance(value, _Pair) else value

    return keras.tree.map_structure(of, args), keras.tree.map_structure(of, keywords)


def _run(layer: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if isinstance(layer, keras.layers.Layer) and layer._call_has_training_arg:  # noqa: SLF001
        keywords = {**keywords, "training": False}
    return layer(*args, **keywords)


def _solvable(layer: Any) -> bool:
    """An ordinary kernel, not too large."""
    if type(layer) is keras.layers.Conv2D or type(layer) is keras.layers.Dense:
        return int(np.prod(layer.kernel.shape[:-1], dtype=np.int64)) <= _MOST_INPUTS
    return False


def _linear(layer: Any, value: Any) -> Floats:
    """What the layer gives before its activation, `[n, ..., channels]`."""
    after, layer.activation = layer.activation, None
    try:
        return np.concatenate([layer(value[i : i + _CHUNK]).numpy() for i in range(0, len(value), _CHUNK)])
    finally:
        layer.activation = after


def _solve(layer: Any, value: Any, wanted: Floats) -> None:
    kernel = layer.kernel.numpy()
    bias = None if layer.bias is None else layer.bias.numpy()
    now = np.concatenate([kernel.reshape(-1, kernel.shape[-1]), *([] if bias is None else [bias[None]])])
    gram = np.zeros((len(now), len(now)))
    missing = np.zeros(now.shape)
    places = int(np.prod(wanted.shape[:-1], dtype=np.int64))
    share = min(1.0, max(_ROWS, _ROWS_PER_INPUT * len(now)) / places)
    draw = np.random.default_rng(0)
    for start, rows in _rows(layer, value):
        target = wanted[start : start + _CHUNK].reshape(-1, wanted.shape[-1])
        if share < 1:
            some = draw.choice(len(rows), max(1, round(share * len(rows))), replace=False)
            rows, target = rows[some], target[some]  # noqa: PLW2901
        rows = rows.astype(np.float64)  # noqa: PLW2901
        if bias is not None:
            rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)  # noqa: PLW2901
        gram += rows.T @ rows
        missing += rows.T @ (target - rows @ now)
    gram[np.diag_indices_from(gram)] += _HELD * np.trace(gram) / len(gram) + 1e-12
    found = (now + np.linalg.solve(gram, missing)).astype(np.float32)
    if bias is not None:
        layer.bias.assign(found[-1])
        found = found[:-1]
    layer.kernel.assign(found.reshape(kernel.shape))


def _rows(layer: Any, value: Any) -> Iterator[tuple[int, Floats]]:
    """The inputs of every output position, in the order of the kernel; first of them which sample."""
    for start in range(0, len(value), _CHUNK):
        part = value[start : start + _CHUNK]
        if isinstance(layer, keras.layers.Conv2D):
            part = tf.image.extract_patches(
                part,
                sizes=[1, *layer.kernel_size, 1],
                strides=[1, *layer.strides, 1],
                rates=[1, *layer.dilation_rate, 1],
                padding=layer.padding.upper(),
            )
        yield start, part.numpy().reshape(-1, part.shape[-1])
