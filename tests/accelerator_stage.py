"""The mock accelerator (tests/accelerator/mock_delegate.c), compiled here and now."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_sdk.delegates import DelegateRequest, Delegation

SOURCE = Path(__file__).parent / "accelerator" / "mock_delegate.c"


def compiled(folder: Path) -> Path:
    """The library. Where there is no C compiler the test is skipped, in CI it fails."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler, and in CI the mock accelerator must run")
        pytest.skip("no C compiler")
    library = folder / "libmock_delegate.so"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, SOURCE, "-lm"], check=True, timeout=120)
    return library


def delegation(library: Path, *, exclusive: bool = False, **options: object) -> Delegation:
    """The mock, as `find` would give it."""
    return Delegation(name="mock", library=str(library), options=_text(options), exclusive=exclusive)


def request(library: Path, **options: object) -> DelegateRequest:
    """The mock, as an app asks for it."""
    return DelegateRequest(name="external", library=str(library), options=_text(options))


def _text(options: dict[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in options.items()}
