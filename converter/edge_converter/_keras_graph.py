"""The graph of a Keras model, walked node by node with whatever values are put in.

Channels are traced, gates are put in and smaller twins are built by the same walk: only what a layer does to a value
differs. Models nested in a model are walked into, so what is built of it is flat.

Imported in the TensorFlow process only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


class NoGraphError(Exception):
    """The model computes by code of its own, which nobody can walk through."""


# Given a node of the graph and its layer's arguments, gives the layer's outputs.
Call = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def walk(model: Any, values: Sequence[Any], call: Call) -> list[Any]:
    """The values of the model's outputs.

    Args:
        model: A functional or sequential Keras model.
        values: One for each of its inputs.
        call: Computes a node's values from its arguments.

    Raises:
        NoGraphError: The model, or one nested in it, is neither functional nor sequential.
    """
    graph = graph_of(model)
    known = {id(tensor): value for tensor, value in zip(graph.inputs, values, strict=True)}
    nodes = _nodes(graph)
    # A value is forgotten once it was read for the last time: it may be the activations of hundreds of samples.
    reads = Counter(id(tensor) for node in nodes for tensor in node.arguments.keras_tensors)
    reads.update(id(tensor) for tensor in graph.outputs)
    for node in nodes:
        args, keywords = node.arguments.fill_in(known)
        reads.subtract(id(tensor) for tensor in node.arguments.keras_tensors)
        for tensor in node.arguments.keras_tensors:
            if not reads[id(tensor)]:
                known.pop(id(tensor), None)
        if isinstance(node.operation, keras.Model):
            found: Any = walk(node.operation, keras.tree.flatten(args), call)
        else:
            found = keras.tree.flatten(call(node, args, keywords))
        del args, keywords
        for tensor, value in zip(node.outputs, found, strict=True):
            known[id(tensor)] = value
    return [known[id(tensor)] for tensor in graph.outputs]


def _nodes(graph: Any) -> list[Any]:
    """Those that compute something, in an order in which they can."""
    by_depth = graph._nodes_by_depth  # noqa: SLF001 - Keras has no public way through a graph
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def activation_bytes(model: Any) -> tuple[int, int]:
    """What the layers of a model give for one sample, in bytes of float32: the largest alone, and all together.

    Raises:
        NoGraphError: The model, or one nested in it, is neither functional nor sequential.
    """
    largest = total = 0
    for node in _nodes(graph_of(model)):
        if isinstance(node.operation, keras.Model):
            one, all_ = activation_bytes(node.operation)
        else:
            one = all_ = 4 * sum(positions(each.shape) * (each.shape[-1] or 1) for each in node.outputs)
        largest, total = max(largest, one), total + all_
    return largest, total


def graph_of(model: Any) -> Any:
    """The functional model that holds the nodes of a functional or sequential one.

    Raises:
        NoGraphError: It is neither.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional  # noqa: SLF001
    if not hasattr(model, "_nodes_by_depth"):
        raise NoGraphError("computes by code of its own instead of a graph of layers")
    return model


def flattened(model: Any, make: Callable[[Any], Any]) -> tuple[Any, dict[int, Any]]:
    """A model of the same graph with other layers, and those layers by the `id` of the ones they stand for.

    Args:
        model: A functional or sequential Keras model.
        make: Given a layer, a new one in its place; called once for each layer, however often the graph uses it.

    Raises:
        NoGraphError: The model, or one nested in it, is neither functional nor sequential.
    """
    made: dict[int, Any] = {}
    taken: set[str] = set()

    def call(node: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        layer = node.operation
        if not isinstance(layer, keras.layers.Layer):
            return layer(*args, **keywords)
        if id(layer) not in made:
            fresh = make(layer)
            while fresh.name in taken:  # two nested models may each have a layer of this name
                fresh.name = f"{fresh.name}_"
            taken.add(fresh.name)
            made[id(layer)] = fresh
        return made[id(layer)](*args, **keywords)

    graph = graph_of(model)
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name) for tensor in graph.inputs]
    outputs = walk(model, inputs, call)
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0], name=model.name
    ), made


def layers_of(model: Any) -> list[Any]:
    """All layers, those of nested models too, each once."""
    found = model._flatten_layers(include_self=False, recursive=True)  # noqa: SLF001
    return [layer for layer in found if not isinstance(layer, keras.Model)]


def positions(shape: Sequence[int | None]) -> int:
    """How many places a tensor of this shape has, batch and channels apart; an unknown length counts as one."""
    return int(np.prod([length or 1 for length in shape[1:-1]], dtype=np.int64))
