"""What `edgetpu_compiler` says, as values: its output on the terminal and its `.log` file, with different headers.

The same operator stands there several times with different statuses. Where everything is mapped, the lines that count
the operators on either side are missing; so what counts is the table. Samples: versions 14 and 15 of the compiler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_converter.errors import CompilerError
from edge_sdk.manifest import Coverage

MAPPED = "Mapped to Edge TPU"
_MAX_TEXT = 1000
_ROW = re.compile(r"^(?P<op>[A-Za-z][A-Za-z0-9_-]{0,80}) +(?P<count>[0-9]{1,9}) +(?P<status>\S.*?) *$", re.MULTILINE)
_VERSION = re.compile(r"^Edge TPU Compiler version (?P<version>[0-9][0-9.]{0,40})", re.MULTILINE)
_SIZE = r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)(?P<unit>B|KiB|MiB|GiB)"
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SUBGRAPHS = re.compile(r"^Number of Edge TPU subgraphs: (?P<number>[0-9]{1,6})", re.MULTILINE)
_MEMORY = {
    "cached_bytes": "On-chip memory used for caching model parameters",
    "free_bytes": "On-chip memory remaining for caching model parameters",
    "streamed_bytes": "Off-chip memory used for streaming uncached model parameters",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the compiler said of one model.

    Attributes:
        version: Of the compiler; empty where it is not said.
        coverage: How many operators it mapped, and what became of the others, in its words.
        memory: `cached_bytes` and `free_bytes` on the chip, `streamed_bytes` at every inference; what is not said is
            not there.
        subgraphs: How many parts it compiled; None where it is not said.
    """

    version: str
    coverage: Coverage
    memory: dict[str, int]
    subgraphs: int | None


def parse(text: str) -> Log:
    """Read what it printed or logged.

    Raises:
        CompilerError: There is no table of operators in it.
    """
    rows = [(found["op"], int(found["count"]), found["status"]) for found in _ROW.finditer(text)]
    if not rows:
        raise CompilerError("says nothing of the operators", where="edgetpu_compiler", hint="its version is not known")
    total = sum(count for _, count, _ in rows)
    staying = [row for row in rows if row[2] != MAPPED]
    why = tuple(f"{op}{f' x{count}' if count > 1 else ''}: {status}"[:_MAX_TEXT] for op, count, status in staying)
    version, subgraphs = _VERSION.search(text), _SUBGRAPHS.search(text)
    return Log(
        version=version["version"] if version else "",
        coverage=Coverage(delegated=total - sum(count for _, count, _ in staying), total=total, why=why),
        memory={name: size for name, line in _MEMORY.items() if (size := _bytes(text, line)) is not None},
        subgraphs=int(subgraphs["number"]) if subgraphs else None,
    )


def _bytes(text: str, line: str) -> int | None:
    found = re.search(rf"^{re.escape(line)}: {_SIZE}", text, re.MULTILINE)
    return round(float(found["number"]) * _UNITS[found["unit"]]) if found else None
