"""The TFLite interpreter's methods over a model that may be switched: what `Interpreter` is over a bundle.

Inputs have the indexes from 0, outputs those after them, over every switch. Any number of threads may call; a sequence
of `set_tensor`, `invoke` and `get_tensor` is one thread's affair all the same, as with every interpreter, because the
values belong to the object. A signature runner keeps none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InputDtypeError, InputNameError, InputShapeError
from edge_sdk.manifest import TensorSpec
from edge_sdk.model import EdgeModel

Array = NDArray[Any]

_SIGNATURE = "serving_default"


class SwitchedInterpreter:
    """Implements `RawInterpreter` over an `EdgeModel`, which it owns."""

    def __init__(self, model: EdgeModel) -> None:
        self.model = model
        specs = (*model.inputs, *model.outputs)
        self._count = len(model.inputs)
        self._turn = threading.Lock()
        self._ports = [_details(index, spec) for index, spec in enumerate(specs)]
        self._values: list[Array] = [np.zeros(port["shape"], port["dtype"]) for port in self._ports]

    def allocate_tensors(self) -> None:
        """Take arrays of the shapes that `resize_tensor_input` asked for; an output's batch follows the inputs'."""
        with self._turn:
            batches = {int(port["shape"][0]) if len(port["shape"]) else 0 for port in self._ports[: self._count]}
            for port in self._ports[self._count :]:
                if len(batches) == 1 and port["shape_signature"][:1].tolist() in ([1], [-1]):
                    port["shape"] = np.array([*batches, *port["shape"][1:]], np.int32)
            for index, port in enumerate(self._ports):
                if self._values[index].shape != tuple(port["shape"]):
                    self._values[index] = np.zeros(port["shape"], port["dtype"])

    def get_input_details(self) -> list[dict[str, Any]]:
        """One mapping per input."""
        return [dict(port) for port in self._ports[: self._count]]

    def get_output_details(self) -> list[dict[str, Any]]:
        """One mapping per output."""
        return [dict(port) for port in self._ports[self._count :]]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """Of inputs and outputs alone: the others change with the variant."""
        return [dict(port) for port in self._ports]

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy `value` into an input.

        Raises:
            InputDtypeError, InputShapeError: It is not what is allocated.
            InputNameError: There is no such input.
        """
        port = self._port(tensor_index, inputs=True)
        array = np.asarray(value)
        if array.dtype != port["dtype"]:
            raise InputDtypeError(
                f"{array.dtype}, where the model takes {np.dtype(port['dtype'])}", where=f"input {port['name']!r}",
                hint="convert it: a bundle takes floats, whatever its variants are inside",
            )  # fmt: skip
        with self._turn:
            allocated = self._values[tensor_index].shape
            if array.shape != allocated:
                raise InputShapeError(
                    f"an array of shape {list(array.shape)}, where {list(allocated)} is allocated",
                    where=f"input {port['name']!r}",
                    hint="for another batch, call resize_tensor_input and allocate_tensors first",
                )
            np.copyto(self._values[tensor_index], array)

    def get_tensor(self, tensor_index: int, subgraph_index: int = 0) -> Array:
        """A copy of an input's or output's value; of the first subgraph, which is all that switched models share.

        Raises:
            InputNameError: There is no such input or output, or another subgraph is named.
        """
        if subgraph_index:
            raise InputNameError(f"no subgraph {subgraph_index}", hint="a bundle's inputs and outputs are those of 0")
        self._port(tensor_index)
        with self._turn:
            value: Array = self._values[tensor_index].copy()
        return value

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """A function that gives the array itself. Unlike a runtime's view it may be kept: `invoke` does not mind.

        What is written into an input's counts; an output's is another one after each `invoke`.
        """
        self._port(tensor_index)
        return lambda: self._values[tensor_index]

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """Give an input another shape; `allocate_tensors` comes next.

        Raises:
            InputShapeError: A size differs that the model does not leave free; the batch is free in most.
        """
        del strict  # no size can change that the model does not leave free
        port = self._port(input_index, inputs=True)
        wanted = tuple(int(size) for size in tensor_size)
        open_ = tuple(port["shape_signature"])
        fits = len(wanted) == len(open_) and all(
            size == want or free for size, want, free in zip(wanted, open_, _free(open_), strict=True)
        )
        if not fits or min(wanted, default=1) < 0:
            raise InputShapeError(
                f"shape {list(wanted)}, where the model takes {[int(size) for size in open_]}",
                where=f"input {port['name']!r}",
            )
        with self._turn:
            port["shape"] = np.array(wanted, np.int32)

    def invoke(self) -> None:
        """Compute with the variant in force."""
        with self._turn:
            given = [each.copy() for each in self._values[: self._count]]
        answer = self.model(*given)
        answers = answer.values() if isinstance(answer, Mapping) else [answer]
        with self._turn:
            for index, array in enumerate(answers, start=self._count):
                self._values[index] = array
                self._ports[index]["shape"] = np.array(array.shape, np.int32)

    def reset_all_variables(self) -> None:
        """Nothing: a switched model can have no state."""

    def get_signature_list(self) -> dict[str, Any]:
        """One signature, of the manifest's names."""
        names = [port["name"] for port in self._ports]
        return {_SIGNATURE: {"inputs": names[: self._count], "outputs": names[self._count :]}}

    def get_signature_runner(self, signature_key: str | None = None) -> _Runner:
        """What calls it by name; safe for any number of threads.

        Raises:
            InputNameError: Another signature is named.
        """
        if signature_key not in {None, _SIGNATURE}:
            raise InputNameError(f"no signature {signature_key!r}", hint=f"there is {_SIGNATURE!r}")
        return _Runner(self)

    def _get_full_signature_list(self) -> dict[str, Any]:
        """With the tensors' indexes, as Coral's detection examples ask for them."""
        sides = {"inputs": self._ports[: self._count], "outputs": self._ports[self._count :]}
        return {_SIGNATURE: {side: {port["name"]: port["index"] for port in ports} for side, ports in sides.items()}}

    def _port(self, index: int, *, inputs: bool = False) -> dict[str, Any]:
        last = self._count if inputs else len(self._ports)
        if not 0 <= index < last:
            what = "input" if inputs else "input or output"
            raise InputNameError(f"no {what} has the index {index}", hint="see get_input_details()")
        return self._ports[index]


class _Runner:
    """The model, called by the names of its inputs."""

    def __init__(self, interpreter: SwitchedInterpreter) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._interpreter.get_input_details()}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._interpreter.get_output_details()}

    def __call__(self, **inputs: Any) -> dict[str, Array]:
        answer = self._interpreter.model(**inputs)
        if isinstance(answer, dict):
            return answer
        return {self._interpreter.model.outputs[0].name: answer}


def _details(index: int, spec: TensorSpec) -> dict[str, Any]:
    """As the runtimes' own: for a float tensor, quantization is nothing."""
    return {
        "name": spec.name,
        "index": index,
        "shape": np.array([1 if size < 0 else size for size in spec.shape], np.int32),
        "shape_signature": np.array(spec.shape, np.int32),
        "dtype": np.dtype(spec.dtype).type,
        "quantization": (0.0, 0),
        "quantization_parameters": {
            "scales": np.array([], np.float32),
            "zero_points": np.array([], np.int32),
            "quantized_dimension": 0,
        },
        "sparsity_parameters": {},
    }


def _free(signature: Sequence[int]) -> list[bool]:
    """The first dimension is the batch, which an engine splits; others must be left open by the model."""
    return [size == -1 or (position == 0 and size == 1) for position, size in enumerate(signature)]
