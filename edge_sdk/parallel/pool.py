"""Several engines that hold the same model answer one call together: data parallel.

Every engine has a thread of its own that asks for samples when it is free; which, and how many, `dispatch` decides.
Engines may be replicas on cores, accelerators in workers and remote hosts, each with its own speed: the faster one
computes more of a batch, a failed or hot one none, and answers come in the order of the samples.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import DelegateError, InputError, ModelClosedError, UsageError
from edge_sdk.parallel.condition import Condition, Watch
from edge_sdk.parallel.dispatch import ASK_S, Dispatch
from edge_sdk.parallel.job import Job, Piece
from edge_sdk.parallel.replica import Replica
from edge_sdk.parallel.reports import Shares

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.parallel.ways import Ways

_log = logging.getLogger(__name__)

_LOOK_S = 0.05  # how often a call that waits looks for replicas that have gone silent
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
        self._shop = _Shop(replicas, len(self._outputs), deadline_s)
        self.ways: Ways | None = None
        # Threads hold the shop, not the pool: one that is forgotten without `close` ends them when it is collected.
        self._end = weakref.finalize(self, self._shop.abandon)
        self._end.atexit = False  # `_close_all` waits for them, too
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
        return self._shop.answer(self._job(arrays))

    def shares(self) -> Shares:
        """What every replica did so far, and how it fares."""
        return self._shop.shares()

    def close(self, deadline_s: float = _CLOSE_S) -> None:
        """Wait for calls under way, end the threads, close the engines; calls that come later raise. May be repeated.

        Args:
            deadline_s: For all of that. Calls that still wait then raise `ModelClosedError`; a replica that hangs is
                left to itself, and its engine closes if it ever answers.
        """
        self._shop.close(deadline_s)
        _LIVE.discard(self)

    def _job(self, arrays: Sequence[Any]) -> Job:
        """The call, divided where the model allows it and the arrays are plainly a batch of it.

        What looks otherwise goes to one replica whole, whose engine takes or refuses it in its own words.
        """
        rows, whole = self._rows, Job(arrays)
        if rows is None or len(arrays) != len(self._inputs):
            return whole
        size = len(arrays[0]) if isinstance(arrays[0], np.ndarray) and arrays[0].ndim else 0
        for spec, array in zip(self._inputs, arrays, strict=True):
            if not isinstance(array, np.ndarray) or array.shape[:1] != (size,) or not _fits(array.shape, spec.shape):
                return whole
        unit = max(1, rows)
        if size % unit or size <= unit:
            return whole
        samples = size // unit
        most = {1: samples, -1: -(-samples // (_PIECES * len(self._shop.dispatch.replicas)))}.get(rows, 1)
        return Job(arrays, samples=samples, rows=unit, is_whole=False, most=most)


class _Shop:
    """What the threads of a pool share. `gate` guards everything, for some microseconds at a time."""

    def __init__(self, replicas: Sequence[Replica], outputs: int, deadline_s: float) -> None:
        self.gate = threading.Lock()
        self.dispatch = Dispatch(replicas)
        self.is_closed = False
        self.calls: set[Job] = set()
        self._outputs, self._deadline_s = outputs, deadline_s
        self._answered_s = time.monotonic()
        self._why = "the pool was closed"
        self._threads = [
            threading.Thread(target=self._work, args=(each,), name=f"edge-replica-{each.name}"[:60], daemon=True)
            for each in replicas
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the system has no more threads
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self.abandon()
            raise

    def answer(self, job: Job) -> list[Any]:
        """Wait for the answer of a call."""
        begun_s = time.monotonic()
        with self.gate:
            if self.is_closed:
                raise ModelClosedError(self._why, hint="open it again")
            self.calls.add(job)
            woken = self.dispatch.add(job, begun_s)
        _ring(woken)
        try:
            while not job.bell.wait(_LOOK_S):
                self._look(job, begun_s)
        finally:
            with self.gate:
                self.calls.discard(job)
                self.dispatch.drop(job)
                is_last = not self.calls
            if is_last and self._is_ending():
                _ring(self.dispatch.replicas)
        if job.error is None:
            return job.outputs
        try:
            raise job.error
        finally:
            del job  # else it holds the error, whose traceback holds it

    def _is_ending(self) -> bool:
        return self.is_closed

    def shares(self) -> Shares:
        now_s = time.monotonic()
        with self.gate:
            replicas = tuple(each.share(now_s) for each in self.dispatch.replicas)
            return Shares(replicas=replicas, waiting=self.dispatch.waiting)

    def close(self, deadline_s: float) -> None:
        end_s = time.monotonic() + deadline_s
        with self.gate:
            self.is_closed = True
        _ring(self.dispatch.replicas)
        me = threading.current_thread()
        threads = [thread for thread in self._threads if thread is not me]
        for thread in threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            return
        with self.gate:
            for job in tuple(self.calls):
                error = ModelClosedError(f"{self._why} before this call was answered", hint="open it again")
                self.dispatch.fail(job, error)
            self.calls.clear()
            hung = [each.name for each in self.dispatch.replicas if each.piece is not None]
        _ring(self.dispatch.replicas)
        if hung:
            _log.warning("closed a pool while these replicas do not answer: %s", ", ".join(hung))

    def abandon(self) -> None:
        """Nobody can call any more. Takes no lock, for the garbage collector calls it wherever it runs."""
        self.is_closed = True
        _ring(self.dispatch.replicas)

    def lose(self) -> None:
        """In the child of a fork: the threads, and whoever held the lock, stayed in the parent."""
        self.gate = threading.Lock()
        self.is_closed, self._threads = True, []
        self.calls = set()
        self._why = "the pool was opened before this process was forked"

    def _look(self, job: Job, begun_s: float) -> None:
        now_s = time.monotonic()
        with self.gate:
            woken = self.dispatch.look_for_silent(job, now_s)
            if now_s - max(begun_s, self._answered_s) > self._deadline_s:
                names = ", ".join(each.name for each in self.dispatch.replicas if each.piece is not None)
                self.dispatch.fail(
                    job,
                    DelegateError(
                        f"no replica answered within {self._deadline_s:g} s",
                        where=f"replicas {names}" if names else "",
                        hint="does an accelerator or host hang?",
                    ),
                )
        _ring(woken)

    def _work(self, replica: Replica) -> None:
        """The thread of one replica."""
        try:
            while self._step(replica):
                pass
        finally:
            with self.gate:
                replica.is_closed = True
            replica.engine.close()

    def _step(self, replica: Replica) -> bool:
        """Compute a piece, or sleep until there is one; whether there is more to come."""
        now_s = time.monotonic()
        if replica.watch is not None and now_s - replica.asked_s >= ASK_S:
            self._ask(replica, replica.watch, now_s)
        with self.gate:
            if self.is_closed and not self.calls:
                return False
            part, nap_s = self.dispatch.take(replica, now_s)
            replica.is_parked = part is None
        if part is None:
            replica.bell.wait(nap_s)
            replica.is_parked = False
        else:
            self._compute(replica, part)
        return True

    def _ask(self, replica: Replica, watch: Watch, now_s: float) -> None:
        replica.asking_s = now_s
        try:
            told = watch()
        except Exception as error:  # noqa: BLE001 - somebody else's sensor: without it the replica works on
            told = Condition(reason=f"its watch failed: {error}")
        with self.gate:
            replica.told(told, now_s)

    def _compute(self, replica: Replica, part: Piece) -> None:
        job = part.job
        woken: Sequence[Replica] = ()
        try:
            answers = replica.engine.run(part.arrays())
            job.check(part, answers, self._outputs)
            with self.gate:
                if job.is_whole or (part.size == job.samples and not job.outputs):
                    fresh = job.claim(part)
                    job.outputs = answers if fresh else job.outputs
                else:
                    job.place(answers)
                    fresh = job.claim(part)
                self._answered_s = time.monotonic()
                replica.answered(part.size, self._answered_s)
                job.refused.discard(replica)
            if job.outputs is not answers:
                job.write(part, fresh, answers)
            with self.gate:
                job.written(fresh)
        except InputError as error:  # the caller's, whoever computes
            with self.gate:
                replica.end(time.monotonic())
                self.dispatch.fail(job, error)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is its failure: another one answers
            with self.gate:
                woken = self.dispatch.failed(replica, part, error, time.monotonic())
            _log.info("replica %s failed: %s", replica.name, str(error))
        _ring(woken)


def _ring(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        replica.bell.ring()


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
    if not deadline_s > 0:
        raise UsageError(f"deadline_s is {deadline_s!r}", hint="give a number of seconds above 0")
    first = _tensors(engines[0])
    for name, engine in zip(names, engines, strict=True):
        if _tensors(engine) != first:
            raise UsageError(
                f"replica {name} takes or gives other tensors than {names[0]}", hint="a pool's engines hold one model"
            )


def _tensors(engine: AnyEngine) -> list[list[tuple[tuple[int, ...], str]]]:
    return [[(spec.shape, spec.dtype) for spec in specs] for specs in (engine.inputs, engine.outputs)]


_LIVE: weakref.WeakSet[ReplicaPool] = weakref.WeakSet()


def _lose_all() -> None:
    for pool in tuple(_LIVE):
        pool._shop.lose()  # noqa: SLF001 - this module's own


def _close_all() -> None:
    for pool in tuple(_LIVE):
        pool.close(_EXIT_S)


os.register_at_fork(after_in_child=_lose_all)
atexit.register(_close_all)
