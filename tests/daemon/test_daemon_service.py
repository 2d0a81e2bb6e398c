"""The service in this process, where a test can set its clock and break its parts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("paho")

from daemon_stage import PATIENCE_S, tiny_bundle

from edge_daemon import service as services
from edge_daemon.clock import SystemClock
from edge_daemon.config import Config, load
from edge_daemon.service import Service
from edge_sdk.errors import InternalError
from edge_sdk.local import LocalClient, Status

pytestmark = [pytest.mark.device, pytest.mark.timeout(60)]

UNREACHABLE = """
[device]
tenant = "t"
name = "d"
[mqtt]
host = "127.0.0.1"
port = 1
[state]
directory = "state"
[policy]
tick_s = 0.1
[telemetry]
sample_every_s = 1
telemetry_every_s = 1
spool_max_age_h = 1
"""


class SteppingClock(SystemClock):
    """The machine's clock, which a test sets."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset_s


@pytest.fixture
def config(short_path: Path, tmp_path: Path) -> Config:
    tiny_bundle(tmp_path / "digits-1.edge")
    path = short_path / "daemon.toml"
    path.write_text(f'{UNREACHABLE}[models]\ndigits = "{tmp_path / "digits-1.edge"}"\n')
    return load(path)


def play(service: Service, socket: Path, scene: Callable[[Callable[[], Awaitable[Status]]], Awaitable[None]]) -> None:
    """Run the service while the scene lasts."""

    def ask() -> Status:
        with LocalClient(socket) as client:
            return client.call("GET", "/v1/status", Status)

    def listening() -> bool:
        return socket.exists()

    async def status() -> Status:
        return await asyncio.get_running_loop().run_in_executor(None, ask)

    async def both() -> None:
        running = asyncio.ensure_future(service.run())
        try:
            while not listening():
                await asyncio.wait({running}, timeout=0.02)
                if running.done():
                    break
            else:
                await scene(status)
        finally:
            service.stop()
            await running

    asyncio.run(both())


async def once(status: Callable[[], Awaitable[Status]], holds: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + PATIENCE_S
    while not holds(found := await status()):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


def test_a_clock_that_is_set_forward_or_back_loses_nothing(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "TIDY_EVERY_S", 0.2)
    clock = SteppingClock()
    clock.offset_s = -1.7e9  # a board that begins in 1970

    def told(how: str, by_s: int) -> bool:
        found = re.findall(rf"the wall clock was set {how} by (\d+) s", caplog.text)
        return any(abs(int(one) - by_s) < 60 for one in found)  # it looks at two clocks, one after the other

    async def scene(status: Callable[[], Awaitable[Status]]) -> None:
        before = await once(status, lambda s: s.spooled >= 2)
        clock.offset_s = 0.0  # it learns the time
        await once(status, lambda _: told("forward", 1_700_000_000))
        after = await once(status, lambda s: s.at > 1.6e9 and s.spooled > before.spooled)
        assert after.dropped == 0
        clock.offset_s = -100_000.0
        await once(status, lambda _: told("back", 100_000))
        assert (await once(status, lambda s: s.spooled > after.spooled)).dropped == 0

    play(Service(config, socket=short_path / "s", clock=clock), short_path / "s", scene)


def test_a_sensor_that_falls_silent_is_in_the_log_of_a_daemon_that_has_no_hub(
    short_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zone = tmp_path / "sys" / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("50000\n")
    path = short_path / "daemon.toml"
    path.write_text(f'[state]\ndirectory = "state"\n[policy]\ntick_s = 0.1\n[sensors]\nroot = "{tmp_path}"\n')

    async def scene(status: Callable[[], Awaitable[Status]]) -> None:
        await once(status, lambda s: s.conditions.temp_c == 50)
        await asyncio.sleep(services._RECORD_EVERY_S * 1.5)  # what is there at the first look is no change
        (zone / "temp").unlink()
        await once(status, lambda _: "temp_c is gone: " in caplog.text)
        (zone / "temp").write_text("50000\n")
        await once(status, lambda s: s.conditions.temp_c == 50)

    with caplog.at_level(logging.WARNING):
        play(Service(load(path), socket=short_path / "s"), short_path / "s", scene)


def test_a_vital_part_that_fails_ends_the_daemon_in_order(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(config, socket=short_path / "s")

    async def scene(_status: Callable[[], Awaitable[Status]]) -> None:
        def broken() -> None:
            raise KeyError("a mistake of ours")

        monkeypatch.setattr(service._sensors, "read", broken)
        await asyncio.wait_for(service._tasks.failed.wait(), PATIENCE_S)

    with pytest.raises(InternalError, match="log says which"):
        play(service, short_path / "s", scene)
    assert "policy failed; the daemon stops" in caplog.text
    assert not (short_path / "s").exists()
    assert Service(config, socket=short_path / "s")._socket == short_path / "s"


def test_a_part_that_is_not_vital_begins_anew(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from edge_daemon import tasks

    monkeypatch.setattr(tasks, "RESTART_AFTER_S", 0.1)
    service = Service(config, socket=short_path / "s")
    failures = []

    async def scene(status: Callable[[], Awaitable[Status]]) -> None:
        well = service._recorder.sample

        def broken(*arguments: object) -> bool:
            failures.append(1)
            monkeypatch.setattr(service._recorder, "sample", well)
            raise KeyError("a mistake of ours")

        spooled = (await status()).spooled
        monkeypatch.setattr(service._recorder, "sample", broken)
        await once(status, lambda s: bool(failures) and s.spooled > spooled)

    play(service, short_path / "s", scene)
    assert "telemetry failed; it begins anew" in caplog.text


def test_a_part_that_hangs_at_the_end_is_left_behind(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "STOP_S", 0.2)
    service = Service(config, socket=short_path / "s")

    async def scene(_status: Callable[[], Awaitable[Status]]) -> None:
        async def hang() -> None:
            await asyncio.sleep(3600)

        monkeypatch.setattr(service._switcher, "save", hang)
        service._closing = [(n, hang if n == "policy" else close, limit) for n, close, limit in service._closing]

    play(service, short_path / "s", scene)
    assert "the policy did not end within" in caplog.text


def test_a_start_that_fails_leaves_nothing(config: Config, short_path: Path) -> None:
    (short_path / "s").write_text("somebody's file")
    service = Service(config, socket=short_path / "s")
    with pytest.raises(Exception, match="no socket"):
        asyncio.run(service.run())
    (short_path / "s").unlink()
    again = Service(config, socket=short_path / "s")

    async def scene(status: Callable[[], Awaitable[Status]]) -> None:
        assert (await status()).models

    play(again, short_path / "s", scene)
