"""What an app is told travels in words it knows, and news reach one that waits."""

from __future__ import annotations

import asyncio

import pytest

from edge_daemon.apps import App, Apps
from edge_daemon.policy.types import Assign
from edge_sdk.local import SPEAKS, AppReport, AppUsage, Register
from edge_sdk.mqtt import Because, Decision

pytestmark = pytest.mark.device

BECAUSE = Because(code="thermal", text="heat binds", runner_up="large", margin=0.5, numbers={"cap_w": 1.5})


def joined(apps: Apps, *, speaks: int) -> App:
    app = apps.join(Register(model="digits", speaks=speaks), "digits", 0, 0.0)
    decision = Decision(model="digits", variant="small", because=BECAUSE, at=1.0)
    app.assign(Assign(app=app.id, decision=decision, pinned_by=None))
    return app


def test_an_app_hears_of_advice_while_it_waits() -> None:
    async def scene() -> None:
        app = joined(Apps(), speaks=SPEAKS)
        serial = app.serial
        waiting = asyncio.ensure_future(app.changed_after(serial, 5.0))
        await asyncio.sleep(0)
        app.advise(4.0)
        await asyncio.wait_for(waiting, 1.0)
        told = app.assignment(None)
        assert told is not None
        assert (told.most_per_s, told.serial, told.because) == (4.0, serial + 1, BECAUSE)
        app.advise(4.0)
        assert app.serial == serial + 1

    asyncio.run(scene())


def test_an_app_of_version_1_is_told_neither_advice_nor_numbers() -> None:
    app = joined(Apps(), speaks=1)
    app.advise(4.0)
    told = app.assignment(20.0)
    assert told is not None
    assert (told.most_per_s, told.because.margin, told.because.numbers) == (None, None, {})
    assert (told.because.text, told.max_latency_ms) == (BECAUSE.text, 20.0)


def test_an_app_from_the_future_speaks_what_the_daemon_does() -> None:
    assert joined(Apps(), speaks=SPEAKS + 7).speaks == SPEAKS


def test_an_accelerator_at_its_limit_is_hot_until_it_is_clearly_below() -> None:
    apps = Apps()
    app = joined(apps, speaks=SPEAKS)
    seen = []
    for temp_c in (80.0, 85.0, 83.0, None, 81.0):
        usage = AppUsage(name="edgetpu", temp_c=temp_c, limit_c=85.0)
        apps.reported(app, AppReport(active="small", usage=usage))
        seen.append(app.hot)
    assert seen == [False, True, True, True, False]
