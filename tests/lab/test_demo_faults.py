"""`kill -9` of daemon, hub and broker in turn, while an app runs: nothing that the device had recorded is lost.

The device numbers what it records within each boot; what the hub's log holds must have no gap up to the last number.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_trial import Demonstrated

from edge_lab import digits
from edge_lab.stage import DEVICE, MODEL, Stage
from edge_sdk.mqtt import Report

pytestmark = pytest.mark.e2e
Eventually = Callable[[Callable[[], bool], str, float], None]
# The longest that the device waits until it sends again what nobody confirmed is a minute.
DELIVERED_S = 100.0
RECORDED_S = 30.0


@pytest.fixture
def stage(demonstrated: Demonstrated, scratch: Path) -> Iterator[Stage]:
    held_out = digits.directory() / "digits_test.npz"
    with Stage(scratch, bundle=demonstrated.bundle, data=held_out, wait=time.sleep) as up:
        up.start()
        yield up


def recorded(stage: Stage, scratch: Path) -> dict[str, int]:
    """The killed device's boot, and the number of the last message it has recorded in it.

    Read from a copy: to open a database is to put it in order, and that is for the daemon to do.
    """
    copy = Path(tempfile.mkdtemp(dir=scratch))
    for name in ("state.db", "state.db-wal"):
        if (stage.state / name).exists():
            shutil.copy(stage.state / name, copy / name)
    with contextlib.closing(sqlite3.connect(copy / "state.db")) as database:
        ((key, value),) = database.execute("SELECT key, value FROM kv WHERE key GLOB 'seq.*'").fetchall()
    return {key.partition(".")[2]: int(value)}


def logged(stage: Stage) -> dict[str, list[int]]:
    """The numbers the hub has stored, by boot, each as often as it stands there."""
    found: dict[str, list[int]] = {}
    with contextlib.closing(sqlite3.connect(stage.hub_data / "hub.db", timeout=10)) as database:
        rows = "SELECT boots.boot, log.seq FROM log JOIN boots ON boots.id = log.boot ORDER BY log.seq"
        for boot, number in database.execute(rows):
            found.setdefault(boot, []).append(number)
    return found


def test_nothing_recorded_is_lost_when_daemon_hub_and_broker_are_killed(
    stage: Stage, scratch: Path, eventually: Eventually
) -> None:
    boots: dict[str, int] = {}

    def count() -> int:
        """Messages in the hub's log and waiting on the device."""
        return sum(len(numbers) for numbers in logged(stage).values()) + stage.status().spooled

    def more() -> None:
        """Wait until the device has recorded something and the app was answered."""
        before, answers = count(), len(stage.answers)
        eventually(lambda: count() > before + 1, "more messages on the device", RECORDED_S)
        eventually(lambda: len(stage.answers) > answers + 5, "answers of the app", RECORDED_S)

    more()
    stage.kill("daemon")
    boots |= recorded(stage, scratch)
    answers = len(stage.answers)
    eventually(lambda: len(stage.answers) > answers + 5, "answers of the app without a daemon", RECORDED_S)
    stage.start_daemon()
    eventually(lambda: stage.status().models[MODEL].apps == 1, "the app at the daemon", RECORDED_S)
    more()

    stage.kill("hub")
    more()
    stage.start_hub()
    more()

    stored = stage.hub.health().messages
    killed = stage.kill_broker()
    more()
    eventually(lambda: not Path(f"/proc/{killed}").exists(), "the end of the broker", RECORDED_S)
    eventually(lambda: stage.hub.health().messages > stored, "messages by the new broker", DELIVERED_S)
    # And it is still steered: a command has its reply.
    sent = stage.hub.send([DEVICE], Report(), expires_s=60)[str(DEVICE)]
    eventually(lambda: stage.hub.command(sent).state == "done", "the reply", 60)

    # Once more, so that the device can be asked what it had recorded.
    stage.kill("hub")
    more()
    stage.kill("daemon")
    boots |= recorded(stage, scratch)
    assert len(boots) == 2
    stage.start_hub()
    assert stage.start_daemon().dropped == 0

    def missing() -> dict[str, list[int]]:
        stored = logged(stage)
        return {boot: sorted({*range(1, last + 1)} - {*stored.get(boot, ())}) for boot, last in boots.items()}

    eventually(lambda: not any(missing().values()), "all that was recorded, at the hub", DELIVERED_S)
    for numbers in logged(stage).values():
        assert len(numbers) == len(set(numbers))
    stage.stop("app")
    assert [answer.failure for answer in stage.answers if answer.failure] == []


def test_a_stage_with_the_embedded_broker_delivers_and_takes_commands(
    demonstrated: Demonstrated, scratch: Path, eventually: Eventually
) -> None:
    pytest.importorskip("iotcore")
    held_out = digits.directory() / "digits_test.npz"
    with Stage(scratch, bundle=demonstrated.bundle, data=held_out, wait=time.sleep, embedded=True) as up:
        up.start()
        assert up.hub.health().broker == "iotcore"
        eventually(lambda: up.hub.device(DEVICE).device.messages >= 2, "messages at the hub", RECORDED_S)
        sent = up.hub.send([DEVICE], Report(), expires_s=60)[str(DEVICE)]
        eventually(lambda: up.hub.command(sent).state == "done", "the reply", 60)
