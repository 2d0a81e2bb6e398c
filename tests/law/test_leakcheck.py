"""The leak check finds what a test leaves behind, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path

import leakcheck
import pytest
from leakcheck import AbandonedTasks, Footprint, left_behind, pending_tasks

pytestmark = pytest.mark.device


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakcheck, "SETTLE_S", 0.05)


def test_a_clean_process_has_left_nothing_behind() -> None:
    assert left_behind(Footprint.now()) == []


@pytest.mark.usefixtures("_impatient")
def test_a_thread_that_still_runs_is_named() -> None:
    before, stop = Footprint.now(), threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    thread.start()
    try:
        assert left_behind(before) == ["thread 'forgotten' still runs"]
    finally:
        stop.set()
        thread.join()
    assert left_behind(before) == []


@pytest.mark.usefixtures("_impatient")
def test_an_open_file_is_named_by_its_path(tmp_path: Path) -> None:
    before = Footprint.now()
    with (tmp_path / "open.txt").open("w"):
        (leak,) = left_behind(before)
    assert "open.txt" in leak
    assert left_behind(before) == []


@pytest.mark.usefixtures("_impatient")
def test_a_child_nobody_waited_for_is_named() -> None:
    before = Footprint.now()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert any(f"child process {child.pid}" in leak for leak in left_behind(before))
    finally:
        child.communicate(b"\n", timeout=60)
    assert left_behind(before) == []


def test_a_pending_task_is_counted_until_it_is_done() -> None:
    async def story() -> None:
        before = pending_tasks()
        task = asyncio.create_task(asyncio.Event().wait())
        assert pending_tasks() - before == {task}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert pending_tasks() == before

    asyncio.run(story())


def test_what_asyncio_only_logs_of_abandoned_tasks_is_collected() -> None:
    handler = AbandonedTasks()
    for message in ("Task was destroyed but it is pending!", "Task exception was never retrieved", "other"):
        handler.emit(logging.LogRecord("asyncio", logging.ERROR, __file__, 1, message, None, None))
    assert len(handler.found) == 2
