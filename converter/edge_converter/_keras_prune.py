"""Magnitude pruning with fine-tuning for Keras 3 models, which TensorFlow's own pruning library refuses.

The weights that matter least are set to zero, a few more at a time along a cubic schedule (Zhu and Gupta, "To prune, or
not to prune", 2017, arXiv:1710.01878), while the network is fine-tuned. Which they are is asked across layers: a weight
counts by its square among the squares of the weights in its kernel that are no smaller (Lee and others,
"Layer-adaptive sparsity for the magnitude-based pruning", 2021, arXiv:2010.07611), so that large kernels give more than
small ones, whose last weights nobody could spare. The masks are applied again after each step.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edge_converter import _keras_graph, _keras_teacher, _keras_tune
from edge_converter._keras_tune import Lesson

# Kernels smaller than this save nothing worth a risk; depthwise kernels are left alone for the same reason.
_FEWEST_WEIGHTS = 256
# Sparsity grows during this part of the steps; the rest recovers at the final sparsity.
_GROWING = 0.5
_RAISE_EVERY = 10
_EPOCHS = 12
# A kernel keeps at least this share of what an even distribution would leave it.
_KEPT = 0.25


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


def prune(model: Any, lesson: Lesson, *, sparsity: float) -> Pruned:
    """Prune and fine-tune `model` in place.

    Args:
        model: A Keras model: one input, scores or probabilities of classes out.
        lesson: What to fine-tune on.
        sparsity: Share of the weights to set to zero.

    Raises:
        NothingToPruneError: The model has no kernel large enough.
    """
    kernels = _kernels(model)
    if not kernels:
        raise NothingToPruneError(f"has no convolution or dense layer with {_FEWEST_WEIGHTS} weights or more")
    teacher = _keras_teacher.adapted(model, lesson)
    model.set_weights(teacher.get_weights())
    masks = [(kernel, tf.Variable(tf.ones_like(kernel), trainable=False)) for kernel in kernels]

    steps = lesson.steps(_EPOCHS)

    def raised(step: int) -> None:
        if step % _RAISE_EVERY == 0:
            share = min(1.0, step / (_GROWING * steps))
            _mask(masks, sparsity * (1 - (1 - share) ** 3))

    _keras_tune.tune(model, teacher, lesson, epochs=_EPOCHS, before=raised, masks=masks)
    _mask(masks, sparsity)
    _keras_tune.recalibrate(model, lesson.x, seed=lesson.seed)
    zeros = sum(int(np.count_nonzero(kernel.numpy() == 0)) for kernel in kernels)
    return Pruned(
        sparsity=zeros / sum(int(np.prod(kernel.shape)) for kernel in kernels), layers=len(kernels), steps=steps
    )


def _kernels(model: Any) -> list[Any]:
    """The kernels worth pruning, by layer; nested models are looked into."""
    kernels = []
    for layer in _keras_graph.layers_of(model):
        pointwise = getattr(layer, "pointwise_kernel", None)
        plain = isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.Dense)
        kernel = pointwise if pointwise is not None else layer.kernel if plain and layer.trainable else None
        if isinstance(layer, keras.layers.DepthwiseConv2D) or kernel is None:
            continue
        if int(np.prod(kernel.shape)) >= _FEWEST_WEIGHTS:
            kernels.append(kernel.value if hasattr(kernel, "value") else kernel)
    return kernels


def _mask(masks: list[tuple[Any, Any]], sparsity: float) -> None:
    """Zero the weights that count least. What is zero stays zero: nothing counts less."""
    squares = [np.square(kernel.numpy().astype(np.float64)).reshape(-1) for kernel, _ in masks]
    scores = [_scores(each, max_zero=1 - _KEPT * (1 - sparsity)) for each in squares]
    pooled = np.concatenate(scores)
    # By rank, so that exactly so many go whatever scores are equal.
    gone = np.zeros(pooled.size, np.bool_)
    gone[np.argsort(pooled, kind="stable")[: round(sparsity * pooled.size)]] = True
    start = 0
    for (kernel, mask), score in zip(masks, scores, strict=True):
        keep = ~gone[start : start + score.size]
        start += score.size
        mask.assign(keep.reshape(kernel.shape).astype(np.float32))
        kernel.assign(kernel * mask)


def _scores(squares: np.ndarray[Any, np.dtype[np.float64]], *, max_zero: float) -> Any:
    """What each weight counts among those of its kernel that are no smaller; the largest count most of all."""
    order = np.argsort(squares, kind="stable")
    larger = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = np.divide(squares[order], larger, out=np.zeros_like(larger), where=larger > 0)
    scores[order[int(np.ceil(max_zero * order.size)) :]] += 2
    return scores
