"""The program itself: light to start, one line for an error, the documented exit status, quiet when cut off."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edge_sdk.bundle import Bundle
from edge_sdk.cli.command import Command, Later
from edge_sdk.cli.main import build_parser, main
from edge_sdk.errors import ConfigError, EdgeError

pytestmark = pytest.mark.device

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"
program = importlib.import_module("edge_sdk.cli.main")  # by attribute it is the function

HEAVY = {
    "numpy", "msgspec", "asyncio", "sqlite3", "ssl", "tensorflow", "keras", "torch", "ai_edge_litert", "tflite_runtime",
    "litert_quantizer", "PIL", "rich", "zstandard", "psutil", "paho", "h11", "starlette", "uvicorn", "gmqtt", "httpx",
    "iotcore",
}  # fmt: skip


def edge(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, its output buffered as for a user."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    given = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60} | options
    return subprocess.run([sys.executable, "-m", "edge_sdk.cli", *args], check=False, **given)  # type: ignore[call-overload, no-any-return]  # options of run


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from edge_sdk.cli.main import build_parser; build_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert {name.partition(".")[0] for name in done.stdout.split()} & HEAVY == set()


def test_help_names_every_command_and_ends_well() -> None:
    done = edge("--help")
    assert done.returncode == 0
    for word in ("convert", "daemon", "demo", "hub", "inspect", "profiles", "run"):
        assert f"\n    {word} " in done.stdout


def test_what_a_command_imports_when_it_runs_is_there() -> None:
    for command in program._commands():
        if isinstance(command.run, Later):
            try:
                assert callable(command.run.function())
            except ModuleNotFoundError as missing:  # what only one place needs may be absent here
                if str(missing.name).startswith("edge_"):
                    raise


def commands(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    if parser.get_default("command") is not None:
        return [(parser.prog, parser)]
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [found for sub in subs for child in sub.choices.values() for found in commands(child)]


ALL = commands(build_parser())


@pytest.mark.parametrize(("name", "parser"), ALL, ids=[name for name, _ in ALL])
def test_every_command_has_a_summary_a_debug_switch_and_helps(
    name: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parser.description
    options = {option for action in parser._actions for option in action.option_strings}
    assert "--debug" in options
    arguments = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in arguments if not action.help] == []
    with pytest.raises(SystemExit) as ended:
        main([*name.split()[1:], "--help"])
    assert ended.value.code == 0
    assert parser.description.split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["profiles"], ["hub"], ["daemon"]])
def test_half_a_command_is_answered_with_what_there_is_and_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("usage: edge")


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["profiles", "nonsense"],
        ["inspect"],
        ["inspect", "a", "b", "c"],
        ["--nonsense"],
        ["inspect", "--nonsense"],
        ["run", "x", "--data", "y", "--limit", "0"],
        ["run", "x", "--data", "y", "--threads", "\u0663"],
        ["run", "x", "--data", "y", "--threads", "257"],
        ["run", "x", "--data", "y", "--limit", "9" * 5000],
        ["\udcff\x1b[2J"],
    ],
)
def test_bad_usage_is_2_and_one_line_that_says_where_to_read_on(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("edge: ")
    command = " ".join(["edge", *(word for word in args[:2] if word in {"profiles", "inspect", "run"})])
    assert line.endswith(f"; '{command} --help' says what there is [usage]")
    assert "\x1b" not in told.err


# ------------------------------------------------------------------------------------- how a command can end


def command(run) -> Command:
    return Command(path=("try",), summary="try it", configure=lambda _: None, run=run)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What `edge try` says and returns where its command does this."""

    def of(run, *args: str) -> tuple[int, str]:
        monkeypatch.setattr(program, "_commands", lambda: [command(run)])
        return main(["try", *args]), capsys.readouterr().err

    return of


def raising(error: BaseException):
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


MISSING = (
    "edge: this command needs litert_quantizer, which is not installed; pip install 'adaptive-edge-sdk[converter]' "
    "[missing-extra]"
)
OURS = "edge: this is a mistake of ours: {}; run it again with --debug and report it [internal]"


def test_the_status_of_a_command_is_the_programs(ends) -> None:
    assert ends(lambda _: 0) == (0, "")
    assert ends(lambda _: 1) == (1, "")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (EdgeError("it broke"), 1, "edge: it broke [failed]"),
        (ConfigError("bad key", where="a.toml", hint="mend it"), 2, "edge: a.toml: bad key; mend it [config]"),
        (EdgeError("one\nedge: all is well [done]\x1b[2J"), 1, r"edge: one edge: all is well [done]\x1b[2J [failed]"),
        (ModuleNotFoundError("No module", name="litert_quantizer.x"), 2, MISSING),
        (OSError(28, "No space left on device", "/data/x"), 1, "edge: /data/x: No space left on device [storage]"),
        (ZeroDivisionError("by\nzero"), 1, OURS.format("ZeroDivisionError: by zero")),
        (RecursionError(), 1, OURS.format("RecursionError: ")),
        (KeyboardInterrupt(), 130, "edge: interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
)
def test_an_error_is_one_line_and_a_status(ends, error: BaseException, status: int, line: str, monkeypatch) -> None:
    monkeypatch.setattr(program, "_silence", lambda _: None)  # pytest's stand-in for stdout has no descriptor
    assert ends(raising(error)) == (status, line + "\n" * bool(line))


@pytest.mark.parametrize("error", [EdgeError("it broke"), ZeroDivisionError(), KeyboardInterrupt()])
@pytest.mark.parametrize("args", [["try", "--debug"], ["--debug", "try"]])
def test_under_debug_the_traceback_is_python_s_own(args: list[str], error: BaseException, monkeypatch) -> None:
    monkeypatch.setattr(program, "_commands", lambda: [command(raising(error))])
    with pytest.raises(type(error)):
        main(args)


def test_no_traceback_unless_asked_for() -> None:
    without, asked = edge("inspect", "/no/such.edge"), edge("inspect", "/no/such.edge", "--debug")
    assert (without.returncode, without.stdout, without.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in without.stderr
    assert "Traceback" in asked.stderr


# --------------------------------------------------------------------------------------------- somebody's plug-in


def plugged(monkeypatch: pytest.MonkeyPatch, *values: object) -> None:
    class Point(EntryPoint):
        def load(self) -> object:
            value = values[int(self.name)]
            if isinstance(value, Exception):
                raise value
            return value

    points = [Point(name=str(number), value=f"plugin{number}:C", group="g") for number in range(len(values))]
    monkeypatch.setattr(program, "entry_points", lambda **_: points)


ours = Command(path=("hub", "run"), summary="ours", configure=lambda _: None, run=lambda _: 0)


@pytest.mark.parametrize(
    "theirs",
    [
        ImportError("no such thing"),
        None,
        7,
        ("hub",),
        (Command(path=(), summary="", configure=lambda _: None, run=lambda _: 0),),
        (Command(path=("a", "b", "c"), summary="", configure=lambda _: None, run=lambda _: 0),),
        (Command(path=("hub", "run"), summary="theirs", configure=lambda _: None, run=lambda _: 7),),
        (Command(path=("hub",), summary="theirs", configure=lambda _: None, run=lambda _: 7),),
    ],
)
def test_a_broken_or_greedy_plug_in_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], theirs: object
) -> None:
    plugged(monkeypatch, (ours,), theirs)
    assert main(["hub", "run"]) == 0
    assert "plugin1:C" in capsys.readouterr().err


def test_a_plug_in_adds_a_verb_to_a_noun_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Command(path=("hub", "sing"), summary="theirs", configure=lambda _: None, run=lambda _: 0)
    plugged(monkeypatch, (ours,), (theirs,))
    assert main(["hub", "sing"]) == main(["hub", "run"]) == 0


# --------------------------------------------------------------------------------------------- cut off, interrupted


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["profiles", "list"], ["profiles", "show", "rpi4", "--json"]]
)
def test_a_reader_that_left_is_no_reason_to_complain(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = edge(*args, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("args", [["--help"], ["profiles", "list"], ["profiles", "list", "--json"]])
def test_output_that_cannot_be_written_is_said_once(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = edge(*args, stdout=full)
    assert (done.returncode, done.stderr) == (1, "edge: No space left on device [storage]\n")


def test_nobody_to_tell_is_no_mistake_of_ours() -> None:
    code = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, sys.argv[1:])"
    for args, status in ((["profiles", "list"], 0), (["inspect", "/no/such.edge"], 2)):
        given = [sys.executable, "-c", code, sys.executable, "-m", "edge_sdk.cli", *args]
        done = subprocess.run(given, check=False, timeout=60)
        assert done.returncode == status


def _reader_of(pipe: Path) -> int | None:
    """The writing end of a named pipe, once somebody reads it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def _sleeps_with(pid: int, file: Path) -> bool:
    """Whether a process has a file open and waits: a signal before that would be lost between Python's last look for
    one and the system call that blocks."""
    state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    return state == "S" and str(file) in map(_target, Path(f"/proc/{pid}/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


@pytest.mark.parametrize(("debug", "status"), [([], 130), (["--debug"], -signal.SIGINT)])
def test_ctrl_c_ends_it_with_one_line(
    make_bundle: Callable[..., Bundle], tmp_path: Path, debug: list[str], status: int
) -> None:
    """A named pipe for data: the program waits in it until it is interrupted."""
    os.mkfifo(tmp_path / "data")
    bundle = make_bundle(
        contents={"dense_fp32": (TINY / "dense_fp32.tflite").read_bytes()},
        inputs=[{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        outputs=[{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
    )
    args = [sys.executable, "-m", "edge_sdk.cli", "run", str(bundle.path), "--data", str(tmp_path / "data"), *debug]
    env = {**os.environ, "EDGE_DAEMON_SOCKET": str(tmp_path / "no.sock")}
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
        deadline = time.monotonic() + 60
        while (writer := _reader_of(tmp_path / "data")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            while not _sleeps_with(child.pid, tmp_path / "data"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            child.send_signal(signal.SIGINT)
            said, complaint = child.communicate(timeout=60)
        finally:
            os.close(writer)  # so that it reads an end, whatever became of the signal
            child.kill()
    assert (child.returncode, said) == (status, "")
    assert ("Traceback" in complaint) == bool(debug)
    # The runtime greets on stderr.
    assert debug or complaint.splitlines()[-1] == "edge: interrupted"
