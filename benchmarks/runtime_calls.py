"""What a call through `EdgeModel` costs beyond the runtime's own, and how long it waits where four threads call.

The same file is called both ways in one run, one call after the other, so that a busy moment falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from figures import Figure, figure
from made_models import by_hand, instant, sample, write_bundle
from quiet import Others, undisturbed

from edge_lab import digits
from edge_sdk import EdgeModel

THREADS = 4


def rows(options: argparse.Namespace) -> list[Figure]:
    """The figures of this part."""
    with tempfile.TemporaryDirectory() as place:
        return [
            *_overhead(Path(place), options.rounds, quick=options.quick),
            *_waiting(Path(place), options.rounds, quick=options.quick),
        ]


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest that so large a share of the times does not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def under_threads(call: Callable[[], Any], *, enough_s: float) -> list[float]:
    """Milliseconds of each call, where several threads call without pause."""
    times: list[list[float]] = [[] for _ in range(THREADS)]
    end_s = time.perf_counter() + enough_s

    def work(mine: list[float]) -> None:
        while (begun_s := time.perf_counter()) < end_s:
            call()
            mine.append((time.perf_counter() - begun_s) * 1e3)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for mine in times for each in mine]


def _round(raw: Callable[[], Any], ours: Callable[[], Any], calls: int) -> tuple[float, tuple[float, float]]:
    """The share that others took meanwhile, and median seconds of each."""
    others = Others()
    found = _in_turns(raw, ours, calls)
    return others.share(), found


def _in_turns(raw: Callable[[], Any], ours: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Median seconds of each, called in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls):
        for index in (0, 1) if number % 2 else (1, 0):
            call = ours if index else raw
            begun_s = time.perf_counter()
            call()
            times[index].append(time.perf_counter() - begun_s)
    return statistics.median(times[0]), statistics.median(times[1])


def _overhead(place: Path, rounds: int, *, quick: bool) -> list[Figure]:
    found = []
    large, tiny = digits.models()[-1].read_bytes(), instant()
    for name, content, calls in (("large", large, 30 if quick else 100), ("tiny", tiny, 500 if quick else 2000)):
        x = sample(content)
        (place / name).mkdir()
        path, pairs = write_bundle(place / name, {name: content}), []
        for number in range(rounds + 1):
            # Anew in each round, now the one first and now the other: two interpreters of one file differ by as much
            # as 2 percent, by where their memory lies.
            file = str(place / f"{name}/{name}.tflite")
            raw = by_hand(file, x) if number % 2 else None
            with EdgeModel(path, variant=name) as model:
                pairs.append(_round(raw or by_hand(file, x), partial(model, x), calls))
        pairs = undisturbed(pairs[1:], fewest=max(3, rounds // 3))
        raw_us = statistics.median(pair[0] for pair in pairs) * 1e6
        detail = f"raw {raw_us:.2f} us, {calls} calls each a round, in turns"
        if name == "large":
            ratios = [through / alone for alone, through in pairs]
            found.append(figure("EdgeModel(x) / set, invoke, get", ratios, unit="x", target=1.01, detail=detail))
        else:
            extra = [(through - alone) * 1e6 for alone, through in pairs]
            found.append(figure("EdgeModel(x) - set, invoke, get", extra, unit="us", target=5.0, detail=detail))
    return found


def _waiting(place: Path, rounds: int, *, quick: bool) -> list[Figure]:
    content = digits.models()[-1].read_bytes()
    x = sample(content)
    (place / "queue").mkdir()
    ratios: dict[str, list[tuple[float, float]]] = {"EdgeModel": [], "a plain lock": []}
    raw, plain = by_hand(content, x), threading.Lock()

    def locked() -> None:
        with plain:
            raw()

    enough_s = 0.5 if quick else 2.0
    with EdgeModel(write_bundle(place / "queue", {"large": content}), variant="large") as model:
        for _ in range(max(3, rounds // 4)):
            single_ms, _ = (1e3 * each for each in _in_turns(raw, raw, 20))
            for name, call in (("EdgeModel", lambda: model(x)), ("a plain lock", locked)):
                others = Others()
                times = under_threads(call, enough_s=enough_s)
                ratios[name].append((others.share(), percentile(times, 0.99) / single_ms))
    return [
        figure("4 threads call: p99 / single inference", undisturbed(ratios["EdgeModel"]), unit="x", target=6.0),
        figure("  the same behind a plain lock", undisturbed(ratios["a plain lock"]), unit="x"),
    ]
