"""The child process that runs TensorFlow: started, asked, watched and ended here.

TensorFlow stays out of this process: it takes 20 to 40 s and half a gigabyte to import, prints what nobody asked for,
leaks memory with each conversion, and can take its process down with it.
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
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edge_converter import _keras_wire as wire
from edge_converter.errors import KerasProcessError, SourceError, UnsupportedModelError
from edge_converter.sources import Framework
from edge_sdk.errors import MissingExtraError

if TYPE_CHECKING:
    from typing_extensions import Self

_END_S = 5.0
_MAX_LINE_BYTES = 1 << 16
_SHOWN_CHARS = 300
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # trains in half the time; the process fixes the number of threads it sums with
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONUNBUFFERED": "1",
}

_DOING = {wire.Prune: "prune", wire.Slim: "remove channels", wire.Qat: "fine-tune"}

_A = TypeVar("_A", wire.Ready, wire.Done)


class KerasProcess:
    """A child process with TensorFlow in it, for as long as the block lasts.

    Args:
        folder: Where its messages are kept for an error's text, and what TensorFlow leaves in temporary files.
        deadline_s: For each thing it is asked.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        KerasProcessError: The process died or did not answer in time.
    """

    def __init__(self, folder: Path, *, deadline_s: float) -> None:
        self._folder = folder
        self._messages = folder / "keras.log"
        self._deadline_s = deadline_s
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A daemon thread, so that a signal between its start and the lines that end it cannot keep this process.
        self._reader = threading.Thread(target=self._read, name="keras-answers", daemon=True)

    def __enter__(self) -> Self:
        with self._messages.open("wb") as messages:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the child in order. The child
            # ends by itself when its stdin closes, so not even `kill -9` of this process leaves it behind.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "edge_converter._keras_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                # TensorFlow writes the code it generates into temporary files and forgets them.
                env={**os.environ, **_QUIET, "TMPDIR": str(self._folder)},
                start_new_session=True,
            )
        try:
            self._reader.start()
            self._await("import TensorFlow", "the TensorFlow process", lambda _: None, wire.Ready)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def convert(self, path: Path, framework: Framework, into: Path) -> None:
        """Write the model as a float `.tflite` file.

        Raises:
            SourceError: The file cannot be read.
            UnsupportedModelError: It has a layer or an operator that cannot be converted.
            KerasProcessError: The process died or took too long.
        """
        kind = "saved_model" if framework is Framework.SAVED_MODEL else "keras"
        self._ask(wire.Convert(path=str(path.absolute()), framework=kind, into=str(into)))  # type: ignore[arg-type]
        self._await("convert", str(path), lambda _: None, wire.Done)

    def train(
        self, question: wire.Prune | wire.Slim | wire.Qat, advance: Callable[[int], None] = lambda _: None
    ) -> wire.Done:
        """Change the model, fine-tune it, and write it as a float `.tflite` file.

        Args:
            question: What to do to which `.keras` or `.h5` file.
            advance: Told how many more percent are done.

        Raises:
            SourceError: The file cannot be read.
            UnsupportedModelError: It has nothing to prune, or cannot be trained.
            KerasProcessError: The process died or took too long.
        """
        self._ask(question)
        return self._await(_DOING[type(question)], question.path, advance, wire.Done)

    def _ask(self, question: wire.Ask) -> None:
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
                raise KerasProcessError(
                    f"did not {doing} within {self._deadline_s:g} s", where=where, hint="raise --keras-deadline"
                ) from None
            if line is None:
                raise self._died(doing, where)
            try:
                answer = msgspec.json.decode(line, type=wire.Answer)
            except msgspec.DecodeError as cause:
                raise KerasProcessError(f"gave an answer that is none: {line[:80]!r}", where=where) from cause
            if isinstance(answer, wire.Failed):
                raise _failure(answer, where)
            if isinstance(answer, kind):
                return answer
            if isinstance(answer, wire.Advance):
                advance(answer.percent)

    def _died(self, doing: str, where: str) -> KerasProcessError:
        status = self._child.wait(_END_S)
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        lines = self._messages.read_text("utf-8", "replace").strip().splitlines()
        said = f" ({lines[-1][:_SHOWN_CHARS]})" if lines else ""
        return KerasProcessError(
            f"the TensorFlow process {how} while asked to {doing}{said}",
            where=where,
            hint="SIGKILL is most often the kernel out of memory: free some, or convert one model at a time",
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
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None and child.poll() is None:
                os.killpg(child.pid, sign)
            try:
                child.wait(_END_S)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._reader.is_alive():
            self._reader.join(_END_S)
        if child.stdout is not None:
            child.stdout.close()


def _failure(answer: wire.Failed, where: str) -> MissingExtraError | SourceError | UnsupportedModelError:
    if answer.kind == "missing":
        return MissingExtraError(answer.what, where=where, hint=answer.hint)
    kind = SourceError if answer.kind == "source" else UnsupportedModelError
    return kind(answer.what, where=where, hint=answer.hint)
