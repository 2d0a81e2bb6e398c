"""The child process that times variants: real models, hard limits, and an end when its parent ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemon_stage import tiny_bundle, until

from edge_daemon import catalogue, measuring
from edge_daemon.config import Config
from edge_daemon.errors import BusyError, MeasurementError
from edge_daemon.measuring import ChildMeasurer
from edge_sdk.bundle import BLOBS, Bundle
from edge_sdk.manifest import Latency, Origin
from edge_sdk.wire import decode

pytestmark = [pytest.mark.device, pytest.mark.timeout(120)]

CHILD = [sys.executable, "-m", "edge_sdk.measure"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "digits-1.edge")


@pytest.fixture
def measurer(bundle: Bundle) -> ChildMeasurer:
    config = Config(models={"digits": str(bundle.path)})
    return ChildMeasurer(catalogue.read(config, None, "/"))


def measured(bundle: Bundle, variant: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """What the child answers while its standard input stays open."""
    reading, writing = os.pipe()
    try:
        command = [*CHILD, *options, str(bundle.path), variant]
        return subprocess.run(command, stdin=reading, capture_output=True, check=False, timeout=60)
    finally:
        os.close(reading)
        os.close(writing)


def test_variants_are_timed(measurer: ChildMeasurer) -> None:
    latencies = asyncio.run(measurer.measure("digits", None))
    assert [one.variant for one in latencies] == ["exact", "quick"]
    for one in latencies:
        assert one.origin is Origin.MEASURED
        assert one.samples is not None
        assert one.samples >= 10
        assert 0 < one.median_ms <= (one.p95_ms or 0)
        assert one.runtime
    assert len(asyncio.run(measurer.measure("digits", "quick"))) == 1


def test_only_one_measures_at_a_time(measurer: ChildMeasurer) -> None:
    async def scene() -> None:
        first = asyncio.ensure_future(measurer.measure("digits", "exact"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await measurer.measure("digits", "exact")
        assert await first
        assert await measurer.measure("digits", "exact")

    asyncio.run(scene())


def test_a_trial_gives_way_to_a_measurement_that_somebody_ordered(measurer: ChildMeasurer) -> None:
    async def scene() -> None:
        trial = asyncio.ensure_future(measurer.trial("digits", "quick"))
        await halted_child()  # it would stand in the way for two minutes
        with pytest.raises(BusyError):
            await measurer.trial("digits", "exact")
        assert [one.variant for one in await measurer.measure("digits", None)] == ["exact", "quick"]
        with pytest.raises(BusyError, match="gave way"):
            await trial
        assert [one.variant for one in await measurer.trial("digits", "quick")] == ["quick"]

    asyncio.run(scene())


def test_there_is_no_trial_while_an_ordered_measurement_runs(measurer: ChildMeasurer) -> None:
    async def scene() -> None:
        ordered = asyncio.ensure_future(measurer.measure("digits", "exact"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await measurer.trial("digits", "quick")
        assert await ordered

    asyncio.run(scene())


def test_a_trial_that_is_given_up_takes_its_child_along(measurer: ChildMeasurer) -> None:
    async def scene() -> None:
        trial = asyncio.ensure_future(measurer.trial("digits", "quick"))
        await halted_child()
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert await measurer.trial("digits", "quick")

    asyncio.run(scene())  # the leak check looks for the child


def test_a_model_that_does_not_load_is_one_line(bundle: Bundle, measurer: ChildMeasurer) -> None:
    blob = bundle.path / BLOBS / bundle.variant("exact").blob
    blob.write_bytes(b"\0" * blob.stat().st_size)
    with pytest.raises(MeasurementError) as caught:
        asyncio.run(measurer.measure("digits", "exact"))
    assert "\n" not in str(caught.value)


def test_a_measurement_that_is_given_up_takes_its_child_along(measurer: ChildMeasurer) -> None:
    async def scene() -> None:
        measuring = asyncio.ensure_future(measurer.measure("digits", None))
        await halted_child()
        measuring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await measuring

    asyncio.run(scene())  # the leak check looks for the child


def test_the_child_ends_with_its_parent(bundle: Bundle) -> None:
    command = [*CHILD, "--deadline-s", "60", str(bundle.path), *["exact"] * 2000]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == 3


def test_what_it_prints_is_json_and_an_error_a_line(bundle: Bundle) -> None:
    done = measured(bundle, "quick")
    assert done.returncode == 0
    assert decode(done.stdout, tuple[Latency, ...], where="test")[0].variant == "quick"
    done = measured(bundle, "nope")
    assert done.returncode == 1
    assert b"unknown-variant" in done.stderr
    assert done.stdout == b""


def test_the_deadline_bounds_the_whole(bundle: Bundle) -> None:
    began = time.monotonic()
    done = measured(bundle, "exact", "--deadline-s", "0.2")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 20


def test_a_child_that_hangs_is_killed_at_its_deadline(measurer: ChildMeasurer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_GRACE_S", 1.0)
    impatient = ChildMeasurer(measurer._catalogue, deadline_s=0.1)

    async def scene() -> None:
        running = asyncio.ensure_future(impatient.measure("digits", None))
        await halted_child()
        with pytest.raises(MeasurementError, match="not done within"):
            await running

    asyncio.run(scene())


def test_a_child_that_never_stops_talking_is_killed_at_its_deadline_too(
    measurer: ChildMeasurer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measuring, "_GRACE_S", 0.5)
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec yes"))
    impatient = ChildMeasurer(measurer._catalogue, deadline_s=0.1)

    async def scene() -> None:
        with pytest.raises(MeasurementError, match="not done within"):
            await asyncio.wait_for(impatient.measure("digits", None), 60)

    asyncio.run(scene())


def test_a_child_that_talks_all_the_time_gives_way_like_any_other(
    measurer: ChildMeasurer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def scene() -> None:
        with monkeypatch.context() as talkative:
            talkative.setattr(sys, "executable", program(tmp_path, f"touch {tmp_path}/begun; exec yes"))
            trial = asyncio.ensure_future(measurer.trial("digits", "quick"))
            began = (tmp_path / "begun").exists
            await asyncio.get_running_loop().run_in_executor(None, lambda: until(began, "the child"))
        assert await asyncio.wait_for(measurer.measure("digits", None), 60)
        with pytest.raises(BusyError, match="gave way"):
            await trial

    asyncio.run(scene())


def test_a_child_that_cannot_be_started_is_one_line(
    measurer: ChildMeasurer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-of-before"))
    for measure in (measurer.measure, measurer.trial):
        with pytest.raises(MeasurementError, match="cannot be started") as caught:
            asyncio.run(measure("digits", "quick"))
        assert "\n" not in str(caught.value)


def program(directory: Path, text: str) -> str:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


async def halted_child() -> None:
    """Wait for a child, and stop it where it is."""

    def look() -> int | None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return int(children[-1]) if children else None

    child = await asyncio.get_running_loop().run_in_executor(None, lambda: until(look, "the child"))
    os.kill(child, signal.SIGSTOP)
