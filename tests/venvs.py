"""Environments of others' programs, made from the package index below `build/` of the checkout and kept there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[1] / "build" / "venvs"
INSTALL_S = 600


def python_of(version: str) -> Path | None:
    """A working interpreter of this version: our own, on PATH, or among pyenv's."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    for place in filter(None, places):
        told = subprocess.run([place, "-c", "import sys; print(sys.version)"], capture_output=True, check=False)
        if told.returncode == 0 and told.stdout.decode().startswith(f"{version}."):
            return Path(place)
    return None


def environment(name: str, packages: Mapping[str, tuple[str, ...]]) -> Path:
    """The Python of an environment with these packages; made once, and anew when they change.

    Args:
        name: Of its folder.
        packages: What to install, by the version of Python; the first one that is here is taken.
    """
    found = next(((base, version) for version in packages if (base := python_of(version)) is not None), None)
    if found is None:
        pytest.skip(f"no Python of {', '.join(packages)} here")
    base, version = found
    folder, wanted = BUILD / name, "\n".join((version, *packages[version]))
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", folder], check=True, timeout=INSTALL_S)
    uv = Path(sys.executable).parent / "uv"
    install = [uv, "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    subprocess.run([*install, "-q", *packages[version]], check=True, timeout=INSTALL_S)
    stamp.write_text(wanted)
    return python
