"""The model that what is changed learns from: the given one, as good on these samples as it can be made at once.

Models often meet other data than they were trained on: other cameras, other compression. Averages of batch
normalization that are measured anew cost nothing: those of an upstream ResNet8, on CIFAR-10 images that went through
JPEG, answer 5 points more of them. Where channels are to go, the whole network learns these samples first, while it
still has all of its channels to learn them with.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge_converter import _keras_tune
from edge_converter._keras_tune import Floats, Lesson

_JUDGED = 1024
# Of the samples, so many are kept apart to see whether teaching was of use.
_APART, _MOST_APART, _FEWEST_APART = 8, 512, 32
# A model that answers so many of the samples apart rightly knows them already, as its own training data is known.
_KNOWN = 0.98
_EPOCHS, _LEAST_STEPS = 12, 500
_LEARNING_RATE = 2e-3


def adapted(model: Any, lesson: Lesson) -> Any:
    """A copy of the model whose batch normalization has seen these samples, if that answers their labels better."""
    copy = _copy(model)
    if lesson.y is None or not lesson.classes(model):
        return copy
    x, y = lesson.x[:_JUDGED], lesson.y[:_JUDGED]
    before = _loss(copy, x, y)
    _keras_tune.recalibrate(copy, lesson.x, seed=lesson.seed)
    if not _loss(copy, x, y) < before:
        copy.set_weights(model.get_weights())
    return copy


def teach(model: Any, lesson: Lesson) -> int:
    """Let the whole model learn the samples, in place, if that answers others of them better.

    Returns:
        How many steps were of use: 0 where the model stays as it is.
    """
    if lesson.y is None or not lesson.classes(model):
        return 0
    apart = min(len(lesson.x) // _APART, _MOST_APART)
    if apart < _FEWEST_APART:
        return 0
    x, y = lesson.x[:apart], lesson.y[:apart]
    if float((_keras_tune.scores(model, x).argmax(axis=-1) == y).mean()) >= _KNOWN:
        return 0
    rest = dataclasses.replace(lesson, x=lesson.x[apart:], y=lesson.y[apart:], asked=(lesson.asked + 1) // 2)
    before, loss = model.get_weights(), _loss(model, x, y)
    steps = _keras_tune.tune(
        model, _copy(model), rest, epochs=_EPOCHS, least=_LEAST_STEPS, rate=_LEARNING_RATE, mixed=1.0
    )
    _keras_tune.recalibrate(model, rest.x, seed=lesson.seed)
    if _loss(model, x, y) < loss:
        return steps
    model.set_weights(before)
    return 0


def _copy(model: Any) -> Any:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _loss(model: Any, x: Floats, y: NDArray[np.int64]) -> float:
    return -float(np.mean(np.take_along_axis(_keras_tune.scores(model, x), y[:, None], axis=1)))
