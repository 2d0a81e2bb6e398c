"""Room: memory for models, memory that processes share, and disk for bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.doctor.contract import Finding, Place, State

# A worker with a runtime and a model of 14 MB takes 50 to 75 MB (measured, x86-64).
_LITTLE_BYTES = 150 * 10**6
_LITTLE_DISK_BYTES = 500 * 10**6


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    yield _memory(place)
    yield _swap(place)
    yield _shared()
    try:
        yield _disk("disk", Path.cwd(), "for bundles")
    except OSError:
        yield Finding(what="disk", state=State.WARNING, reason="the current directory is gone", command="cd")


def _memory(place: Place) -> Finding:
    total, free = _meminfo(place, "MemTotal"), _meminfo(place, "MemAvailable")
    if total is None or free is None:
        return Finding(what="memory", state=State.WARNING, reason="/proc/meminfo does not tell it")
    reason = f"{_size(free)} of {_size(total)} are free"
    if free < _LITTLE_BYTES:
        return Finding(
            what="memory",
            state=State.WARNING,
            reason=f"{reason}: too little for two models at once, or for a worker process",
            hint="close what else runs; a swap then unloads the old model first",
        )
    return Finding(what="memory", state=State.OK, reason=reason)


def _swap(place: Place) -> Finding:
    total, free = _meminfo(place, "SwapTotal"), _meminfo(place, "SwapFree")
    if not total or free is None:
        return Finding(what="swap", state=State.OK, reason="none: latencies stay even, and memory ends hard")
    return Finding(what="swap", state=State.OK, reason=f"{_size(total - free)} of {_size(total)} in use")


def _shared() -> Finding:
    """Tensors of a worker process lie in anonymous memory (`memfd`), not in /dev/shm."""
    what = "shared memory"
    try:
        os.close(os.memfd_create("edge-doctor", os.MFD_CLOEXEC))
    except (OSError, AttributeError) as cause:
        return Finding(
            what=what,
            state=State.BROKEN,
            reason=f"memfd_create fails ({cause}): accelerators cannot compute in worker processes",
            hint="allow the system call where a container or a sandbox forbids it",
        )
    try:
        free = f"{_size(shutil.disk_usage('/dev/shm').free)} free in /dev/shm, which nothing here needs"  # noqa: S108
    except OSError:
        free = "no /dev/shm, which nothing here needs"
    return Finding(what=what, state=State.OK, reason=f"memfd works; {free}")


def _disk(what: str, place: Path, purpose: str) -> Finding:
    try:
        free = shutil.disk_usage(place).free
    except OSError as cause:
        return Finding(what=what, state=State.BROKEN, reason=f"{place}: {cause.strerror}")
    reason = f"{_size(free)} free {purpose} in {place}"
    if free < _LITTLE_DISK_BYTES:
        return Finding(
            what=what,
            state=State.WARNING,
            reason=reason,
            command="sudo apt clean",
            hint="make room: a bundle is written beside the old one before it takes its place",
        )
    return Finding(what=what, state=State.OK, reason=reason)


def _meminfo(place: Place, key: str) -> int | None:
    for line in place.text("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == key and value.split()[:1] and value.split()[0].isdigit():
            return 1024 * int(value.split()[0])
    return None


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:.0f} MB"
