"""int8 weights chosen by what comes out of a layer, each layer in the knowledge of what the ones before it got wrong.

The quantizer decides the file: its operators, its scales, its order. Here the integers inside are chosen anew. Two
streams of the calibration samples run through the float graph side by side, operator by operator: one as trained, one
as the quantized file will have it. At each convolution and dense layer the weights are aimed at the trained answers on
the inputs there will be (`rounding.aimed`), rounded with compensation, and the bias takes up what is left of the mean.

Nothing is learned from labels, and nothing is trained: a few dozen samples and one pass suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_converter import flatbuffer
from edge_converter.quantization.follower import Follower, Twin
from edge_converter.quantization.layer import Looks
from edge_converter.quantization.layerwise import FloatGraph, OneOperator
from edge_converter.quantization.values import Floats, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensated:
    """The file with other integers in it.

    Attributes:
        layers: How many were chosen anew.
        samples: Of the calibration set that were used.
        skipped: Layers that keep the quantizer's integers, and why, one line each.
    """

    content: bytes
    layers: int
    samples: int
    skipped: tuple[str, ...] = ()


def compensate(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], *, where: str, seed: int = 0,
    most: int | None = None, advance: Callable[[int], None] = lambda _: None,
) -> Compensated:  # fmt: skip
    """Choose the integers of one file anew; see `compensate_all`."""
    return compensate_all(
        source, [Twin(content=quantized, most=most)], inputs, where=where, seed=seed, advance=advance
    )[0]


def compensate_all(
    source: bytes, twins: Sequence[Twin], inputs: Mapping[int, Floats], *, where: str, seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Compensated]:  # fmt: skip
    """Choose the integers of several files made of one float file, in one walk through its graph.

    What the trained stream computes, and what each layer should see, is found once for all of them.

    Requires: a float file of one subgraph whose operators the runtime computes alone; twins whose activations bear its
    names. Ensures: the twins' operators, shapes and scales of activations are as they were.

    Args:
        source: The float file.
        twins: The files.
        inputs: Calibration samples by input tensor of the source, `[calls, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.
        advance: Told of each operator that is done.

    Returns:
        The same files with other weights and biases, or as they were where no layer could be matched.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    walk = _Walk(FloatGraph(source, where=where), [Follower(twin, where=where) for twin in twins], seed)
    walk.through(inputs, advance)
    count = len(next(iter(inputs.values())))
    return [
        Compensated(
            content=flatbuffer.serialize(follower.file) if follower.replaced else twin.content,
            layers=len(follower.replaced),
            samples=count,
            skipped=tuple(follower.skipped),
        )
        for twin, follower in zip(twins, walk.followers, strict=True)
    ]


Replaced = Mapping[int, Floats]


def replacements(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], *, where: str, seed: int = 0
) -> Mapping[int, Replaced]:
    """What each layer's weights and bias become if it alone is quantized.

    Args:
        source: The float file.
        quantized: The same with weights as integers, in all layers that are to be looked at.
        inputs: Calibration samples by input tensor of the source, `[calls, *shape]`, batch dimension included.
        where: The source's name, for errors.
        seed: Of the rows that large layers are looked at.

    Returns:
        By operator of the source: the values instead of its constants, by tensor.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    follower = Follower(Twin(content=quantized, follows=False), where=where)
    _Walk(FloatGraph(source, where=where), [follower], seed).through(inputs, lambda _: None)
    return follower.replaced


class _Walk:
    """The state of one pass: the trained stream, and those of the files that are written into.

    Args:
        graph: The float file's.
        followers: The quantized files.
        seed: Of the positions that large layers are looked at.
    """

    def __init__(self, graph: FloatGraph, followers: Sequence[Follower], seed: int) -> None:
        self.followers = followers
        self._graph = graph
        self._random = np.random.default_rng(seed)
        self._trained: dict[int, Values] = {}
        self._count = 0

    def through(self, inputs: Mapping[int, Floats], advance: Callable[[int], None]) -> None:
        """Walk the whole graph."""
        for tensor, samples in inputs.items():
            self._count = len(samples)
            self._trained[tensor] = Values.of(samples)
            for follower in self.followers:
                if follower.follows:
                    follower.stream[tensor] = Values.of(samples, follower.grid(self._graph.name(tensor)))
        for number, operator in enumerate(self._graph.operators):
            self._pass(number, operator)
            for tensor in [t for t in self._trained if self._graph.last_read.get(t, -1) <= number]:
                for stream in (self._trained, *(follower.stream for follower in self.followers)):
                    stream.pop(tensor, None)
            advance(1)

    def _pass(self, number: int, operator: Any) -> None:
        one = OneOperator(self._graph, operator)
        if any(tensor not in self._trained for tensor in one.computed):
            raise ValueError(f"{self._graph.kind(operator)} reads what was not computed")
        trained = self._run(one, operator, self._trained, None)
        looks: Looks | None = None
        for follower in self.followers:
            layer = follower.layer(self._graph, operator)
            instead: dict[int, Floats] = {}
            if layer is not None:
                if looks is None:
                    looks = Looks(
                        layer.kind, layer.options, layer.weights, self._trained[one.computed[0]], self._random,
                        centred=layer.bias is not None,
                    )  # fmt: skip
                chosen = layer.choose(looks.seen(follower.stream[one.computed[0]] if follower.follows else None))
                instead[int(operator.inputs[1])] = chosen.weights
                if chosen.bias is not None:
                    instead[int(operator.inputs[2])] = chosen.bias
                follower.replaced[number] = instead
            elif follower.follows:
                instead = follower.plain(self._graph, operator)
            if follower.follows:
                twin = OneOperator(self._graph, operator, instead) if instead else one
                follower.stream.update(self._run(twin, operator, follower.stream, follower))
        self._trained.update(trained)

    def _run(
        self, one: OneOperator, operator: Any, stream: Mapping[int, Values], follower: Follower | None
    ) -> dict[int, Values]:
        """What comes out of an operator in one stream, by tensor; what nobody reads is not kept."""
        found = {}
        outputs = []
        for index in operator.outputs:
            tensor = int(index)
            values = Values(self._count, follower.grid(self._graph.name(tensor)) if follower else None)
            outputs.append(values)
            if tensor in self._graph.last_read:
                found[tensor] = values
        if found:
            one.stream([stream[tensor] for tensor in one.computed], outputs)
        return found
