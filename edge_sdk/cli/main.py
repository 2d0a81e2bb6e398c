"""Parses the command line, runs one command, and turns errors into one line and an exit status.

0 is done, 1 is failed, 2 is bad usage or input, 130 is interrupted. A traceback is shown only under `--debug`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from operator import eq
from typing import NoReturn, TextIO

from edge_sdk._version import __version__
from edge_sdk.cli.command import GROUP, Command
from edge_sdk.cli.output import one_line, say
from edge_sdk.errors import (
    EXIT_FAILED,
    EXIT_USAGE,
    EdgeError,
    InternalError,
    MissingExtraError,
    StorageError,
    UsageError,
)

EXIT_INTERRUPTED = 130
_MAX_WORDS = 2  # of a command: a noun and a verb, or one verb
_NOUNS = {
    "daemon": "the on-device daemon: senses, decides, switches",
    "hub": "the hub: sees and steers the fleet over MQTT",
    "profiles": "device profiles",
}
_EXTRA_OF = {
    "litert_quantizer": "converter", "rich": "converter", "zstandard": "converter", "PIL": "converter",
    "flatbuffers": "converter", "ai_edge_litert": "converter",
    "tensorflow": "keras", "keras": "keras", "paho": "daemon", "psutil": "daemon", "h11": "daemon",
    "starlette": "hub", "uvicorn": "hub", "gmqtt": "hub", "httpx": "hub", "iotcore": "broker",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `edge`; returns the exit status."""
    args = argparse.Namespace(debug=False)
    try:
        try:
            return _run(argv, args)
        finally:
            _flush()
    except (KeyboardInterrupt, Exception) as error:
        if args.debug and not isinstance(error, BrokenPipeError):
            raise
        return ended(error)


def ended(error: BaseException) -> int:
    """The exit status for what reached the top, which a line on stderr explains."""
    if isinstance(error, BrokenPipeError):
        # The reader of our stdout went away (`edge inspect | head`): not our failure.
        _silence(sys.stdout)
        return EXIT_FAILED
    if not isinstance(error, Exception):
        say("edge: interrupted")
        return EXIT_INTERRUPTED
    return _report(_explained(error))


def _run(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    parser = build_parser()
    _, unknown = parser.parse_known_args(argv, args)  # into what the caller holds, so that it knows of --debug
    parser = getattr(args, "parser", None) or parser  # of the command, which knows its own options
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Command | None = getattr(args, "command", None)
    if command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    return command.run(args)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all installed commands."""
    shared = _Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser = _Parser(
        prog="edge",
        description="Turn a trained model into measured variants, switch them on edge boards, see the fleet.",
        parents=[shared],
    )
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    nouns: dict[str, argparse._SubParsersAction[_Parser]] = {}
    for command in sorted(_commands(), key=lambda c: c.path):
        where, name = verbs, command.path[-1]
        if len(command.path) > 1:
            noun = command.path[0]
            if noun not in nouns:
                summary = _NOUNS.get(noun, noun)
                noun_parser = verbs.add_parser(noun, help=summary, description=summary, parents=[shared])
                noun_parser.set_defaults(parser=noun_parser)
                nouns[noun] = noun_parser.add_subparsers(metavar="VERB", title="verbs")
            where = nouns[noun]
        leaf = where.add_parser(name, help=command.summary, description=command.summary, parents=[shared])
        if command.has_json:
            leaf.add_argument("--json", action="store_true", help="print the result as one JSON object")
        command.configure(leaf)
        leaf.set_defaults(command=command, parser=leaf)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints its errors like all others of ours: in one line. argparse makes the parsers of verbs of the same class."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_report(UsageError(message, hint=f"'{self.prog} --help' says what there is")))


def _commands() -> list[Command]:
    found: dict[tuple[str, ...], Command] = {}
    for point in entry_points(group=GROUP):
        for command in _contributed(point):
            words = " ".join(command.path)
            if any(all(map(eq, command.path, taken)) for taken in found):  # the same words, or a noun where a verb is
                say(f"edge: {words!r} of {point.value!r} is left out: another package has it")
            else:
                found[command.path] = command
    return list(found.values())


def _contributed(point: EntryPoint) -> tuple[Command, ...]:
    """The commands of one package; somebody's plug-in must not take `edge --help` away."""
    try:
        commands = tuple(point.load())
    except Exception as error:  # noqa: BLE001 - whatever it raises
        say(f"edge: the commands of {point.value!r} are left out: {type(error).__name__}: {error}")
        return ()
    if not all(isinstance(command, Command) and 0 < len(command.path) <= _MAX_WORDS for command in commands):
        say(f"edge: the commands of {point.value!r} are left out: they are of another kind")
        return ()
    return commands


def _explained(error: Exception) -> EdgeError:
    """What to tell a person of an error that reached the top."""
    if isinstance(error, EdgeError):
        return error
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in _EXTRA_OF:
            return MissingExtraError(
                f"this command needs {module}, which is not installed",
                hint=f"pip install 'adaptive-edge-sdk[{_EXTRA_OF[module]}]'",
            )
    if isinstance(error, OSError) and error.strerror:
        return StorageError(error.strerror, where=str(error.filename or ""))
    return InternalError(
        f"this is a mistake of ours: {type(error).__name__}: {error}", hint="run it again with --debug and report it"
    )


def _flush() -> None:
    """Let a full disk or a reader that left be found here, and not by the interpreter after our last line.

    Raises:
        OSError: What was printed could not be written.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            _silence(sys.stdout)
            raise


def _silence(stream: TextIO) -> None:
    """Let the interpreter's last flush go nowhere, or it would complain once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _report(error: EdgeError) -> int:
    say(f"edge: {one_line(str(error))} [{error.code}]")
    return error.exit_status
