"""Writes the README's table of boards and the boards of docs/reference/profiles.md from the device profiles.

python tools/device_table.py            write both
python tools/device_table.py --check    end with 1 if one of them is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edge_sdk import profile as profiles
from edge_sdk.cli.profiles import lines, ram
from edge_sdk.profile import Basis, Fact, Profile

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "reference" / "profiles.md"
BEGIN, END = "<!-- devices:begin -->\n", "<!-- devices:end -->"
# A figure that was measured by this project stands bare.
_MARKS = {Basis.MEASURED: "", Basis.PUBLISHED: " ᵖ", Basis.ESTIMATED: " ᵉ"}
_LEGEND = """\
ᵖ published by its maker or in a benchmark; ᵉ estimated or recalled, to be checked; bare: measured by us. The runtime is
TensorFlow Lite everywhere; *computed by* says what it can hand operators to; of these we ran the CPU only.\
"""


def table(found: tuple[Profile, ...]) -> str:
    """The README's table."""
    header = ("profile", "board", "processor", "memory", "accelerator", "computed by", "busy", "price", "run by us")
    rows = [
        (
            f"`{p.id}`",
            p.name,
            f"{p.compute.cores} x {p.compute.cpu}, {p.compute.mhz / 1000:.3g} GHz{_MARKS[p.compute.basis]}",
            f"{ram(p)}{_MARKS[p.memory.basis]}",
            _accelerator(p),
            ", ".join(delegate.value for delegate in p.variants.delegates),
            _figure(p.power.active_w, " W"),
            _figure(p.purchase.price_usd, " USD"),
            "yes" if p.hardware_tested else "not yet",
        )
        for p in found
    ]
    lines_ = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines_) + f"\n\n{_LEGEND}\n"


def page(found: tuple[Profile, ...]) -> str:
    """All boards, for the reference page."""
    parts = [""]
    for p in found:
        ran = "This project was run on it." if p.hardware_tested else "*Not yet run on hardware.*"
        rows = [("fact", "value", "basis", "source"), ("---",) * 4]
        rows += [(line.name, line.text, line.basis.value, line.source) for line in lines(p)]
        facts = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)
        wanted = ", ".join(precision.value for precision in p.variants.precisions)
        only = ", ".join(precision.value for precision in p.variants.accuracy_only)
        delegates = ", ".join(delegate.value for delegate in p.variants.delegates)
        worth = f"Worth converting: {wanted}{f'; for accuracy only: {only}' if only else ''}. Computed by: {delegates}."
        known = f"Recognised by: {', '.join(f'`{text}`' for text in (*p.compatible, *p.machine)) or 'its name alone'}."
        notes = "\n".join(f"- {note}" for note in p.notes)
        parts.append(
            "\n\n".join(part for part in (f"## {p.id}: {p.name}", ran, facts, worth, known, notes) if part) + "\n"
        )
    return "\n".join(parts)


def renewed(path: Path, fresh: str) -> str:
    """The file with this between its two marks; what people wrote around them stays."""
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path.name} lacks the lines {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}{fresh}{END}{after}"


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if something is out of date")
    args = parser.parse_args()
    found = profiles.load_all()
    wanted = {README: renewed(README, table(found)), PAGE: renewed(PAGE, page(found))}
    stale = [path for path, text in wanted.items() if path.read_text("utf-8") != text]
    if args.check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: python tools/device_table.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    return 0


def _accelerator(p: Profile) -> str:
    if not p.compute.accelerator:
        return "-"
    tops = p.compute.tops_int8
    return p.compute.accelerator + (f", {_figure(tops, ' TOPS')}" if tops is not None else _MARKS[p.compute.basis])


def _figure(fact: Fact[Any] | None, unit: str) -> str:
    return "-" if fact is None else f"{fact.value:g}{unit}{_MARKS[fact.basis]}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
