"""`edge doctor`: what this board has, what works, what does not, and the command that mends it."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_sdk.cli import asked
from edge_sdk.cli.output import emit, one_line, say
from edge_sdk.delegates import findings
from edge_sdk.delegates.registry import find
from edge_sdk.doctor import Finding, Place, Report, State, all_checks, examine
from edge_sdk.errors import EXIT_FAILED, UsageError

_MARKS = {State.OK: "✓", State.MISSING: "-", State.WARNING: "!", State.BROKEN: "✗"}
_PLAIN = {State.OK: "+", State.MISSING: "-", State.WARNING: "!", State.BROKEN: "x"}  # where the encoding has no others
_STYLES = {"✓": "32", "+": "32", "-": "2", "!": "1;33", "✗": "1;31", "x": "1;31"}  # ANSI: green, dim, yellow, red
_WIDEST = 120
_NARROWEST = 60
_LONGEST_NAME = 24


def run(args: argparse.Namespace) -> int:
    """Look at everything, print it, and fail where nothing can run a model."""
    requests = asked.delegates(args.delegates)
    for request in requests:
        find(request)  # what makes no sense is told before anything is looked at
    model = Path(args.model) if args.model else None
    if model is not None and not model.exists():
        raise UsageError("there is no such file or bundle", where=str(model))
    kept = findings.usual()
    if args.again:
        gone = kept.forget()
        say(f"edge: forgot {gone} finding{'' if gone == 1 else 's'} of before")
    report = examine(
        Place(
            requests=requests,
            model=model,
            is_deep=args.deep or args.again or bool(requests),  # whoever names one wants it tried
            findings=kept,
        ),
        checks=all_checks(),
    )
    emit(args, report, lambda: _text(report), colour=_coloured)
    return 0 if report.works else EXIT_FAILED


def _text(report: Report) -> str:
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((100, 24)).columns))
    named = min(_LONGEST_NAME, max(len(one.what) for section in report.sections for one in section.findings))
    lines: list[str] = []
    for section in report.sections:
        if section.findings:
            lines.append(section.name.capitalize())
            lines += [line for one in section.findings for line in _lines(one, named, width)]
            lines.append("")
    return "\n".join([*lines, *_verdict(report, width)])


def _lines(one: Finding, named: int, width: int) -> Iterator[str]:
    indent = " " * (named + 6)
    first = f"  {_marks()[one.state]} {one_line(one.what).ljust(named)}  "
    yield from _wrapped(one.reason, first, indent, width)
    if one.state is State.OK and not one.command:
        return
    if one.command:  # never wrapped: it is to be copied
        yield f"{indent}$ {one_line(one.command)}" + (f"  # {one_line(one.hint)}" if one.hint else "")
    elif one.hint:
        yield from _wrapped(one.hint, indent, indent, width)


def _wrapped(text: str, first: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        one_line(text),
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _verdict(report: Report, width: int) -> list[str]:
    counts = {state: report.counted(state) for state in (State.BROKEN, State.WARNING)}
    told = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "nothing is amiss"
    if missing := report.counted(State.MISSING):
        told += f"; {missing} of what some boards have is not here"
    verdict = "Models run here" if report.works else "No model runs here"
    legend = "  ".join(f"{mark} {state.value}" for state, mark in _marks().items())
    return [*_wrapped(f"{verdict}: {told}.", "", "", width), legend]


def _marks() -> Mapping[State, str]:
    encoding = (sys.stdout.encoding if sys.stdout else None) or "ascii"
    return _MARKS if encoding.lower().replace("-", "") == "utf8" else _PLAIN


def _coloured(text: str) -> str:
    """The marks and headings in colour; after everything else was made safe to print."""
    text = re.sub(
        r"^  ([-+!x✓✗]) ", lambda mark: f"  \033[{_STYLES[mark[1]]}m{mark[1]}\033[0m ", text, flags=re.MULTILINE
    )
    text = re.sub(r"^( +)(\$ .*)$", "\\1\033[36m\\2\033[0m", text, flags=re.MULTILINE)
    return re.sub(r"^([A-Z][a-z]+)$", "\033[1m\\1\033[0m", text, flags=re.MULTILINE)
