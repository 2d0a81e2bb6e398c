"""Quantization-aware fine-tuning of Keras 3 models: the network learns on the integers it will be computed with.

Every kernel is rounded as TensorFlow Lite will round it, to 255 levels a channel, symmetric about zero, and every
activation that becomes a tensor of the file to the 256 levels of its range; gradients pass as if nothing were rounded
(Jacob and others, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018,
arXiv:1712.05877). The averages of batch normalization stay as they are, so that folding it into the kernel only scales
each channel, which leaves the integers alone. At the end the kernels hold rounded weights: quantizing the file
afterwards finds the same integers.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from edge_converter import _keras_graph, _keras_teacher, _keras_tune
from edge_converter._keras_tune import Floats, Lesson

_LEVELS = 127.0
_LEARNING_RATE = 1e-4
_EPOCHS = 4
_CALIBRATION_BATCH = 64
_CALIBRATION_SAMPLES = 256
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# These become part of the operator before them.
_FUSED = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Activation)
# These give what they were given.
_MOVING = (
    *(keras.layers.Flatten, keras.layers.Reshape, keras.layers.Dropout, keras.layers.ZeroPadding2D),
    *(keras.layers.MaxPooling2D, keras.layers.InputLayer),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was done.

    Attributes:
        layers: How many kernels are rounded.
        steps: Of fine-tuning.
    """

    layers: int
    steps: int


def learn(model: Any, lesson: Lesson) -> Learned:
    """Fine-tune `model` in place, and leave rounded weights in it.

    Args:
        model: A functional or sequential Keras model: one input, scores or probabilities of classes out.
        lesson: What to fine-tune on; part of it gives the ranges of the activations.

    Raises:
        NoGraphError: The model computes by code of its own.
    """
    teacher = _keras_teacher.adapted(model, lesson)
    model.set_weights(teacher.get_weights())
    ranges = _ranges(model, lesson.x[:_CALIBRATION_SAMPLES])
    student = _Quantized(model, ranges)
    steps = _keras_tune.tune(student, teacher, lesson, epochs=_EPOCHS, rate=_LEARNING_RATE, frozen=True)
    kernels = _kernels(model)
    for kernel, axes in kernels:
        kernel.assign(_rounded(kernel.value, axes))
    return Learned(layers=len(kernels), steps=steps)


class _Quantized:
    """A model computed as its quantized file will be; its variables are the model's own."""

    def __init__(self, model: Any, ranges: dict[int, tuple[float, float]]) -> None:
        self._model = model
        self._ranges = ranges
        self._axes = {id(kernel): axes for kernel, axes in _kernels(model)}
        self.trainable_variables = model.trainable_variables

    def __call__(self, x: Any, *, training: bool) -> Any:
        del training  # the averages of batch normalization stay

        def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            value = _apply(node, args, keywords, self._axes)
            if id(node) in self._ranges:
                low, high = self._ranges[id(node)]
                value = tf.quantization.fake_quant_with_min_max_args(value, low, high)
            return value

        return _keras_graph.walk(self._model, [x], call)[0]


def _apply(node: Any, args: tuple[Any, ...], keywords: dict[str, Any], axes: dict[int, tuple[int, ...]]) -> Any:
    """The outputs of a node, its kernels rounded on the way."""
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer):
        return layer(*args, **keywords)
    rounded = [
        (variable, _rounded(variable.value, axes[id(variable)])) for variable in layer.variables if id(variable) in axes
    ]
    with keras.StatelessScope(state_mapping=rounded):
        if layer._call_has_training_arg:  # noqa: SLF001
            keywords = {**keywords, "training": False}
        return layer(*args, **keywords)


def _rounded(kernel: Any, axes: tuple[int, ...]) -> Any:
    """The kernel on the grid of its quantized twin; gradients pass as if it were not."""
    scale = tf.maximum(tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True) / _LEVELS, 1e-12)
    return kernel + tf.stop_gradient(tf.round(kernel / scale) * scale - kernel)


def _kernels(model: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Kernels, and the axes of each that share a scale."""
    found: list[tuple[Any, tuple[int, ...]]] = []
    for layer in _keras_graph.layers_of(model):
        if isinstance(layer, _DEPTHWISE):
            found.append((layer.kernel, tuple(range(len(layer.kernel.shape) - 2))))
        elif isinstance(layer, (*_CONVOLUTIONS, keras.layers.Dense)):
            found.append((layer.kernel, tuple(range(len(layer.kernel.shape) - 1))))
    return found


def _ranges(model: Any, x: Floats) -> dict[int, tuple[float, float]]:
    """The ranges of the activations that become tensors of the file, by the `id` of the node that makes them."""
    found: dict[int, tuple[float, float]] = {}
    kept = _tensors(model)

    def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        value = _apply(node, args, keywords, {})
        if id(node) in kept:
            low, high = found.get(id(node), (0.0, 0.0))
            found[id(node)] = min(low, float(tf.reduce_min(value))), max(high, float(tf.reduce_max(value)))
        return value

    for start in range(0, len(x), _CALIBRATION_BATCH):
        _keras_graph.walk(model, [tf.constant(x[start : start + _CALIBRATION_BATCH])], call)
    return {node: (low, high) for node, (low, high) in found.items() if high > low}


def _tensors(model: Any) -> set[int]:
    """The nodes whose output is a tensor of the file: none is, that the operator after it takes into itself."""
    nodes: dict[int, Any] = {}
    readers: dict[int, list[Any]] = {}
    made_by: dict[int, int] = {}

    def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        nodes[id(node)] = node
        for tensor in keras.tree.flatten((args, keywords)):
            if id(tensor) in made_by:
                readers.setdefault(made_by[id(tensor)], []).append(node)
        outputs = list(node.outputs)
        made_by.update((id(tensor), id(node)) for tensor in outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    _keras_graph.walk(model, list(_keras_graph.graph_of(model).inputs), call)
    kept = set()
    for key, node in nodes.items():
        after = readers.get(key, [])
        if isinstance(node.operation, _MOVING) or not after:
            continue
        if len(after) == 1 and isinstance(after[0].operation, _FUSED):
            continue
        if len(node.outputs) == 1 and node.outputs[0].dtype == "float32":
            kept.add(key)
    return kept
