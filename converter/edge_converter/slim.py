"""How many channels must go until an inference is as fast as asked: found by timing, before anything is trained.

Multiplications say little of milliseconds: kernels work on whole tiles of channels, and the operators between them cost
what they cost. So smaller models are timed against the original, in turns, until the one with the most channels that
is fast enough is found. Only the shape of a model matters for that, so only that one is fine-tuned.

One number format decides, and of the other it is said what it reached. Small networks spend a third of an int8
inference and more on what does not shrink: asked for both, a search gave a ResNet8 that was 4.3 times as fast in fp32
and 1.9 times in int8, and lost 21 points.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_converter._keras_wire import RUNG
from edge_converter.errors import QuantizationError, UnsupportedModelError
from edge_converter.labelled.data import Integers, Samples
from edge_converter.quantization import quantize
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision

_TRIES = 8
_LAST_RUNG = 89  # a 24th of the cost
# What is asked for must still hold when it is measured again: ratios of minima of five ResNet8, each measured three
# times on a machine that did other work, were within 0.3 % of each other.
_MARGIN = 1.01
_ROUNDS = 40
# Small models would be done with them in 60 ms, in which another program may hold the core all along.
_LEAST_S = 1.0
_TURN = 5
_CALIBRATION = 8  # enough for a file that is only timed


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedUp:
    """How much faster a file is than another, both on this machine.

    Attributes:
        by_minima: The ratio of the shortest times.
        by_medians: The ratio of the medians.
    """

    by_minima: float
    by_medians: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What files are timed with.

    Attributes:
        samples: The first of these rows is what they compute; the first few calibrate those that are quantized.
        rows: Of the samples.
        threads: Of the interpreters.
        int8: Time int8 files too.
    """

    samples: Samples
    rows: Integers
    threads: int
    int8: bool


class Clock:
    """Times smaller models against the original.

    Args:
        original: Its float file.
        timing: What to time with.
        folder: For the int8 files that are timed.
    """

    def __init__(self, original: Path, timing: Timing, folder: Path) -> None:
        self._timing = timing
        self._folder = folder
        self._original = {"fp32": original}
        if timing.int8 and (twin := self._quantized(original)) is not None:
            self._original["int8"] = twin

    def time(self, path: Path) -> dict[str, SpeedUp]:
        """The speed-up of a smaller model by number format."""
        mine = {"fp32": path}
        if "int8" in self._original and (twin := self._quantized(path)) is not None:
            mine["int8"] = twin
        return {name: self._compare(self._original[name], each) for name, each in mine.items()}

    def _quantized(self, path: Path) -> Path | None:
        samples, rows = self._timing.samples, self._timing.rows[:_CALIBRATION]
        into = self._folder / f"{path.stem}-timed-int8.tflite"
        try:
            ranges = quantize.calibrate(path, samples, rows, threads=self._timing.threads)
            return quantize.quantize(path, Precision.INT8, into, ranges=ranges).path
        except QuantizationError:
            return None  # whoever makes the variant says why

    def _compare(self, original: Path, smaller: Path) -> SpeedUp:
        sample = self._timing.samples.read(self._timing.rows[:1])
        took_s: tuple[list[float], list[float]] = ([], [])
        with contextlib.ExitStack() as stack:
            engines = [stack.enter_context(Engine(path, threads=self._timing.threads)) for path in (original, smaller)]
            until = time.perf_counter() + _LEAST_S
            rounds = 0
            while rounds < _ROUNDS or time.perf_counter() < until:
                rounds += 1
                for engine, times in zip(engines, took_s, strict=True):
                    engine.run(sample)
                    for _ in range(_TURN):
                        start = time.perf_counter()
                        engine.run(sample)
                        times.append(time.perf_counter() - start)
        return SpeedUp(
            by_minima=min(took_s[0]) / min(took_s[1]), by_medians=float(np.median(took_s[0]) / np.median(took_s[1]))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How far down the ladder to go.

    Attributes:
        rung: Of `edge_converter._keras_wire.Slim`.
        measured: The speed-up there, by number format.
    """

    rung: int
    measured: dict[str, SpeedUp]


class Times(Protocol):
    """Whoever times smaller models against the original."""

    def time(self, path: Path) -> dict[str, SpeedUp]:
        """The speed-up of a smaller model by number format."""


def find(wanted: float, make: Callable[[int], Path], clock: Times, *, by: str = "fp32") -> Found:
    """The highest rung found at which a model is as fast as wanted.

    Args:
        wanted: Times as fast as the original in the same number format.
        make: Writes the model of a rung, not fine-tuned.
        clock: Times it.
        by: The number format that has to be so fast; where it could not be timed, that of floats.

    Raises:
        UnsupportedModelError: The model cannot be made so fast by removing channels.
    """
    rung = _rung(1 / wanted)
    # The lowest rung that is too slow, as all above the first must be, and the highest that cannot be made.
    slow, end = rung - 1, _LAST_RUNG + 1
    fast: Found | None = None
    best = 0.0
    for _ in range(_TRIES):
        try:
            smaller = make(rung)
        except UnsupportedModelError:
            end = rung  # every layer is at its fewest channels
            if rung - slow <= 1 and not best:
                raise
            aim = rung
        else:
            measured = clock.time(smaller)
            speed = measured.get(by, measured["fp32"]).by_minima
            best = max(best, speed)
            if speed >= _MARGIN * wanted:
                fast = Found(rung=rung, measured=measured)
            else:
                slow = max(slow, rung)
            aim = _aim(rung, speed, wanted)
        below = fast.rung if fast is not None else end
        if below - slow <= 1 or (fast is not None and aim >= fast.rung):
            break
        rung = aim if slow < aim < below else (slow + below) // 2
    if fast is not None:
        return fast
    raise UnsupportedModelError(
        f"is at most {best:.2f} times as fast with fewer channels, where {wanted:g} times is wanted",
        hint="ask for less with --slim",
    )


def _aim(rung: int, speed: float, wanted: float) -> int:
    """The rung at which a model should be as fast as wanted, by how fast it is at this one."""
    # What does not shrink with the channels: t = rest + (1 - rest) cost.
    cost = RUNG**rung
    rest = min(max((1 / speed - cost) / (1 - cost), 0.0), 0.95)
    needed = (1 / (_MARGIN * wanted) - rest) / (1 - rest)
    return _rung(needed) if needed > 0 else _LAST_RUNG


def _rung(cost: float) -> int:
    return min(_LAST_RUNG, max(1, math.ceil(round(math.log(cost) / math.log(RUNG), 6))))
