"""The daemon with a policy that is slow, fails, or is not there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("paho")

from climbing import Climber
from daemon_stage import PATIENCE_S, tiny_bundle

from edge_daemon.config import Config, load
from edge_daemon.errors import UnknownPolicyError
from edge_daemon.policies import registry
from edge_daemon.policies.contract import Event as Told
from edge_daemon.policies.contract import Factory, Verdict
from edge_daemon.policy.types import AppJoined
from edge_daemon.service import Service
from edge_daemon.switcher import SLOW_STEP_S

pytestmark = [pytest.mark.device, pytest.mark.timeout(60)]

HUB = '[device]\ntenant = "t"\nname = "d"\n[mqtt]\nhost = "127.0.0.1"\nport = 1\n'
FAST = '[state]\ndirectory = "state"\n[policy]\ntick_s = 0.1\nuse = "odd"\n[models]\n'


@pytest.fixture
def config(short_path: Path, tmp_path: Path) -> Config:
    tiny_bundle(tmp_path / "digits-1.edge")
    path = short_path / "daemon.toml"
    path.write_text(f'{HUB}{FAST}digits = "{tmp_path / "digits-1.edge"}"\n')
    return load(path)


def play(service: Service, until: Callable[[], bool]) -> None:
    """Run the service with an app that joins, until something is so."""

    async def both() -> None:
        running = asyncio.ensure_future(service.run())
        try:
            joined, deadline = False, time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                if hasattr(service, "_api") and not joined:
                    await service._switcher.feed(AppJoined(app="a", model="digits"))
                    joined = True
                if running.done() or (joined and until()):
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("it did not come to this")
        finally:
            service.stop()
            await running

    asyncio.run(both())


def use(monkeypatch: pytest.MonkeyPatch, factory: Factory) -> None:
    monkeypatch.setattr(registry, "find", lambda _name: factory)


def test_a_policy_that_holds_the_daemon_up_is_told_of(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Climber):
        def step(self, state: Any, event: Told) -> tuple[Any, tuple[Verdict, ...]]:
            time.sleep(1.2 * SLOW_STEP_S)
            return super().step(state, event)

    use(monkeypatch, Slow)
    play(Service(config, socket=short_path / "s"), lambda: "the policy odd took" in caplog.text)
    assert caplog.text.count("the policy odd took") == 1  # and no more often than once a minute


def test_a_policy_that_fails_is_told_of_once_and_the_daemon_works_on(
    config: Config, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Climber):
        def step(self, state: Any, event: Told) -> tuple[Any, tuple[Verdict, ...]]:
            raise ZeroDivisionError("by nothing")

    use(monkeypatch, Failing)
    service = Service(config, socket=short_path / "s")
    states: list[bytes] = []

    def is_told() -> bool:
        ticks = service._switcher.state.now_s
        if "the policy odd failed" in caplog.text and ticks > 0.5:
            states.append(msgspec.json.encode(service._switcher.models()))
            return True
        return False

    play(service, is_told)
    assert caplog.text.count("the policy odd failed") == 1
    assert "ZeroDivisionError: by nothing" in caplog.text
    (model,) = msgspec.json.decode(states[0]).values()
    assert model["decision"]["variant"] == "quick"


def test_a_policy_that_is_not_there_ends_the_daemon_at_its_start(config: Config, short_path: Path) -> None:
    with pytest.raises(UnknownPolicyError, match="no policy 'odd'"):
        asyncio.run(Service(config, socket=short_path / "s").run())
