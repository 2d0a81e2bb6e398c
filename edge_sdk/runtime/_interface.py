"""What this product asks of a runtime, and how one says that it can't be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # so that what can be said of a runtime needs no numpy
    from numpy.typing import NDArray


class RawInterpreter(Protocol):
    """The TFLite interpreter's Python methods, which all three runtimes share; not safe for two threads at once."""

    def allocate_tensors(self) -> None:
        """Plan and take the memory; needed before `invoke` and after a resize."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """One mapping per input: name, index, shape, shape_signature, dtype, quantization."""

    def get_output_details(self) -> list[dict[str, Any]]:
        """One mapping per output."""

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """One mapping per tensor."""

    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None:
        """Copy `value` in; dtype and shape must match."""

    def get_tensor(self, tensor_index: int) -> NDArray[Any]:
        """A copy of a tensor's value."""

    def tensor(self, tensor_index: int) -> Callable[[], NDArray[Any]]:
        """A function that gives a view; while a view lives, `invoke` and `allocate_tensors` refuse."""

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = ...) -> None:
        """Give an input another shape."""

    def invoke(self) -> None:
        """Compute; releases the GIL."""

    def reset_all_variables(self) -> None:
        """Reset the state of a stateful model."""

    def get_signature_list(self) -> dict[str, Any]:
        """Inputs and outputs of each signature."""

    def get_signature_runner(self, signature_key: str | None = ...) -> Any:
        """A callable for a signature."""


class Runtime(Protocol):
    """A library that runs TFLite files.

    Attributes:
        name: Of its distribution, such as `ai-edge-litert`.
        version: Of its distribution.
        speaks: The TensorFlow Lite version whose operator versions it knows.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def speaks(self) -> tuple[int, ...]: ...

    def open(
        self,
        model: str | bytes,
        *,
        threads: int | None = None,
        delegates: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> RawInterpreter:
        """An interpreter, tensors not yet allocated.

        Args:
            model: A file's path, or its bytes.
            threads: None leaves it to the runtime.
            delegates: From `load_delegate`.
            options: Further keywords of the runtime's own constructor.

        Raises:
            ValueError, RuntimeError: The runtime's own words; `load_error` translates them.
        """

    def load_delegate(self, library: str, options: Mapping[str, Any] | None = None) -> Any:
        """Load an accelerator's library.

        Raises:
            ValueError, OSError: The runtime's own words.
        """

    def attribute(self, name: str) -> Any:
        """A name of the runtime's interpreter module, such as `OpResolverType`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What can be said of a runtime without importing it; the fields are those of `Runtime`."""

    name: str
    version: str
    speaks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Something that can't be used here.

    Attributes:
        name: What.
        reason: Why not, one clause.
        hint: What mends it.
    """

    name: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" + (f"; {self.hint}" if self.hint else "")
