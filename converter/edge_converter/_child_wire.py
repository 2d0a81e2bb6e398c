"""What every child process of the converter can answer beside its results: one JSON object a line.

Light: it is imported on both sides.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready", forbid_unknown_fields=True):
    """What it needs is imported."""

    version: str


class Advance(msgspec.Struct, frozen=True, kw_only=True, tag="advance", forbid_unknown_fields=True):
    """This many more percent are done."""

    percent: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed", forbid_unknown_fields=True):
    """It could not be done.

    Attributes:
        kind: `missing`: the library it runs on is not installed; `source`: the file cannot be read; `unsupported`: it
            holds something that cannot be converted or pruned.
        what: One clause.
        hint: What to try.
    """

    kind: Literal["missing", "source", "unsupported"]
    what: str
    hint: str = ""
