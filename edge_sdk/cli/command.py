"""What a package contributes to the program `edge`.

A package lists `COMMANDS` in its `commands` module and names it under the entry-point group `edge.commands`. That
module must be light: heavy imports belong inside `run`, so that `edge --help` stays fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

GROUP = "edge.commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One verb.

    Attributes:
        path: Such as `("convert",)` or `("hub", "run")`.
        summary: One line for `--help`.
        configure: Adds the arguments.
        run: Does it, and returns the exit status. May raise `EdgeError`, which `main` prints.
        has_json: The command prints a result, so it takes `--json`.
    """

    path: tuple[str, ...]
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    has_json: bool = True


def a_path(text: str) -> str:
    """For `type=` of an argument: the text as it was given.

    Raises:
        argparse.ArgumentTypeError: It is empty, as a variable is that is not set; as a path it would be this folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty, and names nothing")
    return text
