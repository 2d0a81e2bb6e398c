"""A child process that answers questions, one JSON object a line: started, asked, watched and ended here.

What is heavy, leaks memory, prints what nobody asked for or can take its process down with it (TensorFlow, PyTorch,
onnx2tf) runs in one. What is asked of it is decided in `edge_converter.keras_process`, `torch_process`, `onnx_process`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_converter import _child_wire as wire
from edge_converter.errors import ChildProcessDiedError, SourceError, UnsupportedModelError
from edge_sdk import scratch
from edge_sdk.errors import MissingExtraError

if TYPE_CHECKING:
    from typing_extensions import Self

_END_S = 5.0
_MAX_LINE_BYTES = 1 << 16
_SHOWN_CHARS = 300

_A = TypeVar("_A", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Which process is started, and what people call it.

    Attributes:
        name: What it runs, such as `TensorFlow`.
        module: Of this package, run with `-m`.
        answers: The union of what it may answer.
        error: What is raised where it dies or takes too long.
        option: Of the command line, that raises its deadline.
        environment: Added to this process's.
        python: The interpreter; this one, if nothing is said.
    """

    name: str
    module: str
    answers: Any
    error: type[ChildProcessDiedError]
    option: str
    environment: Mapping[str, str] = field(default_factory=dict)
    python: Path = Path(sys.executable)


class AnsweringChild:
    """A child process that answers, for as long as the block lasts.

    Args:
        worker: Which.
        folder: Where its messages are kept for an error's text, and what it leaves in temporary files.
        deadline_s: For each thing it is asked.

    Raises:
        MissingExtraError: What it runs is not installed.
        ChildProcessDiedError: The process died or did not answer in time.
    """

    def __init__(self, worker: Worker, folder: Path, *, deadline_s: float) -> None:
        self._worker = worker
        self._folder = folder
        self._messages = folder / f"{worker.module}.log"
        self._deadline_s = deadline_s

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A daemon thread, so that a signal between its start and the lines that end it cannot keep this process.
        self._reader = threading.Thread(target=self._read, name=f"{self._worker.name}-answers", daemon=True)
        with self._messages.open("wb") as messages:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the child in order. The child
            # ends by itself when its stdin closes, so not even `kill -9` of this process leaves it behind.
            self._child = subprocess.Popen(
                [str(self._worker.python), "-m", f"edge_converter.{self._worker.module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                # Such libraries write the code they generate into temporary files and forget them.
                env={**os.environ, **self._worker.environment, "TMPDIR": str(self._folder), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        try:
            self._reader.start()
            self._await(f"import {self._worker.name}", f"the {self._worker.name} process", lambda _: None, wire.Ready)
        except BaseException:
            self._end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def renew(self) -> None:
        """End the child, wherever it is, and start another: after an error of it, when more is to be asked.

        Raises:
            ChildProcessDiedError: The new one died or did not start in time.
        """
        self._end()
        self._start()

    def _ask(self, question: msgspec.Struct) -> None:
        stdin = self._child.stdin
        try:
            if stdin is not None:
                stdin.write(msgspec.json.encode(question) + b"\n")
                stdin.flush()
        except BrokenPipeError:
            pass  # it died: `_await` finds out why

    def _await(self, doing: str, where: str, advance: Callable[[int], None], kind: type[_A]) -> _A:
        deadline = time.monotonic() + self._deadline_s
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._worker.error(
                    f"did not {doing} within {self._deadline_s:g} s", where=where, hint=f"raise {self._worker.option}"
                ) from None
            if line is None:
                raise self._died(doing, where)
            try:
                answer = msgspec.json.decode(line, type=self._worker.answers)
            except msgspec.DecodeError as cause:
                raise self._worker.error(f"gave an answer that is none: {line[:80]!r}", where=where) from cause
            if isinstance(answer, wire.Failed):
                raise _failure(answer, where, scratch.little_room(self._folder))
            if isinstance(answer, kind):
                return answer
            if isinstance(answer, wire.Advance):
                advance(answer.percent)

    def _died(self, doing: str, where: str) -> ChildProcessDiedError:
        status = self._child.wait(_END_S)
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        lines = self._messages.read_text("utf-8", "replace").strip().splitlines()
        said = f" ({lines[-1][:_SHOWN_CHARS]})" if lines else ""
        return self._worker.error(
            f"the {self._worker.name} process {how} while asked to {doing}{said}",
            where=where,
            hint=scratch.little_room(self._folder)
            or "SIGKILL is most often the kernel out of memory: free some, or convert one model at a time",
        )

    def _read(self) -> None:
        stdout = self._child.stdout
        while stdout is not None and (line := stdout.readline(_MAX_LINE_BYTES)):
            self._answers.put(line)
        self._answers.put(None)

    def _end(self) -> None:
        """Ask it to go, then make it; its whole session, whatever it may have started."""
        child = self._child
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        end(child)
        if self._reader.is_alive():
            self._reader.join(_END_S)
        if child.stdout is not None:
            child.stdout.close()


def end(child: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """Wait a little for a child that leads a session, or not, then make the whole session end."""
    for sign in (signal.SIGTERM, signal.SIGKILL) if at_once else (None, signal.SIGTERM, signal.SIGKILL):
        if sign is not None and child.poll() is None:
            os.killpg(child.pid, sign)
        try:
            child.wait(_END_S)
            break
        except subprocess.TimeoutExpired:
            continue


def _failure(answer: wire.Failed, where: str, room: str) -> MissingExtraError | SourceError | UnsupportedModelError:
    if answer.kind == "missing":
        return MissingExtraError(answer.what, where=where, hint=answer.hint)
    kind = SourceError if answer.kind == "source" else UnsupportedModelError
    # What a framework says of a full disk names anything but that.
    return kind(answer.what, where=where, hint=room or answer.hint)
