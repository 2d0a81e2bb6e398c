"""Plays jobs side by side, each in a process of its own; they end with us, however we end.

Each child reads jobs from its stdin and ends where that is closed; the kernel ends it when we are killed while it
computes. Ctrl-C reaches only us: the children are in sessions of their own and are stopped here.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_lab.errors import PartDiedError, PolicyFailedError
from edge_lab.simulate.trial import Failed, Job, Played, run

if TYPE_CHECKING:
    from typing_extensions import Self

_LEASH = Path(__file__).parents[1] / "_leash.py"
_CHUNK = 1 << 20
_PREFIX = 8  # bytes of a message's length
# Where we found a policy's package, the child finds it, too.
_CODE = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import main; sys.exit(main())"


def play_all(
    jobs: Sequence[Job], processes: int, told: Callable[[Job], None] = lambda _: None
) -> Iterator[tuple[int, Played]]:
    """The jobs' numbers and what came of them, as each is done.

    Args:
        jobs: What to play.
        processes: How many at once; with one, everything is played in this process.
        told: Of each job as it begins.

    Raises:
        PolicyFailedError: A policy failed.
        PartDiedError: A process ended by itself.
    """
    count = min(processes, len(jobs))
    if count <= 1:
        for number, job in enumerate(jobs):
            told(job)
            yield number, run(job)
        return
    with contextlib.ExitStack() as stack:
        waiting = list(enumerate(jobs))[::-1]
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(count):
            child = stack.enter_context(_Child())
            selector.register(child.answers, selectors.EVENT_READ, child)
            number, job = waiting.pop()
            child.ask(number, job)
            told(job)
        left = len(jobs)
        while left:
            for key, _ in selector.select():
                child = key.data
                answer = child.heard()
                if answer is None:
                    continue
                left -= 1
                yield child.number, answer
                if waiting:
                    number, job = waiting.pop()
                    child.ask(number, job)
                    told(job)


class _Child:
    """One process."""

    def __init__(self) -> None:
        self.number = -1
        self._heard = bytearray()

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), sys.executable, "-c", _CODE, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            # One processor each.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert self._popen.stdout is not None  # noqa: S101 - it was asked for
        self.answers = self._popen.stdout.fileno()
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        with contextlib.suppress(BrokenPipeError):
            self._popen.communicate()

    def ask(self, number: int, job: Job) -> None:
        """Hand it the next job; what it hands back then is of this one."""
        self.number = number
        assert self._popen.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `heard` finds
            self._popen.stdin.write(_framed(job))
            self._popen.stdin.flush()

    def heard(self) -> Played | None:
        """What it answered; None where the answer is not whole yet."""
        chunk = os.read(self.answers, _CHUNK)
        if not chunk:
            raise PartDiedError(f"a process of the simulation ended with status {self._popen.wait()}")
        self._heard += chunk
        if len(self._heard) < _PREFIX or len(self._heard) < _PREFIX + int.from_bytes(self._heard[:_PREFIX], "big"):
            return None
        answer = msgspec.msgpack.decode(self._heard[_PREFIX:], type=Played | Failed)
        self._heard.clear()
        if isinstance(answer, Failed):
            raise PolicyFailedError(answer.what, where=answer.where, hint=answer.hint)
        return answer


def _framed(value: object) -> bytes:
    """MessagePack, since JSON has no infinity, after its length."""
    packed = msgspec.msgpack.encode(value)
    return len(packed).to_bytes(_PREFIX, "big") + packed


def main() -> int:
    """The child: answer until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a policy prints is no answer
    while len(prefix := sys.stdin.buffer.read(_PREFIX)) == _PREFIX:
        job = msgspec.msgpack.decode(sys.stdin.buffer.read(int.from_bytes(prefix, "big")), type=Job)
        try:
            answer: Played | Failed = run(job)
        except PolicyFailedError as error:
            answer = Failed(what=error.what, where=error.where, hint=error.hint)
        answers.write(_framed(answer))
        answers.flush()
    return 0
