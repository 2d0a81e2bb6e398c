"""Engines for the tests of pools and pipelines: they double what they are given, and can be slow, fail or hang.

A busy machine may let a replica wait for longer than what is computed takes: then another computes its piece as well,
or all of the call. So tests say what is computed at the least, and call again until a replica has had its turn.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_sdk.errors import DelegateError, InputShapeError, ModelClosedError
from edge_sdk.manifest import TensorSpec

LIMIT_S = 60.0


def spec(name: str = "x", shape: tuple[int, ...] = (1, 4), dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


class Doubling:
    """An engine whose samples are told apart by their first number.

    Args:
        sample_s: How long it takes for one.
        shape: Of its input and output.
        fails: Called before every call with what was given; raises what the engine should raise.
    """

    def __init__(
        self,
        sample_s: float = 0.0,
        *,
        shape: tuple[int, ...] = (1, 4),
        fails: Callable[[Sequence[Any]], None] = lambda _: None,
    ) -> None:
        self.inputs = (spec("x", shape),)
        self.outputs = (spec("y", shape),)
        self.sample_s, self.fails = sample_s, fails
        self.seen: Counter[float] = Counter()
        self.sizes: list[int] = []
        self.closed = 0
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        self.entered.set()
        assert self.gate.wait(LIMIT_S)
        if self.closed:
            raise ModelClosedError("the fake was closed")
        (given,) = arrays
        if given.shape[1:] != self.inputs[0].shape[1:]:
            raise InputShapeError(f"an array of shape {list(given.shape)}")
        self.fails(arrays)
        if self.sample_s:
            time.sleep(self.sample_s * len(given))
        self.seen.update(given.reshape(len(given), -1)[:, 0].tolist() if given.size else [])
        self.sizes.append(len(given))
        return [given * 2]

    def close(self) -> None:
        self.closed += 1


def broken(arrays: Sequence[Any]) -> None:
    raise DelegateError("the accelerator is gone")


def numbered(samples: int, width: int = 4) -> np.ndarray[Any, Any]:
    """A batch whose samples begin with 0, 1, 2, ..."""
    batch = np.zeros((samples, width), np.float32)
    batch[:, 0] = np.arange(samples)
    batch[:, 1:] = 7
    return batch


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A call in another thread, and where its answer or error will be."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(call())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found
