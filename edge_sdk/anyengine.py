"""What every engine is to those who call it, wherever it computes.

`Engine` computes in this process; others in a worker process, on another host, on several at once, or on a twin where
an accelerator fails. A seat, a pool and a pipeline take any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from edge_sdk.manifest import TensorSpec


class AnyEngine(Protocol):
    """Takes arrays and gives answers; safe for any number of threads."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order; `-1` is a free dimension."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output, fresh arrays that belong to the caller.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: It failed while it computed.
        """

    def close(self) -> None:
        """Wait for calls under way, then free what it holds; calls that come later raise. May be repeated."""
