"""Several variants made at once, each in a child process, as many as processors and free memory allow.

The children do nothing but fill the cache: what they leave there is read back as if it had been made before. Variants
that begin with the same passes are not started side by side before those are done, so nothing is computed twice.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_converter import _crew_wire as wire
from edge_converter.cache import Cache
from edge_converter.candidates import Planned
from edge_converter.child import AnsweringChild, Worker
from edge_converter.errors import CrewProcessError
from edge_converter.passes import Room

# Multiply-accumulates of all calibration samples below which a process of its own (a second to start) is not worth it.
_WORTH_A_PROCESS = 5e9
# What a child takes: both streams of a model's activations, the patches of a layer (`compensate`), and the libraries.
_CHILD_BYTES = 2_500_000_000
_START_S = 120.0
_FLOATS_OF_A_MODEL = 6  # copies of it that are held at once
_WORKER = Worker(
    name="quantization",
    module="_crew_worker",
    answers=wire.Answer,
    error=CrewProcessError,
    option="--variant-deadline",
    # One processor each, and sums in one order whatever the number of processors.
    environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
)


def is_worth_it(planned: Sequence[Planned], room: Room) -> bool:
    """Whether making these takes so long that processes of their own pay."""
    return max((one.macs for one in planned), default=0) * len(room.rows) >= _WORTH_A_PROCESS


def workers(planned: Sequence[Planned]) -> int:
    """How many to make at once."""
    largest = max((one.file.path.stat().st_size for one in planned), default=0)
    fit = _free_bytes() // (_CHILD_BYTES + _FLOATS_OF_A_MODEL * largest)
    return int(max(1, min(len(os.sched_getaffinity(0)), len(planned), fit)))


def fill(planned: Sequence[Planned], room: Room, cache: Cache, *, deadline_s: float) -> dict[str, str]:
    """Make every variant of a plan, and leave the results in the cache.

    Args:
        planned: What to make.
        room: What passes may use.
        cache: With a place of its own.
        deadline_s: One variant may take this long.

    Returns:
        By the id of each variant that could not be made: why.
    """
    jobs = _Jobs([one for one in planned if one.steps[-1].key not in cache], cache)
    samples = room.folder / "calibration.npz"
    np.savez(samples, *room.samples.read(room.rows))
    reasons: dict[str, str] = {}
    done: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    count = jobs.left
    room.progress.stage("quantize", count)
    members = [
        _Member(number, jobs, _Shared(room=room, samples=samples, cache=cache, deadline_s=deadline_s), done)
        for number in range(workers(planned) if count else 0)
    ]
    try:
        for member in members:
            member.start()
        for _ in range(count):
            # Whoever waits, waits for one that is being made, and that ends in time.
            id_, reason = done.get(timeout=deadline_s + _START_S)
            if reason:
                reasons[id_] = reason
            room.progress.advance(1)
    finally:
        jobs.stop()
        for member in members:
            member.end()
    return reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What every member needs for every job."""

    room: Room
    samples: Path
    cache: Cache
    deadline_s: float

    def question(self, one: Planned, number: int) -> wire.Make:
        room = self.room
        return wire.Make(
            floating=str(one.file.path),
            recipe=one.recipe,
            begin=one.begin,
            samples=str(self.samples),
            cache=str(self.cache.place),
            folder=str(room.folder / f"crew-{number}"),
            where=str(one.file.path),
            threads=room.threads,
            seed=room.seed,
            max_size=room.max_size,
        )


class _Jobs:
    """What is to be made, handed out so that no step is computed by two at once."""

    def __init__(self, planned: Sequence[Planned], cache: Cache) -> None:
        self._waiting = list(planned)
        self._running: dict[str, frozenset[str]] = {}
        self._cache = cache
        self._changed = threading.Condition()
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Nothing is to be made any more."""
        return self._is_stopped

    @property
    def left(self) -> int:
        """How many nobody has taken."""
        return len(self._waiting)

    def take(self) -> Planned | None:
        """The next that shares no unknown step with one that is being made; None when nothing is left."""
        with self._changed:
            while self._waiting and not self._is_stopped:
                busy = frozenset[str]().union(*self._running.values())
                for one in self._waiting:
                    unknown = frozenset(step.key for step in one.steps if step.key not in self._cache)
                    if not unknown & busy:
                        self._waiting.remove(one)
                        self._running[one.id] = unknown
                        return one
                self._changed.wait()
            return None

    def done(self, one: Planned) -> None:
        with self._changed:
            del self._running[one.id]
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()


class _Child(AnsweringChild):
    """A process that makes variants."""

    def make(self, question: wire.Make) -> str:
        """Make one; returns why it cannot be made, or an empty text.

        Raises:
            CrewProcessError: The process died or took too long.
        """
        self._ask(question)
        return self._await("make a variant", question.where, lambda _: None, wire.Made).refused

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._end()


class _Member:
    """A thread that asks one child after the other: a child that dies costs one variant, and another is started."""

    def __init__(self, number: int, jobs: _Jobs, shared: _Shared, done: queue.SimpleQueue[tuple[str, str]]) -> None:
        self._number, self._jobs, self._shared, self._done = number, jobs, shared, done
        self._child: _Child | None = None
        self._thread = threading.Thread(target=self._work, name=f"crew-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop the child and wait for the thread; the jobs are stopped, so it takes no other."""
        child = self._child
        if child is not None:
            child.stop()
        self._thread.join()

    def _work(self) -> None:
        folder = self._shared.room.folder / f"crew-{self._number}"
        folder.mkdir()
        while (one := self._jobs.take()) is not None:
            try:
                with _Child(_WORKER, folder, deadline_s=self._shared.deadline_s) as child:
                    self._child = child
                    while one is not None and not self._jobs.is_stopped:
                        self._answer(one, child.make(self._shared.question(one, self._number)))
                        one = self._jobs.take()
            except CrewProcessError as error:  # noqa: PERF203 - another child takes its place
                if one is not None:
                    self._answer(one, error.what)
            finally:
                self._child = None

    def _answer(self, one: Planned, reason: str) -> None:
        self._jobs.done(one)
        self._done.put((one.id, reason))


def _free_bytes() -> int:
    """Memory that can be had without swapping, as the kernel estimates it; a gigabyte where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return 1_000_000_000
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(found) * 1024 if found is not None and found.isdigit() else 1_000_000_000
