"""Loads what is to be timed: an engine as apps have it, the bare interpreter, or a worker with an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk import rounds
from edge_sdk.bench.cases import Case, Way
from edge_sdk.delegates.canary import Canary, said
from edge_sdk.engine import Engine
from edge_sdk.errors import DelegateError
from edge_sdk.front import Array
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.port import Port
from edge_sdk.runtime import choose_for

LOAD_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What can be timed now.

    Attributes:
        sample: What it is given.
        load_ms: To the first answer, where that was measured meanwhile; so for the others.
        memory_bytes: Of the worker process.
    """

    engine: rounds.Runs
    sample: Sequence[Array]
    close: Callable[[], None]
    runtime: str = ""
    load_ms: float | None = None
    first_ms: float | None = None
    memory_bytes: int | None = None


class Bare:
    """The runtime's own interpreter, with the calls of every example of it; takes tensors as they are stored."""

    def __init__(self, case: Case, inputs: Sequence[Port], sample: Sequence[Array]) -> None:
        self._interpreter = choose_for(case.path).open(str(case.path), threads=case.threads)
        for port, array in zip(inputs, sample, strict=True):
            if array.shape != port.shape:
                self._interpreter.resize_tensor_input(port.index, array.shape)
        self._interpreter.allocate_tensors()
        self._inputs = [int(each["index"]) for each in self._interpreter.get_input_details()]
        self._outputs = [int(each["index"]) for each in self._interpreter.get_output_details()]

    def run(self, arrays: Sequence[Any], /) -> list[Any]:
        """Set, invoke, get."""
        interpreter = self._interpreter
        for index, array in zip(self._inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in self._outputs]


class Sturdy:
    """An engine on a delegate that may fail while it is timed: then the rest goes on without it.

    Attributes:
        reason: Why it failed; empty as long as it has not.
    """

    def __init__(self, engine: IsolatedEngine) -> None:
        self._engine = engine
        self.reason = ""

    def run(self, arrays: Sequence[Any], /) -> list[Any]:
        """The answer, or nothing once it failed."""
        if self.reason:
            return []
        try:
            return self._engine.run(arrays)
        except DelegateError as error:
            self.reason = f"failed while it was timed: {error.what}"
            return []


def load(case: Case) -> Loaded:
    """Load one.

    Raises:
        DelegateError: It cannot be loaded or does not compute what it should.
    """
    if case.way is Way.PLAIN:
        engine = Engine(case.path, threads=case.threads)
        return Loaded(engine=engine, sample=rounds.noise(engine.inputs), close=engine.close, runtime=engine.runtime)
    if case.way is Way.RAW:
        return _raw(case)
    return _isolated(case)


def _raw(case: Case) -> Loaded:
    with Engine(case.path, warm=False) as engine:
        inputs = engine.ports[0]
        sample = [port.take(array) for port, array in zip(inputs, rounds.noise(engine.inputs), strict=True)]
    try:
        return Loaded(engine=Bare(case, inputs, sample), sample=sample, close=lambda: None)
    except (ValueError, RuntimeError) as cause:
        raise DelegateError(f"the bare interpreter refuses: {cause}", where=str(case.path)) from cause


def _isolated(case: Case) -> Loaded:
    engine = IsolatedEngine(case.path, delegation=case.delegation, threads=case.threads, deadline_s=LOAD_DEADLINE_S)
    try:
        if case.twin is not None:
            _check(engine, case.twin)
    except BaseException:
        engine.close()
        raise
    opened = engine.opened
    return Loaded(
        engine=Sturdy(engine),
        sample=rounds.noise(engine.inputs),
        close=engine.close,
        runtime=engine.runtime,
        load_ms=round(opened.load_ms, 3),
        first_ms=round(opened.first_ms, 3),
        memory_bytes=engine.memory_bytes,
    )


def _check(engine: IsolatedEngine, twin: Path) -> None:
    """Raise for an answer that is not the twin's.

    Raises:
        DelegateError: It is wrong.
    """
    with Engine(twin) as right:
        distance = Canary(right).distance(engine)
    if not distance <= 1:
        raise DelegateError(f"it computes wrong: {said(distance)}", where=engine.where)
