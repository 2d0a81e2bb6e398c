"""What this machine is called in evidence, and what its CPU can do: the same answer in converter, SDK and daemon."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_MAX_BYTES = 1 << 20
_MAX_NAME_CHARS = 200


def machine_name(root: str | os.PathLike[str] = "/") -> str:
    """The processor (or board) and the system, such as `AMD EPYC 7B13, Linux x86_64`.

    Two machines of the same name are taken to be equally fast; a host name would tell nothing.
    """
    named = [*_cpuinfo(root, "model name"), *_cpuinfo(root, "Model")]
    processor = next((name for name in named if name), platform.processor() or platform.machine())
    return f"{processor}, {platform.system()} {platform.machine()}"[:_MAX_NAME_CHARS]


def cpu_features(root: str | os.PathLike[str] = "/") -> frozenset[str] | None:
    """The features as `/proc/cpuinfo` spells them (`Features` on ARM, `flags` on x86), or None if it does not say."""
    lines = _cpuinfo(root, "Features") or _cpuinfo(root, "flags")
    return frozenset(lines[0].split()) if lines else None


def _cpuinfo(root: str | os.PathLike[str], key: str) -> list[str]:
    """The values of `key`, one for each core that has it."""
    try:
        with (Path(root) / "proc" / "cpuinfo").open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in found if name.strip() == key]
