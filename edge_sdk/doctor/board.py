"""The board, its system, and the Python this runs in."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterator

from edge_sdk import profile
from edge_sdk.doctor.contract import Finding, Place, State
from edge_sdk.errors import ProfileError
from edge_sdk.machine import machine_name

_GLIBC = (2, 27)  # what wheels of ai-edge-litert 2 ask for (manylinux_2_27)


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    yield _board(place)
    yield _system(place)
    yield _python(place)
    yield _glibc()


def _board(place: Place) -> Finding:
    named = profile.board_name(place.root)
    try:
        found = profile.recognise(place.root, machine=place.machine)
    except ProfileError as error:
        return Finding(what="board", state=State.BROKEN, reason=f"the profiles cannot be read: {error.what}")
    known = found.profile
    name = named or f"{machine_name(place.root)}, no device tree"
    if known is None:
        return Finding(
            what="board",
            state=State.WARNING,
            reason=f"{name}; no profile knows it",
            command="edge profiles list",
            hint="name the profile that is closest with --profile, or write one (docs/reference/profiles.md)",
        )
    if found.left_out:
        return Finding(
            what="board",
            state=State.WARNING,
            reason=f"{name}; profile {known.id} ({known.name}), and a profile was left out: {found.left_out[0]}",
        )
    return Finding(what="board", state=State.OK, reason=f"{name}; profile {known.id} ({known.name})")


def _system(place: Place) -> Finding:
    lines = dict(line.partition("=")[::2] for line in place.text("etc/os-release").splitlines())
    name = lines.get("PRETTY_NAME", "").strip('"') or platform.system()
    return Finding(what="system", state=State.OK, reason=f"{name}, kernel {platform.release()}")


def _python(place: Place) -> Finding:
    bits = 8 * struct.calcsize("P")
    reason = f"{platform.python_version()}, {bits} bits, {sys.prefix}"
    if bits < 64 and place.machine in {"aarch64", "x86_64"}:  # noqa: PLR2004
        return Finding(
            what="python",
            state=State.WARNING,
            reason=f"{reason}: a 32-bit Python on a 64-bit processor, for which ai-edge-litert has no wheel",
            hint="install the 64-bit system; it is also faster",
        )
    return Finding(what="python", state=State.OK, reason=reason)


def _glibc() -> Finding:
    library, version = platform.libc_ver()
    if library != "glibc":
        return Finding(
            what="glibc",
            state=State.BROKEN,
            reason="another C library than glibc, for which no runtime has a wheel",
            hint="take a system with glibc, such as Debian",
        )
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if found < _GLIBC:
        return Finding(
            what="glibc",
            state=State.WARNING,
            reason=f"{version}, older than the 2.27 that ai-edge-litert 2 needs",
            command="pip install 'adaptive-edge-sdk[tflite]'",
            hint="needs Python 3.11 or older",
        )
    return Finding(what="glibc", state=State.OK, reason=version)
