"""One input whose right answer is known: an accelerator that no longer gives it is not to be believed.

The right answer is the twin's, on the CPU. The input is noise over the range that the model's input can hold, so that
it wakes more than the zeros do that warm a model up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from edge_sdk.anyengine import AnyEngine
from edge_sdk.errors import InputError
from edge_sdk.front import Array, Front
from edge_sdk.port import Port

# Of the range of the right answer. 16-bit floats were seen to differ by 3e-4 in a softmax, another rounding of integers
# by a step or two an operator; what is wrong differs by about the whole range.
_SHARE = 0.1
_STEPS = 3.0  # of a quantized output, whose whole range may be a few steps
# Of the largest value: an answer of one number has no range. Ten times what rounding to 16 bits costs (2^-11).
_ROUNDING = 5e-3
# Of the difference that a step of 8 bits makes in the input: where that turns the answer round, as in the sorted boxes
# of a detector, another rounding may, too.
_SHAKE = 2.0**-8
_SHAKEN = 4.0
_LEAST = 1e-6


class Canary:
    """The input, and the right answer.

    Args:
        twin: Gives it now; not kept.
    """

    def __init__(self, twin: Front) -> None:
        inputs, outputs = twin.ports
        generator = np.random.default_rng(0)
        self._sample = [_noise(each, generator) for each in inputs]
        self._right = twin.run(self._sample)
        shaken = twin.run([_shaken(array, generator) for array in self._sample])
        self._allowed = [
            _tolerance(right, other) + _STEPS * (1.0 if each.is_steps else each.scale or 0.0)
            for right, other, each in zip(self._right, shaken, outputs, strict=True)
        ]
        self._counts = [each.is_real or each.is_steps for each in outputs]

    def distance(self, engine: AnyEngine, *, observe: Callable[[float], None] = lambda _: None) -> float:
        """How far an engine's answer is off, as a multiple of what is allowed; infinity where it is no answer to it.

        Args:
            engine: Is run once.
            observe: Told the milliseconds that took.

        Raises:
            DelegateError: The engine failed.
        """
        begun_s = time.perf_counter()
        try:
            answer = engine.run(self._sample)
        except InputError:
            return float("inf")  # it takes other inputs than its twin
        observe(1e3 * (time.perf_counter() - begun_s))
        return self._off(answer)

    def _off(self, answer: Sequence[Array]) -> float:
        if [each.shape for each in answer] != [each.shape for each in self._right]:
            return float("inf")
        worst = 0.0
        for mine, right, allowed, counts in zip(answer, self._right, self._allowed, self._counts, strict=True):
            if not counts:
                continue  # the number of a class, of a box: nearly right is no nearer than wrong
            furthest = _furthest(mine, right)
            if not np.isfinite(furthest):
                return float("inf")
            worst = max(worst, furthest / allowed)
        return worst


def said(distance: float) -> str:
    """A distance in words."""
    if distance == float("inf"):
        return "its answer is no number, or of another shape than its twin's"
    return f"its answer is {distance:.3g} times as far from its twin's as rounding explains"


def _tolerance(right: Array, shaken: Array) -> float:
    known = right[np.isfinite(right)].astype(np.float64)
    if not known.size:
        return _LEAST
    rounding = _ROUNDING * float(np.abs(known).max())
    moved = _furthest(shaken, right) if shaken.shape == right.shape else float("inf")
    return max(_LEAST, _SHARE * float(known.max() - known.min()) + rounding + _SHAKEN * moved)


def _furthest(mine: Array, right: Array) -> float:
    """The largest difference, where the right answer is a number: a model may well answer minus infinity."""
    is_known = np.isfinite(right)
    return float(np.abs(mine[is_known].astype(np.float64) - right[is_known].astype(np.float64)).max(initial=0.0))


def _shaken(array: Array, generator: np.random.Generator) -> Array:
    if array.dtype.kind != "f" or not array.size:
        return array
    step = _SHAKE * max(float(np.abs(array).max()), _LEAST)
    moved: Array = (array + generator.uniform(-step, step, array.shape)).astype(array.dtype)
    return moved


def _noise(port: Port, generator: np.random.Generator) -> Array:
    shape = tuple(1 if free else size for free, size in zip(port.free, port.shape, strict=True))
    if port.scale is not None or port.is_steps:
        limits = np.iinfo(port.dtype)
        steps = generator.integers(limits.min, limits.max, shape, endpoint=True)
        if port.scale is None:
            return steps.astype(port.dtype)
        real: Array = ((steps - port.zero) * port.scale).astype(np.float32)
        return real
    if port.dtype.kind == "f":
        return generator.random(shape, np.float32).astype(port.dtype)
    return np.zeros(shape, port.dtype)  # a token or an index: what is in range, only the model knows
