"""Where the loader would find a shared library, found by looking at files: nothing is loaded, no program is run."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_CONF = "etc/ld.so.conf"
_PLAIN = ("usr/local/lib", "lib", "usr/lib", "lib64", "usr/lib64", "opt/lib")
_TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "armv7l": "arm-linux-gnueabihf"}
_MOST_CONF_BYTES = 64 * 1024


def find_library(names: tuple[str, ...], root: Path) -> str | None:
    """The first of these names that is there: an absolute path (on the machine, not below `root`).

    `LD_LIBRARY_PATH`, the directories of `/etc/ld.so.conf` and the usual ones are looked through, in this order.
    """
    for folder in dict.fromkeys(_folders(root)):
        for name in names:
            if (root / folder.lstrip("/") / name).is_file():
                return str(Path("/") / folder.lstrip("/") / name)
    return None


def _folders(root: Path) -> Iterator[str]:
    yield from (part for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part.startswith("/"))
    files = [root / _CONF, *map(Path, sorted(glob.glob(f"{glob.escape(str(root / _CONF))}.d/*.conf")))]  # noqa: PTH207
    for file in files:
        try:
            with file.open("rb") as conf:
                text = conf.read(_MOST_CONF_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        yield from (line.strip() for line in text.splitlines() if line.strip().startswith("/"))
    triplet = _TRIPLETS.get(platform.machine())
    for folder in _PLAIN:
        if triplet:
            yield f"{folder}/{triplet}"
        yield folder
