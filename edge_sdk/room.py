"""How much memory is free for another engine, and how much each variant needs.

What is free is the least of what the kernel can give without swapping, what the control group of this process may
still take, and what its own limit on addresses leaves. What a variant needs is best known from its loads in this
process, else from the bundle's evidence, else it is estimated from its file and arena.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Variant

# Left alone by a swap: for the calls and the other processes that go on meanwhile. A choice; a load itself never took
# more than what it kept (peak against end, 17 models, x86-64).
RESERVE_BYTES = 32 * 2**20
# The runtime keeps a packed copy of the weights beside the mapped file, and takes 3.4 MB once. Twice the file, the
# arena and this give 46.9 MB for EfficientNet-Lite0, which took 45.0; 26.5 for a model of 11 MB, which took 25.9; 6.3
# for one of 1 MB, which took 5.8; and 3.1 to 5.1 for 13 smaller ones, which took 3.4 to 4.5 (x86-64,
# ai-edge-litert 2.3.0).
_COPIES = 2
_ONCE_BYTES = 3_000_000
_GROUPS = "sys/fs/cgroup"
_NO_LIMIT_BYTES = 2**60  # version 1 writes the largest page count there is

T = TypeVar("T")


class Room:
    """Free memory, and what the variants of one bundle take of it.

    Args:
        variants: Those that may be loaded.
        evidence: Gives what was measured of them; asked once, when it is first needed.
        root: Where `/proc` and `/sys` are, for recorded trees.
    """

    def __init__(
        self,
        variants: Iterable[Variant],
        evidence: Callable[[], Iterable[Latency]] = tuple,
        *,
        root: Path = Path("/"),
    ) -> None:
        self._variants = {each.id: each for each in variants}
        self._evidence = evidence
        self._told: dict[str, int] | None = None
        self._noted: dict[str, int] = {}
        self._root = root

    def free_bytes(self) -> int | None:
        """What another engine could take now; None where the machine does not say."""
        return free_bytes(self._root)

    def needs_bytes(self, id_: str) -> int:
        """What the variant takes, loaded and warm: an upper bound, because its first load counts what is needed once.

        A load that grew the process by less than the file found memory of an engine that was closed, or went to
        another process: it says nothing.
        """
        if self._noted.get(id_, 0) >= self._variants[id_].size_bytes:
            return self._noted[id_]
        if self._told is None:
            self._told = _told(self._evidence())
        if id_ in self._told:
            return self._told[id_]
        return estimated_bytes(self._variants[id_])

    def measured(self, id_: str, load: Callable[[], T]) -> T:
        """What `load` gives; what the process grew by meanwhile is noted, until it is enough to say something."""
        if self._noted.get(id_, 0) >= self._variants[id_].size_bytes:
            return load()
        before = resident_bytes()
        loaded = load()
        after = resident_bytes()
        if before is not None and after is not None:
            self._noted[id_] = max(after - before, self._noted.get(id_, 0))
        return loaded


def estimated_bytes(variant: Variant) -> int:
    """What a variant takes of which nothing was measured; an unknown arena counts as much as the file."""
    arena = variant.cost.arena_bytes
    return _COPIES * variant.size_bytes + (variant.size_bytes if arena is None else arena) + _ONCE_BYTES


def resident_bytes() -> int | None:
    """Of this process, mapped files included; None where `/proc` does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def free_bytes(root: Path = Path("/")) -> int | None:
    """What this process could take more without swapping, and without breaking a limit; None if nothing says."""
    # MemAvailable is in KiB (proc(5)), and counts the file pages that the kernel can drop.
    available = _field(root / "proc/meminfo", "MemAvailable:")
    found = [_left_to_addresses(root), *_left_to_groups(root)]
    if available is not None:
        found.append(available * 1024)
    return min((each for each in found if each is not None), default=None)


def _told(evidence: Iterable[Latency]) -> dict[str, int]:
    """The most that was measured on this machine; of a variant that was not, on any."""
    here: dict[str, int] = {}
    anywhere: dict[str, int] = {}
    for each in evidence:
        if each.memory_bytes is not None:
            anywhere[each.variant] = max(each.memory_bytes, anywhere.get(each.variant, 0))
            if each.machine == machine_name():
                here[each.variant] = max(each.memory_bytes, here.get(each.variant, 0))
    return anywhere | here


def _left_to_addresses(root: Path) -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used = _field(root / "proc/self/status", "VmSize:")  # KiB
    return None if used is None else max(0, limit - used * 1024)


def _left_to_groups(root: Path) -> list[int | None]:
    """Of the control group and all above it; version 2 has one tree, version 1 one for memory.

    In a container the tree begins at its own group, whatever path the kernel gives it, so that the root is asked, too.
    """
    left: list[int | None] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers == "":
            files, base = ("memory.max", "memory.current", "inactive_file"), root / _GROUPS
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / _GROUPS / "memory"
        else:
            continue
        inner = Path(path.lstrip("/"))
        places = [base] if ".." in inner.parts else [base, *(base / each for each in (inner, *inner.parents))]
        left += [_left_to_group(place, *files) for place in dict.fromkeys(places)]
    return left


def _left_to_group(place: Path, limit_file: str, used_file: str, stale_key: str) -> int | None:
    """File pages not used lately count as free, for the kernel drops them first."""
    limit, used = _number(place / limit_file), _number(place / used_file)
    if limit is None or used is None or limit >= _NO_LIMIT_BYTES:
        return None
    stale = _field(place / "memory.stat", stale_key) or 0
    return max(0, limit - used + min(stale, used))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None  # the word `max` is no number: no limit


def _field(path: Path, key: str) -> int | None:
    """The number after a word at the beginning of a line."""
    found = re.search(rf"^{re.escape(key)}\s+([0-9]{{1,20}})\b", _text(path), re.MULTILINE)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
