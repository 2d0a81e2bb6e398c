"""Writes docs/reference/cli.md from the program's own parser; `--check` fails where it is out of date.

From the parser's actions rather than its help text, whose layout differs between versions of Python.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_sdk.cli.main import build_parser

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
HEAD = """\
# Commands

<!-- Written by tools/cli_reference.py from the program itself; do not edit. -->

Results go to stdout, messages and progress to stderr. `--json` prints the result as one JSON object. Exit status: 0 done,
1 failed, 2 bad usage or input, 130 interrupted. An error is one line, `edge: WHERE: WHAT; WHAT TO TRY [CODE]`, with a code
from [the list](errors.md); `--debug` shows the traceback.
"""


def page() -> str:
    """The page's text."""
    return "\n".join([HEAD, *_sections(build_parser(), "edge")]).rstrip() + "\n"


def _sections(parser: argparse.ArgumentParser, path: str) -> list[str]:
    lines: list[str] = []
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if path != "edge" and not subs:
        rows = [row for action in parser._actions if (row := _row(action))]
        lines += [f"## {path}", "", _sentence(parser.description or ""), ""]
        lines += ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []
    for sub in subs:
        for name, child in sub.choices.items():
            lines += _sections(child, f"{path} {name}")
    return lines


def _row(action: argparse.Action) -> str:
    if action.dest in {"help", "debug", "json"}:
        return ""
    names = " ".join(action.option_strings) or _metavar(action)
    if action.option_strings and action.nargs != 0:
        names += f" {_metavar(action)}"
    meaning = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    if action.choices:
        meaning += f" ({', '.join(map(str, action.choices))})"
    meaning = _sentence(meaning).replace("|", r"\|")
    return f"| `{names}` | {meaning} |"


def _metavar(action: argparse.Action) -> str:
    name = action.metavar or (action.dest if not action.option_strings else action.dest.upper())
    text = " ".join(name) if isinstance(name, tuple) else str(name)
    return f"{text}..." if action.nargs in {"+", "*"} and not text.endswith("...") else text


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def main() -> int:
    """Write or check the page; returns the exit status."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE.name} is out of date: run python tools/cli_reference.py")
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
