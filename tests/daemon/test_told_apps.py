"""What an app is told travels in words it knows, and news reach one that waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_daemon.apps import App, Apps
from edge_daemon.hearing import heard_of
from edge_daemon.policy.types import AppCannotAsk, AppReported, Assign
from edge_sdk.local import SPEAKS, AppReport, AppUsage, AssignedServer, Register
from edge_sdk.mqtt import Because, Decision
from edge_sdk.wire import encode

pytestmark = pytest.mark.device

BECAUSE = Because(code="thermal", text="heat binds", runner_up="large", margin=0.5, numbers={"cap_w": 1.5})


SERVER = AssignedServer(url="http://board-2:8080", model="digits")


def joined(apps: Apps, *, speaks: int, asks: bool = False) -> App:
    app = apps.join(Register(model="digits", speaks=speaks), "digits", 0, 0.0)
    decision = Decision(model="digits", variant="small", because=BECAUSE, at=1.0)
    app.assign(Assign(app=app.id, decision=decision, pinned_by=None, asks=asks))
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


@given(speaks=st.integers(1, 1000), asks=st.booleans(), rate=st.none() | st.floats(0, 1e9))
def test_an_app_from_before_servers_never_sees_one(speaks: int, asks: bool, rate: float | None) -> None:
    app = joined(Apps(), speaks=speaks, asks=asks)
    app.advise(rate)
    told = app.assignment(20.0, SERVER)
    assert told is not None
    assert told.server == (SERVER if asks and speaks >= 3 else None)
    assert (b'"server"' in encode(told)) == (asks and speaks >= 3)
    assert told.most_per_s == (rate if speaks >= 2 else None)


@pytest.mark.parametrize("field", ["token_file", "ca_file"])
@pytest.mark.parametrize("speaks", [2, 3, 4, 1000])
def test_an_app_from_before_tokens_never_sees_a_server_that_needs_one(speaks: int, field: str) -> None:
    server = msgspec.structs.replace(SERVER, **{field: "/etc/edge/file"})
    told = joined(Apps(), speaks=speaks, asks=True).assignment(20.0, server)
    assert told is not None
    assert told.server == (server if speaks >= 4 else None)


def test_that_an_app_was_shut_out_comes_after_what_it_was_answered_before() -> None:
    apps = Apps()
    app = joined(apps, speaks=SPEAKS, asks=True)
    report = AppReport(active="small", calls=3, sent=2, replied=2, server_failure="the server answers 401")
    heard = heard_of(apps, app, report, now_s=1.0, now=1e9)
    assert [type(event) for event in heard.events] == [AppReported, AppCannotAsk]


def test_to_ask_the_server_is_news_for_the_same_variant() -> None:
    app = joined(Apps(), speaks=SPEAKS)
    serial, assigned = app.serial, app.assigned
    assert assigned is not None
    assert app.assign(replace(assigned, asks=True))
    assert not app.assign(replace(assigned, asks=True))
    assert app.serial == serial + 1


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
