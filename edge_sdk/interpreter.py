"""The TFLite interpreter's methods over a model that may be switched: an existing script changes one import line.

    from edge_sdk import Interpreter          # was: from tflite_runtime.interpreter import Interpreter

Given a `.tflite` file, this is the runtime's own interpreter and nothing else. Given a bundle or the name of a model
that a daemon serves, `invoke` runs whatever variant is in force: inputs and outputs are float32, whatever is inside,
and their indexes stay the same over every switch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import InputDtypeError, InputNameError, InputShapeError, UsageError
from edge_sdk.front import Array
from edge_sdk.manifest import TensorSpec
from edge_sdk.model import EdgeModel
from edge_sdk.preference import Preference
from edge_sdk.runtime import RawInterpreter, choose_for, load_error

if TYPE_CHECKING:
    from typing_extensions import Self


class Interpreter:
    """Takes the place of `tflite_runtime.interpreter.Interpreter` and `ai_edge_litert.interpreter.Interpreter`.

    Args:
        model_path: A `.tflite` file, a bundle's directory, or the name of a model that a daemon serves.
        model_content: A `.tflite` file's bytes, instead.
        experimental_delegates: Of the runtime's `load_delegate`; for `.tflite` files alone.
        num_threads: For one inference.
        variant: Of a bundle: run this one and no other.
        preference: As in `EdgeModel`.
        **options: Further keywords of the runtime's own constructor; for `.tflite` files alone.

    Raises:
        UsageError: Neither or both of path and content are given, or an option that a bundle does not have.
        ModelLoadError: The runtime refuses the file.
        EdgeError: As `EdgeModel` raises.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        model_content: bytes | None = None,
        experimental_delegates: Sequence[Any] | None = None,
        num_threads: int | None = None,
        *,
        variant: str | None = None,
        preference: Preference | None = None,
        **options: Any,
    ) -> None:
        if (model_path is None) == (model_content is None):
            raise UsageError("give either model_path or model_content")
        self._inner: RawInterpreter | _OverModel
        if model_content is not None or (model_path is not None and Path(model_path).is_file()):
            if variant is not None or preference is not None:
                raise UsageError("a .tflite file has no variants to choose from", hint="open a bundle")
            self._inner = _raw(
                model_content or os.fspath(model_path or ""), num_threads, experimental_delegates, options
            )
            return
        if experimental_delegates or options:
            named = ", ".join(["experimental_delegates"] * bool(experimental_delegates) + list(options))
            raise UsageError(f"{named}: a bundle chooses for itself", hint="leave it out, or open a .tflite file")
        assert model_path is not None  # noqa: S101 - excluded above
        self._inner = _OverModel(
            EdgeModel(model_path, variant=variant, preference=preference, threads=num_threads or 1)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model(self) -> EdgeModel | None:
        """The switched model underneath; None for a `.tflite` file."""
        return self._inner.model if isinstance(self._inner, _OverModel) else None

    def close(self) -> None:
        """Free the memory. The runtime's interpreter has no such method and frees its own when it is forgotten."""
        if isinstance(self._inner, _OverModel):
            self._inner.model.close()

    def allocate_tensors(self) -> None:
        """Take the memory; over a bundle it is taken already."""
        self._inner.allocate_tensors()

    def get_input_details(self) -> list[dict[str, Any]]:
        """One mapping per input: name, index, shape, shape_signature, dtype, quantization."""
        return self._inner.get_input_details()

    def get_output_details(self) -> list[dict[str, Any]]:
        """One mapping per output."""
        return self._inner.get_output_details()

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """One mapping per tensor; over a bundle, inputs and outputs alone: the others change with the variant."""
        return self._inner.get_tensor_details()

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy `value` into an input.

        Raises:
            ValueError: Wrong shape or dtype.
        """
        self._inner.set_tensor(tensor_index, value)

    def get_tensor(self, tensor_index: int) -> Array:
        """A copy of an input's or output's value."""
        return self._inner.get_tensor(tensor_index)

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """A function that gives a view of an input's or output's value."""
        return self._inner.tensor(tensor_index)

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """Give an input another shape. Over a bundle, only the batch of a model that takes batches can change."""
        self._inner.resize_tensor_input(input_index, tensor_size, strict)

    def invoke(self) -> None:
        """Compute; over a bundle, with the variant that is in force when it begins."""
        self._inner.invoke()

    def reset_all_variables(self) -> None:
        """Reset the state of a stateful model. Over a bundle it does nothing: a switched model can have no state."""
        self._inner.reset_all_variables()

    def get_signature_list(self) -> dict[str, Any]:
        """Inputs and outputs of each signature."""
        return self._inner.get_signature_list()

    def get_signature_runner(self, signature_key: str | None = None) -> Any:
        """A callable that takes inputs by name and gives a dict of outputs."""
        return self._inner.get_signature_runner(signature_key)


_SIGNATURE = "serving_default"


class _OverModel:
    """The interpreter's methods over an `EdgeModel`: inputs have the indexes from 0, outputs those after them."""

    def __init__(self, model: EdgeModel) -> None:
        self.model = model
        specs = (*model.inputs, *model.outputs)
        self._ports = [_details(index, spec) for index, spec in enumerate(specs)]
        self._values: list[Array] = [np.zeros(port["shape"], port["dtype"]) for port in self._ports]
        self._count = len(model.inputs)

    def allocate_tensors(self) -> None:
        for index, port in enumerate(self._ports):
            if self._values[index].shape != tuple(port["shape"]):
                self._values[index] = np.zeros(port["shape"], port["dtype"])

    def get_input_details(self) -> list[dict[str, Any]]:
        return [dict(port) for port in self._ports[: self._count]]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [dict(port) for port in self._ports[self._count :]]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        return [dict(port) for port in self._ports]

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        port = self._port(tensor_index, inputs=True)
        array = np.asarray(value)
        if array.dtype != port["dtype"]:
            raise InputDtypeError(
                f"{array.dtype}, where the model takes {np.dtype(port['dtype'])}", where=f"input {port['name']!r}"
            )
        if array.shape != tuple(port["shape"]):
            raise InputShapeError(
                f"an array of shape {list(array.shape)}, where {list(port['shape'])} is allocated",
                where=f"input {port['name']!r}",
                hint="for another batch, call resize_tensor_input and allocate_tensors first",
            )
        np.copyto(self._values[tensor_index], array)

    def get_tensor(self, tensor_index: int) -> Array:
        self._port(tensor_index)
        value: Array = self._values[tensor_index].copy()
        return value

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        self._port(tensor_index)
        return lambda: self._values[tensor_index]

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool) -> None:
        del strict  # no dimension can change that the model does not leave free
        port = self._port(input_index, inputs=True)
        wanted = tuple(int(size) for size in tensor_size)
        open_ = tuple(port["shape_signature"])
        fits = len(wanted) == len(open_) and all(
            size == want or free for size, want, free in zip(wanted, open_, _free(open_), strict=True)
        )
        if not fits:
            raise InputShapeError(
                f"shape {list(wanted)}, where the model takes {list(open_)}", where=f"input {port['name']!r}"
            )
        port["shape"] = np.array(wanted, np.int32)

    def invoke(self) -> None:
        answer = self.model(*self._values[: self._count])
        answers = answer.values() if isinstance(answer, Mapping) else [answer]
        for index, array in enumerate(answers, start=self._count):
            self._values[index] = array
            self._ports[index]["shape"] = np.array(array.shape, np.int32)

    def reset_all_variables(self) -> None:
        return

    def get_signature_list(self) -> dict[str, Any]:
        names = [port["name"] for port in self._ports]
        return {_SIGNATURE: {"inputs": names[: self._count], "outputs": names[self._count :]}}

    def get_signature_runner(self, signature_key: str | None) -> Callable[..., dict[str, Array]]:
        if signature_key not in (None, _SIGNATURE):
            raise InputNameError(f"no signature {signature_key!r}", hint=f"there is {_SIGNATURE!r}")

        def run(**inputs: Any) -> dict[str, Array]:
            answer = self.model(**inputs)
            if isinstance(answer, dict):
                return answer
            return {self._ports[self._count]["name"]: answer}

        return run

    def _port(self, index: int, *, inputs: bool = False) -> dict[str, Any]:
        last = self._count if inputs else len(self._ports)
        if not 0 <= index < last:
            what = "input" if inputs else "input or output"
            raise InputNameError(f"no {what} has the index {index}", hint="see get_input_details()")
        return self._ports[index]


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


def _raw(
    model: str | bytes, threads: int | None, delegates: Sequence[Any] | None, options: Mapping[str, Any]
) -> RawInterpreter:
    runtime = choose_for(model)
    where = f"{len(model)} bytes" if isinstance(model, bytes) else model
    try:
        return runtime.open(model, threads=threads, delegates=delegates or (), options=options)
    except (ValueError, RuntimeError) as cause:
        raise load_error(cause, where=where, runtime=runtime) from cause
