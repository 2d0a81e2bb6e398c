"""`kill -9` of daemon, hub and broker in turn, while an app runs: nothing that the device had recorded is lost.

The device numbers what it records within each boot; what the hub's log holds must have no gap up to the last number.
"""

from __future__ import annotations

import contextlib
import sqlite3
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


def recorded(stage: Stage) -> tuple[str, int]:
    """The device's boot and the number of the last message it has recorded in it."""
    with contextlib.closing(sqlite3.connect(stage.state / "state.db", timeout=10)) as database:
        rows = database.execute("SELECT key, value FROM kv WHERE key GLOB 'seq.*'").fetchall()
    return max(((key.partition(".")[2], int(value)) for key, value in rows), default=("", 0))


def dropped(stage: Stage) -> int:
    with contextlib.closing(sqlite3.connect(stage.state / "state.db", timeout=10)) as database:
        found = database.execute("SELECT value FROM kv WHERE key = 'spool.dropped'").fetchone()
    return int(found[0]) if found else 0


def logged(stage: Stage) -> dict[str, list[int]]:
    """The numbers the hub has stored, by boot, each as often as it stands there."""
    found: dict[str, list[int]] = {}
    with contextlib.closing(sqlite3.connect(stage.hub_data / "hub.db", timeout=10)) as database:
        rows = "SELECT boots.boot, log.seq FROM log JOIN boots ON boots.id = log.boot ORDER BY log.seq"
        for boot, number in database.execute(rows):
            found.setdefault(boot, []).append(number)
    return found


def test_nothing_recorded_is_lost_when_daemon_hub_and_broker_are_killed(stage: Stage, eventually: Eventually) -> None:
    boots: dict[str, int] = {}

    def note() -> int:
        boot, last = recorded(stage)
        boots[boot] = max(boots.get(boot, 0), last)
        return last

    def more(count: int) -> None:
        """Wait until the device has recorded so many more."""
        before = note()
        eventually(lambda: note() >= before + count, f"{count} more messages on the device", RECORDED_S)

    def all_delivered() -> bool:
        stored = logged(stage)
        return all(stored.get(boot) == list(range(1, last + 1)) for boot, last in boots.items())

    def answering() -> None:
        before = len(stage.answers)
        eventually(lambda: len(stage.answers) > before + 5, "answers of the app", RECORDED_S)

    more(2)
    stage.kill("daemon")
    first_boot = recorded(stage)[0]
    note()
    answering()
    stage.start_daemon()
    eventually(lambda: recorded(stage)[0] != first_boot, "messages of the second boot", RECORDED_S)
    more(1)

    stage.kill("hub")
    more(2)
    answering()
    stage.start_hub()
    more(1)

    hub_before = stage.hub().health().messages
    killed = stage.kill_broker()
    more(2)
    eventually(lambda: not Path(f"/proc/{killed}").exists(), "the end of the broker", 5)
    eventually(lambda: stage.hub().health().messages > hub_before, "messages by the new broker", DELIVERED_S)

    # And it is still steered: a command has its reply.
    sent = stage.hub().send(DEVICE, Report())
    eventually(lambda: stage.hub().command(sent).state == "done", "the reply", 30)
    # The app found its way back to the daemon of the second boot.
    eventually(lambda: stage.status().models[MODEL].apps == 1, "the app at the daemon", RECORDED_S)
    stage.stop("app")
    note()
    eventually(all_delivered, "all that was recorded, at the hub", DELIVERED_S)
    assert len(boots) == 2
    assert dropped(stage) == 0
    assert [answer.failure for answer in stage.answers if answer.failure] == []


def test_a_stage_with_the_embedded_broker_delivers_and_takes_commands(
    demonstrated: Demonstrated, scratch: Path, eventually: Eventually
) -> None:
    pytest.importorskip("iotcore")
    held_out = digits.directory() / "digits_test.npz"
    with Stage(scratch, bundle=demonstrated.bundle, data=held_out, wait=time.sleep, embedded=True) as up:
        up.start()
        assert up.hub().health().broker == "iotcore"
        eventually(lambda: up.hub().device(DEVICE).messages >= 2, "messages at the hub", RECORDED_S)
        sent = up.hub().send(DEVICE, Report())
        eventually(lambda: up.hub().command(sent).state == "done", "the reply", 30)
