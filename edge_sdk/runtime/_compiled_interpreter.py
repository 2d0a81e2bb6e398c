"""The TFLite interpreter's methods over one compiled model of LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtime._compiled_words import Share

Array = NDArray[Any]

# What TensorBuffer of ai-edge-litert 2.3.0 passes.
_PASSED = frozenset({"float32", "float16", "int32", "int8", "uint8", "bool"})


class CompiledInterpreter:
    """Implements `RawInterpreter` over a compiled model; not safe for two threads at once.

    Args:
        compiled: LiteRT's `CompiledModel`.
        plain: The plain interpreter of the same file, which is read here and forgotten.
        operators: Of the file.
        share: How much of it the accelerator computes.

    Attributes:
        share: As given.

    Raises:
        RuntimeError: A tensor of a kind `CompiledModel` does not pass, such as int64.
    """

    def __init__(self, compiled: Any, plain: Any, *, operators: list[dict[str, Any]], share: Share) -> None:
        self.share = share
        self._compiled = compiled
        self._inputs: list[dict[str, Any]] = plain.get_input_details()
        self._outputs: list[dict[str, Any]] = plain.get_output_details()
        self._tensors: list[dict[str, Any]] = plain.get_tensor_details()
        self._operators = operators
        self._signatures: dict[str, Any] = plain.get_signature_list()
        runners = {key: plain.get_signature_runner(key) for key in self._signatures}
        self._ports = {key: (each.get_input_details(), each.get_output_details()) for key, each in runners.items()}
        self._number, self._order = self._found()
        self._sides: tuple[list[Any], list[Any]] = [], []
        self._buffers: dict[int, Any] = {}
        self._answers: dict[int, Array] = {}
        self._details = {int(each["index"]): each for each in (*self._inputs, *self._outputs)}
        for each in self._details.values():
            dtype = np.dtype(each["dtype"]).name
            if dtype not in _PASSED:
                raise RuntimeError(f"tensor {each['name']!r} is {dtype}, which CompiledModel does not pass")

    @property
    def is_fully_accelerated(self) -> bool:
        """No operator is left to TFLite's own kernels; XNNPACK on the CPU counts as an accelerator, too."""
        return bool(self._compiled.is_fully_accelerated())

    def allocate_tensors(self) -> None:
        """Take buffers of the sizes the tensors have now."""
        inputs = self._compiled.create_input_buffers(self._number)
        outputs = self._compiled.create_output_buffers(self._number)
        self._sides = inputs, outputs
        self._buffers = dict(zip(self._order, (*inputs, *outputs), strict=True))
        self._answers = {}
        for index, buffer in self._buffers.items():
            self._details[index]["shape"] = np.array(buffer.get_tensor_details()["shape"], np.int32)

    def get_input_details(self) -> list[dict[str, Any]]:
        """One mapping per input, as the plain interpreter gives it."""
        return [dict(each) for each in self._inputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """One mapping per output, as the plain interpreter gives it."""
        return [dict(each) for each in self._outputs]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """One mapping per tensor of the file, before the accelerator made its own graph of it."""
        return self._tensors

    def set_tensor(self, tensor_index: int, value: Array) -> None:
        """Copy `value` in.

        Raises:
            ValueError: Wrong dtype or shape, which the library itself would take and misread.
        """
        want = self._details[tensor_index]
        if value.dtype != want["dtype"]:
            raise ValueError(f"got {value.dtype}, expected {np.dtype(want['dtype'])} for input {tensor_index}")
        if value.shape != tuple(want["shape"]):
            raise ValueError(f"got shape {value.shape}, expected {tuple(want['shape'])} for input {tensor_index}")
        self._buffers[tensor_index].write(value)

    def get_tensor(self, tensor_index: int) -> Array:
        """A copy of an input's or output's value; others exist on the accelerator alone."""
        answer = self._answers.get(tensor_index)
        return self._read(tensor_index) if answer is None else answer.copy()

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """There are no views of an accelerator's memory."""
        raise RuntimeError(f"tensor {tensor_index} lies in the accelerator's memory: use set_tensor and get_tensor")

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """Give an input another shape; `allocate_tensors` comes next."""
        position = self._order.index(input_index)
        self._compiled.resize_input_tensor(position, [int(size) for size in tensor_size], self._number, strict)
        self._details[input_index]["shape"] = np.array(tensor_size, np.int32)
        self._buffers = {}

    def invoke(self) -> None:
        """Compute and fetch the answers.

        `run_by_index` on a GPU only hands the work over; the time passes in `read`, which holds the GIL.
        """
        if not self._buffers:
            raise RuntimeError("call allocate_tensors() first")
        inputs, outputs = self._sides
        self._compiled.run_by_index(self._number, inputs, outputs)
        self._answers = {int(each["index"]): self._read(int(each["index"])) for each in self._outputs}

    def reset_all_variables(self) -> None:
        """There is no such call.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("CompiledModel cannot reset the state of a model")

    def get_signature_list(self) -> dict[str, Any]:
        """Inputs and outputs of each signature."""
        return self._signatures

    def get_signature_runner(self, signature_key: str | None = None) -> _Runner:
        """What a signature takes and gives, by its own names.

        Raises:
            ValueError: There is no such signature, or several and none is named.
        """
        key = next(iter(self._ports)) if signature_key is None and len(self._ports) == 1 else signature_key
        if key not in self._ports:
            raise ValueError(f"signature_key {signature_key!r} is none of {sorted(self._ports)}")
        return _Runner(self, *self._ports[key])

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return self._operators

    def _read(self, index: int) -> Array:
        details = self._details[index]
        shape = tuple(int(size) for size in details["shape"])
        value: Array = self._buffers[index].read(int(np.prod(shape, dtype=np.int64)), details["dtype"]).reshape(shape)
        return value

    def _found(self) -> tuple[int, list[int]]:
        """Which of the library's signatures this graph is, and the tensors' indexes in the order of its buffers.

        A file without signatures has one of the library's own making.
        """
        mine = [{int(each["index"]) for each in side} for side in (self._inputs, self._outputs)]
        for number, (key, names) in enumerate(self._compiled.get_signature_list().items()):
            sides = self._compiled.get_input_tensor_details(key), self._compiled.get_output_tensor_details(key)
            indexes = [
                [int(side[name]["index"]) for name in names[which]]
                for side, which in zip(sides, ("inputs", "outputs"), strict=True)
            ]
            if [set(each) for each in indexes] == mine:
                return number, indexes[0] + indexes[1]
        raise RuntimeError("no signature of the model takes and gives what its first graph does")


class _Runner:
    """A signature: what it takes and gives, and a call."""

    def __init__(
        self, interpreter: CompiledInterpreter, inputs: dict[str, dict[str, Any]], outputs: dict[str, dict[str, Any]]
    ) -> None:
        self._interpreter = interpreter
        self._inputs, self._outputs = inputs, outputs

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        return dict(self._inputs)

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return dict(self._outputs)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"got the inputs {sorted(inputs)}, expected {sorted(self._inputs)}")
        for name, value in inputs.items():
            self._interpreter.set_tensor(int(self._inputs[name]["index"]), value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(int(each["index"])) for name, each in self._outputs.items()}
