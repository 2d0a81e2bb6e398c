"""The two ends of a pipeline: an app's arrays into the tensors the first segments take, and back.

Floating point outside, as an `Engine` of the whole model has it; in between, tensors go as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.engine import computes_with_integers
from edge_sdk.errors import InputShapeError
from edge_sdk.port import Array, port
from edge_sdk.runtime import choose, load_error

if TYPE_CHECKING:
    from edge_sdk.segments import Segment, Segments


class Ends:
    """How a split model's inputs and outputs are converted, and a batch of them taken apart and put together.

    Args:
        split: Its segments' files say how each end is stored.

    Raises:
        ModelLoadError: The runtime cannot read one of them.
        SegmentsError: A file is not what the plan says.
    """

    def __init__(self, split: Segments) -> None:
        given: dict[str, dict[str, Any]] = {}
        taken: dict[str, dict[str, Any]] = {}
        finite = False
        for segment in split.plan.segments:
            finite |= _read(split, segment, given, taken)
        self.where = str(split.path)
        self.inputs = tuple(port(given[spec.name], name=spec.name, finite=finite) for spec in split.plan.inputs)
        self.outputs = tuple(port(taken[spec.name], name=spec.name) for spec in split.plan.outputs)
        self._per_sample = all(each.shape[:1] == (1,) for each in (*self.inputs, *self.outputs))

    def take(self, arrays: Sequence[Any]) -> tuple[list[list[Array]], bool]:
        """The samples as tensors, and whether it was one without the batch dimension.

        Raises:
            InputError: An array the model does not take.
        """
        if len(arrays) != len(self.inputs):
            raise InputShapeError(
                f"{len(arrays)} arrays, where the model has {len(self.inputs)} inputs",
                where=self.where,
                hint=f"pass {', '.join(repr(each.name) for each in self.inputs)}",
            )
        taken = [each.take(array) for each, array in zip(self.inputs, arrays, strict=True)]
        shapes = [array.shape for array in taken]
        if not self._per_sample:
            self._check(all(each.fits(shape) for each, shape in zip(self.inputs, shapes, strict=True)), shapes)
            return [taken], False
        if all(each.fits_sample(shape) for each, shape in zip(self.inputs, shapes, strict=True)):
            return [[array[np.newaxis] for array in taken]], True
        ports = zip(self.inputs, shapes, strict=True)
        self._check(all(shape and each.fits_sample(shape[1:]) for each, shape in ports), shapes)
        sizes = {shape[0] for shape in shapes}
        if len(sizes) > 1:
            raise InputShapeError(f"batches of unequal sizes {sorted(sizes)}", where=self.where)
        return [[array[i : i + 1] for array in taken] for i in range(sizes.pop())], False

    def give(self, answers: Sequence[Sequence[Array]], *, is_single: bool) -> list[Array]:
        """The outputs of all samples, as the app sees them."""
        if not answers:
            return [np.empty((0, *each.shape[1:]), each.spec.dtype) for each in self.outputs]
        if len(answers) == 1:
            found = [each.give(array) for each, array in zip(self.outputs, answers[0], strict=True)]
            return [array[0] for array in found] if is_single else found
        joined = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
        return [each.give(array) for each, array in zip(self.outputs, joined, strict=True)]

    def _check(self, is_right: bool, shapes: Sequence[tuple[int, ...]]) -> None:
        if is_right:
            return
        for each, shape in zip(self.inputs, shapes, strict=True):
            if not (each.fits(shape) or (self._per_sample and shape and each.fits_sample(shape[1:]))):
                raise each.wrong_shape(shape)
        raise self.inputs[0].wrong_shape(shapes[0])  # some with the batch dimension and some without


def _read(
    split: Segments, segment: Segment, given: dict[str, dict[str, Any]], taken: dict[str, dict[str, Any]]
) -> bool:
    """Note how a segment's tensors are stored; returns whether it computes with integers."""
    path = split.file(segment)
    runtime = choose()
    try:
        interpreter = runtime.open(str(path), threads=1)  # not allocated: its operators need not run here
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except (ValueError, RuntimeError) as cause:
        raise load_error(cause, where=str(path), runtime=runtime) from cause
    for spec, details in zip(segment.inputs, inputs, strict=True):
        if spec.source is None:
            given[spec.name] = details
    taken.update({spec.name: details for spec, details in zip(segment.outputs, outputs, strict=True)})
    return computes_with_integers(interpreter)
