"""What a compiler for an accelerator gives, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_sdk.manifest import Coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A file that only the accelerator runs.

    Attributes:
        path: Where it lies.
        compiler: Its name, as a pass is called: `vela` or `edgetpu_compiler`.
        parameters: What the compiler was told, and its version.
        evidence: What it says of the result.
        coverage: By its own word.
        latency_ms: What it expects one inference to take on the accelerator; None where it says nothing.
        source: What that number is worth, in words.
    """

    path: Path
    compiler: str
    parameters: dict[str, bool | int | float | str]
    evidence: dict[str, bool | int | float | str] = field(default_factory=dict)
    coverage: Coverage
    latency_ms: float | None = None
    source: str = ""
