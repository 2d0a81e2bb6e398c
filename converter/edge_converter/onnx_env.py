"""The environment that onnx2tf runs in: found where it was made before, else made, whole or not at all.

onnx2tf pins other versions of almost everything this product needs (`docs/adr/0070`), so it gets an environment of its
own: from the list `onnx-requirements.txt`, which ships with this package, below the user's cache directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_converter import child
from edge_converter.errors import OnnxEnvironmentError
from edge_converter.request import Progress
from edge_sdk.errors import UsageError

REQUIREMENTS = Path(__file__).resolve().parent / "onnx-requirements.txt"
_CACHE = "adaptive-edge-sdk"
_WHOLE = "whole"
_SHOWN_CHARS = 300
_DIGITS = 12
_POLL_S = 0.5
_TOO_NEW = (3, 13)
_FITTING = ("python3.12", "python3.11", "python3.10")
# 2 GB of wheels: 40 s from a disk, minutes from the network.
DEADLINE_S = 1800.0


def python(given: Path | None, progress: Progress, *, deadline_s: float = DEADLINE_S) -> Path:
    """An interpreter that has onnx2tf: the one given, the one made before, or one made now.

    Args:
        given: From `--onnx-python`; whether it has onnx2tf shows when it runs.
        progress: Told that an environment is made.
        deadline_s: For making it.

    Raises:
        UsageError: What was given is no program.
        OnnxEnvironmentError: It could not be made.
    """
    if given is None:
        return prepare(REQUIREMENTS, _cache(), progress, deadline_s=deadline_s)
    found = shutil.which(given)
    if found is None:
        raise UsageError("is no program", where=str(given), hint="--onnx-python names a Python that has onnx2tf")
    return Path(found).absolute()  # not resolved: a venv's python is a link, and works only by its own name


def prepare(requirements: Path, cache: Path, progress: Progress, *, deadline_s: float) -> Path:
    """The interpreter of an environment with these requirements.

    Whoever makes it holds a lock, and what counts is the marker that is written last: one that was killed half-way is
    made anew.

    Args:
        requirements: A list for pip.
        cache: The directory to keep environments in.
        progress: Told that one is made.
        deadline_s: For making it, and for waiting until somebody else has.

    Raises:
        OnnxEnvironmentError: It could not be made, or not in time.
    """
    base = _base()
    digest = hashlib.sha256(requirements.read_bytes() + str(base).encode()).hexdigest()[:_DIGITS]
    folder = cache / f"onnx-{digest}"
    interpreter = folder / "bin" / "python"
    if (folder / _WHOLE).is_file():
        return interpreter
    end = time.monotonic() + deadline_s
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{folder.name}.lock", end):
            if not (folder / _WHOLE).is_file():
                progress.stage("make an environment for onnx2tf (once; about 2 GB)", 0)
                progress.note(f"onnx2tf is installed into {folder}; --onnx-python names one that is there")
                _make(base, folder, requirements, cache / f"{folder.name}.log", end)
    except OSError as cause:
        raise OnnxEnvironmentError(
            f"cannot be made: {cause.strerror}", where=str(folder), hint="make room, or set XDG_CACHE_HOME"
        ) from cause
    return interpreter


def _base() -> str:
    """The interpreter to make it with: this one, unless it is newer than what onnx2tf's pins were built for.

    Raises:
        OnnxEnvironmentError: It is, and none of those is here.
    """
    if sys.version_info < _TOO_NEW:
        return sys.executable
    found = next((place for name in _FITTING if (place := shutil.which(name))), None)
    if found is None:
        newest = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise OnnxEnvironmentError(
            f"cannot be made for Python {newest}: onnx2tf needs 3.10 to 3.12",
            hint="install one of those beside, or name one that has onnx2tf with --onnx-python",
        )
    return found


def _make(base: str, folder: Path, requirements: Path, log: Path, end: float) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    interpreter = str(folder / "bin" / "python")
    commands: list[list[str]]
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--python", base, str(folder)],
            [uv, "pip", "install", "--python", interpreter, "-r", str(requirements)],
        ]
    else:
        commands = [
            [base, "-m", "venv", str(folder)],
            [interpreter, "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)],
        ]
    try:
        with log.open("wb") as messages:
            for command in commands:
                _run(command, messages.fileno(), log, end)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / _WHOLE).touch()
    log.unlink(missing_ok=True)


def _run(command: Sequence[str], messages: int, log: Path, end: float) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    started = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=messages,
        stderr=messages,
        env={**environment, "UV_PYTHON_DOWNLOADS": "never"},
        start_new_session=True,
    )
    try:
        status = started.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired as cause:
        raise OnnxEnvironmentError(
            "was not made in time", where=str(log), hint="--onnx-python names a Python that has onnx2tf"
        ) from cause
    finally:
        if started.poll() is None:
            child.end(started, at_once=True)
    if status != 0:
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        said = lines[-1][:_SHOWN_CHARS] if lines else f"status {status}"
        raise OnnxEnvironmentError(
            f"could not be made: {said}", where=str(log), hint="--onnx-python names a Python that has onnx2tf"
        )


@contextlib.contextmanager
def _locked(path: Path, end: float) -> Iterator[None]:
    """Alone, of all processes that want this environment; the lock goes with the process that holds it.

    Raises:
        OnnxEnvironmentError: Another held it until the deadline.
    """
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OnnxEnvironmentError("another process is still making it", where=str(path)) from None
                time.sleep(_POLL_S)
        yield


def _cache() -> Path:
    """The user's cache directory, by the XDG base directory specification."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / _CACHE
