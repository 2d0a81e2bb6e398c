"""Fine-tuning of a changed model: it learns to answer as the model it was made of, and as the labels say.

What the original answers tells more of a sample than its label does (Hinton and others, "Distilling the knowledge in a
neural network", 2015, arXiv:1503.02531), and it is there without labels too. At the end batch normalization, whose
averages lag behind weights that change fast, sees the data once more: alone that brought a ResNet8 with 80 % of its
weights removed from 13 to 39 % accuracy.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_converter import _keras_augment, _keras_graph

Floats = NDArray[np.float32]

_BATCH = 64
# However few or many samples there are.
_STEPS = (200, 4000)
LEARNING_RATE = 1e-3
_WARM_UP = 0.05
LABELS = 0.5
_RECALIBRATION_BATCH = 128
_RECALIBRATION_BATCHES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What to learn from.

    Attributes:
        x: Samples as the model takes them.
        y: Their classes; None where the model's answers are no scores of classes.
        seed: For their order.
        advance: Told how many more percent are done.
        asked: How many batches to learn from, whoever learns; 0 leaves it to the pass.
    """

    x: Floats
    y: NDArray[np.int64] | None
    seed: int
    advance: Callable[[int], None]
    asked: int = 0

    def classes(self, model: Any) -> bool:
        """Whether the model gives one score a class; else it is asked to answer as before, whatever that means."""
        return self.y is not None and int(model.output_shape[-1]) > 1

    def steps(self, epochs: int, least: int = 0) -> int:
        """How many batches to learn from: as asked, or to see every sample so many times; at least so many batches."""
        return self.asked or int(np.clip(epochs * len(self.x) // _BATCH, max(least, _STEPS[0]), _STEPS[1]))


def tune(
    model: Any,
    teacher: Any,
    lesson: Lesson,
    *,
    epochs: int,
    before: Callable[[int], None] = lambda _: None,
    masks: Sequence[tuple[Any, Any]] = (),
    rate: float = LEARNING_RATE,
    frozen: bool = False,
    mixed: float = 0.0,
    labels: float = LABELS,
    least: int = 0,
) -> int:
    """Fine-tune `model` in place.

    Args:
        model: Scores or probabilities of classes out, or anything where the lesson has no labels.
        teacher: What it was made of, with the same input and output.
        lesson: What to learn from.
        epochs: How often to see every sample, about.
        before: Told the number of each step before it is taken.
        masks: Weights, and what they are multiplied with after each step.
        rate: The highest learning rate.
        frozen: Keep the averages of batch normalization.
        mixed: Share of each batch whose samples are mixed with each other.
        labels: What the labels count, where there are any; what the teacher answers counts the rest.
        least: How many steps to take, however few samples there are.

    Returns:
        How many steps were taken.
    """
    steps = lesson.steps(epochs, least)
    classes = lesson.classes(teacher)
    moves = _keras_augment.Moves()
    if classes:
        moves = _keras_augment.harmless(lambda x: scores(teacher, x).argmax(axis=-1), lesson.x, seed=lesson.seed)
    train = _trainer(model, teacher, masks, steps, rate, training=not frozen, labels=labels if classes else None)
    order = np.random.default_rng(lesson.seed)
    known = _labels(teacher, lesson)
    rows, done_percent = np.zeros(0, np.int64), 0
    for step in range(steps):
        before(step)
        if len(rows) < min(_BATCH, len(lesson.x)):
            rows = order.permutation(len(lesson.x))
        now, rows = rows[:_BATCH], rows[_BATCH:]
        x, wanted = _keras_augment.mixed(moves.of(lesson.x[now], order), known[now], mixed, order)
        train(tf.constant(x), tf.constant(wanted))
        percent = 100 * (step + 1) // steps
        if percent > done_percent:
            lesson.advance(percent - done_percent)
            done_percent = percent
    return steps


def log_scores(answers: Any) -> Any:
    """Logarithms of the probabilities of the classes, of a model's scores or probabilities."""
    sums = tf.reduce_sum(answers, axis=-1, keepdims=True)
    probabilities = tf.logical_and(tf.reduce_all(answers >= 0), tf.reduce_all(tf.abs(sums - 1) < 1e-3))  # noqa: PLR2004
    # The logarithm of probabilities is as good as the scores they were made of, so one line serves both.
    scores = tf.cond(probabilities, lambda: tf.math.log(tf.maximum(answers, 1e-7)), lambda: answers)
    return tf.nn.log_softmax(scores, axis=-1)


def answers(model: Any, x: Floats) -> Any:
    """What a model answers to all samples."""
    batches = range(0, len(x), _RECALIBRATION_BATCH)
    return tf.concat([model(x[i : i + _RECALIBRATION_BATCH], training=False) for i in batches], axis=0)


def scores(model: Any, x: Floats) -> Floats:
    """Logarithms of the probabilities of the classes, `[n, classes]`."""
    found: Floats = log_scores(answers(model, x)).numpy()
    return found


def recalibrate(model: Any, x: Floats, *, seed: int) -> None:
    """Let batch normalization see the data once more, without training anything: exact averages over its batches."""
    layers = [layer for layer in _keras_graph.layers_of(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    before = [layer.momentum for layer in layers]
    order = np.random.default_rng(seed).permutation(len(x))
    batches = np.array_split(order, int(np.clip(len(x) // _RECALIBRATION_BATCH, 1, _RECALIBRATION_BATCHES)))
    for number, rows in enumerate(batches):
        for layer in layers:
            layer.momentum = number / (number + 1)
        model(x[rows[:_RECALIBRATION_BATCH]], training=True)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def _labels(teacher: Any, lesson: Lesson) -> Floats:
    """One row a sample: 1 at its class; of no width where there are no classes."""
    if lesson.y is None or not lesson.classes(teacher):
        return np.zeros((len(lesson.x), 0), np.float32)
    return np.eye(int(teacher.output_shape[-1]), dtype=np.float32)[lesson.y]


def distance(wanted: Any, given: Any, *, classes: bool) -> Any:
    """How far answers are from those that are wanted: one number.

    Of scores or probabilities of classes the Kullback-Leibler divergence, else the mean square of the difference as a
    share of the variance of what is wanted.
    """
    if classes:
        logs = log_scores(wanted)
        return tf.reduce_mean(tf.reduce_sum(tf.exp(logs) * (logs - log_scores(given)), axis=-1))
    return tf.reduce_mean(tf.square(given - wanted)) / (tf.math.reduce_variance(wanted) + 1e-12)


def _trainer(
    model: Any,
    teacher: Any,
    masks: Sequence[tuple[Any, Any]],
    steps: int,
    rate: float,
    *,
    training: bool,
    labels: float | None,
) -> Callable[[Any, Any], None]:
    warm = max(1, int(_WARM_UP * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / warm, max(1, steps - warm), warmup_target=rate, warmup_steps=warm
    )
    optimizer = keras.optimizers.Adam(schedule)
    variables = model.trainable_variables
    optimizer.build(variables)

    def train(x: Any, known: Any) -> None:
        wanted = teacher(x, training=False)
        if labels is not None:
            wanted = (1 - labels) * tf.exp(log_scores(wanted)) + labels * known
        with tf.GradientTape() as tape:
            loss = distance(wanted, model(x, training=training), classes=labels is not None)
        slopes = tape.gradient(loss, variables)
        optimizer.apply_gradients([pair for pair in zip(slopes, variables, strict=True) if pair[0] is not None])
        for weight, mask in masks:
            weight.assign(weight * mask)

    traced: Callable[[Any, Any], None] = tf.function(train, autograph=False)
    return traced
