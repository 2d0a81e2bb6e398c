"""Channel pruning of Keras models: which channels to give up, and the smaller model without them.

What a channel is worth is how much the answers would change without it, to second order: the mean square of the
derivative of the log-likelihood of an answer, drawn as the model itself would answer, by a gate on the channel wherever
it is read (Fisher information; Theis and others, "Faster gaze prediction with dense networks and Fisher pruning", 2018,
arXiv:1801.05787; for channels that stand and fall together Liu and others, "Group Fisher pruning", 2021). It needs no
labels, and it compares channels of different layers, so how many each layer keeps is not set but found: again and again
the few channels go that change least for the multiplications they save.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_converter import _keras_channels, _keras_graph
from edge_converter._keras_channels import Channels, Ids

Keep = NDArray[np.bool_]
Floats = NDArray[np.float32]

# Channels go this many at a time: kernels of XNNPACK work on blocks of 4 to 16 (NEON, AVX2), so fewer save nothing.
_BLOCK = 4
# A space keeps at least this many blocks.
_FEWEST_BLOCKS = 1
# Importance is measured again after each of so many equal shares of the multiplications.
_ROUNDS = 12
_BATCH = 128
# How far the smaller model's answers may be from those of the model with closed gates.
_TOLERANCE = 1e-3


class CannotSlimError(Exception):
    """The model has no channels that can go, or not enough of them."""


@dataclass(slots=True)
class Slimmer:
    """Gives up channels of a model step by step.

    Attributes:
        model: The model; it is not changed.
        channels: Its channels.
        keep: Which units are left; its last entry is always true.
    """

    model: Any
    channels: Channels
    keep: Keep

    @classmethod
    def of(cls, model: Any) -> Slimmer:
        """For a functional or sequential model.

        Raises:
            CannotSlimError: None of its channels can go.
            NoGraphError: It computes by code of its own.
        """
        channels = _keras_channels.trace(model)
        if not any(len(space) >= 2 * _block(space) for space in channels.spaces):
            raise CannotSlimError("has no layer whose channels can be removed")
        return cls(model, channels, channels.all_kept())

    def macs(self) -> int:
        """Multiply-accumulates of what is left."""
        return self.channels.macs(self.keep)

    def reduce(self, macs: int, x: Floats, draw: np.random.Generator) -> None:
        """Give up channels until so many multiply-accumulates are left.

        Raises:
            CannotSlimError: Every layer has as few channels as it may have before that.
        """
        begun = self.macs()
        for number in range(1, _ROUNDS + 1):
            target = begun - (begun - macs) * number // _ROUNDS
            if self.macs() > target:
                self._drop(self._importance(x, draw), target)

    def _drop(self, worth: NDArray[np.float64], target: int) -> None:
        while (now := self.macs()) > target:
            best: tuple[float, Ids] | None = None
            for space in self.channels.spaces:
                left, block = space[self.keep[space]], _block(space)
                if len(left) < (_FEWEST_BLOCKS + 1) * block:
                    continue
                cheapest = left[np.argsort(worth[left], kind="stable")[:block]]
                without = self.keep.copy()
                without[cheapest] = False
                saved = now - self.channels.macs(without)
                price = float(worth[cheapest].sum()) / max(1, saved)
                if best is None or price < best[0]:
                    best = price, cheapest
            if best is None:
                raise CannotSlimError("cannot be made so much smaller: every layer is at its fewest channels")
            self.keep[best[1]] = False

    def _importance(self, x: Floats, draw: np.random.Generator) -> NDArray[np.float64]:
        """Of every unit: what would change without it, on average over these samples."""
        total = np.zeros(self.channels.units)
        for start in range(0, len(x), _BATCH):
            batch = x[start : start + _BATCH]
            uniform = draw.random((len(batch), 1)).astype(np.float32)
            gates = np.broadcast_to(self.keep.astype(np.float32), (len(batch), len(self.keep)))
            total += (self._slopes(tf.constant(batch), tf.constant(gates), tf.constant(uniform)).numpy() ** 2).sum(0)
        return total / len(x)

    def _slopes(self, x: Any, gates: Any, uniform: Any) -> Any:
        """The derivative by each gate of the log-likelihood of an answer, `[n, units]`."""
        with tf.GradientTape() as tape:
            tape.watch(gates)
            scores = log_scores(self.gated(x, gates))
            chosen = tf.argmax(tf.cumsum(tf.exp(scores), axis=-1) >= uniform, axis=-1)
            likelihood = tf.gather(scores, chosen, axis=-1, batch_dims=1)
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

    def build(self, x: Floats) -> Any:
        """The model with what is left.

        Args:
            x: A few samples to check it with.

        Raises:
            CannotSlimError: It does not answer as the model with closed gates does: a layer does something with its
                channels that is not known here.
        """
        made, layers = _keras_graph.flattened(self.model, self._smaller)
        originals = {id(layer): layer for layer in _keras_graph.layers_of(self.model)}
        for key, fresh in layers.items():
            fresh.set_weights(self._weights(originals[key]))
        gates = np.broadcast_to(self.keep.astype(np.float32), (len(x), len(self.keep)))
        wanted, given = self.gated(tf.constant(x), tf.constant(gates)).numpy(), made(x, training=False).numpy()
        if not np.allclose(wanted, given, rtol=_TOLERANCE, atol=_TOLERANCE * max(1.0, float(np.abs(wanted).max()))):
            raise CannotSlimError("cannot be made smaller: a layer depends on its channels in a way that is not known")
        return made

    def _smaller(self, layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) in self.channels.counts:
            setting, units = self.channels.counts[id(layer)]
            count = int(self.keep[units].sum())
            if setting == "target_shape":
                *places, last = config[setting]
                config[setting] = [*places, last if last == -1 else count]
            else:
                config[setting] = count
        return type(layer).from_config(config)

    def _weights(self, layer: Any) -> list[Floats]:
        slots = self.channels.slots.get(id(layer), ())
        found = []
        for variable in layer.weights:
            value = variable.numpy()
            for slot in slots:
                if getattr(layer, slot.weight) is variable:
                    value = np.compress(self.keep[slot.units], value, axis=slot.axis)
            found.append(value)
        return found


def log_scores(answers: Any) -> Any:
    """Logarithms of the probabilities of the classes, of a model's scores or probabilities."""
    sums = tf.reduce_sum(answers, axis=-1, keepdims=True)
    probabilities = tf.logical_and(tf.reduce_all(answers >= 0), tf.reduce_all(tf.abs(sums - 1) < 1e-3))  # noqa: PLR2004
    # The logarithm of a softmax is a softmax of that logarithm, so one line serves both.
    scores = tf.cond(probabilities, lambda: tf.math.log(tf.maximum(answers, 1e-7)), lambda: answers)
    return tf.nn.log_softmax(scores, axis=-1)


def _block(space: Ids) -> int:
    return _BLOCK if len(space) >= 2 * _BLOCK else 1
