"""The threads of a pool, one for each replica, and the calls they answer.

They bring the clock and the lock; which of them takes which samples, `dispatch` decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from edge_sdk.errors import DelegateError, InputError, ModelClosedError
from edge_sdk.parallel.condition import Condition, Watch
from edge_sdk.parallel.dispatch import ASK_S, Dispatch
from edge_sdk.parallel.job import Job, Piece
from edge_sdk.parallel.replica import Replica
from edge_sdk.parallel.reports import Shares

_log = logging.getLogger(__name__)

_LOOK_S = 0.05  # how often a call that waits looks for replicas that have gone silent


class Workers:
    """What the threads of a pool share. `gate` guards everything, for some microseconds at a time.

    Args:
        replicas: Each gets a thread.
        outputs: How many the model has.
        deadline_s: How long a call waits while no replica answers anything.

    Raises:
        RuntimeError: The system has no more threads.
    """

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
        """The outputs of a call, when it is answered.

        Raises:
            ModelClosedError: After `close`, or when that did not wait any longer.
            EdgeError: The caller's own mistake, or what the last replica raised.
        """
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
            if is_last:
                self._let_go()
        if job.error is None:
            return job.outputs
        try:
            raise job.error
        finally:
            del job  # else it holds the error, whose traceback holds it

    def shares(self) -> Shares:
        """What every replica did."""
        now_s = time.monotonic()
        with self.gate:
            replicas = tuple(each.share(now_s) for each in self.dispatch.replicas)
            return Shares(replicas=replicas, waiting=self.dispatch.waiting)

    def close(self, deadline_s: float) -> None:
        """Answer the calls under way, end the threads, close the engines."""
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

    def _let_go(self) -> None:
        """No call is left: threads that only stayed for it may end."""
        if self.is_closed:
            _ring(self.dispatch.replicas)

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
            given: object = watch()
            told = given if isinstance(given, Condition) else None
            if given is not told:
                told = Condition(reason=f"its watch gave {str(given)[:80]!r}, which is no Condition")
        except BaseException as error:  # noqa: BLE001 - somebody else's sensor: without it the replica works on
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
                replica.answered(part.size, self._answered_s, is_rated=job.is_rated)
                job.refused.discard(replica)
            if job.outputs is not answers:
                job.write(part, fresh, answers)
            with self.gate:
                job.written(fresh)
        except InputError as error:  # the caller's, whoever computes
            with self.gate:
                replica.end(time.monotonic())
                self.dispatch.fail(job, error)
        except BaseException as error:  # noqa: BLE001 - whatever an engine raises is its failure: another one answers
            with self.gate:
                woken = self.dispatch.failed(replica, part, error, time.monotonic())
            _log.info("replica %s failed: %s", replica.name, str(error))
        _ring(woken)


def _ring(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        replica.bell.ring()
