"""How long the parts of a model take: measured on this machine, or predicted for a board.

A part is a span of operators, timed as the model it would be. Which spans are looked at is `cut_search`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edge_converter import flatbuffer, graph
from edge_converter.splitting.chain import Array, Link, Loaded
from edge_converter.splitting.cutting import Cuttable, Span
from edge_sdk.errors import UsageError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Origin, Precision
from edge_sdk.predict import predicted_ms
from edge_sdk.profile import Profile
from edge_sdk.segments import Timing

# All take turns, so that a busy moment of the machine falls on them alike; and the lower quartile of the rounds counts,
# because what else runs on the machine only ever adds. With one thread it is the time of the processor that counts: on
# two busy cores the clock on the wall showed operators of 1 ms as they are, and models of 13 ms, which the system
# interrupts, as twice as long.
_QUARTILE = 25
_ROUNDS = 31
_FEWEST_ROUNDS = 5
_LONGEST_S = 10.0
_WARM_UP = 2
_DIGITS = 4  # of milliseconds


class StageClock(Protocol):
    """Tells how long spans of a model take."""

    def times_ms(self, spans: Sequence[Span]) -> list[float]:
        """Milliseconds of each span; what one reads must be given by the app or by a span before it."""

    def timing(self, whole_ms: float) -> Timing:
        """How the latest of them came about, for the record."""


class Stopwatch:
    """Times spans on this machine.

    Args:
        model: To cut.
        sample: One input of the whole, as it is stored.
        threads: Of each interpreter.
    """

    def __init__(self, model: Cuttable, sample: Sequence[Array], *, threads: int) -> None:
        self._model = model
        self._sample = sample
        self._threads = threads
        self._rounds = 0
        self._runtime = ""

    def times_ms(self, spans: Sequence[Span]) -> list[float]:
        """The lower quartile of each span's times; setting inputs and getting outputs is in it, as in a pipeline.

        Raises:
            ModelLoadError: The runtime refuses a span.
            DelegateError: It fails to compute one.
        """
        known: dict[str, Array] = dict(zip(map(self._model.name, self._model.inputs), self._sample, strict=True))
        loaded = [Loaded(link(self._model, span), threads=self._threads, where=self._where(span)) for span in spans]
        for each in loaded:
            each.step(known)
        taken = [[known[name] for name in each.link.inputs] for each in loaded]
        took_ms: list[list[float]] = [[] for _ in loaded]
        now_s = time.thread_time if self._threads == 1 else time.perf_counter
        end_s = time.monotonic() + _LONGEST_S
        for number in range(_WARM_UP + _ROUNDS):
            for each, values, times in zip(loaded, taken, took_ms, strict=True):
                begun_s = now_s()
                each.run(values)
                times.append(1e3 * (now_s() - begun_s))
            if time.monotonic() > end_s and number >= _WARM_UP + _FEWEST_ROUNDS:
                break
        self._rounds, self._runtime = len(took_ms[0]) - _WARM_UP, loaded[0].runtime
        return [float(np.percentile(times[_WARM_UP:], _QUARTILE)) for times in took_ms]

    def timing(self, whole_ms: float) -> Timing:
        """Measured, with this machine's name."""
        return Timing(
            origin=Origin.MEASURED,
            machine=machine_name(),
            runtime=self._runtime,
            threads=self._threads,
            samples=self._rounds,
            whole_ms=round(whole_ms, _DIGITS),
        )

    def _where(self, span: Span) -> str:
        return f"{self._model.where} (operators {span[0]} to {span[1] - 1})"


class Forecast:
    """Predicts spans on a board's CPU, by `edge_sdk.predict`.

    Args:
        model: To cut.
        precision: Of the whole model: a part of it has no other.
        board: Whose CPU.

    Raises:
        UsageError: The board's profile has no latency model.
    """

    def __init__(self, model: Cuttable, precision: Precision, board: Profile) -> None:
        self._board = board
        self._atoms_ms: dict[Span, float] = {}
        self._band = 1.0
        for span in model.atoms:
            found = predicted_ms(board, graph_of(model, span).work, precision)
            if found is None:
                raise UsageError(f"nothing predicts times on {board.id}", hint="leave --profile out to measure here")
            self._atoms_ms[span], self._band = found

    def times_ms(self, spans: Sequence[Span]) -> list[float]:
        """The sum of what each span's atoms are expected to take."""
        return [
            sum(ms for (start, end), ms in self._atoms_ms.items() if first <= start and end <= last)
            for first, last in spans
        ]

    def timing(self, whole_ms: float) -> Timing:
        """Predicted, with the profile and its band."""
        return Timing(
            origin=Origin.PREDICTED,
            machine=self._board.id,
            threads=self._board.latency.threads if self._board.latency else 1,
            band=self._band,
            whole_ms=round(whole_ms, _DIGITS),
        )


def link(model: Cuttable, span: Span) -> Link:
    """The span as a link of the chain."""
    inputs, outputs = model.borders(span)
    return Link(
        content=model.content(span), inputs=tuple(map(model.name, inputs)), outputs=tuple(map(model.name, outputs))
    )


def graph_of(model: Cuttable, span: Span) -> graph.Graph:
    """What the span computes."""
    return graph.of(flatbuffer.parse(model.content(span), where=model.where), where=model.where)
