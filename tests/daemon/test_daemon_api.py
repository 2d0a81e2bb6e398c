"""The local API of a daemon that runs: apps, operators, and what they are told when they ask for the impossible."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from daemon_stage import PATIENCE_S, DaemonProcess, reporting, serving, until

from edge_sdk._unix_http import UnixConnection
from edge_sdk.bundle import Bundle
from edge_sdk.errors import CommandError, DaemonUnreachableError, EdgeError, PinnedError, UnknownVariantError, WireError
from edge_sdk.local import (
    SPEAKS,
    AppPin,
    AppPrefer,
    AppReport,
    AppUsage,
    Assignment,
    Done,
    Explanation,
    LocalClient,
    PinRequest,
    PreferRequest,
    Register,
    Registered,
    UnpinRequest,
)
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import decode

pytestmark = [pytest.mark.device, pytest.mark.timeout(90)]

MakeDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def board(daemon: MakeDaemon, digits: Bundle) -> DaemonProcess:
    board = daemon(serving(digits.path))
    board.start()
    return board


@pytest.fixture
def client(board: DaemonProcess):
    with LocalClient(board.socket) as client:
        yield client


def register(client: LocalClient, **fields: Any) -> Registered:
    return client.call("POST", "/v1/apps", Registered, Register(**{"model": "digits", "name": "test", **fields}))


def report(client: LocalClient, app: Registered, active: str, **fields: Any) -> Assignment:
    body = AppReport(active=active, **{"calls": 10, "p50_ms": 1.0, "p95_ms": 2.0, **fields})
    return client.call("POST", f"/v1/apps/{app.app}/report", Assignment, body)


def order(client: LocalClient, verb: str, body: Any) -> str:
    return client.call("POST", f"/v1/{verb}", Done, body).text


def test_an_app_is_told_what_to_run_and_shown_with_what_it_runs(
    board: DaemonProcess, client: LocalClient, digits: Bundle
) -> None:
    app = register(client, pid=1)
    assert app.model == "digits"
    assert app.bundle == str(digits.path)
    assert app.assignment.variant == "exact"
    assert app.assignment.because.code == "start"
    assert report(client, app, "exact") == app.assignment
    status = board.status()
    assert [(a.name, a.pid, a.active, a.calls, a.p50_ms) for a in status.apps] == [
        ("test", os.getpid(), "exact", 10, 1.0)
    ]
    assert status.models["digits"].active == "exact"
    assert client.call("DELETE", f"/v1/apps/{app.app}", Done).text == "goodbye"
    assert board.status().apps == ()


def test_an_app_is_found_by_the_content_of_its_bundle(client: LocalClient, digits: Bundle) -> None:
    assert register(client, model=None, manifest=digits.manifest_sha256).model == "digits"
    for asked in (
        {"model": None, "manifest": "0" * 64},
        {"model": "digits", "manifest": "0" * 64},
        {"model": "x"},
        {"model": None},
    ):
        with pytest.raises(CommandError) as caught:
            register(client, **asked)
        assert caught.value.code == "unknown-model"


def test_a_change_reaches_an_app_that_waits_for_it_at_once(board: DaemonProcess, client: LocalClient) -> None:
    app = register(client)
    report(client, app, app.assignment.variant)
    found: list[Assignment] = []

    def wait() -> None:
        with LocalClient(board.socket) as waiting:
            query = f"?after={app.assignment.serial}&wait_s=30"
            found.append(waiting.call("GET", f"/v1/apps/{app.app}/assignment{query}", Assignment, timeout_s=40))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    assert order(client, "pin", PinRequest(model="digits", variant="quick")) == "digits is pinned to quick"
    thread.join(PATIENCE_S)
    assert time.monotonic() - began < 20
    assert [(a.variant, a.pinned_by, a.serial) for a in found] == [("quick", "operator", app.assignment.serial + 1)]


def test_waiting_ends_when_its_time_is_over(client: LocalClient) -> None:
    app = register(client)
    began = time.monotonic()
    path = f"/v1/apps/{app.app}/assignment?after={app.assignment.serial}&wait_s=0.3"
    assert client.call("GET", path, Assignment) == app.assignment
    assert 0.2 < time.monotonic() - began < 20  # less than it waits for who does not say


def test_who_waits_is_answered_when_the_daemon_ends(board: DaemonProcess, client: LocalClient) -> None:
    app = register(client)
    waiting = UnixConnection(board.socket, PATIENCE_S)
    waiting.request("GET", f"/v1/apps/{app.app}/assignment?after={app.assignment.serial}&wait_s=60")
    for _ in range(3):
        board.status()  # asked after it, answered after it was read
    assert board.stop() == 0
    answer = waiting.getresponse().read()
    waiting.close()
    assert decode(answer, Assignment, where="test") == app.assignment


def test_words_count_by_rank(client: LocalClient) -> None:
    app = register(client)
    pinned = client.call("POST", f"/v1/apps/{app.app}/pin", Assignment, AppPin(variant="quick"))
    assert (pinned.variant, pinned.pinned_by) == ("quick", "app")
    order(client, "pin", PinRequest(model="digits", variant="exact"))
    told = report(client, app, "quick")
    assert (told.variant, told.pinned_by) == ("exact", "operator")
    with pytest.raises(PinnedError, match="operator"):
        client.call("POST", f"/v1/apps/{app.app}/pin", Assignment, AppPin(variant="quick"))
    order(client, "unpin", UnpinRequest())
    told = report(client, app, "exact")
    assert (told.variant, told.pinned_by) == ("quick", "app")
    freed = client.call("POST", f"/v1/apps/{app.app}/pin", Assignment, AppPin(variant=None))
    assert freed.pinned_by is None


def test_the_first_preference_of_an_app_counts_where_nobody_set_one(board: DaemonProcess, client: LocalClient) -> None:
    register(client, preference=Preference(mode=Mode.SPEED))
    assert board.status().models["digits"].preference.mode is Mode.SPEED
    order(client, "prefer", PreferRequest(preference=Preference(mode=Mode.ACCURACY)))
    register(client, preference=Preference(mode=Mode.BATTERY))
    assert board.status().models["digits"].preference.mode is Mode.ACCURACY


def test_of_several_apps_on_one_model_the_strictest_limits_count(board: DaemonProcess, client: LocalClient) -> None:
    slow = register(client, name="slow", preference=Preference(max_latency_ms=900, max_power_w=6))
    fast = register(client, name="fast", preference=Preference(max_latency_ms=90))
    assert (slow.assignment.max_latency_ms, fast.assignment.max_latency_ms) == (900, 90)
    model = board.status().models["digits"]
    assert model.preference == Preference(max_latency_ms=90, max_power_w=6)
    assert model.wished_by == "max_latency_ms of app fast, max_power_w of app slow"
    told = client.call(
        "POST", f"/v1/apps/{fast.app}/prefer", Assignment, AppPrefer(preference=Preference(max_latency_ms=950))
    )
    assert told.max_latency_ms == 950
    assert board.status().models["digits"].preference.max_latency_ms == 900
    client.call("DELETE", f"/v1/apps/{slow.app}", Done)
    client.call("POST", f"/v1/apps/{fast.app}/prefer", Assignment, AppPrefer(preference=None))
    model = board.status().models["digits"]
    assert (model.preference, model.wished_by) == (Preference(), None)


def test_orders_outlive_a_kill(board: DaemonProcess) -> None:
    with LocalClient(board.socket) as client:
        order(client, "pin", PinRequest(model="digits", variant="quick"))
        order(
            client, "prefer", PreferRequest(model="digits", preference=Preference(mode=Mode.BATTERY, max_latency_ms=40))
        )
    board.kill()
    board.start()
    model = board.status().models["digits"]
    assert (model.pinned, model.pinned_by) == ("quick", "operator")
    assert model.preference == Preference(mode=Mode.BATTERY, max_latency_ms=40)


def test_decisions_are_explained_newest_first(client: LocalClient) -> None:
    order(client, "prefer", PreferRequest(preference=Preference(mode=Mode.SPEED)))
    order(client, "pin", PinRequest(model="digits", variant="exact"))
    decisions = client.call("GET", "/v1/explain?model=digits", Explanation).decisions
    assert [d.because.code for d in decisions] == ["pin", "preference", "start"]
    assert all(d.because.text for d in decisions)


def test_a_variant_that_does_not_load_is_left_out_and_the_app_told_another(
    board: DaemonProcess, client: LocalClient
) -> None:
    order(client, "prefer", PreferRequest(preference=Preference(mode=Mode.ACCURACY)))
    app = register(client)
    told = app.assignment
    for _ in range(5):
        told = report(client, app, "quick", failed_variant="exact", failure="no room")
    assert told.variant == "quick"
    assert "could not load exact: no room" in board.said


def test_an_app_whose_process_died_is_forgotten(board: DaemonProcess) -> None:
    code = (
        "import sys, time; from edge_sdk.local import *;"
        "c = LocalClient(sys.argv[1]);"
        "c.call('POST', '/v1/apps', Registered, Register(model='digits')); print('in', flush=True); time.sleep(60)"
    )
    app = subprocess.Popen([sys.executable, "-c", code, str(board.socket)], stdout=subprocess.PIPE)
    assert app.stdout is not None
    with app.stdout:
        assert app.stdout.readline() == b"in\n"
        assert [a.pid for a in board.status().apps] == [app.pid]
        app.send_signal(signal.SIGKILL)
        app.wait(PATIENCE_S)
    until(lambda: board.status().apps == (), "the app to be forgotten")


@pytest.mark.parametrize(
    ("verb", "body", "error"),
    [
        ("pin", PinRequest(model="digits", variant="nope"), UnknownVariantError),
        ("pin", PinRequest(model="letters", variant="exact"), CommandError),
        ("unpin", UnpinRequest(model="letters"), CommandError),
        ("prefer", {"preference": {"mode": "fastest"}}, WireError),
        ("prefer", {"preference": {"mode": "speed"}, "modle": "digits"}, WireError),
        ("pin", ["digits", "exact"], WireError),
    ],
)
def test_an_impossible_order_is_refused(client: LocalClient, verb: str, body: Any, error: type[EdgeError]) -> None:
    with pytest.raises(error) as caught:
        order(client, verb, body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nothing", None, HTTPStatus.NOT_FOUND, b"bad-request"),
        ("GET", "/", None, HTTPStatus.NOT_FOUND, b"bad-request"),
        ("PUT", "/v1/status", b"{}", HTTPStatus.METHOD_NOT_ALLOWED, b"bad-request"),
        ("POST", "/v1/pin", b"{", HTTPStatus.BAD_REQUEST, b"malformed"),
        ("POST", "/v1/pin", b"\xff", HTTPStatus.BAD_REQUEST, b"malformed"),
        ("POST", "/v1/pin", b"[" * 100_000, HTTPStatus.BAD_REQUEST, b"malformed"),
        ("POST", "/v1/pin", None, HTTPStatus.BAD_REQUEST, b"malformed"),
        ("POST", "/v1/apps/none/report", b"{}", HTTPStatus.NOT_FOUND, b"unknown-app"),
        ("GET", "/v1/explain?model=letters", None, HTTPStatus.NOT_FOUND, b"unknown-model"),
    ],
)
def test_a_request_that_makes_no_sense_gets_a_status_and_a_code(  # noqa: PLR0917 - the columns of the table
    board: DaemonProcess, method: str, path: str, body: bytes | None, status: int, code: bytes
) -> None:
    connection = UnixConnection(board.socket, 10.0)
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.status == status
    assert code in text
    assert board.status().models


@pytest.mark.parametrize("query", ["after=x", "after=-1", "wait_s=nan", "wait_s=-1", "after=99999999999999999999"])
def test_a_number_that_is_none_is_refused(client: LocalClient, query: str) -> None:
    app = register(client)
    with pytest.raises(WireError):
        client.call("GET", f"/v1/apps/{app.app}/assignment?{query}", Assignment)


def test_a_daemon_that_reports_to_nobody_keeps_nothing_for_anybody(board: DaemonProcess) -> None:
    with LocalClient(board.socket) as client:
        order(client, "pin", PinRequest(model="digits", variant="quick"))
    status = board.status()
    assert (status.hub, status.spooled, status.dropped) == ("none", 0, 0)
    assert board.stop() == 0
    with pytest.raises(DaemonUnreachableError, match="edge daemon run"):
        board.status()


def test_an_operators_order_is_told_to_the_hub(daemon: MakeDaemon, digits: Bundle) -> None:
    pytest.importorskip("paho")
    board = daemon(reporting(1) + serving(digits.path))  # nobody listens there: it stays in the spool
    board.start()
    before = board.status().spooled
    with LocalClient(board.socket) as client:
        order(client, "pin", PinRequest(model="digits", variant="quick"))
    assert board.status().spooled > before


def test_an_app_of_the_first_version_is_told_nothing_it_does_not_know(board: DaemonProcess) -> None:
    connection = UnixConnection(board.socket, 10.0)
    connection.connect()

    def ask(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    app = ask("POST", "/v1/apps", {"model": "digits"})
    assert set(app) == {"app", "model", "bundle", "assignment"}
    told = ask("POST", f"/v1/apps/{app['app']}/report", {"active": "exact", "calls": 3, "p50_ms": 1.0, "p95_ms": 2.0})
    connection.close()
    for assignment in (app["assignment"], told):
        assert set(assignment) <= {"serial", "variant", "because", "pinned_by", "max_latency_ms"}
        assert set(assignment["because"]) <= {"code", "text", "runner_up"}


def test_an_app_says_what_it_can_run_and_how_its_accelerator_fares(board: DaemonProcess, client: LocalClient) -> None:
    app = register(client, speaks=SPEAKS + 5, runs=("exact", "quick"))
    assert app.speaks == SPEAKS
    usage = AppUsage(name="edgetpu:usb:0", busy_pct=12.5, temp_c=60.0, limit_c=85.0, restarts=1)
    report(client, app, "exact", arrived=12, latencies_ms=(1.0, 2.0), computes_on="edgetpu:usb:0", usage=usage)
    (shown,) = board.status().apps
    assert (shown.computes_on, shown.usage) == ("edgetpu:usb:0", usage)


@pytest.mark.parametrize(("speaks", "since"), [(2, "servers, or told to ask none"), (3, "servers with a token or an")])
def test_an_app_that_is_too_old_for_its_server_is_told_to_ask_none_and_explain_says_how_old(
    daemon: MakeDaemon, digits: Bundle, speaks: int, since: str
) -> None:
    server = "server = {url = 'http://127.0.0.1:1', model = 'm', quality = 99.9, token_file = 'token'}"
    board = daemon(f"[sensors]\nmetered = false\n[models.digits]\nbundle = '{digits.path}'\n{server}\n")
    board.start()
    with LocalClient(board.socket) as client:
        assert register(client, speaks=speaks).assignment.server is None
        (told,) = client.call("GET", "/v1/explain", Explanation).decisions
    assert f"the server is left out: the SDK is from before {since}" in told.because.text


def test_the_state_of_a_model_says_who_computes_in_fact(board: DaemonProcess, client: LocalClient) -> None:
    assert board.status().models["digits"].on is None
    app = register(client, speaks=SPEAKS)
    for delegate in ("edgetpu:usb:0", "cpu"):  # the accelerator falls out, and the CPU stands in
        report(client, app, "exact", computes_on=delegate)
        assert board.status().models["digits"].on == delegate
    client.call("DELETE", f"/v1/apps/{app.app}", Done)
    assert board.status().models["digits"].on is None


def test_an_app_that_can_run_one_variant_is_told_to_run_that(client: LocalClient) -> None:
    other = "quick" if register(client).assignment.variant != "quick" else "exact"
    app = register(client, speaks=SPEAKS, runs=(other,))
    assert app.assignment.variant == other
    both = ("exact", "quick")
    assert report(client, app, other, runs=both).variant in both
