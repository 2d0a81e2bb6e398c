"""A model file, loaded and warmed, that takes and gives numpy arrays.

One engine computes one call at a time, in the order of asking; `invoke` releases the GIL, so that several engines
compute side by side. Which file is loaded, and when it is replaced, is decided in `edge_sdk.model`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.errors import (
    DelegateError,
    ModelClosedError,
    ModelLoadError,
    UsageError,
)
from edge_sdk.fairlock import FairLock
from edge_sdk.front import Array, Front
from edge_sdk.living import Living
from edge_sdk.port import Port, port
from edge_sdk.runtime import RawInterpreter, Runtime, choose_for, load_error, run_error

# The runtime starts as many as it is told: a hundred thousand were a segmentation fault. As for `edge bench --threads`.
MOST_THREADS = 256


class Engine(Front):
    """A loaded model.

    Args:
        model: A `.tflite` or `.onnx` file, or its bytes.
        threads: Of the interpreter, for one inference.
        runtime: From `edge_sdk.runtime`; None takes the first usable for a file of this format. `edge_sdk.delegates`
            gives one with an accelerator in it; `edge_sdk.opening` keeps that in a process of its own.
        warm: Run once on zeros now, so that the first call is as fast as the later ones.
        observe: Told the milliseconds of every inference, while the engine is held: must be quick.
        stored: Tensors are taken and given as the file stores them, a quantized one as its integers: what the segments
            of a pipeline hand to each other.

    Attributes:
        observe: As given.
        keeps_state: An answer depends on the calls before it; the first call begins afresh.

    Raises:
        ModelLoadError: The file can't be read, is no model, or needs what the runtime does not have.
        RuntimeUnavailableError: No runtime is installed.
        UsageError: `threads` is no whole number from 1 to `MOST_THREADS`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        threads: int = 1,
        runtime: Runtime | None = None,
        warm: bool = True,
        observe: Callable[[float], None] | None = None,
        stored: bool = False,
    ) -> None:
        _check_threads(threads)
        self._turn = FairLock()
        self.observe = observe
        self._runtime = runtime or choose_for(model)
        self.where = f"{len(model)} bytes" if isinstance(model, bytes) else os.fspath(model)
        self._interpreter: RawInterpreter | None = self._open(model, threads)
        try:
            nature = _nature(self._interpreter, _identity(model))
            self._face(*_ports(self._interpreter, stored=stored, finite=nature.with_integers))
        except ModelLoadError as error:
            error.where = self.where
            raise
        self._input_indexes = [each.index for each in self._inputs]
        self._output_indexes = [each.index for each in self._outputs]
        self._is_resizable = any(any(each.free) for each in self._inputs)
        self._shapes = [each.shape for each in self._inputs]
        self._why_closed = "the model was closed"
        self.keeps_state = nature.keeps_state
        self._source = (model, threads) if nature.keeps_state else None
        _LIVE.add(self)
        if warm:
            self._warm()
            self.begin_afresh()

    @property
    def runtime(self) -> str:
        """Name and version of the runtime, such as `ai-edge-litert 2.3.0`."""
        return f"{self._runtime.name} {self._runtime.version}"

    def close(self) -> None:
        """Wait for the call that computes, then free the memory; calls that come later raise. May be repeated."""
        with self._turn:
            self._interpreter = None
        _LIVE.discard(self)

    def begin_afresh(self) -> None:
        """Forget what calls have left behind in a model that keeps state; not every kind of state can be reset."""
        if self._source is not None:
            self._interpreter = self._open(*self._source)

    def take_turns(self, turn: FairLock) -> None:
        """Compute in turn with whoever else has this lock; called while no call is in it."""
        self._turn = turn

    def compute(self, values: Sequence[Array]) -> list[Array]:
        """See `Front.compute`."""
        with self._turn:
            interpreter = self._interpreter
            if interpreter is None:
                raise ModelClosedError(self._why_closed, where=self.where, hint="open it again")
            start = time.perf_counter()
            try:
                if self._is_resizable and [value.shape for value in values] != self._shapes:
                    self._resize(interpreter, values)
                # `map` rather than a loop: on models of a few microseconds the difference counts.
                deque(map(interpreter.set_tensor, self._input_indexes, values), 0)
                interpreter.invoke()
                answer = list(map(interpreter.get_tensor, self._output_indexes))
            except (RuntimeError, ValueError) as cause:
                raise run_error(cause, where=self.where, runtime=self._runtime) from cause
            if self.observe is not None:
                self.observe((time.perf_counter() - start) * 1e3)
            return answer

    def _resize(self, interpreter: RawInterpreter, values: Sequence[Array]) -> None:
        """Give free dimensions the size the call has; every later call of that size goes without."""
        self._shapes = [()] * len(values)  # unknown until it is done
        for each, value in zip(self._inputs, values, strict=True):
            interpreter.resize_tensor_input(each.index, value.shape, strict=True)
        interpreter.allocate_tensors()
        self._shapes = [value.shape for value in values]

    def _open(self, model: str | os.PathLike[str] | bytes, threads: int) -> RawInterpreter:
        if not isinstance(model, bytes):
            try:
                with Path(model).open("rb"):
                    model = os.fspath(model)
            except OSError as cause:
                raise ModelLoadError(f"cannot be read: {cause.strerror}", where=self.where) from cause
        try:
            interpreter = self._runtime.open(model, threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as cause:
            raise load_error(cause, where=self.where, runtime=self._runtime) from cause
        return interpreter

    def _warm(self) -> None:
        zeros = [np.zeros(each.shape, each.dtype) for each in self._inputs]
        observe, self.observe = self.observe, None  # the first inference is no measure of the later ones
        try:
            self.compute(zeros)
        except DelegateError as error:
            raise ModelLoadError(f"does not compute: {error.what}", where=self.where) from error
        self.observe = observe

    def _lose(self) -> None:
        """In the child of a fork: the interpreter's threads and whoever held the lock stayed in the parent."""
        if self._interpreter is not None:
            _ORPHANS.append(self._interpreter)
        self._interpreter = None
        self._turn = FairLock()
        self._why_closed = "the model was opened before this process was forked"


_LIVE: Living[Engine] = Living(Engine._lose)  # noqa: SLF001 - this module's own

# Interpreters of a forked child: freeing one could wait for ever for threads that are not there.
_ORPHANS: list[RawInterpreter] = []


def _check_threads(threads: object) -> None:
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {threads!r}", hint=f"give a whole number from 1 up to {MOST_THREADS}")


# Operators with something that outlives a call.
_STATEFUL = frozenset(
    {
        "VAR_HANDLE",
        "ASSIGN_VARIABLE",
        "READ_VARIABLE",
        "SVDF",
        "RNN",
        "LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nature:
    """What a file's operators say of it.

    Attributes:
        with_integers: See `computes_with_integers`.
        keeps_state: A call's answer depends on the calls before it.
    """

    with_integers: bool
    keeps_state: bool


# To ask takes as long as a fifth of a load of 14 MB, and the answer is the file's.
_KNOWN: dict[tuple[int, ...], _Nature] = {}
_MOST_KNOWN = 1000


def _nature(interpreter: RawInterpreter, identity: tuple[int, ...] | None) -> _Nature:
    known = None if identity is None else _KNOWN.get(identity)
    if known is None:
        operators = {each["op_name"] for each in _operators(interpreter)}
        known = _Nature(
            with_integers=computes_with_integers(interpreter), keeps_state=not operators.isdisjoint(_STATEFUL)
        )
        if identity is not None and len(_KNOWN) < _MOST_KNOWN:
            _KNOWN[identity] = known
    return known


def _identity(model: str | os.PathLike[str] | bytes) -> tuple[int, ...] | None:
    """What changes when the file does; None for bytes, and for a file that is gone again."""
    if isinstance(model, bytes):
        return None
    try:
        status = Path(model).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _ports(interpreter: RawInterpreter, *, stored: bool, finite: bool) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs, by the names of the file's signature where it has one."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    names: dict[int, str] = {}
    if len(interpreter.get_signature_list()) == 1:
        runner = interpreter.get_signature_runner()
        for signature in (runner.get_input_details(), runner.get_output_details()):
            names |= {int(details["index"]): name for name, details in signature.items()}

    def made(each: dict[str, Any], *, finite: bool = False) -> Port:
        return port(each, name=names.get(int(each["index"]), each["name"]), finite=finite, stored=stored)

    return tuple(made(each, finite=finite) for each in inputs), tuple(made(each) for each in outputs)


def computes_with_integers(interpreter: RawInterpreter) -> bool:
    """Whether any operator takes a quantized tensor, other than to turn stored weights back into floats."""
    quantized = {
        int(each["index"])
        for each in interpreter.get_tensor_details()
        if len(each["quantization_parameters"]["scales"]) and np.dtype(each["dtype"]).kind in "iu"
    }
    return any(
        int(index) in quantized
        for operator in _operators(interpreter)
        if operator["op_name"] not in {"DEQUANTIZE", "DELEGATE"}
        for index in operator["inputs"]
    )


def _operators(interpreter: RawInterpreter) -> list[dict[str, Any]]:
    """`_get_ops_details` is private in all three runtimes, and the only way to ask; without it there is no answer."""
    found: list[dict[str, Any]] = getattr(interpreter, "_get_ops_details", list)()
    return found
