"""The side of an engine that an app sees: arrays are taken, converted, split into samples, and answers given back.

What computes the stored tensors behind it is a subclass's business: an interpreter in this process (`edge_sdk.engine`),
or one in a worker's (`edge_sdk.isolation`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InputShapeError
from edge_sdk.port import Port

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.manifest import TensorSpec

Array = NDArray[Any]
_FLOAT32 = np.dtype(np.float32)


class Front(ABC):
    """Takes and gives the app's arrays; a subclass calls `_face` once and computes in `compute`.

    Attributes:
        where: What errors call the model: its path, mostly.
    """

    where: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order."""
        return tuple(each.spec for each in self._inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return tuple(each.spec for each in self._outputs)

    @property
    def ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """Inputs and outputs as they are stored."""
        return self._inputs, self._outputs

    def run(self, arrays: Sequence[Any]) -> list[Array]:
        """One answer per output, fresh arrays that belong to the caller.

        Args:
            arrays: One per input. Where the model takes one sample at a time, a batch of any size is taken and
                computed sample by sample, and a sample without the batch dimension gives an answer without it.

        Raises:
            InputShapeError, InputDtypeError, InputValueError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: The runtime failed while it computed.
        """
        inputs = self._inputs
        if len(arrays) != len(inputs):
            raise InputShapeError(
                f"{len(arrays)} arrays, where the model has {len(inputs)} inputs",
                where=self.where,
                hint=f"pass {', '.join(repr(each.name) for each in inputs)}",
            )
        if self._is_plain:  # the way almost every call goes: nothing to convert
            first = arrays[0]
            if type(first) is np.ndarray and first.dtype == _FLOAT32 and first.shape == inputs[0].shape:
                return self.compute(arrays)
        taken = [each.take(array) for each, array in zip(inputs, arrays, strict=True)]
        if [array.shape for array in taken] == self._usual_shapes:
            return self._give(self.compute(taken))
        return self._run_taken(taken)

    @abstractmethod
    def close(self) -> None:
        """Wait for the call that computes, then free the memory; calls that come later raise. May be repeated."""

    @abstractmethod
    def compute(self, values: Sequence[Array]) -> list[Array]:
        """Tensors in, tensors out, as they are stored; `run` is for apps.

        Args:
            values: One per input, of the port's dtype; only its free dimensions may differ from the port's shape.
        """

    def _face(self, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        self._inputs, self._outputs = inputs, outputs
        # A batch is computed sample by sample where the model has one sample per call, at every input and output.
        self._per_sample = all(each.shape[:1] == (1,) for each in (*inputs, *outputs))
        self._usual_shapes = [each.shape for each in inputs]
        self._is_plain = len(inputs) == 1 and all(each.is_plain for each in (*inputs, *outputs))

    def _run_taken(self, taken: list[Array]) -> list[Array]:
        inputs = self._inputs
        if not self._per_sample:
            for each, array in zip(inputs, taken, strict=True):
                if not each.fits(array.shape):
                    raise each.wrong_shape(array.shape)
            return self._give(self.compute(taken))
        if all(each.fits_sample(array.shape) for each, array in zip(inputs, taken, strict=True)):
            return [array[0] for array in self._give(self.compute([array[np.newaxis] for array in taken]))]
        for each, array in zip(inputs, taken, strict=True):
            if array.ndim != len(each.shape) or not each.fits_sample(array.shape[1:]):
                raise each.wrong_shape(array.shape)
        sizes = {array.shape[0] for array in taken}
        if len(sizes) > 1:
            raise InputShapeError(f"batches of unequal sizes {sorted(sizes)}", where=self.where)
        size = sizes.pop()
        if size == 0:
            return [np.empty((0, *each.shape[1:]), each.spec.dtype) for each in self._outputs]
        if size == 1:  # nothing to join: what a pipeline hands on is not copied once more
            return self._give(self.compute(taken))
        answers = [self.compute([array[i : i + 1] for array in taken]) for i in range(size)]
        return self._give([np.concatenate(parts) for parts in zip(*answers, strict=True)])

    def _give(self, stored: Sequence[Array]) -> list[Array]:
        return [each.give(array) for each, array in zip(self._outputs, stored, strict=True)]
