"""A worker out of its mind, as one is whose library wrote over its memory: an error in time, never a wrong answer."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import delegation

from edge_sdk.delegates import Delegation
from edge_sdk.delegates.probe import finding_of
from edge_sdk.errors import DelegateError, WorkerLostError
from edge_sdk.isolation import IsolatedEngine, _process
from edge_sdk.isolation import engine as isolated
from edge_sdk.isolation._memory import SharedMemory, layout

pytestmark = [pytest.mark.accelerator, pytest.mark.device]

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)

# Each runs in the worker before it loads anything, with `worker`, `_wire` and `os` at hand.
STARTS_WITH = "import os, signal, sys, time; sys.path[:] = sys.argv[2:]; from edge_sdk.isolation import worker, _wire\n"
ENDS_WITH = "\nworker.main(sys.argv[1:2])\n"
INSTEAD_OF_CALLS = """
def answer(engine, line, memory):
    while line.recv(100_000):
        line.send({packet})
worker._answer_calls = answer
"""
INSTEAD_OF_PORTS = """
old = worker._spec
def spec(port):
    made = {name: getattr(old(port), name) for name in _wire.PortSpec.__struct_fields__}
    return _wire.PortSpec(**{**made, %s})
worker._spec = spec
"""
FLOOD = """
def load(order, told):
    while True:
        told("it was counting")
worker._opened = load
"""
KILLED = """
def load(order, told):
    told("it was loading the model")
    os.kill(os.getpid(), signal.{name})
worker._opened = load
"""
SLOW = """
old = worker.Engine.compute
def compute(engine, values):
    time.sleep(0.4 if values[0].shape[1] > 1 else 0)
    return old(engine, values)
worker.Engine.compute = compute
"""
TWICE = """
class Line:
    def __init__(self, line): self.line = line
    def recv(self, size): return self.line.recv(size)
    def send(self, packet): return self.line.send(packet) and self.line.send(packet)
old = worker._answer_calls
worker._answer_calls = lambda engine, line, memory: old(engine, Line(line), memory)
"""


def lying(monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    monkeypatch.setattr(_process, "_PROGRAM", STARTS_WITH + textwrap.dedent(lie) + ENDS_WITH)


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        ("b''.join([b'no message'] * 20_000)", "malformed"),
        ("_wire.encode(_wire.Answer(number=2))", "out of turn"),
        ("_wire.encode(_wire.Answer(number=1, shapes=((2**31 - 1,) * 8,)))", "beyond the memory"),
        # 2^64 values: none, to who counts them in 64 bits.
        ("_wire.encode(_wire.Answer(number=1, shapes=((2**16,) * 4,)))", "beyond the memory"),
        ("_wire.encode(_wire.Answer(number=1, shapes=((1, 3), (1, 3))))", "another number of outputs"),
        ("_wire.encode(_wire.Stage(name='it was asleep'))", "out of turn"),
    ],
)
def test_an_answer_that_cannot_be_is_an_error(
    dense: Path, monkeypatch: pytest.MonkeyPatch, packet: str, says: str
) -> None:
    lying(monkeypatch, INSTEAD_OF_CALLS.format(packet=packet))
    with IsolatedEngine(dense) as engine:
        for _ in range(2):
            with pytest.raises(WorkerLostError, match=says):
                engine.run([X])


def test_an_answer_that_comes_twice_is_not_taken_for_the_next_calls(
    dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, TWICE)
    with IsolatedEngine(dense) as engine:
        engine.run([X])
        with pytest.raises(WorkerLostError, match="out of turn"):
            engine.run([-X])


@pytest.mark.parametrize(
    "lie", ["'dtype': 'object'", "'dtype': 'str'", "'dtype': 'nonsense'", "'free': ()", "'scale': 0.5"]
)
def test_a_tensor_that_cannot_be_is_an_error(dense: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    lying(monkeypatch, INSTEAD_OF_PORTS % lie)
    with pytest.raises(WorkerLostError, match="tensor"):
        IsolatedEngine(dense)


def test_one_that_only_ever_tells_what_it_does_has_its_time_too(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lying(monkeypatch, FLOOD)
    with pytest.raises(WorkerLostError, match="hung while it was counting"):
        IsolatedEngine(dense, deadline_s=0.2)


def test_a_larger_input_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_PATIENCE", 0.0)
    monkeypatch.setattr(isolated, "_SHORTEST_S", 0.2)
    lying(monkeypatch, SLOW)
    with IsolatedEngine(Path(__file__).parent.parent / "data" / "tiny" / "image.tflite") as engine:
        engine.run([np.zeros((1, 40, 40, 1), np.float32)])


@pytest.mark.parametrize(("name", "is_lasting"), [("SIGSEGV", True), ("SIGKILL", False), ("SIGTERM", False)])
def test_only_a_fault_of_the_librarys_own_is_remembered(
    dense: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, is_lasting: bool
) -> None:
    lying(monkeypatch, KILLED.format(name=name))
    with pytest.raises(WorkerLostError) as caught:
        IsolatedEngine(dense)
    assert finding_of(caught.value).is_lasting is is_lasting


def test_memory_cannot_be_taken_from_under_the_app() -> None:
    memory = SharedMemory()
    memory.views(layout([(1000,)], [np.dtype(np.float32)]))
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 0)
    memory.close()


def test_an_order_that_makes_no_sense_costs_the_others_in_the_worker_nothing(mock_library: Path, dense: Path) -> None:
    shared = delegation(mock_library, exclusive=True)
    with IsolatedEngine(dense, delegation=shared) as engine:
        odd = Delegation(name="mock", library=shared.library, options={"no name": ""}, exclusive=True)
        with pytest.raises(DelegateError, match="malformed"):
            IsolatedEngine(dense, delegation=odd)
        engine.run([X])
