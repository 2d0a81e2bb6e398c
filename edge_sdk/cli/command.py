"""What a package contributes to the program `edge`.

A package lists `COMMANDS` in its `commands` module and names it under the entry-point group `edge.commands`. That
module must be light: heavy imports belong behind `run` (`Later` does them), so that `edge --help` stays fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Later:
    """What a command does: a function by its module and name, imported when it is called."""

    module: str
    name: str

    def __call__(self, args: argparse.Namespace) -> int:
        """Call it."""
        done: int = self.function()(args)
        return done

    def function(self) -> Callable[..., Any]:
        """Import it."""
        found: Callable[..., Any] = getattr(import_module(self.module), self.name)
        return found


def a_path(text: str) -> str:
    """For `type=` of an argument: the text as it was given.

    Raises:
        argparse.ArgumentTypeError: It is empty, as a variable is that is not set; as a path it would be this folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty, and names nothing")
    return text
