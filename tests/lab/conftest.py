"""One demonstration for all tests that look at its result."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_trial import Demonstrated, Trial


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty directory whose path is short enough for a unix socket below it."""
    folder = Path(tempfile.mkdtemp(prefix="edge-trial-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstrated]:
    """The short demonstration, with `--json`."""
    out = tmp_path_factory.mktemp("demonstration") / "demo"
    folder = Path(tempfile.mkdtemp(prefix="edge-trial-", dir="/tmp"))
    try:
        trial = Trial(out, folder, "--json", "--seconds", "24")
        status = trial.finish(240)
        yield Demonstrated(out, trial, status, trial.leftovers())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str, float], None]:
    """Waits for a condition, with a deadline."""

    def wait(found: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not found():
            assert time.monotonic() < deadline, f"{what} did not come in {limit_s:.0f} s"
            time.sleep(0.05)

    return wait
