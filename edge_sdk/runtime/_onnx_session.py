"""The TFLite interpreter's methods over one session of ONNX Runtime: inputs have the indexes from 0, outputs follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Translated = Callable[[Callable[[], Any]], Any]

_DTYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
_SIGNATURE = "serving_default"


class SessionInterpreter:
    """Implements `RawInterpreter` over an `InferenceSession`; its `invoke` releases the GIL.

    Args:
        session: The session.
        translated: Calls, and turns the library's errors into a `RuntimeError`.

    Raises:
        RuntimeError: An input or output is no array of numbers.
    """

    def __init__(self, session: Any, translated: Translated) -> None:
        self._session = session
        self._translated = translated
        nodes = [*session.get_inputs(), *session.get_outputs()]
        self._count = len(session.get_inputs())
        self._ports = [_details(index, node) for index, node in enumerate(nodes)]
        self._names = [port["name"] for port in self._ports]
        self._values: list[Array] = []

    def allocate_tensors(self) -> None:
        """Take arrays for the inputs, of the shapes they have now."""
        self._values = [np.zeros(port["shape"], port["dtype"]) for port in self._ports]

    def get_input_details(self) -> list[dict[str, Any]]:
        """One mapping per input."""
        return [dict(port) for port in self._ports[: self._count]]

    def get_output_details(self) -> list[dict[str, Any]]:
        """One mapping per output; its shape is known once it was computed."""
        return [dict(port) for port in self._ports[self._count :]]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """Of inputs and outputs: the session tells of no others."""
        return [dict(port) for port in self._ports]

    def set_tensor(self, tensor_index: int, value: Array) -> None:
        """Copy `value` in.

        Raises:
            ValueError: Wrong dtype or shape.
        """
        port = self._ports[tensor_index]
        if value.dtype != port["dtype"]:
            raise ValueError(f"got {value.dtype}, expected {np.dtype(port['dtype'])} for input {tensor_index}")
        if value.shape != tuple(port["shape"]):
            raise ValueError(f"got shape {value.shape}, expected {tuple(port['shape'])} for input {tensor_index}")
        np.copyto(self._values[tensor_index], value)

    def get_tensor(self, tensor_index: int) -> Array:
        """A copy of an input's or output's value."""
        value: Array = self._values[tensor_index].copy()
        return value

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """A function that gives the array itself; that of an output is another after each `invoke`."""
        return lambda: self._values[tensor_index]

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """Give an input another shape; the session itself says at `invoke` where the model does not take it.

        Raises:
            ValueError: `strict`, and a dimension differs that the model does not leave free.
        """
        port = self._ports[input_index]
        wanted, open_ = [int(size) for size in tensor_size], port["shape_signature"].tolist()
        fits = len(wanted) == len(open_) and all(have in {-1, want} for have, want in zip(open_, wanted, strict=True))
        if strict and not fits:
            raise ValueError(f"cannot resize input {input_index} from {open_} to {wanted}")
        port["shape"] = np.array(wanted, np.int32)

    def invoke(self) -> None:
        """Compute."""
        if not self._values:
            raise RuntimeError("call allocate_tensors() first")
        feed = dict(zip(self._names, self._values[: self._count], strict=False))
        answers = self._translated(lambda: self._session.run(self._names[self._count :], feed))
        for index, answer in enumerate(answers, start=self._count):
            self._values[index] = answer
            self._ports[index]["shape"] = np.array(answer.shape, np.int32)

    def reset_all_variables(self) -> None:
        """Nothing: a session has no state from call to call."""

    def get_signature_list(self) -> dict[str, Any]:
        """One signature, of the file's own names."""
        return {_SIGNATURE: {"inputs": self._names[: self._count], "outputs": self._names[self._count :]}}

    def get_signature_runner(self, signature_key: str | None = None) -> _Runner:
        """The signature.

        Raises:
            ValueError: Another name is given.
        """
        if signature_key not in {None, _SIGNATURE}:
            raise ValueError(f"signature_key {signature_key!r} is not {_SIGNATURE!r}")
        return _Runner(self)


class _Runner:
    """What the session takes and gives by name, and a call."""

    def __init__(self, interpreter: SessionInterpreter) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._interpreter.get_input_details()}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._interpreter.get_output_details()}

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        ports = self.get_input_details()
        if inputs.keys() != ports.keys():
            raise ValueError(f"got the inputs {sorted(inputs)}, expected {sorted(ports)}")
        for name, value in inputs.items():
            self._interpreter.resize_tensor_input(ports[name]["index"], value.shape)
        self._interpreter.allocate_tensors()
        for name, value in inputs.items():
            self._interpreter.set_tensor(ports[name]["index"], value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(port["index"]) for name, port in self.get_output_details().items()}


def _details(index: int, node: Any) -> dict[str, Any]:
    """As a TFLite runtime gives them: a free size is 1 in `shape` and -1 in `shape_signature`."""
    kind = str(node.type)
    dtype = _DTYPES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise RuntimeError(f"{node.name!r} is {kind[:80]}, which no app can pass")
    sizes = [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape or ()]
    return {
        "name": node.name,
        "index": index,
        "shape": np.array([1 if size < 0 else size for size in sizes], np.int32),
        "shape_signature": np.array(sizes, np.int32),
        "dtype": dtype,
        "quantization": (0.0, 0),
        "quantization_parameters": {
            "scales": np.array([], np.float32),
            "zero_points": np.array([], np.int32),
            "quantized_dimension": 0,
        },
        "sparsity_parameters": {},
    }
