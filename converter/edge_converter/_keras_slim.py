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

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_converter import _keras_channels, _keras_graph, _keras_heal, _keras_tune
from edge_converter._keras_channels import Ids
from edge_converter._keras_wire import RUNG

Keep = NDArray[np.bool_]
Floats = NDArray[np.float32]

# Channels go this many at a time: kernels of XNNPACK work on blocks of 4 to 16 (NEON, AVX2), so fewer save nothing.
_BLOCK = 4
_SAMPLES = 384
_BATCH = 128
# How far the smaller model's answers may be from those of the model with closed gates.
_TOLERANCE = 1e-3
_CHECKED = 16
_HEALED = 256
# A network that has lost channels has more to learn than one that has lost weights.
EPOCHS = 32
LEARNING_RATE = 2e-3


class CannotSlimError(Exception):
    """The model has no channels that can go, or not enough of them."""


class Slimmer:
    """Gives up channels of a model, rung by rung of a ladder: what a rung leaves depends on the rungs above it alone.

    Args:
        model: A functional or sequential model; it is not changed.
        x: Samples to measure importance on; no labels are needed.
        seed: For the answers drawn.

    Raises:
        CannotSlimError: None of its channels can go.
        NoGraphError: It computes by code of its own.
    """

    def __init__(self, model: Any, x: Floats, *, seed: int) -> None:
        self.model = model
        self.channels = _keras_channels.trace(model)
        if not any(_steps(len(space), _block(space)) for space in self.channels.spaces):
            raise CannotSlimError("has no layer whose channels can be removed")
        self.keep: Keep = self.channels.all_kept()
        self.rung = 0
        self._x = x[:_SAMPLES]
        self._draw = np.random.default_rng(seed)
        self._full = self.channels.cost(self.keep)
        self._traced = tf.function(self._slopes, autograph=False)

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of an inference: of the whole model, and of what is left."""
        return self.channels.macs(self.channels.all_kept()), self.channels.macs(self.keep)

    @property
    def removed(self) -> tuple[int, int]:
        """How many channels went, of how many that could."""
        return int((~self.keep).sum()), self.channels.units

    def descend(self, rung: int) -> None:
        """Give up channels until what is left takes no longer than this rung allows.

        Raises:
            CannotSlimError: Every layer has as few channels as it may have before that.
        """
        while self.rung < rung:
            target = self._full * RUNG ** (self.rung + 1)
            if self.channels.cost(self.keep) > target:
                self._drop(self._importance(), target)
            self.rung += 1

    def _drop(self, worth: NDArray[np.float64], target: float) -> None:
        while (now := self.channels.cost(self.keep)) > target:
            best: tuple[float, Ids] | None = None
            for space in self.channels.spaces:
                left = space[self.keep[space]]
                for count in _steps(len(left), _block(space)):
                    cheapest = left[np.argsort(worth[left], kind="stable")[:count]]
                    without = self.keep.copy()
                    without[cheapest] = False
                    saved = now - self.channels.cost(without)
                    price = float(worth[cheapest].sum()) / saved if saved else np.inf
                    if best is None or price < best[0]:
                        best = price, cheapest
            if best is None:
                raise CannotSlimError("cannot be made so much smaller: every layer is at its fewest channels")
            self.keep[best[1]] = False

    def _importance(self) -> NDArray[np.float64]:
        """Of every unit: what would change without it, on average over the samples."""
        total = np.zeros(self.channels.units)
        for start in range(0, len(self._x), _BATCH):
            batch = self._x[start : start + _BATCH]
            uniform = self._draw.random((len(batch), 1)).astype(np.float32)
            gates = np.broadcast_to(self.keep.astype(np.float32), (len(batch), len(self.keep)))
            slopes = self._traced(tf.constant(batch), tf.constant(gates), tf.constant(uniform))
            total += np.square(slopes.numpy().astype(np.float64)).sum(axis=0)
        return total / len(self._x)

    def _slopes(self, x: Any, gates: Any, uniform: Any) -> Any:
        """The derivative by each gate of the log-likelihood of an answer, `[n, units]`."""
        with tf.GradientTape() as tape:
            tape.watch(gates)
            scores = _keras_tune.log_scores(self.gated(x, gates))
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

    def build(self, *, heal: bool) -> Any:
        """The model with what is left.

        Args:
            heal: Solve its layers for what the original's give.

        Raises:
            CannotSlimError: It does not answer as the model with closed gates does: a layer does something with its
                channels that is not known here.
        """
        made, layers = _keras_graph.flattened(self.model, self._smaller)
        originals = {id(layer): layer for layer in _keras_graph.layers_of(self.model)}
        for key, fresh in layers.items():
            fresh.set_weights(self._weights(originals[key]))
        x = self._x[:_CHECKED]
        gates = np.broadcast_to(self.keep.astype(np.float32), (len(x), len(self.keep)))
        wanted, given = self.gated(tf.constant(x), tf.constant(gates)).numpy(), made(x, training=False).numpy()
        if not np.allclose(wanted, given, rtol=_TOLERANCE, atol=_TOLERANCE * max(1.0, float(np.abs(wanted).max()))):
            raise CannotSlimError("cannot be made smaller: a layer depends on its channels in a way that is not known")
        if heal:
            _keras_heal.heal(self.model, layers, self.channels, self.keep, self._x[:_HEALED])
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


def _block(space: Ids) -> int:
    return _BLOCK if len(space) >= 2 * _BLOCK else 1


def _steps(left: int, block: int) -> list[int]:
    """How many channels may go at once: to the next lower whole number of blocks, of two blocks, of tiles."""
    sizes = {block, 2 * block, _keras_channels.TILE} if block > 1 else {1}
    return sorted({(left - 1) % size + 1 for size in sizes if left - ((left - 1) % size + 1) >= block})
