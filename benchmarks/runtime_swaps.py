"""What a swap costs: those who call meanwhile, the time until the new variant answers, and memory in the long run.

Two variants of 14 MB that answer differently are swapped under four threads that call without pause; each answer is
held against what the two give alone, bit for bit.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Figure, figure
from made_models import Array, convolutional, sample, write_bundle
from quiet import Others, undisturbed
from runtime_calls import THREADS, percentile

from edge_lab import digits
from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.runtime import choose

if TYPE_CHECKING:
    from typing_extensions import Self

_PAUSE_S, _AFTER_S = 0.2, 0.1  # before and after a paced swap: long enough for calls that overlap none


def rows(options: argparse.Namespace) -> list[Figure]:
    """The figures of this part."""
    contents = {"one": convolutional(2), "other": convolutional(3)}
    x = sample(contents["one"])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        path = write_bundle(place, contents)
        opened = Bundle(path)
        file = opened.blob(opened.variant("other"))
        own = {_alone(content, x) for content in contents.values()}
        found = _many(path, x, own, swaps=100 if options.quick else 1000)
        paced = 15 if options.quick else 100
        stall_ms = statistics.median(_load_ms(file, x)[0] for _ in range(20))
        found += _overlapping(path, x, own, swaps=paced, standby=0, stall_ms=stall_ms)
        found += _overlapping(path, x, own, swaps=paced, standby=1, stall_ms=stall_ms)
        found += _first_answers(path, file, x, rounds=8 if options.quick else max(50, options.rounds))
        found += _growth(place / "small", swaps=1000 if options.quick else 10_000)
    return found


@dataclass
class Callers:
    """Threads that call without pause, and what became of each call.

    Attributes:
        calls: Begin and end of each, in seconds.
        wrong: Answers that neither variant gives.
        failed: Calls that raised.
    """

    model: EdgeModel
    x: Array
    own: set[bytes]
    calls: list[tuple[float, float]] = field(default_factory=list)
    wrong: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        mine: list[tuple[float, float]] = []
        wrong = failed = 0
        while not self._done.is_set():
            begun_s = time.perf_counter()
            try:
                answer = self.model(self.x)
            except Exception:  # noqa: BLE001 - whatever it is, it is counted
                failed += 1
                continue
            mine.append((begun_s, time.perf_counter()))
            wrong += answer.tobytes() not in self.own
        with _COUNTING:
            self.calls += mine
            self.wrong += wrong
            self.failed += failed


_COUNTING = threading.Lock()


def _alone(content: bytes, x: Array) -> bytes:
    with Engine(content) as engine:
        return engine.run([x])[0].tobytes()


def _load_ms(path: Path, x: Array) -> tuple[float, float]:
    """By hand: of `allocate_tensors`, during which nothing else in Python runs; and of all until the first answer."""
    begun_s = time.perf_counter()
    interpreter = choose().open(str(path), threads=1)
    stalled_s = time.perf_counter()
    interpreter.allocate_tensors()
    free_s = time.perf_counter()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return (free_s - stalled_s) * 1e3, (time.perf_counter() - begun_s) * 1e3


def _many(path: Path, x: Array, own: set[bytes], *, swaps: int) -> list[Figure]:
    with EdgeModel(path, variant="one", memory="ample") as model, Callers(model, x, own) as callers:
        begun_s = time.perf_counter()
        for number in range(swaps):
            model.switch("one" if number % 2 else "other")
            model(x)  # one call in between: the old engine drains, so that the next swap has to load
        took_s = time.perf_counter() - begun_s
    answered = len(callers.calls)
    detail = f"{THREADS} threads, {answered} calls answered in {took_s:.1f} s"
    return [
        Figure(
            what=f"{swaps} swaps: calls that failed", value=callers.failed, samples=answered, target=0, detail=detail
        ),
        Figure(what=f"{swaps} swaps: wrong answers", value=callers.wrong, samples=answered, target=0),
    ]


def _overlapping(path: Path, x: Array, own: set[bytes], *, swaps: int, standby: int, stall_ms: float) -> list[Figure]:
    """Calls that overlap a swap against those of the same run that do not."""
    windows: list[tuple[float, Window]] = []
    with EdgeModel(path, variant="one", memory="ample", standby=standby) as model:
        if standby:
            model.stand_by("other")
        with Callers(model, x, own) as callers:
            for number in range(swaps):
                others, opened_s = Others(), time.perf_counter()
                time.sleep(_PAUSE_S)
                begun_s = time.perf_counter()
                model.switch("one" if number % 2 else "other")
                ended_s = time.perf_counter()
                time.sleep(_AFTER_S)
                windows.append((others.share(), Window(opened_s, begun_s, ended_s, time.perf_counter())))
    kept = undisturbed(windows, fewest=swaps // 3)
    within, steady = (
        [ms for each in kept for ms in each.calls(callers.calls, swapped=swapped)] for swapped in (True, False)
    )
    within_ms, steady_ms = percentile(within, 0.99), percentile(steady, 0.99)
    halves = f"p50 {percentile(steady, 0.5):.1f} and {percentile(within, 0.5):.1f} ms"
    detail = f"steady p99 {steady_ms:.1f} ms; {halves}; {len(kept)} of {swaps} swaps"
    spread = {"low": min(within), "high": max(within)}
    if standby:
        ratio, spread = within_ms / steady_ms, {name: ms / steady_ms for name, ms in spread.items()}
        what, more = "the same, the variant stands by: p99 / steady p99", {"unit": "x", "target": 1.3}
        return [Figure(what=what, value=ratio, samples=len(within), detail=detail, **spread, **more)]
    what, more = "calls that overlap a swap: p99", {"unit": "ms", "target": steady_ms + stall_ms}
    detail += f"; allocate_tensors {stall_ms:.1f} ms"
    return [Figure(what=what, value=within_ms, samples=len(within), detail=detail, **spread, **more)]


@dataclass(frozen=True, slots=True)
class Window:
    """When one swap was watched, and when it began and ended; in seconds."""

    opened_s: float
    begun_s: float
    ended_s: float
    closed_s: float

    def calls(self, calls: list[tuple[float, float]], *, swapped: bool) -> list[float]:
        """Milliseconds of the calls within, either of those that overlap the swap or of the others."""
        return [
            (ended_s - begun_s) * 1e3
            for begun_s, ended_s in calls
            if begun_s >= self.opened_s and ended_s <= self.closed_s
            if swapped == (begun_s < self.ended_s and ended_s > self.begun_s)
        ]


def _first_answers(path: Path, file: Path, x: Array, *, rounds: int) -> list[Figure]:
    """The two ways take turns over one file: another copy may lie otherwise in the page cache, and take 1 ms more."""
    found: list[tuple[float, tuple[float, float, float]]] = []
    with EdgeModel(path, variant="one", memory="ample") as model:
        for _ in range(rounds + 2):
            others = Others()
            _, raw_ms = _load_ms(file, x)
            begun_s = time.perf_counter()
            switch = model.begin_switch("other")
            switch.wait()
            in_force_ms = switch.took_ms or 0.0  # calls are answered by then; the old one is closed after it
            model(x)
            called_ms = (time.perf_counter() - begun_s) * 1e3
            found.append((others.share(), (raw_ms, in_force_ms, called_ms)))
            model.switch("one")
    kept = undisturbed(found[2:], fewest=max(3, rounds // 3))
    raw_ms = statistics.median(each[0] for each in kept)
    in_force, called = ([each[index] / each[0] for each in kept] for index in (1, 2))
    detail = f"raw {raw_ms:.1f} ms; {len(kept)} of {rounds} rounds"
    return [
        figure("decision until warm and in force / load + first invoke", in_force, unit="x", target=1.1, detail=detail),
        figure("  until the next call has its answer, too: one more invoke", called, unit="x"),
    ]


def _growth(place: Path, *, swaps: int) -> list[Figure]:
    place.mkdir()
    small, medium = (each.read_bytes() for each in digits.models()[:2])
    x = sample(small)
    with EdgeModel(write_bundle(place, {"one": small, "other": medium}), variant="one") as model:

        def swap(times: int) -> float:
            for number in range(times):
                model.switch("one" if number % 2 else "other")
                model(x)
            gc.collect()
            return _dirty_mb()

        before_mb = swap(200)
        after_mb = swap(swaps)
    detail = f"private dirty memory, {before_mb:.1f} MB before"
    return [
        Figure(
            what=f"growth in {swaps} swaps",
            value=after_mb - before_mb,
            unit="MB",
            samples=swaps,
            target=2.0,
            detail=detail,
        )
    ]


def _dirty_mb() -> float:
    """Memory that this process alone has written to."""
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024
