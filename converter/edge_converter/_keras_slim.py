"""Channel pruning of Keras models: which channels to give up, and the smaller model without them.

Two questions, and each has a measure of its own. Which channels of a layer go first: those that change the answers
least, to second order, by the mean square of the derivative of the log-likelihood of an answer, drawn as the model
itself would answer, by a gate on the channel wherever it is read (Fisher information; Theis and others, "Faster gaze
prediction with dense networks and Fisher pruning", 2018, arXiv:1801.05787; for channels that stand and fall together
Liu and others, "Group Fisher pruning", 2021). How many each layer keeps: what is lost when only it has so few, and all
layers were solved anew, is measured on samples apart (`edge_converter._keras_widths`). The first measure does not know
what the channels that stay can make up for, and took too many from the wide last layers: at half of the cost ResNet8
answered 40 % of images before training where it now answers 54 %. Neither needs labels.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_converter import _keras_channels, _keras_graph, _keras_heal, _keras_tune, _keras_widths
from edge_converter._keras_widths import Space
from edge_converter._keras_wire import RUNG

Keep = NDArray[np.bool_]
Floats = NDArray[np.float32]

_SAMPLES = 384
_BATCH = 128
# How far the smaller model's answers may be from those of the model with closed gates.
_TOLERANCE = 1e-3
_CHECKED = 16
_HEALED, _LEAST_HEALED = 256, 16
# What the activations of samples looked at together may take. Healing holds up to eight tensors as large as the
# largest (of both models, what is read, what is given, what is wanted); slopes all, twice.
_ACTIVATION_BYTES = 2 << 30
_HELD_TENSORS = 8
_JUDGED = 512
# A network that has lost channels has more to learn than one that has lost weights.
EPOCHS = 24
LEAST_STEPS = 1000
LEARNING_RATE = 3e-3
# ResNet8 at 0.62 of the cost learned its 7,000 images by heart (87 % of them, 78 % of others); mixed, 80 and 79 %.
MIXED = 1.0
LABELS = 0.25


class CannotSlimError(Exception):
    """The model has no channels that can go, or not enough of them."""


class Slimmer:
    """Gives up channels of a model, as many as a rung of a ladder of costs asks for.

    Attributes:
        model: The model; it may learn until channels are given up for the first time.
        taught: For how many steps it did.

    Args:
        model: A functional or sequential model; it is not changed here.
        x: Samples to measure importance and losses on; no labels are needed.
        seed: For the answers drawn.
        classes: The model gives scores or probabilities of classes.

    Raises:
        CannotSlimError: None of its channels can go.
        NoGraphError: It computes by code of its own.
    """

    def __init__(self, model: Any, x: Floats, *, seed: int, classes: bool) -> None:
        self.model = model
        self.taught = 0
        self.channels = _keras_channels.trace(model)
        if not any(_keras_widths.measured(len(space)) for space in self.channels.spaces):
            raise CannotSlimError("has no layer whose channels can be removed")
        self.keep: Keep = self.channels.all_kept()
        self._full = self.channels.cost(self.keep)
        self._classes = classes
        self._draw = np.random.default_rng(seed)
        self._traced = tf.function(self._slopes, autograph=False)
        self._x = x[:_SAMPLES]
        apart = min(len(x) // 4, _JUDGED)
        largest, total = _keras_graph.activation_bytes(model)
        fit = max(_LEAST_HEALED, _ACTIVATION_BYTES // max(1, _HELD_TENSORS * largest))
        self._healed = x[: len(x) - apart][: min(_HEALED, fit)]
        self._batch = max(1, min(_BATCH, _ACTIVATION_BYTES // max(1, 2 * total)))
        self._judged = x[len(x) - apart :] if apart else x
        self._spaces: tuple[Space, ...] | None = None

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of an inference: of the whole model, and of what is left."""
        return self.channels.macs(self.channels.all_kept()), self.channels.macs(self.keep)

    @property
    def removed(self) -> tuple[int, int]:
        """How many channels went, of how many that could."""
        return int((~self.keep).sum()), self.channels.units

    @property
    def widths(self) -> list[int]:
        """How many channels are left of those that the same layers make, in the order of the model."""
        return [int(self.keep[space].sum()) for space in self.channels.spaces]

    def descend(self, rung: int) -> None:
        """Keep what loses least among all that takes no longer than this rung allows.

        Raises:
            CannotSlimError: With as few channels as every layer may have it takes longer.
        """
        if self._spaces is None:
            self._spaces = self._measured()
        keep = _keras_widths.choose(self.channels, self._spaces, self._full * RUNG**rung)
        if keep is None:
            raise CannotSlimError("cannot be made so much smaller: every layer is at its fewest channels")
        self.keep = keep

    def _measured(self) -> tuple[Space, ...]:
        """What narrowing each space loses, with everything else whole."""
        worth = self._importance()
        wanted = _keras_tune.answers(self.model, self._judged)
        found = []
        for units in self.channels.spaces:
            ordered = units[np.argsort(worth[units], kind="stable")]
            losses = []
            for width in _keras_widths.measured(len(units)):
                keep = self.channels.all_kept()
                keep[ordered[: len(units) - width]] = False
                given = _keras_tune.answers(self._solved(keep), self._judged)
                losses.append((width, float(_keras_tune.distance(wanted, given, classes=self._classes))))
            found.append(_keras_widths.space(ordered, losses))
        return tuple(found)

    def _solved(self, keep: Keep) -> Any:
        made, layers = self._narrowed(keep)
        _keras_heal.heal(self.model, layers, self.channels, keep, self._healed)
        return made

    def _importance(self) -> NDArray[np.float64]:
        """Of every unit: what would change without it, on average over the samples."""
        total = np.zeros(self.channels.units)
        for start in range(0, len(self._x), self._batch):
            batch = self._x[start : start + self._batch]
            uniform = self._draw.random((len(batch), 1)).astype(np.float32)
            gates = np.broadcast_to(self.keep.astype(np.float32), (len(batch), len(self.keep)))
            slopes = self._traced(tf.constant(batch), tf.constant(gates), tf.constant(uniform))
            total += np.square(slopes.numpy().astype(np.float64)).sum(axis=0)
        return total / len(self._x)

    def _slopes(self, x: Any, gates: Any, uniform: Any) -> Any:
        """The derivative by each gate of the log-likelihood of an answer, `[n, units]`."""
        with tf.GradientTape() as tape:
            tape.watch(gates)
            answers = self.gated(x, gates)
            if self._classes:
                scores = _keras_tune.log_scores(answers)
                chosen = tf.argmax(tf.cumsum(tf.exp(scores), axis=-1) >= uniform, axis=-1)
                likelihood = tf.gather(scores, chosen, axis=-1, batch_dims=1)
            else:  # numbers with an error that is normal: the answer drawn is off by one standard deviation in each
                seed = tf.cast(tf.repeat(uniform[0], 2) * 2**31, tf.int64)
                signs = tf.sign(tf.random.stateless_uniform(tf.shape(answers), seed) - 0.5)
                likelihood = tf.reduce_sum(signs * answers, axis=range(1, len(answers.shape)))
        return tape.gradient(likelihood, gates)[:, :-1]

    def gated(self, x: Any, gates: Any) -> Any:
        """What the model answers if each unit counts as much as its gate says, `[n, units + 1]` of 0 to 1."""

        def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            units = self.channels.gates.get(id(node))
            if units is not None:
                value = keras.tree.flatten((args, keywords))[0]
                gate = tf.gather(gates, np.where(units < 0, self.channels.units, units), axis=1)
                shape = [-1, *[1] * (len(value.shape) - 2), len(units)]
                return node.operation(value * tf.reshape(gate, shape))
            if isinstance(node.operation, keras.layers.Layer):
                keywords = {**keywords, "training": False} if node.operation._call_has_training_arg else keywords  # noqa: SLF001
            return node.operation(*args, **keywords)

        return _keras_graph.walk(self.model, [x], call)[0]

    def build(self, *, heal: bool) -> Any:
        """The model with what is left.

        Args:
            heal: Solve its layers for what the original's give.

        Raises:
            CannotSlimError: It does not answer as the model with closed gates does: a layer does something with its
                channels that is not known here.
        """
        made, layers = self._narrowed(self.keep)
        x = self._x[:_CHECKED]
        gates = np.broadcast_to(self.keep.astype(np.float32), (len(x), len(self.keep)))
        wanted, given = self.gated(tf.constant(x), tf.constant(gates)).numpy(), made(x, training=False).numpy()
        if not np.allclose(wanted, given, rtol=_TOLERANCE, atol=_TOLERANCE * max(1.0, float(np.abs(wanted).max()))):
            raise CannotSlimError("cannot be made smaller: a layer depends on its channels in a way that is not known")
        if heal:
            _keras_heal.heal(self.model, layers, self.channels, self.keep, self._healed)
        return made

    def _narrowed(self, keep: Keep) -> tuple[Any, dict[int, Any]]:
        """The model with these units, and its layers by the `id` of the original's."""
        made, layers = _keras_graph.flattened(self.model, lambda layer: self._smaller(layer, keep))
        originals = {id(layer): layer for layer in _keras_graph.layers_of(self.model)}
        for key, fresh in layers.items():
            fresh.set_weights(self._weights(originals[key], keep))
        return made, layers

    def _smaller(self, layer: Any, keep: Keep) -> Any:
        config = layer.get_config()
        if id(layer) in self.channels.counts:
            setting, units = self.channels.counts[id(layer)]
            count = int(keep[units].sum())
            if setting == "target_shape":
                *places, last = config[setting]
                config[setting] = [*places, last if last == -1 else count]
            else:
                config[setting] = count
        return type(layer).from_config(config)

    def _weights(self, layer: Any, keep: Keep) -> list[Floats]:
        slots = self.channels.slots.get(id(layer), ())
        found = []
        for variable in layer.weights:
            value = variable.numpy()
            for slot in slots:
                if getattr(layer, slot.weight) is variable:
                    value = np.compress(keep[slot.units], value, axis=slot.axis)
            found.append(value)
        return found
