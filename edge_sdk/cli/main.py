"""Parses the command line, runs one command, and turns errors into one line and an exit status.

0 is done, 1 is failed, 2 is bad usage or input, 130 is interrupted. A traceback is shown only under `--debug`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from edge_sdk._version import __version__
from edge_sdk.cli.command import GROUP, Command
from edge_sdk.cli.output import say
from edge_sdk.errors import EXIT_FAILED, EXIT_USAGE, EdgeError, MissingExtraError

EXIT_INTERRUPTED = 130
_NOUNS = {
    "daemon": "the on-device daemon: senses, decides, switches",
    "hub": "the hub: sees and steers the fleet over MQTT",
    "profiles": "device profiles",
}
_EXTRA_OF = {
    "litert_quantizer": "converter", "rich": "converter", "zstandard": "converter", "PIL": "converter",
    "tensorflow": "keras", "keras": "keras", "paho": "daemon", "psutil": "daemon", "h11": "daemon",
    "starlette": "hub", "uvicorn": "hub", "gmqtt": "hub", "httpx": "hub", "iotcore": "broker",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `edge`; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    command: Command | None = getattr(args, "command", None)
    if command is None:
        (getattr(args, "parser", None) or parser).print_help(sys.stderr)
        return EXIT_USAGE
    try:
        return command.run(args)
    except KeyboardInterrupt:
        if args.debug:
            raise
        say("edge: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout went away (`edge inspect | head`): not our failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        if args.debug:
            raise
        return _report(_missing(error))
    except EdgeError as error:
        if args.debug:
            raise
        return _report(error)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all installed commands."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser = argparse.ArgumentParser(
        prog="edge",
        description="Turn a trained model into measured variants, switch them on edge boards, see the fleet.",
        parents=[shared],
    )
    parser.set_defaults(debug=False)
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    nouns: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
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
        leaf.set_defaults(command=command)
    return parser


def _commands() -> list[Command]:
    found: list[Command] = []
    for point in entry_points(group=GROUP):
        found.extend(point.load())
    return found


def _missing(error: ModuleNotFoundError) -> EdgeError:
    module = (error.name or "").partition(".")[0]
    if module in _EXTRA_OF:
        return MissingExtraError(
            f"this command needs {module}, which is not installed",
            hint=f"pip install 'adaptive-edge-sdk[{_EXTRA_OF[module]}]'",
        )
    raise error


def _report(error: EdgeError) -> int:
    say(f"edge: {error} [{error.code}]")
    return error.exit_status
