"""The process in which an accelerator computes, started by `edge_sdk.isolation._process`.

Its argument is the descriptor of a socket over which orders to load models come, each with a socket and shared memory
of its own. A thread serves each model; `invoke` releases the GIL. The process ends when the socket of orders or its
standard input does, so it does not outlive the app; a library that hangs while it holds the GIL is ended by an alarm.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_sdk.delegates.attach import with_delegate
from edge_sdk.engine import Engine
from edge_sdk.errors import EdgeError
from edge_sdk.isolation import _wire
from edge_sdk.isolation._memory import Array, SharedMemory, layout
from edge_sdk.measure import end_with_parent
from edge_sdk.port import Port
from edge_sdk.runtime import choose_for

_Told = Callable[[str], None]
_LATER_S = 10  # than the app's own deadline; this alarm is for a worker whose app was killed meanwhile
_END_S = 2.0
_MOST_NOISE_BYTES = 256 * 1024
_CALLS_BETWEEN_LOOKS = 256


def serve(order: _wire.Open, line: socket.socket, memory: SharedMemory) -> None:
    """Load one model, then answer calls until the app hangs up."""

    def told(stage: str) -> None:
        line.send(_wire.encode(_wire.Stage(name=stage)))

    try:
        try:
            engine, opened = _opened(order, told)
        except EdgeError as error:
            most = _wire.MAX_REASON_CHARS
            line.send(_wire.encode(_wire.Refused(code=error.code, what=error.what[:most], hint=error.hint[:most])))
            return
        finally:
            signal.alarm(0)
        with engine:
            line.send(_wire.encode(opened))
            _answer_calls(engine, line, memory)
    except OSError:
        return  # the app hung up
    finally:
        line.close()
        memory.close()


def _opened(order: _wire.Open, told: _Told) -> tuple[Engine, _wire.Opened]:
    """The model, loaded and warm.

    Raises:
        EdgeError: The library or the runtime refuses.
    """
    runtime = choose_for(order.model)
    if order.delegation is not None:
        runtime = with_delegate(order.delegation, runtime, told=told)
    begun_s = time.perf_counter()
    told("it was loading the model")
    engine = Engine(order.model, threads=order.threads, runtime=runtime, stored=order.stored, warm=False)
    try:
        told("it computed for the first time")
        inputs, outputs = engine.ports
        zeros = [np.zeros(each.shape, each.dtype) for each in inputs]
        loaded_s = time.perf_counter()
        engine.compute(zeros)
        load_ms, first_ms = (1e3 * (time.perf_counter() - each) for each in (begun_s, loaded_s))
        begun_s = time.perf_counter()
        engine.compute(zeros)
        warm_ms = 1e3 * (time.perf_counter() - begun_s)
        engine.begin_afresh()
    except BaseException:
        engine.close()
        raise
    return engine, _wire.Opened(
        inputs=tuple(_spec(each) for each in inputs),
        outputs=tuple(_spec(each) for each in outputs),
        runtime=engine.runtime[:100],
        load_ms=load_ms,
        first_ms=first_ms,
        warm_ms=warm_ms,
    )


def _answer_calls(engine: Engine, line: socket.socket, memory: SharedMemory) -> None:
    inputs, outputs = engine.ports
    given, taken = [each.dtype for each in inputs], [each.dtype for each in outputs]
    usual = layout([each.shape for each in inputs], given)
    usual_views = memory.views(usual)
    answer_at = layout([each.shape for each in outputs], taken, start=usual.end)
    answer_views = memory.views(answer_at)
    calls = 0
    while packet := line.recv(_wire.MAX_PACKET_BYTES):
        call = _wire.asked(packet)
        if call.shapes is None:
            values, start = usual_views, usual.end
        else:
            here = layout(call.shapes, given)
            values, start = memory.views(here), here.end
        answer: _wire.Answer | _wire.Failed
        try:
            answers = engine.compute(values)
            shapes = tuple(each.shape for each in answers)
            if call.shapes is None and shapes == answer_at.shapes:
                _copy(answers, answer_views)
                answer = _wire.Answer(number=call.number)
            else:
                _copy(answers, memory.views(layout(shapes, taken, start=start)))
                answer = _wire.Answer(number=call.number, shapes=shapes)
        except EdgeError as error:
            answer = _wire.Failed(number=call.number, what=error.what[: _wire.MAX_REASON_CHARS])
        line.send(_wire.encode(answer))
        calls += 1
        if calls % _CALLS_BETWEEN_LOOKS == 0:
            _forget_noise()


def _copy(answers: Sequence[Array], views: Sequence[Array]) -> None:
    for answer, view in zip(answers, views, strict=True):
        view[...] = answer


def _spec(port: Port) -> _wire.PortSpec:
    return _wire.PortSpec(
        name=port.name[: _wire.MAX_NAME_CHARS],
        index=port.index,
        shape=port.shape,
        free=port.free,
        dtype=port.dtype.name,
        scale=port.scale,
        zero=port.zero,
        finite=port.finite,
    )


def _forget_noise() -> None:
    """Some libraries log with every inference; what they say is kept in a file of the app's, which must not grow."""
    found = os.fstat(sys.stderr.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size > _MOST_NOISE_BYTES:
        with suppress(OSError):
            os.ftruncate(sys.stderr.fileno(), 0)


def _limit() -> None:
    """No core dump; if memory runs out, this process goes before the app does."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def main(argv: Sequence[str]) -> None:
    """Run until the app hangs up."""
    _limit()
    end_with_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # a thread of the app may have held it back
    threads: list[threading.Thread] = []
    with socket.socket(fileno=int(argv[0])) as orders:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(orders, _wire.MAX_PACKET_BYTES, 2)
            if not packet:
                break
            line, memory = socket.socket(fileno=descriptors[0]), SharedMemory(descriptors[1])
            try:
                order = _wire.ordered(packet)
            except EdgeError as error:  # the others that compute here must not suffer
                line.send(_wire.encode(_wire.Refused(code=error.code, what=error.what)))
                line.close()
                memory.close()
                continue
            signal.alarm(order.deadline_s + _LATER_S)
            thread = threading.Thread(target=serve, args=(order, line, memory), daemon=True)
            thread.start()
            threads = [each for each in threads if each.is_alive()] + [thread]
    end_s = time.monotonic() + _END_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    gc.collect()  # devices are given back by the destructors of their libraries
    sys.stderr.flush()
    os._exit(0)  # what else a library does at exit is where several were seen to crash
