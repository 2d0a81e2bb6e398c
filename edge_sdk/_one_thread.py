"""A runtime's interpreter that refuses a second thread while it computes.

TFLite's is not made for two: it answers one with the other's input, or fails on a count of references, now and then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from edge_sdk.errors import UsageError
from edge_sdk.runtime import RawInterpreter, Runtime, load_error


class OneThread:
    """Has all that the runtime's interpreter has.

    Args:
        raw: The interpreter.
        runtime: Whose it is.
        where: The model, for errors.
    """

    def __init__(self, raw: RawInterpreter, *, runtime: Runtime, where: str) -> None:
        self._raw = raw
        self._runtime = runtime
        self._where = where
        self._busy = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_raw"], name)

    def allocate_tensors(self) -> None:
        """As the runtime's.

        Raises:
            ModelLoadError: The file has an operator that nobody here computes, or is refused otherwise.
        """
        with self._alone():
            try:
                self._raw.allocate_tensors()
            except (ValueError, RuntimeError) as cause:
                raise load_error(cause, where=self._where, runtime=self._runtime) from cause

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """As the runtime's."""
        with self._alone():
            self._raw.set_tensor(tensor_index, value)

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int], strict: bool = False) -> None:
        """As the runtime's."""
        with self._alone():
            self._raw.resize_tensor_input(input_index, tensor_size, strict)

    def invoke(self) -> None:
        """As the runtime's."""
        with self._alone():
            self._raw.invoke()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "two threads use one interpreter at once",
                where=self._where,
                hint="give each its own, or open it with EdgeModel, which any number may call",
            )
        try:
            yield
        finally:
            self._busy.release()
