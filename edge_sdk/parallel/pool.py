"""Several engines that hold the same model answer one call together: data parallel.

Every engine has a thread of its own that asks for samples when it is free; which, and how many, `dispatch` decides.
Engines may be replicas on cores, accelerators in workers and remote hosts, each with its own speed: the faster one
computes more of a batch, a failed or hot one none, and answers come in the order of the samples.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import UsageError
from edge_sdk.living import Living
from edge_sdk.parallel.condition import Watch
from edge_sdk.parallel.job import Job
from edge_sdk.parallel.replica import Replica
from edge_sdk.parallel.reports import Shares
from edge_sdk.parallel.workers import Workers

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.parallel.ways import Ways

LONGEST_DEADLINE_S = 86_400.0
_CLOSE_S = 10.0
_EXIT_S = 2.0  # for the pools that nobody closed, when the program ends
_PIECES = 4  # of a batch for each replica, where the model takes any size and changing it costs


class ReplicaPool:
    """Engines that share the samples of a batch; itself an engine.

        with ReplicaPool([Engine(path), Engine(path)]) as pool:
            scores = pool.run([images])

    A batch is divided where every input and output of the model has one sample a call, a free batch, or the same fixed
    batch, of which any multiple is taken. All else goes to one replica as it is: the one expected to answer first.

    Args:
        engines: That hold the same model; the pool closes them.
        names: For reports; None counts them from `0`.
        watch: Says how a replica fares, by its name; asked at most every 0.2 s. A replica at its temperature limit gets
            no new work while another one can answer; of a busy one the rate is measured anew before it gets much.
        deadline_s: How long a call waits while no replica of the pool answers anything.

    Raises:
        UsageError: There is no engine, or they take or give different tensors.
    """

    def __init__(
        self,
        engines: Sequence[AnyEngine],
        *,
        names: Sequence[str] | None = None,
        watch: Mapping[str, Watch] | None = None,
        deadline_s: float = 60.0,
    ) -> None:
        names = [str(number) for number in range(len(engines))] if names is None else list(names)
        _check_arguments(engines, names, watch or {}, deadline_s)
        self._inputs, self._outputs = engines[0].inputs, engines[0].outputs
        self._rows = _rows(self._inputs, self._outputs)
        now_s = time.monotonic()
        replicas = [
            Replica(name, engine, (watch or {}).get(name), now_s) for name, engine in zip(names, engines, strict=True)
        ]
        self._workers = Workers(replicas, len(self._outputs), deadline_s)
        self.ways: Ways | None = None
        # Threads hold the workers, not the pool: one that is forgotten without `close` ends them when it is collected.
        self._end = weakref.finalize(self, self._workers.abandon)
        self._end.atexit = False  # `_LIVE` waits for them, too
        _LIVE.add(self)

    @classmethod
    def measured(cls, path: str | os.PathLike[str], *, batch: int = 64, cores: int | None = None) -> Self:
        """A pool of the number of replicas and threads that answers such a batch soonest here.

        Args:
            path: A `.tflite` file.
            batch: Samples of a call.
            cores: To use; None takes those this process may run on.

        Returns:
            A pool whose `ways` says what was measured.

        Raises:
            UsageError: `batch` or `cores` is no positive number.
            DelegateError: The model cannot be loaded or run here.
        """
        from edge_sdk.parallel.ways import best_way, opened

        found = best_way(path, batch=batch, cores=cores)
        pool = cls(opened(path, found.best.way))
        pool.ways = found
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return self._outputs

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output, the samples in the order of the inputs.

        Args:
            arrays: One per input, as the engines take them.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            EdgeError: Every replica failed; the error of the last. `DelegateError` where none answers in time.
        """
        return self._workers.answer(self._job(arrays))

    def shares(self) -> Shares:
        """What every replica did so far, and how it fares."""
        return self._workers.shares()

    def close(self, deadline_s: float = _CLOSE_S) -> None:
        """Wait for calls under way, end the threads, close the engines; calls that come later raise. May be repeated.

        Args:
            deadline_s: For all of that. Calls that still wait then raise `ModelClosedError`; a replica that hangs is
                left to itself, and its engine closes if it ever answers.
        """
        self._workers.close(deadline_s)
        _LIVE.discard(self)

    def _job(self, arrays: Sequence[Any]) -> Job:
        """The call, divided where the model allows it and the arrays are plainly a batch of it.

        What looks otherwise goes to one replica whole, whose engine takes or refuses it in its own words.
        """
        rows = self._rows
        if rows is None:
            return Job(arrays)
        if len(arrays) != len(self._inputs) or not all(isinstance(array, np.ndarray) for array in arrays):
            return Job(arrays, is_rated=False)
        shapes = [array.shape for array in arrays]
        size, unit = (shapes[0] or (0,))[0], max(1, rows)
        if any(
            shape[:1] != (size,) or not _fits(shape, spec.shape)
            for shape, spec in zip(shapes, self._inputs, strict=True)
        ):
            # One sample without the batch dimension, or something the engine refuses.
            return Job(arrays)
        if size % unit or size <= unit:
            return Job(arrays, is_rated=size == unit)
        samples = size // unit
        most = {1: samples, -1: -(-samples // (_PIECES * len(self._workers.dispatch.replicas)))}.get(rows, 1)
        return Job(arrays, samples=samples, rows=unit, is_whole=False, most=most)


def _rows(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int | None:
    """Rows of a sample, -1 where a call takes any number, None where a batch can't be divided."""
    first = {spec.shape[:1] for spec in (*inputs, *outputs)}
    if len(first) != 1 or first == {()}:
        return None
    return first.pop()[0]


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array has the model's shape, but for the batch."""
    return len(shape) == len(wanted) and all(
        want in (-1, have) for have, want in zip(shape[1:], wanted[1:], strict=True)
    )


def _check_arguments(
    engines: Sequence[AnyEngine], names: Sequence[str], watch: Mapping[str, Watch], deadline_s: float
) -> None:
    if not engines:
        raise UsageError("a pool without engines", hint="give at least one")
    if len(set(names)) != len(engines):
        raise UsageError(f"{len(set(names))} names for {len(engines)} engines", hint="give each a name of its own")
    if unknown := sorted(set(watch) - set(names)):
        raise UsageError(f"watches {unknown[0]!r}, which is no replica", hint=f"there are: {', '.join(names)}")
    if not 0 < deadline_s <= LONGEST_DEADLINE_S:
        raise UsageError(f"deadline_s is {deadline_s!r}", hint="give seconds, above 0 and up to a day")
    first = _tensors(engines[0])
    for name, engine in zip(names, engines, strict=True):
        if _tensors(engine) != first:
            raise UsageError(
                f"replica {name} takes or gives other tensors than {names[0]}", hint="a pool's engines hold one model"
            )


def _tensors(engine: AnyEngine) -> list[list[tuple[tuple[int, ...], str]]]:
    return [[(spec.shape, spec.dtype) for spec in specs] for specs in (engine.inputs, engine.outputs)]


_LIVE: Living[ReplicaPool] = Living(lambda pool: pool._workers.lose(), lambda pool: pool.close(_EXIT_S))  # noqa: SLF001 - this module's own
