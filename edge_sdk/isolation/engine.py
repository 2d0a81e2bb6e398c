"""A model in a worker process: what crashes or hangs there costs one call, not the app.

Tensors go by shared memory, calls by a socket. Arrays are converted on the app's side, so what an app may pass, and the
errors for what it may not, are those of `Engine`.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import (
    DelegateError,
    DelegateUnavailableError,
    ModelClosedError,
    ModelLoadError,
    RuntimeUnavailableError,
    WorkerLostError,
)
from edge_sdk.fairlock import FairLock
from edge_sdk.front import Array, Front
from edge_sdk.isolation import _wire
from edge_sdk.isolation._memory import Layout, SharedMemory, layout
from edge_sdk.isolation._process import Worker, wait_for, worker_for
from edge_sdk.living import Living
from edge_sdk.port import Port

_START_S = 60.0  # Python, numpy and a runtime, on the slowest board with other work
LOAD_DEADLINE_S = 60.0  # a GPU was seen to compile its shaders for 28 to 41 s, cold
# A call may take so many times the slowest that was seen, within bounds: the machine may be busy, a device may be lost.
_PATIENCE = 30.0
_SHORTEST_S, _LONGEST_S = 3.0, 120.0
_LOOK_S = 0.05
_STARTING = "it was starting"


class IsolatedEngine(Front):
    """A model loaded and warmed in another process. Safe for any number of threads; calls are answered in order.

    Attributes:
        busy_s: Seconds it has computed since it was opened, the way there and back included.
        opened: What the worker told when the model was loaded.

    Args:
        model: A file.
        delegation: Who computes; None is the CPU.
        threads: Of the interpreter there.
        stored: As of `Engine`.
        deadline_s: For the library and the first answer together, from when the process has started.
        call_deadline_s: Of each call; None allows 30 times the slowest seen so far, the load included, at least 3 s
            and at most 120 s; more where inputs of free sizes are larger than ever before.
        observe: Told the milliseconds of every inference, the way there and back included.
        cancelled: Asked while the model loads: True ends it with `ModelClosedError`.

    Raises:
        WorkerLostError: The process crashed, hung or could not be started; the text says while it did what.
        DelegateUnavailableError, ModelLoadError, RuntimeUnavailableError: As the worker says.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        delegation: Delegation | None = None,
        threads: int = 1,
        stored: bool = False,
        deadline_s: float = LOAD_DEADLINE_S,
        call_deadline_s: float | None = None,
        observe: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.where = os.fspath(model)
        self.delegation = delegation
        self._turn = FairLock()
        self._observe = observe
        self._call_deadline_s = call_deadline_s
        self._why_closed = "the model was closed"
        self.busy_s = 0.0
        order = _wire.Open(
            model=os.path.abspath(self.where),  # noqa: PTH100 - resolving links would follow what an app moves
            delegation=delegation,
            threads=threads,
            stored=stored,
            deadline_s=max(1, int(_START_S + deadline_s)),
        )
        self._worker: Worker | None = worker_for(delegation)
        self._line, self._memory = self._worker.open(order)
        self._finalizer = weakref.finalize(self, _let_go, self._worker, self._line, self._memory)
        _LIVE.add(self)
        try:
            self.opened = self._wait(deadline_s, cancelled)
            self._face(*_ports(self.opened))
            self._arrange()
        except BaseException:
            self._lose()
            raise
        # Where a device is shared, another engine's load may hold the worker up for as long as this one's took.
        is_shared = delegation is not None and delegation.exclusive
        self._slowest_s = max(self.opened.load_ms if is_shared else 0.0, self.opened.warm_ms) / 1e3

    @property
    def runtime(self) -> str:
        """Name and version of the runtime in the worker."""
        return self.opened.runtime

    @property
    def pid(self) -> int | None:
        """Of the worker process; None once it is gone."""
        worker = self._worker
        return None if worker is None else worker.pid

    @property
    def memory_bytes(self) -> int | None:
        """Resident memory of the worker process, the runtime's own included; None where the system does not say."""
        pid = self.pid
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - asked for once a second
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None

    def compute(self, values: Sequence[Array]) -> list[Array]:
        """See `Front.compute`.

        Raises:
            WorkerLostError: The process crashed, hung, or answers nonsense; it is ended, later calls raise as well.
            DelegateError: The runtime there refused to compute; the process goes on.
        """
        with self._turn:
            worker = self._worker
            if worker is None:
                raise WorkerLostError(self._why_closed, where=self.where) if self._is_lost else self._closed()
            begun_s = time.perf_counter()
            try:
                answer = self._exchange(worker, values)
            except WorkerLostError as error:
                self._why_closed, self._is_lost = error.what, True
                self._lose()
                raise
            took_s = time.perf_counter() - begun_s
            self._slowest_s = max(self._slowest_s, took_s)
            self.busy_s += took_s
            if self._observe is not None:
                self._observe(took_s * 1e3)
            return answer

    def close(self) -> None:
        """Wait for the call that computes, then end the worker."""
        with self._turn:
            self._lose()

    def kill(self) -> None:
        """End the worker now, from any thread; a call that waits for it raises `WorkerLostError`."""
        worker = self._worker
        if worker is not None:
            worker.kill()

    _is_lost = False
    _number = 0  # of the last call
    _largest = 1  # bytes of inputs of one call so far
    _answer_views: list[Array]
    _is_owed = False  # the worker owes an answer to a call that was interrupted

    def _exchange(self, worker: Worker, values: Sequence[Array]) -> list[Array]:
        if self._is_owed:  # it may still read the inputs, and its answer must not be taken for the next one's
            self._reply(worker)
        shapes = tuple(value.shape for value in values)
        self._number += 1
        if shapes == self._usual.shapes:
            call, end, views = _wire.Call(number=self._number), self._usual.end, self._views
        else:
            here = layout(shapes, self._usual.dtypes)
            call, end, views = _wire.Call(number=self._number, shapes=shapes), here.end, self._memory.views(here)
        for view, value in zip(views, values, strict=True):
            view[...] = value
        self._is_owed = True
        try:
            self._line.send(_wire.encode(call))
        except OSError as cause:
            raise self._gone(worker) from cause
        message = _wire.said(self._reply(worker, share=end / self._largest))
        self._largest = max(self._largest, end)
        if not isinstance(message, _wire.Answer | _wire.Failed) or message.number != self._number:
            raise WorkerLostError("the worker answers out of turn", where=self.where)
        if isinstance(message, _wire.Failed):
            raise DelegateError(message.what, where=self.where, hint="switch the variant")
        if message.shapes is None and call.shapes is None:
            return [view.copy() for view in self._answer_views]
        outputs = self._outputs
        given = message.shapes or ()
        if len(given) != len(outputs):
            raise WorkerLostError("the worker gives another number of outputs", where=self.where)
        there = layout(given, [each.dtype for each in outputs], start=end)
        return [view.copy() for view in self._memory.found(there)]

    def _reply(self, worker: Worker, *, share: float = 1.0) -> bytes:
        patience_s = self._patience_s(share)
        if not wait_for(self._line, patience_s):
            worker.kill()
            raise WorkerLostError(
                f"no answer within {patience_s:.3g} s, so it was ended", where=self.where, is_lasting=True
            )
        try:
            reply = self._line.recv(_wire.MAX_PACKET_BYTES)
        except OSError as cause:
            raise self._gone(worker) from cause
        if not reply:
            raise self._gone(worker)
        self._is_owed = False
        return reply

    def _gone(self, worker: Worker) -> WorkerLostError:
        why = worker.why()  # waits for it to end
        return WorkerLostError(why, where=self.where, is_lasting=worker.has_crashed)

    def _arrange(self) -> None:
        """Views of the tensors in the shapes they have in almost every call."""
        self._usual: Layout = layout([each.shape for each in self._inputs], [each.dtype for each in self._inputs])
        self._views = self._memory.views(self._usual)
        self._largest = max(1, self._usual.end)
        self._answers = layout(
            [each.shape for each in self._outputs], [each.dtype for each in self._outputs], start=self._usual.end
        )
        self._answer_views = self._memory.views(self._answers)

    def _wait(self, deadline_s: float, cancelled: Callable[[], bool]) -> _wire.Opened:
        """Until the model is loaded and has run."""
        worker, doing = self._worker, ""
        assert worker is not None  # noqa: S101 - made by the only caller
        end_s = time.monotonic() + _START_S
        while True:
            message = _wire.said(self._packet(worker, doing or _STARTING, end_s, cancelled))
            if isinstance(message, _wire.Opened):
                return message
            if isinstance(message, _wire.Refused):
                raise self._refusal(message, worker)
            if isinstance(message, _wire.Stage):
                if not doing:
                    end_s = time.monotonic() + deadline_s
                doing = message.name

    def _packet(self, worker: Worker, doing: str, end_s: float, cancelled: Callable[[], bool]) -> bytes:
        is_there = False
        while not is_there:
            is_there = wait_for(self._line, _LOOK_S)
            if cancelled():
                raise ModelClosedError("the load was cancelled", where=self.where)
            if time.monotonic() > end_s:  # also where it only ever tells of stages
                worker.kill()
                said = worker.said()
                raise WorkerLostError(
                    f"hung while {doing}" + (f": {said}" if said else ""),
                    where=self._named(),
                    hint="is the device in use, or its driver of another version?",
                    is_lasting=doing != _STARTING,
                )
        try:
            packet = self._line.recv(_wire.MAX_PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            why = worker.why()  # waits for it to end
            raise WorkerLostError(
                f"{why}, while {doing}",
                where=self._named(),
                is_lasting=worker.has_crashed and doing != _STARTING,
            )
        return packet

    def _refusal(self, message: _wire.Refused, worker: Worker) -> DelegateError:
        kinds: dict[str, type[DelegateError]] = {
            kind.code: kind for kind in (DelegateUnavailableError, ModelLoadError, RuntimeUnavailableError)
        }
        what = message.what
        if what.endswith("refuses") and (said := worker.said()):
            what = f"{what}: {said}"  # some libraries give their reason on standard error alone
        return kinds.get(message.code, DelegateError)(what, where=self._named(), hint=message.hint)

    def _named(self) -> str:
        return f"{self.where} on {self.delegation}" if self.delegation is not None else self.where

    def _patience_s(self, share: float) -> float:
        """Seconds for a call whose inputs are so many times as large as the largest so far: it computes more."""
        if self._call_deadline_s is not None:
            return self._call_deadline_s
        return min(_LONGEST_S, max(_SHORTEST_S, _PATIENCE * self._slowest_s) * max(1.0, share))

    def _closed(self) -> ModelClosedError:
        return ModelClosedError(self._why_closed, where=self.where, hint="open it again")

    def _lose(self) -> None:
        self._worker = None
        self._views, self._answer_views = [], []
        self._finalizer()
        _LIVE.discard(self)

    def _orphan(self) -> None:
        """In the child of a fork: the worker is the parent's."""
        self._finalizer.detach()
        self._line.close()
        self._memory.close()
        self._worker = None
        self._views, self._answer_views = [], []
        self._turn = FairLock()
        self._why_closed = "the model was opened before this process was forked"


def _let_go(worker: Worker, line: socket.socket, memory: SharedMemory) -> None:
    line.close()
    memory.close()
    worker.release()


def _ports(opened: _wire.Opened) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    try:
        made = [
            tuple(
                Port(
                    name=each.name,
                    index=each.index,
                    shape=each.shape,
                    free=each.free,
                    dtype=np.dtype(each.dtype),
                    scale=each.scale,
                    zero=each.zero,
                    finite=each.finite,
                )
                for each in side
            )
            for side in (opened.inputs, opened.outputs)
        ]
    except TypeError as cause:
        raise WorkerLostError("the worker tells of a tensor of no known type") from cause
    for each in (*made[0], *made[1]):
        if (
            each.dtype.kind not in "fiub"
            or len(each.free) != len(each.shape)
            or (each.scale and each.dtype.kind not in "iu")
        ):
            raise WorkerLostError(f"the worker tells of no possible tensor: {each.name[:80]!r}")
    return made[0], made[1]


_LIVE: Living[IsolatedEngine] = Living(IsolatedEngine._orphan)  # noqa: SLF001 - this module's own
