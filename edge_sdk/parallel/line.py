"""The stages of a pipeline in a row, and the samples under way in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError

from edge_sdk.errors import EdgeError, ModelClosedError, PipelineFullError, StageFailedError
from edge_sdk.parallel.stage import Array, Flight, Stage, finish

_log = logging.getLogger(__name__)

_LAST_S = 0.1  # for stages that were let go to notice


class Line:
    """Stages that hand samples on to each other.

    Args:
        outputs: Names of the model's, in its order.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self.stages: list[Stage] = []
        self._outputs = outputs
        self._gate = threading.Lock()
        self._flying: set[Flight] = set()
        self._why = "the pipeline was closed"
        self._is_closed = False

    def add(self, stage: Stage) -> None:
        """Put it behind the last."""
        if self.stages:
            self.stages[-1].next = stage
        self.stages.append(stage)

    def start(self) -> None:
        """Begin to compute.

        Raises:
            RuntimeError: The system has no more threads; those that were started end.
        """
        try:
            for stage in self.stages:
                stage.thread.start()
        except RuntimeError:  # the system has no more threads
            for stage in self.stages:
                stage.inbox.end()
            raise

    def put(self, flight: Flight, timeout_s: float) -> None:
        """Give the first stage a sample.

        Raises:
            PipelineFullError: It had no room in time.
            ModelClosedError: After `close`.
        """
        with self._gate:
            if self._is_closed:
                raise ModelClosedError(self._why, hint="open it again")
            self._flying.add(flight)
        try:
            taken = self.stages[0].inbox.put(flight, timeout_s)
        except BaseException:
            self._forget(flight)
            raise
        if not taken:
            self._forget(flight)
            if taken is None:
                raise PipelineFullError(
                    f"no room for a sample within {timeout_s:g} s", hint="give it less, or wait longer"
                )
            raise ModelClosedError(self._why, hint="open it again")

    def arrive(self, flight: Flight) -> None:
        """A sample passed the last stage."""
        self._forget(flight)
        if flight.is_dropped:
            flight.future.cancel()
        elif not flight.future.done():
            finish(flight.future, [flight.known[name] for name in self._outputs])

    def landed(self, flight: Flight, timeout_s: float, *, return_exceptions: bool) -> list[Array] | EdgeError:
        """The outputs of a sample; its error where that is asked for.

        Raises:
            StageFailedError: A stage failed, or there was no answer in time.
            ModelClosedError: The pipeline was closed meanwhile.
        """
        try:
            return flight.future.result(timeout_s)
        except FutureTimeoutError:
            flight.is_dropped = True
            held = ", ".join(stage.name for stage in self.stages if stage.is_computing)
            raise StageFailedError(
                f"no answer within {timeout_s:g} s",
                stage=held,
                where=f"stage {held}" if held else "pipeline",
                hint="does an accelerator or host hang?",
            ) from None
        except EdgeError as error:
            if return_exceptions:
                return error
            raise

    def close(self, deadline_s: float, *, drain: bool) -> None:
        """Answer what is under way, or don't, and end the stages."""
        end_s = time.monotonic() + deadline_s
        with self._gate:
            self._is_closed = True
        if drain:
            self.stages[0].inbox.end()
            self._join(end_s)
        hung = [stage.name for stage in self.stages if stage.thread.is_alive()]
        if not hung:
            return
        for stage in self.stages:
            stage.inbox.stop()
        with self._gate:
            left, self._flying = tuple(self._flying), set()
        for flight in left:
            flight.is_dropped = True
            finish(flight.future, ModelClosedError(f"{self._why} before this sample was answered"))
        self._join(end_s if not drain else time.monotonic() + _LAST_S)
        hung = [stage.name for stage in self.stages if stage.thread.is_alive()]
        if hung:
            _log.warning("closed a pipeline while these stages do not answer: %s", ", ".join(hung))

    def lose(self) -> None:
        """In the child of a fork: the threads, and whoever held a lock, stayed in the parent."""
        self._gate = threading.Lock()
        self._is_closed, self._flying = True, set()
        self._why = "the pipeline was opened before this process was forked"

    def _join(self, end_s: float) -> None:
        for stage in self.stages:
            if stage.thread is not threading.current_thread():
                stage.thread.join(max(0.0, end_s - time.monotonic()))

    def _forget(self, flight: Flight) -> None:
        with self._gate:
            self._flying.discard(flight)
