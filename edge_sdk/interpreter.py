"""What takes the place of TFLite's interpreter module: an existing script changes one import line.

    import edge_sdk.interpreter as tflite      # was: import tflite_runtime.interpreter as tflite
    from edge_sdk import Interpreter           # was: from ai_edge_litert.interpreter import Interpreter

Given a `.tflite` file, `Interpreter` is the runtime's own. Given a bundle or the name of a model that a daemon serves,
`invoke` runs whatever variant is in force: inputs and outputs are float32, whatever is inside, and their indexes stay
the same over every switch. Every other name of the module, such as `OpResolverType`, is the runtime's, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_sdk._one_thread import OneThread
from edge_sdk._switched import Array, SwitchedInterpreter
from edge_sdk.engine import MOST_THREADS
from edge_sdk.errors import ModelLoadError, UsageError
from edge_sdk.model import EdgeModel
from edge_sdk.preference import Preference
from edge_sdk.runtime import RawInterpreter, choose, choose_for, load_error

if TYPE_CHECKING:
    from typing_extensions import Self

# What a script takes from the runtime's module beside `Interpreter` and `load_delegate`.
_OF_THE_RUNTIME = ("Delegate", "InterpreterWithCustomOps", "OpResolverType", "SignatureRunner")

_FILES = (".tflite", ".onnx")

__all__ = ["Interpreter", "load_delegate"]


class Interpreter:
    """Takes the place of `tflite_runtime.interpreter.Interpreter` and `ai_edge_litert.interpreter.Interpreter`.

    Args:
        model_path: A `.tflite` or `.onnx` file, a bundle's directory, or the name of a model that a daemon serves.
        model_content: A file's bytes, instead.
        experimental_delegates: From `load_delegate`; for `.tflite` files alone, as all that begins so.
        num_threads: For one inference.
        experimental_op_resolver_type: An `OpResolverType`.
        experimental_preserve_all_tensors: Keep what lies between inputs and outputs, to be read by `get_tensor`.
        experimental_disable_delegate_clustering: Compute in the file's order of operators.
        variant: Of a bundle: run this one and no other.
        preference: As in `EdgeModel`.
        **options: Further keywords of the runtime's own constructor; for `.tflite` files alone.

    Raises:
        UsageError: Neither or both of path and content are given, an option that a bundle does not have, or threads
            that are no positive whole number.
        ModelLoadError: The runtime refuses the file.
        EdgeError: As `EdgeModel` raises.
    """

    def __init__(  # noqa: PLR0917 - the order is the runtime's, and scripts rely on it
        self,
        model_path: str | os.PathLike[str] | None = None,
        model_content: bytes | None = None,
        experimental_delegates: Sequence[Any] | None = None,
        num_threads: int | None = None,
        experimental_op_resolver_type: Any = None,
        experimental_preserve_all_tensors: bool = False,
        experimental_disable_delegate_clustering: bool = False,
        *,
        variant: str | None = None,
        preference: Preference | None = None,
        **options: Any,
    ) -> None:
        if (model_path is None) == (model_content is None):
            raise UsageError("give either model_path or model_content")
        if num_threads is not None and not 1 <= num_threads <= MOST_THREADS:
            raise UsageError(f"num_threads is {num_threads!r}", hint=f"give a whole number from 1 up to {MOST_THREADS}")
        named = {
            "experimental_op_resolver_type": experimental_op_resolver_type,
            "experimental_preserve_all_tensors": experimental_preserve_all_tensors,
            "experimental_disable_delegate_clustering": experimental_disable_delegate_clustering,
        }
        options |= {name: value for name, value in named.items() if value}
        self._inner: RawInterpreter | SwitchedInterpreter
        if model_content is not None or (model_path is not None and _is_file(Path(model_path))):
            if variant is not None or preference is not None:
                raise UsageError("a .tflite file has no variants to choose from", hint="open a bundle")
            model = os.fspath(model_path) if model_path is not None else bytes(model_content or b"")
            self._inner = _raw(model, num_threads, experimental_delegates, options)
            return
        if experimental_delegates or options:
            given = ", ".join(["experimental_delegates"] * bool(experimental_delegates) + list(options))
            raise UsageError(f"{given}: a bundle chooses for itself", hint="leave it out, or open a .tflite file")
        assert model_path is not None  # noqa: S101 - excluded above
        threads = 1 if num_threads is None else num_threads
        self._inner = SwitchedInterpreter(
            EdgeModel(model_path, variant=variant, preference=preference, threads=threads)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """What the runtime's interpreter has beyond the methods below, `_native_handle` for one."""
        inner = self.__dict__.get("_inner")
        if inner is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(inner, name)

    @property
    def model(self) -> EdgeModel | None:
        """The switched model underneath; None for a file."""
        return self._inner.model if isinstance(self._inner, SwitchedInterpreter) else None

    def close(self) -> None:
        """Free the memory. The runtime's interpreter has no such method and frees its own when it is forgotten."""
        if isinstance(self._inner, SwitchedInterpreter):
            self._inner.model.close()

    def allocate_tensors(self) -> None:
        """Take the memory; over a bundle it is taken already.

        Raises:
            ModelLoadError: The runtime refuses the file.
        """
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

    def get_tensor(self, tensor_index: int, *subgraph: int) -> Array:
        """A copy of an input's or output's value; newer runtimes take the number of a subgraph, too."""
        return self._inner.get_tensor(tensor_index, *subgraph)

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """A function that gives a view of an input's or output's value."""
        return self._inner.tensor(tensor_index)

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """Give an input another shape. Over a bundle, only the batch of a model that takes batches can change."""
        self._inner.resize_tensor_input(input_index, tensor_size, strict)

    def invoke(self) -> None:
        """Compute; over a bundle, with the variant that is in force when it begins.

        Raises:
            RuntimeError: The runtime failed.
            UsageError: Another thread computes with this interpreter of a file.
        """
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


def load_delegate(library: str, options: Mapping[str, Any] | None = None) -> Any:
    """An accelerator's library, for `experimental_delegates`.

    Raises:
        OSError: There is no such library, or one that it needs is missing.
        AttributeError: It is no delegate.
        ValueError: It refuses, mostly because there is no device.
    """
    return choose().load_delegate(library, options)


def __getattr__(name: str) -> Any:
    if name in _OF_THE_RUNTIME:
        return choose().attribute(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_file(path: Path) -> bool:
    """Whether it is one, or would be if it were there: the runtime then says that it is not."""
    return path.is_file() or (path.suffix in _FILES and not path.exists())


def _raw(
    model: str | bytes, threads: int | None, delegates: Sequence[Any] | None, options: Mapping[str, Any]
) -> RawInterpreter:
    where = f"{len(model)} bytes" if isinstance(model, bytes) else model
    if isinstance(model, str) and not Path(model).exists():
        raise ModelLoadError("there is no such file", where=where, hint="look at the path")
    runtime = choose_for(model)
    try:
        opened = runtime.open(model, threads=threads, delegates=delegates or (), options=options)
    except (ValueError, RuntimeError) as cause:
        raise load_error(cause, where=where, runtime=runtime) from cause
    return cast("RawInterpreter", OneThread(opened, runtime=runtime, where=where))
