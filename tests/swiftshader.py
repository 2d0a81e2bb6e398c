"""Where SwiftShader is, a Vulkan driver in software: with it a machine without a GPU computes as one with a GPU does.

`tools/swiftshader.sh`, which `make test` runs, fetches it. It is for child processes: the loader reads the settings
once, and a driver is nothing to have in the process of the tests.
"""

from __future__ import annotations

import os
from pathlib import Path

# Names the folder for tests that run on a copy of the checkout.
VARIABLE = "EDGE_SWIFTSHADER"

_LOADER = "libvulkan.so.1"
_DRIVER = "vk_swiftshader_icd.json"
_INSTALLED = Path("/usr/lib/chromium")
_FETCHED = Path(__file__).resolve().parent.parent / "build" / "swiftshader" / "usr" / "lib" / "chromium"


def folder() -> Path | None:
    """The folder that holds driver and loader, or None."""
    named = os.environ.get(VARIABLE)
    places = [*([Path(named)] if named else []), _INSTALLED, _FETCHED]
    return next((each for each in places if (each / _LOADER).exists() and (each / _DRIVER).exists()), None)


def settings(found: Path, empty: Path) -> dict[str, str]:
    """The environment of a child process that is to compute on it.

    Args:
        found: From `folder`.
        empty: A directory to put the loader into, alone: beside the driver lie libraries a browser has for itself.
    """
    loader = empty / _LOADER
    if not loader.exists():
        loader.symlink_to(found / _LOADER)
    return dict(os.environ) | {"LD_LIBRARY_PATH": str(empty), "VK_ICD_FILENAMES": str(found / _DRIVER)}
