"""Pieces of a page for people: numbers with their units, escaped text, tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table; `words` holds sentences, the others numbers or names."""

    name: str
    words: bool = False


def text(raw: str) -> str:
    """What a stranger may have named, safe in HTML; a number stays on the line of its percent sign."""
    return html.escape(raw, quote=True).replace(" %", "\u00a0%")


def count(number: int, thing: str) -> str:
    """A number of things, with their plural."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def factor(ratio: float) -> str:
    """How many times."""
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"  # noqa: PLR2004 - two significant digits


def ms(value: float | None) -> str:
    """A time, or a dash where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"  # noqa: PLR2004 - three significant digits


def size(size_bytes: int) -> str:
    """A number of bytes."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1_000_000 else f"{size_bytes / 1e3:.1f} kB"  # noqa: PLR2004


def chip(word: str) -> str:
    """How a number is known, as a label."""
    kind = "measured" if word == "measured" else "predicted"
    return f'<span class="chip {kind}">{text(word)}</span>'


def listed(lines: Iterable[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def table(columns: Sequence[Column], rows: Iterable[str]) -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        columns: Its header.
        rows: Made by `row` and `group`.
    """
    opened = ('<th scope="col" class="text">' if column.words else '<th scope="col">' for column in columns)
    head = "".join(f"{th}{text(column.name)}</th>" for th, column in zip(opened, columns, strict=True))
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    """One line of a table; the cells are HTML."""
    opened = ('<td class="text">' if column.words else "<td>" for column in columns)
    return f"<tr>{''.join(f'{td}{cell}</td>' for td, cell in zip(opened, cells, strict=True))}</tr>"


def group(columns: Sequence[Column], title: str) -> str:
    """A line across the table that says what the next ones have in common."""
    return f'<tr class="group"><td colspan="{len(columns)}">{text(title)}</td></tr>'
