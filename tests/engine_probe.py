"""An engine that can be held up, and knows when it was misused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

LIMIT_S = 60.0


class Probe:
    """Answers with its name and what it was given, once its gate is open; what can be called is called in it."""

    def __init__(self, name: str, *, held: bool = False) -> None:
        self.name = name
        self.turn: AbstractContextManager[Any] = nullcontext()
        self.inside = 0
        self.closed = 0
        self.misused = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._count = threading.Lock()
        if not held:
            self.gate.set()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        self.misused |= bool(self.closed)
        with self._count:
            self.inside += 1
        with self.turn:
            self.entered.set()
            assert self.gate.wait(LIMIT_S)
            answer = [self.name, *(each() if callable(each) else each for each in arrays)]
        with self._count:
            self.inside -= 1
        return answer

    def close(self) -> None:
        with self.turn:
            self._close()

    def _close(self) -> None:
        self.misused |= bool(self.inside)
        self.closed += 1


class Turning(Probe):
    """Takes turns with others, as engines in this process do."""

    def take_turns(self, turn: AbstractContextManager[Any]) -> None:
        self.misused |= bool(self.inside)
        self.turn = turn
