"""An engine on another host: one model of a server that speaks the Open Inference Protocol v2, called like any other.

What is decided here: how long a call may take, what is tried again, how arrays become requests. How a request travels
is said in `edge_sdk.remote.over_http` and `edge_sdk.remote.over_grpc`.
"""

from __future__ import annotations

import os
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from edge_sdk.errors import (
    InputShapeError,
    RemoteError,
    RemoteRefusedError,
    RemoteUnreachableError,
    UsageError,
)
from edge_sdk.living import Living
from edge_sdk.port import Port
from edge_sdk.remote.budget import RetryBudget
from edge_sdk.remote.calls import Calls, lost
from edge_sdk.remote.deadline import Deadline
from edge_sdk.remote.described import Declared, Described, check_samples
from edge_sdk.remote.opening import opened
from edge_sdk.remote.tensors import Array, fits

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.manifest import TensorSpec

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MOST_CONNECTIONS = 64
_LONGEST_DEADLINE_S = 3600.0
_RETRIES = 2  # of one call, budget permitting
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0  # between two attempts, doubled each time, half of it random
_MAY_REPEAT = (429, 503)  # the server says: not now


T = TypeVar("T")


class RemoteModel(Protocol):
    """One model on a server, one attempt of each request; safe for any number of threads."""

    @property
    def where(self) -> str:
        """The model's address."""

    def describe(self, declared: Declared, deadline: Deadline) -> Described:
        """What the server says of it."""

    def infer(self, arrays: Sequence[Array], known: Described, deadline: Deadline) -> list[Array]:
        """One answer per output."""

    def close(self) -> None:
        """Let the connections go."""

    def lose(self) -> None:
        """In the child of a fork."""


class RemoteEngine:
    """A model on another host.

        with RemoteEngine("http://board-2:8080", model="digits") as engine:
            (scores,) = engine.run([image])

    Safe for any number of threads. A call that fails raises a `RemoteError`, which is both a `TransportError` and a
    `DelegateError`: who replaces failed engines by others can treat it as one.

    Args:
        address: `http://HOST:PORT[/PREFIX]`, `https://...`, `grpc://HOST:PORT` or `grpcs://...`.
        model: Its name on the server.
        version: None takes the server's choice.
        deadline_s: Of a call, repetitions and all; also of opening.
        token: Sent as a bearer token.
        headers: Sent with each request.
        ca_file: Certificates to check the server's by; None takes the system's.
        inputs: What the model takes, where the server does not say it.
        outputs: What it gives, likewise.
        binary: Whether tensors travel as bytes; None asks the server. Over gRPC they always do.
        connections: How many calls may be on their way at once; others wait for one of them.
        budget: How many calls may be repeated; several engines may share one.
        max_answer_bytes: A larger answer is refused.

    Raises:
        UsageError: An argument makes no sense.
        RemoteError: The server does not answer, has no such model, or one that no engine can be.
        MissingExtraError: For `grpc://`, where the extra is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        version: str | None = None,
        deadline_s: float = 10.0,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        inputs: Sequence[TensorSpec] = (),
        outputs: Sequence[TensorSpec] = (),
        binary: bool | None = None,
        connections: int = 8,
        budget: RetryBudget | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        if not 0 < deadline_s <= _LONGEST_DEADLINE_S:  # NaN fails as well
            raise UsageError(f"deadline_s is {deadline_s!r}", hint="give seconds, more than 0 and at most an hour")
        if not 1 <= connections <= _MOST_CONNECTIONS:
            raise UsageError(f"connections is {connections!r}", hint=f"give a number from 1 to {_MOST_CONNECTIONS}")
        self._deadline_s = deadline_s
        self._budget = budget or RetryBudget()
        self._calls = Calls()
        self._model: RemoteModel = opened(
            address,
            model=model,
            version=version,
            token=token,
            headers=headers or {},
            ca_file=ca_file,
            binary=binary,
            connections=connections,
            most_bytes=max_answer_bytes,
        )
        self.where = self._model.where
        self._forgotten = weakref.finalize(self, self._model.close)
        try:
            deadline = Deadline(deadline_s, where=self.where)
            declared = Declared(inputs=tuple(inputs), outputs=tuple(outputs))
            self._known: Described = self._repeated(lambda: self._model.describe(declared, deadline), deadline)
        except BaseException:
            self._forgotten()
            raise
        self._ports = tuple(_port(each) for each in self._known.inputs)
        everything = (*self._known.inputs, *self._known.outputs)
        self._per_sample = all(each.shape[:1] == (1,) for each in everything)
        self._takes_batches = all(each.shape[:1] == (-1,) for each in everything)
        _LIVE.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order, with the dtypes the server names; `-1` is a free dimension."""
        return self._known.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return self._known.outputs

    def run(self, arrays: Sequence[Any]) -> list[Array]:
        """One answer per output, fresh arrays that belong to the caller.

        Args:
            arrays: One per input. Where the model takes one sample at a time, a batch of any size is taken and sent
                sample by sample; a sample without the batch dimension gives an answer without it.

        Raises:
            InputShapeError, InputDtypeError, InputValueError: An array the model does not take. Nothing was sent.
            RemoteError: No answer, or one that is not to be believed.
            ModelClosedError: After `close`.
        """
        taken = self._taken(arrays)
        with self._calls:
            deadline = Deadline(self._deadline_s, where=self.where)
            if all(fits(array.shape, spec.shape) for array, spec in zip(taken, self.inputs, strict=True)):
                return self._infer(taken, deadline)
            if (self._per_sample or self._takes_batches) and all(
                fits((1, *array.shape), (1, *spec.shape[1:])) for array, spec in zip(taken, self.inputs, strict=True)
            ):
                answer = self._infer([array[np.newaxis] for array in taken], deadline)
                check_samples(answer, 1, where=self.where)
                return [array[0] for array in answer]
            return self._one_by_one(taken, deadline)

    def close(self) -> None:
        """Wait for calls under way, at most until their deadline, then let the connections go. May be repeated."""
        self._calls.end(self._deadline_s + _LONGEST_WAIT_S)
        self._forgotten()
        _LIVE.discard(self)

    # ---------------------------------------------------------------------------------------------------- calls

    def _taken(self, arrays: Sequence[Any]) -> list[Array]:
        """The arrays in the dtypes the server names; what would lose information is refused."""
        if len(arrays) != len(self._ports):
            raise InputShapeError(
                f"{len(arrays)} arrays, where the model has {len(self._ports)} inputs",
                where=self.where,
                hint=f"pass {', '.join(repr(each.name) for each in self._ports)}",
            )
        taken: list[Array] = []
        for port, array in zip(self._ports, arrays, strict=True):
            if isinstance(array, np.ndarray) and array.dtype == port.dtype:
                taken.append(array)
            elif isinstance(array, np.ndarray) and port.dtype == np.float64 and np.can_cast(array.dtype, np.float64):
                taken.append(array.astype(np.float64))
            else:
                taken.append(port.take(array))
        return taken

    def _one_by_one(self, taken: list[Array], deadline: Deadline) -> list[Array]:
        """A batch for a model that takes one sample at a time."""
        for port, array, spec in zip(self._ports, taken, self.inputs, strict=True):
            if not (self._per_sample and array.ndim and fits(array.shape, (-1, *spec.shape[1:]))):
                raise port.wrong_shape(array.shape)
        sizes = {len(array) for array in taken}
        if len(sizes) > 1:
            raise InputShapeError(f"batches of unequal sizes {sorted(sizes)}", where=self.where)
        size = sizes.pop()
        if size == 0:
            return [np.empty((0, *(max(0, n) for n in each.shape[1:])), each.dtype) for each in self.outputs]
        answers = [self._infer([array[i : i + 1] for array in taken], deadline) for i in range(size)]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _infer(self, arrays: Sequence[Array], deadline: Deadline) -> list[Array]:
        return self._repeated(lambda: self._model.infer(arrays, self._known, deadline), deadline)

    def _repeated(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        """The result of an attempt, or of another one: nothing here changes anything on the server."""
        self._budget.call()
        wait_s = _FIRST_WAIT_S
        for repeats_left in range(_RETRIES, -1, -1):
            try:
                return attempt()
            except RemoteError as error:
                if not (repeats_left and _is_worth_repeating(error) and self._budget.take()):
                    raise
                pause_s = wait_s * (0.5 + random.random() / 2)  # noqa: S311 - spread, no secret
                if not deadline.leaves(pause_s):
                    raise
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise AssertionError  # the last attempt returns or raises

    def _lose(self) -> None:
        """In the child of a fork: connections and locks are the parent's."""
        self._calls = lost()
        self._forgotten.detach()
        self._model.lose()


_LIVE: Living[RemoteEngine] = Living(RemoteEngine._lose)  # noqa: SLF001 - this module's own


def _is_worth_repeating(error: RemoteError) -> bool:
    return isinstance(error, RemoteUnreachableError) or (
        isinstance(error, RemoteRefusedError) and error.status in _MAY_REPEAT
    )


def _port(spec: TensorSpec) -> Port:
    return Port(
        name=spec.name,
        index=0,
        shape=tuple(max(1, size) for size in spec.shape),
        free=tuple(size == -1 for size in spec.shape),
        dtype=np.dtype(spec.dtype),
        scale=None,
        zero=0,
    )
