"""Runs everything that must hold, stage by stage, and says at the end what did not.

    python tools/check.py               all stages
    python tools/check.py lint suite    these stages
    python tools/check.py --list        what there is

Stages that need another Python are run where one is found and named where none is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
VENVS = ROOT / "build" / "venvs"
STAGE_LIMIT_S = 60 * 60
# Run beside the others where there are processors for both: they share nothing but the sources.
BESIDE = ("wheel", "tflite", "py310", "py313")
_END_S = 30.0
# Where they are: the other folders import what a device has not.
DEVICE_TESTS = ("-m", "device", "tests/sdk", "tests/daemon")
# TensorFlow reads the same files wherever they lie: that every worker is in the wheel is what has to be seen.
KERAS_ON_WHEEL = "every_kind_of_file or trained_for_int8"
TORCH = "torch==2.13.0"
SWIFTSHADER = ROOT / "build" / "swiftshader" / "usr" / "lib" / "chromium"
# What a device test needs beside the device install.
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")


class StageFailedError(Exception):
    """A stage did not hold."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing that must hold."""

    name: str
    summary: str
    run: Callable[[], str]
    default: bool = True


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a command, showing it; a failure ends the stage."""
    words = [str(word) for word in command]
    print(f"  $ {' '.join(words)}", flush=True)
    base = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    settings = base | {"UV_PYTHON_DOWNLOADS": "never", "PYTHONDONTWRITEBYTECODE": "1"} | (env or {})
    if SWIFTSHADER.exists():  # tests on a copy of the checkout find it by this
        settings["EDGE_SWIFTSHADER"] = str(SWIFTSHADER)
    try:
        status = subprocess.run(words, cwd=cwd, env=settings, check=False, timeout=STAGE_LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        raise StageFailedError(f"{words[0]} took longer than {STAGE_LIMIT_S} s") from None
    if status != 0:
        raise StageFailedError(f"{Path(words[0]).name} ended with {status}")


def lint() -> str:
    """Style, format, types, architecture."""
    run(BIN / "ruff", "check", ".")
    run(BIN / "ruff", "format", "--check", ".")
    run(BIN / "mypy")
    run(BIN / "lint-imports")
    return "ruff, mypy --strict, import contracts"


def suite() -> str:
    """All tests, on the checkout; those with clients and servers of others here alone."""
    run(BIN / "python", "-m", "pytest", "-q", "--durations=25", "-m", "not torch and not onnx and not schemathesis")
    return "all tests on the checkout"


def quick() -> str:
    """The tests that need neither TensorFlow nor minutes."""
    run(
        BIN / "python",
        "-m",
        "pytest",
        "-q",
        "-m",
        "not keras and not e2e and not torch and not onnx and not thirdparty and not schemathesis and not interop",
    )
    return "the fast tests"


def api() -> str:
    """Thousands of made-up questions to the API of a hub."""
    run(BIN / "python", "-m", "pytest", "-q", "-m", "schemathesis", "tests/hub")
    return "schemathesis on the hub's API"


def wheel() -> str:
    """All tests on the built wheel, the sources out of the way; of those on TensorFlow, what runs its workers."""
    python = venv("wheel", Path(sys.executable), "dev", constraints="constraints.txt")
    with tests_apart() as place:
        chosen = "not keras and not torch and not onnx and not thirdparty and not schemathesis and not interop"
        run(python, "-m", "pytest", "-q", "-m", chosen, cwd=place)
        run(python, "-m", "pytest", "-q", "-m", "keras", "-k", KERAS_ON_WHEEL, "tests/converter", cwd=place)
    return "all tests on the built wheel, of TensorFlow's a few"


def tflite() -> str:
    """The device tests on tflite-runtime 2.14 with numpy 1."""
    interpreter = find_python("3.11")
    if interpreter is None:
        return "SKIPPED: no Python 3.11 here, and tflite-runtime has no wheel for a newer one"
    python = venv(
        "tflite", interpreter, "tflite,daemon", constraints="constraints-tflite.txt", without=("ai-edge-litert",)
    )
    with tests_apart() as place:
        run(python, "-m", "pytest", "-q", *DEVICE_TESTS, "tests/accelerator", cwd=place, env={"EDGE_RUNTIME": "tflite"})
    return "device tests on tflite-runtime"


def device(version: str) -> Callable[[], str]:
    """The device tests on another Python, with the device install alone."""

    def stage() -> str:
        interpreter = find_python(version)
        if interpreter is None:
            return f"SKIPPED: no Python {version} here"
        python = venv(f"device-{version}", interpreter, "daemon", constraints="constraints.txt")
        listed = subprocess.run(
            [BIN / "uv", "pip", "list", "--python", python, "-q"], capture_output=True, text=True, check=True
        ).stdout.lower()
        for heavy in ("tensorflow", "keras", "torch", "starlette", "fastapi", "uvicorn", "scipy"):
            if heavy in listed:
                raise StageFailedError(f"the device install pulls {heavy}")
        with tests_apart() as place:
            run(python, "-m", "pytest", "-q", *DEVICE_TESTS, cwd=place)
        return f"device tests on Python {version}"

    return stage


def torch() -> str:
    """The tests on PyTorch sources, in an environment of gigabytes."""
    wheel_ = built_wheel()
    folder = VENVS / "torch"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    # pip, and PyTorch by itself first: where a CPU build of this release is at hand, nothing after asks for another.
    run(python, "-m", "pip", "install", "-q", TORCH)
    run(python, "-m", "pip", "install", "-q", f"{wheel_}[converter,torch]", *TEST_TOOLS)
    with tests_apart() as place:
        # anyio's plugin, which comes with something PyTorch's converter needs, warns under the newest pytest.
        what = ("-p", "no:anyio", "-m", "torch", "tests/converter/test_torch_sources.py")
        run(python, "-m", "pytest", "-q", *what, cwd=place)
    return "the tests on PyTorch sources"


def onnx() -> str:
    """The tests on ONNX sources; they make the environment of onnx2tf where it is not there."""
    run(BIN / "python", "-m", "pytest", "-q", "-m", "onnx", "tests/converter/test_onnx_sources.py")
    return "the tests on ONNX sources"


def constraints() -> str:
    """Pin the newest allowed versions."""
    common = ("pip", "compile", "--universal", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "-q")
    bounds = ROOT / "build" / "bounds.in"
    bounds.parent.mkdir(exist_ok=True)
    # 1.3 says Python < 3.11; pip keeps to that and uv does not, so uv would pin what pip then refuses.
    bounds.write_text("backports-strenum<1.3\n")
    command = ("--custom-compile-command", "make constraints", "pyproject.toml", "--upgrade", "-c", bounds)
    run(BIN / "uv", *common, *command, "--extra", "dev", "--python-version", "3.10", "-o", "constraints.txt")
    tools = ROOT / "build" / "test-tools.in"
    tools.write_text("\n".join(TEST_TOOLS) + "\n")
    device = ("--extra", "tflite", "--extra", "daemon", "--python-version", "3.10", "-o", "constraints-tflite.txt")
    run(BIN / "uv", *common, *command, str(tools), *device)
    return "constraints.txt and constraints-tflite.txt"


STAGES = (
    Stage("lint", "style, types, architecture", lint),
    Stage("suite", "all tests on the checkout", suite),
    Stage("wheel", "the tests on the built wheel, the sources out of the way", wheel),
    Stage("tflite", "device tests on tflite-runtime 2.14, numpy 1, Python 3.11", tflite),
    Stage("py310", "device tests on Python 3.10", device("3.10")),
    Stage("py313", "device tests on Python 3.13", device("3.13")),
    Stage("quick", "the fast tests on the checkout", quick, default=False),
    Stage("api", "thousands of made-up questions to the hub's API", api, default=False),
    Stage("torch", "PyTorch sources, in an environment of gigabytes", torch, default=False),
    Stage("onnx", "ONNX sources, by onnx2tf in its environment of gigabytes", onnx, default=False),
    Stage("constraints", "pin versions anew", constraints, default=False),
)


# -------------------------------------------------------------------------------------------------------- tools


def find_python(version: str) -> Path | None:
    """A working interpreter of this version: on PATH, or among pyenv's."""
    places = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places += [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
    for place in filter(None, places):
        probe = subprocess.run(
            [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode == 0 and probe.stdout.strip() == version:
            return Path(place)
    return None


def built_wheel() -> Path:
    """The wheel of this checkout, built through the sdist so that both are known to be whole."""
    target = ROOT / "build" / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    run(BIN / "python", "-m", "build", "--installer", "uv", "--outdir", target, ".", env={"PATH": _path_with_uv()})
    return next(target.glob("*.whl"))


def _path_with_uv() -> str:
    return f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"


_WHEEL: list[Path] = []


def venv(name: str, interpreter: Path, extras: str, *, constraints: str, without: tuple[str, ...] = ()) -> Path:
    """A fresh environment with the wheel and the test tools; returns its Python."""
    if not _WHEEL:
        _WHEEL.append(built_wheel())
    folder = VENVS / name
    shutil.rmtree(folder, ignore_errors=True)
    run(BIN / "uv", "venv", "-q", "--python", interpreter, folder)
    python = folder / "bin" / "python"
    install = (BIN / "uv", "pip", "install", "-q", "--python", python)
    run(*install, "-c", ROOT / constraints, f"{_WHEEL[0]}[{extras}]", *TEST_TOOLS)
    if without:
        run(BIN / "uv", "pip", "uninstall", "-q", "--python", python, *without)
    return python


class tests_apart:  # noqa: N801 - reads as a verb phrase at its use
    """A copy of what the tests need, in a directory from which the sources cannot be imported."""

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-tests-")
        place = Path(self._folder.name)
        ignore = shutil.ignore_patterns("__pycache__")
        for name in (
            "tests",
            "docs",
            "examples",
            "tools",
            *(path.name for path in ROOT.glob("*.md")),
            "pyproject.toml",
        ):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, place / name, ignore=ignore)
            elif source.exists():
                shutil.copy(source, place / name)
        return place

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def main() -> int:
    """Run the stages asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--list", action="store_true", help="list the stages")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{stage.name:12} {stage.summary}" for stage in STAGES))
        return 0
    known = {stage.name: stage for stage in STAGES}
    if unknown := [name for name in args.stages if name not in known]:
        parser.error(f"unknown stage {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in args.stages] or [stage for stage in STAGES if stage.default]
    if args.stages or (os.cpu_count() or 1) < 2:  # noqa: PLR2004 - two lanes
        return in_turn(chosen)
    signal.signal(signal.SIGTERM, _end)
    lane = Lane(BESIDE)
    with lane:
        status = in_turn([stage for stage in chosen if stage.name not in BESIDE])
        return max(status, lane.finish())


def _end(number: int, _frame: object) -> None:
    """A CI that gives up on us says so: what we started ends with us."""
    sys.exit(128 + number)


class Lane:
    """Stages that run in a process of their own; what it says is shown when it has ended."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self._stages = stages

    def __enter__(self) -> None:
        self._said = tempfile.TemporaryFile("w+")
        command = [sys.executable, __file__, *self._stages]
        self._process = subprocess.Popen(command, stdout=self._said, stderr=subprocess.STDOUT, start_new_session=True)
        print(f"beside: {', '.join(self._stages)}; shown at the end", flush=True)

    def finish(self) -> int:
        """Wait for it; its exit status."""
        print(f"\n=== beside: {', '.join(self._stages)}", flush=True)
        status = self._process.wait(len(self._stages) * STAGE_LIMIT_S)
        self._said.seek(0)
        shutil.copyfileobj(self._said, sys.stdout)
        return status

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            for sign in (signal.SIGTERM, signal.SIGKILL):  # with all that it started
                os.killpg(self._process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_S)
                    break
        self._said.close()


def in_turn(chosen: list[Stage]) -> int:
    """Run stages one after the other, and say what came of each; the exit status."""
    outcomes: list[tuple[str, bool, str]] = []
    for stage in chosen:
        print(f"\n=== {stage.name}: {stage.summary}", flush=True)
        begun = time.monotonic()
        try:
            text, good = stage.run(), True
        except (StageFailedError, subprocess.CalledProcessError, OSError) as error:
            text, good = f"FAILED: {error}", False
        outcomes.append((stage.name, good, f"{text} ({time.monotonic() - begun:.0f} s)"))
    print()
    for name, good, text in outcomes:
        print(f"{'ok  ' if good else 'FAIL'} {name:10} {text}")
    return 0 if all(good for _, good, _ in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
