"""Magnitude pruning with fine-tuning for Keras 3 models, which TensorFlow's own pruning library refuses.

The smallest weights of each kernel are set to zero, a few more at a time along a cubic schedule (Zhu and Gupta, "To
prune, or not to prune", 2017, arXiv:1710.01878), while the network is trained to answer as it did before and as the
labels say. The masks are applied again after each step. At the end the moving averages of batch normalization, which
lag behind the changed weights, are measured anew: alone that brought a ResNet8 at 80 % from 13 to 39 % accuracy.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# Kernels smaller than this save nothing worth a risk; depthwise kernels are left alone for the same reason.
_FEWEST_WEIGHTS = 256
_BATCH = 32
# Ten times through the data, within these bounds.
_EPOCHS = 10
_STEPS = (300, 2000)
# Sparsity grows during this part of the steps; the rest recovers at the final sparsity.
_GROWING = 0.6
_RAISE_EVERY = 10
_LEARNING_RATE = 1e-3
_RECALIBRATION_PASSES = 4
_RECALIBRATION_BATCH = 128
_RECALIBRATION_MOMENTUM = 0.9


class NothingToPruneError(Exception):
    """The model has no kernel large enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was done.

    Attributes:
        sparsity: Share of zeros among the weights of the pruned kernels.
        layers: How many kernels.
        steps: Of fine-tuning.
    """

    sparsity: float
    layers: int
    steps: int


def prune(
    model: Any,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    sparsity: float,
    seed: int,
    advance: Callable[[int], None],
) -> Pruned:
    """Prune and fine-tune `model` in place.

    Args:
        model: A Keras model: one input, scores or probabilities of classes out.
        x: Samples as the model takes them.
        y: Their classes.
        sparsity: Share of each kernel to set to zero.
        seed: For the order of the samples.
        advance: Told how many more percent are done.

    Raises:
        NothingToPruneError: The model has no kernel large enough.
    """
    kernels = _kernels(model)
    if not kernels:
        raise NothingToPruneError(f"has no convolution or dense layer with {_FEWEST_WEIGHTS} weights or more")
    teacher = np.concatenate([model(batch, training=False).numpy() for batch in _batches(x)])
    probabilities = bool((teacher >= 0).all() and np.allclose(teacher.sum(axis=-1), 1, atol=1e-3))
    wanted = teacher if probabilities else tf.nn.softmax(teacher).numpy()
    # Half of what to answer is what the unpruned model answers: few samples then teach it more than labels alone do.
    targets = (0.5 * wanted + 0.5 * np.eye(wanted.shape[-1], dtype=np.float32)[y]).astype(np.float32)

    steps = int(np.clip(_EPOCHS * len(x) // _BATCH, *_STEPS))
    masks = [tf.Variable(tf.ones_like(kernel), trainable=False) for kernel in kernels]
    train = _trainer(model, kernels, masks, steps, from_logits=not probabilities)
    order = np.random.default_rng(seed)
    done_percent = 0
    rows = np.zeros(0, np.int64)
    for step in range(steps):
        if step % _RAISE_EVERY == 0:
            share = min(1.0, step / (_GROWING * steps))
            _mask(kernels, masks, sparsity * (1 - (1 - share) ** 3))
        if len(rows) < min(_BATCH, len(x)):
            rows = order.permutation(len(x))
        now, rows = rows[:_BATCH], rows[_BATCH:]
        train(tf.constant(x[now]), tf.constant(targets[now]))
        percent = 100 * (step + 1) // steps
        if percent > done_percent:
            advance(percent - done_percent)
            done_percent = percent
    _mask(kernels, masks, sparsity)
    _recalibrate(model, x, order)
    zeros = sum(int(np.count_nonzero(kernel.numpy() == 0)) for kernel in kernels)
    return Pruned(
        sparsity=zeros / sum(int(np.prod(kernel.shape)) for kernel in kernels), layers=len(kernels), steps=steps
    )


def _kernels(model: Any) -> list[Any]:
    """The kernels worth pruning, by layer; nested models are looked into."""
    kernels = []
    for layer in model._flatten_layers(include_self=False, recursive=True):  # noqa: SLF001 - Keras has no public way
        pointwise = getattr(layer, "pointwise_kernel", None)
        plain = isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.Dense)
        kernel = pointwise if pointwise is not None else layer.kernel if plain and layer.trainable else None
        if isinstance(layer, keras.layers.DepthwiseConv2D) or kernel is None:
            continue
        if int(np.prod(kernel.shape)) >= _FEWEST_WEIGHTS:
            kernels.append(kernel.value if hasattr(kernel, "value") else kernel)
    return kernels


def _trainer(model: Any, kernels: list[Any], masks: list[Any], steps: int, *, from_logits: bool) -> Any:
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=from_logits)

    def train(x: Any, targets: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        pairs = [(g, v) for g, v in zip(gradients, model.trainable_variables, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)
        for kernel, mask in zip(kernels, masks, strict=True):
            kernel.assign(kernel * mask)

    return tf.function(train, reduce_retracing=True)


def _mask(kernels: list[Any], masks: list[Any], sparsity: float) -> None:
    """Zero the smallest weights of each kernel. What is zero stays zero: zero is the smallest there is."""
    for kernel, mask in zip(kernels, masks, strict=True):
        magnitudes = np.abs(kernel.numpy()).reshape(-1)
        keep = np.ones(magnitudes.size, np.float32)
        keep[np.argsort(magnitudes, kind="stable")[: int(sparsity * magnitudes.size)]] = 0
        mask.assign(keep.reshape(kernel.shape))
        kernel.assign(kernel * mask)


def _recalibrate(model: Any, x: NDArray[np.float32], order: np.random.Generator) -> None:
    """Let batch normalization see the data once more, without training anything."""
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False, recursive=True)  # noqa: SLF001
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        return
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = _RECALIBRATION_MOMENTUM
    batches = max(1, len(x) // _RECALIBRATION_BATCH)
    for _ in range(_RECALIBRATION_PASSES * max(1, 12 // batches)):
        for rows in np.array_split(order.permutation(len(x)), batches):
            model(x[rows], training=True)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def _batches(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [x[start : start + _RECALIBRATION_BATCH] for start in range(0, len(x), _RECALIBRATION_BATCH)]
