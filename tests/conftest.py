"""What holds for every test: nothing is left behind, reference data is optional, CI skips no program it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import chromium
import postgres_stage
import pytest
import swiftshader
from leakcheck import Footprint, abandoned_tasks, left_behind, pending_tasks

REFERENCE_VARIABLE = "EDGE_REFERENCE_DATA"
_without_reference = pytest.StashKey[int]()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test after which a thread, task, open file or child process is left.

    Fixtures of a wider scope are set up before this one, so what they hold is part of `before`.
    """
    before, tasks_before = Footprint.now(), pending_tasks()
    with abandoned_tasks() as abandoned:
        yield
        leaks = left_behind(before)
        leaks += [f"task is pending: {task!r}" for task in pending_tasks() - tasks_before]
    leaks += abandoned
    if leaks:
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The directory of reference data; only tests marked `reference_data` may ask for it."""
    return Path(os.environ[REFERENCE_VARIABLE])


@pytest.fixture(scope="session")
def software_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process that computes on a GPU in software; see `swiftshader`."""
    found = swiftshader.folder()
    if found is None:
        pytest.skip("SwiftShader is not here: tools/swiftshader.sh fetches it where apt-get has chromium-common")
    return swiftshader.settings(found, tmp_path_factory.mktemp("vulkan"))


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a misspelt directory at once: a typo must not silently deselect tests."""
    # What a test computes is computed: a result kept by an earlier run would hide a mistake made since.
    os.environ["EDGE_CACHE"] = ""
    named = os.environ.get(REFERENCE_VARIABLE)
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"{REFERENCE_VARIABLE} names {named!r}, which is no directory")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests on reference data where there is none."""
    if os.environ.get(REFERENCE_VARIABLE):
        return
    without = [item for item in items if item.get_closest_marker("reference_data")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in set(without)]
        config.stash[_without_reference] = len(without)


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    """Say in one line what was deselected."""
    count = config.stash.get(_without_reference, 0)
    return f"{count} tests on reference data deselected: {REFERENCE_VARIABLE} is not set" if count else ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program that is not installed; in CI that fails, see below."""
    if item.get_closest_marker("broker"):
        # Debian's package puts mosquitto where an ordinary user's PATH does not look.
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
        for program in ("mosquitto", "openssl"):
            if shutil.which(program, path=path) is None:
                pytest.skip(f"{program} is not installed")
    if item.get_closest_marker("postgres"):
        if find_spec("asyncpg") is None:
            pytest.skip("asyncpg is not installed")
        if postgres_stage.binaries() is None:
            pytest.skip("postgresql is not installed")
    if item.get_closest_marker("browser") and chromium.program() is None:
        pytest.skip("chromium is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped for want of a program has failed: nobody would notice otherwise.

    On tflite-runtime what only LiteRT can do is skipped there, too.
    """
    report = yield
    has_litert = find_spec("ai_edge_litert") is not None
    needs = (
        item.get_closest_marker("broker")
        or item.get_closest_marker("postgres")
        or item.get_closest_marker("browser")
        or (has_litert and item.get_closest_marker("accelerator"))
    )
    if report.skipped and needs and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where it must run: {report.longrepr}"
    return report
