"""What this package contributes to the program `edge`. What it does is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_sdk.cli.command import Command

_LENGTH_S = 75.0
_SHORTEST_S, _LONGEST_S = 20.0, 3600.0
_SIGNALLED = 128


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_LENGTH_S,
        metavar="S",
        help=f"how long to play (default {_LENGTH_S:g}, at least {_SHORTEST_S:g})",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where bundle and page are put (default demo)"
    )
    parser.add_argument(
        "--keras", action="store_true", help="convert from the .keras files; through TensorFlow; takes a minute more"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and databases, and say where they are")


def _demo(args: argparse.Namespace) -> int:
    from edge_lab import demo, outcome
    from edge_lab.errors import InterruptedRunError
    from edge_sdk.cli.output import emit, say

    try:
        result = demo.run(demo.Options(out=args.out, seconds=args.seconds, keras=args.keras, keep=args.keep))
    except InterruptedRunError as stopped:
        if args.debug:
            raise
        say(f"edge: {stopped}; nothing is left running")
        return _SIGNALLED + stopped.number
    emit(args, outcome.as_json(result), lambda: outcome.as_text(result))
    return 1 if result.story.work().failed else 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not _SHORTEST_S <= value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from {_SHORTEST_S:g} to {_LONGEST_S:g}")
    return value


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("demo",),
        summary="the whole story on this machine: convert, switch as conditions change, steer over MQTT",
        configure=_configure,
        run=_demo,
    ),
)
