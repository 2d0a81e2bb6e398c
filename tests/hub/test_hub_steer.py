"""Steering a fleet from the command line and by programs: queries, batches, cancelling, labels, rules, who did what."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_stage import PATIENCE_S, DaemonProcess, end, tiny_bundle, until
from hub_stage import FakeDevice, HubProcess

from edge_hub.alerts.rules import Rule
from edge_hub.api import CommandRequest, DesiredRequest
from edge_hub.broker.accounts import ALERT_TOPIC
from edge_hub.client import HubClient
from edge_hub.enrolment import device_configuration
from edge_hub.errors import AnswerError, TooManyRequestsError
from edge_hub.web.app import ROUTES
from edge_hub.web.limits import Limit
from edge_sdk.cli.main import main
from edge_sdk.errors import EXIT_USAGE
from edge_sdk.local import Done, LocalClient
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Pause, Report, Resume, Sample, Tele, Up
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.broker

TENANTS = iter(f"t{number}" for number in range(1, 1000))
Make = Callable[[str], FakeDevice]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One for all: each test has a tenant of its own."""
    with HubProcess(tmp_path_factory.mktemp("hub")) as process:
        yield process


@pytest.fixture
def client(hub: HubProcess) -> Iterator[HubClient]:
    with hub.client() as asking:
        yield asking


@pytest.fixture
def tenant() -> str:
    return next(TENANTS)


@pytest.fixture
def device(hub: HubProcess, tenant: str) -> Iterator[Make]:
    with ExitStack() as ends:

        def make(name: str) -> FakeDevice:
            who = DeviceId(tenant=tenant, device=name)
            made = FakeDevice(hub.mqtt, hub.enrol(who), who)
            ends.callback(made.close)
            return made

        yield make


@pytest.fixture
def edge(hub: HubProcess, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Runs `edge hub ... --json` here: exit status, result, what is said."""

    def run(*words: str) -> tuple[int, Any, str]:
        status = main(["hub", *words, "--data", str(hub.data), "--json"])
        told = capsys.readouterr()
        return status, json.loads(told.out) if told.out else None, told.err

    return run


def test_no_reply_in_time_is_said_not_to_come_from_a_device_that_is_away(device: Make, edge: Any) -> None:
    cam = device("away")
    cam.close()
    status, told, said = edge("send", str(cam.device), "report", "--timeout", "1")
    assert (status, told["commands"][0]["state"]) == (1, "pending")
    assert "only a device that has it already may still answer" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("devices", "--query", "profle = rpi4"), "query"),
        (("groups", "put", "torn", "temp_c >"), "query"),
        (("send", "--query", "label.nobody = x", "report"), "usage"),
        (("send", "cam", "report"), "usage"),
        (("show", "a/b/c"), "usage"),
        (("remove", "a/", "--yes"), "usage"),
        (("send", "a/b", "configure"), "usage"),
    ],
)
def test_an_argument_that_makes_no_sense_ends_a_command_with_2_whoever_finds_it(
    edge: Callable[..., tuple[int, Any, str]], words: tuple[str, ...], code: str
) -> None:
    status, _, said = edge(*words)
    assert f"[{code}]" in said
    assert status == EXIT_USAGE


def born(cam: FakeDevice, profile: str) -> None:
    cam.retain(Up.BIRTH, Birth(online=True, profile=profile))


def measures(cam: FakeDevice, temp_c: float) -> None:
    sample = Sample(at=time.time(), window_s=5.0, conditions=Conditions(temp_c=temp_c))
    cam.confirmed(cam.send(Up.TELE, Tele(samples=(sample,))))


def known(client: HubClient, query: str, count: int) -> None:
    until(lambda: len(client.rows(query)) == count, f"{count} devices with {query}")


def test_a_query_sends_to_those_it_means_now_and_the_batch_tells_of_each(
    client: HubClient, device: Make, tenant: str, edge: Any
) -> None:
    hot, cool, other = device("hot"), device("cool"), device("other")
    for cam, profile, temp_c in ((hot, "rpi4", 80.0), (cool, "rpi4", 40.0), (other, "rpi5", 80.0)):
        born(cam, profile)
        measures(cam, temp_c)
    query = f"tenant = {tenant} and profile = rpi4 and temp_c > 70"
    known(client, query, 1)

    def answers() -> None:
        hot.reply(hot.command().id, text="as you like")

    thread = threading.Thread(target=answers)
    thread.start()
    status, told, _ = edge("send", "--query", query, "pause")
    thread.join()
    assert status == 0
    (one,) = told["commands"]
    assert (one["device"], one["state"], one["by"]) == (str(hot.device), "done", "admin")
    assert cool.commands == other.commands == []
    batch = client.batch(one["batch"])
    assert batch.states == {"done": 1}
    assert client.commands(limit=1)[0].id == one["id"]
    listed = edge("devices", f"--query=tenant = {tenant} and online")[1]["rows"]
    assert {row["device"] for row in listed} == {str(cam.device) for cam in (hot, cool, other)}
    assert edge("send", "--query", f"tenant = {tenant} and temp_c > 100", "pause")[0] == 2
    status, _, said = edge("devices", "--query", "temp_c >")
    assert status != 0
    assert "column 9" in said


def test_a_cancelled_command_stays_cancelled_and_a_late_reply_is_kept_beside(
    client: HubClient, device: Make, edge: Any
) -> None:
    cam = device("cam")
    id_ = client.send([cam.device], Report(), expires_s=60.0)[str(cam.device)]
    cam.command()
    status, told, _ = edge("cancel", id_)
    assert (status, told["state"]) == (0, "cancelled")
    cam.confirmed(cam.reply(id_, text="done all the same"))
    found = client.command(id_)
    assert (found.state, found.late) == ("cancelled", True)
    assert found.reply is not None
    cam.born(boot="2" * 32)
    later = client.send([cam.device], Resume(), expires_s=60.0)[str(cam.device)]
    assert cam.command(2).id == later  # what was cancelled is not sent again
    cam.confirmed(cam.reply(later))
    status, told, said = edge("cancel", later)
    assert (status, told["state"]) == (1, "done")
    assert "[command-failed]" in said
    assert edge("cancel", "0" * 32)[0] == 1
    status, _, said = edge("cancel", "7f3a")
    assert (status, "no id of a command or a batch" in said) == (2, True)


def test_a_device_that_is_away_gets_no_command_and_that_is_said(client: HubClient, tenant: str, edge: Any) -> None:
    away = DeviceId(tenant=tenant, device="away")
    client.enrol(away, again=False)
    status, told, said = edge("send", str(away), "report", "--timeout", "1")
    assert (status, told["commands"][0]["state"]) == (1, "pending")
    assert "no reply within the --timeout" in said


def test_what_waits_of_a_batch_is_cancelled_together(client: HubClient, device: Make, edge: Any) -> None:
    one, two = device("one"), device("two")
    accepted = client.order(CommandRequest(devices=(str(one.device), str(two.device)), command=Pause()))
    assert accepted.batch is not None
    one.confirmed(one.reply(one.command().id))
    status, told, _ = edge("cancel", accepted.batch)
    assert status == 0
    assert told["states"] == {"cancelled": 1, "done": 1}


def test_labels_and_groups_take_in_newcomers(client: HubClient, device: Make, tenant: str, edge: Any) -> None:
    first = device("first")
    group = f"roof-{tenant}"
    assert edge("label", str(first.device), "site=roof", "floor=3")[1]["labels"] == {"site": "roof", "floor": "3"}
    assert edge("label", str(first.device), "floor=")[1]["labels"] == {"site": "roof"}
    assert edge("groups", "put", group, f"tenant = {tenant} and label.site = roof")[1]["devices"] == 1
    second = device("second")
    client.set_labels(second.device, {"site": "roof"})
    assert {row.device for row in client.rows(f"group:{group}")} == {str(first.device), str(second.device)}
    assert [one["name"] for one in edge("groups")[1]["groups"]] == [group]
    with pytest.raises(AnswerError) as caught:
        client.put_group("loop", "group:loop")
    assert caught.value.code == "query"
    assert edge("groups", "delete", group)[0] == 0
    with pytest.raises(AnswerError, match="there is no group"):
        client.rows(f"group:{group}")
    assert edge("label", str(first.device), "bad key=1")[0] == 1


def test_who_changed_what_is_in_the_audit_log(client: HubClient, device: Make, tenant: str, edge: Any) -> None:
    cam = device("cam")
    token = client.make_token(f"ops-{tenant}", "operator").token
    with HubClient(client.url, token) as operator:
        operator.set_labels(cam.device, {"a": "b"})
        operator.send([cam.device], Report(), expires_s=60.0)
        with pytest.raises(AnswerError) as caught:
            operator.put_rule("mine", Rule(when="online"))
        assert caught.value.code == "forbidden"
    found = [one for one in edge("audit", "--limit", "100")[1]["entries"] if one["who"] == f"ops-{tenant}"]
    assert [(one["what"], one["role"], one["target"]) for one in found] == [
        ("command", "operator", str(cam.device)),
        ("labels", "operator", str(cam.device)),
    ]
    assert found[1]["detail"] == {"a": "b"}
    entries = client.audit(limit=1000)
    assert token not in str(entries)
    assert all(one.at <= time.time() + 1 for one in entries)
    assert client.audit(before=entries[-1].id) == ()


def test_a_rule_rings_and_is_told_on_the_topic_that_no_device_reads(
    hub: HubProcess, device: Make, tenant: str, edge: Any, tmp_path: Path
) -> None:
    rule = tmp_path / "rule.toml"
    rule.write_text(f'when = "tenant = {tenant} and temp_c > 50"\ntext = "warm"\nvalue = "temp_c"\n')
    name = f"warm-{tenant}"
    assert edge("rules", "put", name, str(rule))[0] == 0
    assert name in {one["name"] for one in edge("rules")[1]["rules"]}
    cam = device("cam")
    who = DeviceId(tenant=tenant, device="spy")
    spy = FakeDevice(hub.mqtt, hub.enrol(who), who, topics=(ALERT_TOPIC,))
    with contextlib.closing(spy), hub.client() as client, hearing_alerts(hub) as told:
        born(cam, "rpi4")
        measures(cam, 60.0)
        (alert,) = until(lambda: client.alerts(open_only=True, device=cam.device), "the alert")
        assert (alert.rule, alert.text) == (name, "warm: temperature 60 °C")
        until(lambda: any(json.loads(one)["id"] == f"{alert.id}-began" for one in told), "the notice")
        assert client.rows(f"device = {cam.device}")[0].alerts == 1
        assert edge("alerts", "acknowledge", str(alert.id))[1]["acknowledged"] == "admin"
        assert edge("alerts", "list", "--open", "--device", str(cam.device))[1]["alerts"][0]["id"] == alert.id
        measures(cam, 40.0)
        until(lambda: client.alerts(device=cam.device)[0].ended, "the end")
        assert edge("rules", "delete", name)[0] == 0
        assert edge("rules", "delete", "hot")[0] == 2
    assert spy.strangers == []


@contextlib.contextmanager
def hearing_alerts(hub: HubProcess) -> Iterator[list[bytes]]:
    """What is published, as an operator's program hears it with the account for that."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    told: list[bytes] = []
    ready = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id="listener")
    client.username_pw_set("alerts", (hub.data / "alerts-password").read_text().strip())
    client.on_connect = lambda client, *_: client.subscribe(ALERT_TOPIC, 1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: told.append(message.payload)
    client.connect("127.0.0.1", hub.mqtt)
    client.loop_start()
    try:
        assert ready.wait(PATIENCE_S)
        yield told
    finally:
        end(client)


def test_silences_and_tokens_from_the_command_line(client: HubClient, tenant: str, edge: Any) -> None:
    status, made, _ = edge("alerts", "silence", "--query", f"tenant = {tenant}", "--for-s", "60", "--why", "works")
    assert status == 0
    assert (made["by"], made["why"]) == ("admin", "works")
    assert made["name"] in {one["name"] for one in edge("alerts", "silences")[1]["silences"]}
    assert edge("alerts", "unsilence", made["name"])[0] == 0
    assert edge("alerts", "silence", "--for-s", "0")[0] == 2
    token = edge("token", "make", f"ci-{tenant}", "viewer", "--for-s", "3600")[1]["token"]
    with HubClient(client.url, token) as viewer:
        assert viewer.session().role == "viewer"
    assert f"ci-{tenant}" in {one["name"] for one in edge("token")[1]["tokens"]}
    assert edge("token", "withdraw", f"ci-{tenant}")[0] == 0
    status, _, said = edge("token", "make", f"ci-{tenant}", "viewer", "--for-s", "nan")
    assert (status, "--for-s is from 60 to" in said) == (2, True)
    assert edge("rules", "put", "mine", "absent.toml")[0] == 2
    assert edge("token", "make", "admin", "viewer")[0] == 2


def test_a_device_that_was_away_becomes_as_it_was_meant_to_be(client: HubClient, tenant: str, tmp_path: Path) -> None:
    """With the real daemon: the difference is shown with its age, and gone once the device has applied it."""
    who = DeviceId(tenant=tenant, device="board")
    bundle = tiny_bundle(tmp_path / "digits-1.edge")
    configuration = device_configuration(client.enrol(who, again=False), {"digits": str(bundle.path)})
    wanted = DesiredRequest(pins={"digits": "quick"}, preferences={"digits": Preference(mode=Mode.SPEED)})
    before = client.set_desired(who, wanted)
    assert not before.in_step
    assert before.since is not None
    assert [(one.what, one.desired, one.reported) for one in before.differences] == [
        ("pins.digits", "quick", None),
        ("preferences.digits.mode", "speed", None),
    ]
    daemon = DaemonProcess(tmp_path / "board", configuration)
    daemon.start()
    try:
        after = until(lambda: now if (now := client.desired(who)).in_step else None, "the device to be in step")
        after = until(lambda: now if not (now := client.desired(who)).differences else None, "no difference")
        assert (after.since, after.reported_version) == (None, 1)
        assert daemon.status().models["digits"].pinned_by == "hub"
        # Somebody at the device overrides the preference: that version is applied, and yet it differs.
        with LocalClient(daemon.socket) as local:
            local.call("POST", "/v1/prefer", Done, {"model": "digits", "preference": {"mode": "battery"}})
        drifted = until(lambda: now if (now := client.desired(who)).differences else None, "the difference")
        assert drifted.in_step
        assert [(one.what, one.reported) for one in drifted.differences] == [("preferences.digits.mode", "battery")]
        # A newer version goes over it.
        client.set_desired(who, DesiredRequest(preferences={"digits": Preference(mode=Mode.SPEED)}))
        until(lambda: client.desired(who).reported_version == 2, "the newer version")
    finally:
        daemon.stop()


def test_what_reads_the_whole_fleet_counts_as_ten(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path, "--requests-per-s", "5")
    hub.start()
    try:
        headers = {"Authorization": f"Bearer {hub.token}"}
        with httpx.Client(trust_env=False, headers=headers, base_url=f"http://127.0.0.1:{hub.http}") as asking:
            dear = [asking.get("/api/v1/rows") for _ in range(30)]
            late = next(answer for answer in dear if answer.status_code == 429)
            assert "counts as 10" in late.json()["text"]
        with hub.client() as client:
            assert client.rows() == ()  # the client waits
    finally:
        hub.stop()


class Turned:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_prometheus_and_dashboards_never_feel_the_limit() -> None:
    """An hour of one scrape each 15 s and twenty tabs, all with one token, as behind a proxy."""
    weights = {route.path.rpartition("/")[2]: route.weight for route in ROUTES if route.method == "GET"}
    clock, tabs = Turned(), 20
    limit = Limit(per_s=200.0, burst=2000.0, clock=clock)
    chart = {"since": 0.0, "until": 900.0, "step_s": 10.0}
    spark = {"since": 0.0, "until": 900.0, "step_s": 30.0}
    for second in range(3600):
        clock.now += 1.0
        asked = [weights["metrics"]({})] if second % 15 == 0 else []
        for every_s, one in (
            (10, 1),
            (5, weights["rows"]({})),
            (5, weights["history"](chart)),
            (10, weights["models"]({})),
        ):
            asked += [one] * tabs if second % every_s == 0 else []
        asked += [weights["history"](spark)] * (tabs * 30) if second % 60 == 0 else []
        for weight in asked:
            limit.take("admin@proxy", weight)


def test_a_request_that_counts_as_more_than_ever_pass_passes_after_a_pause() -> None:
    clock = Turned()
    limit = Limit(per_s=1.0, burst=5.0, clock=clock)
    limit.take("a", 50)
    with pytest.raises(TooManyRequestsError) as caught:
        limit.take("a", 50)
    assert caught.value.wait_s == pytest.approx(5.0)
    clock.now += 5.0
    limit.take("a", 50)


def test_who_asks_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path, "--requests-per-s", "1")
    hub.start()
    try:
        headers = {"Authorization": f"Bearer {hub.token}"}
        url = f"http://127.0.0.1:{hub.http}/api/v1/session"
        with httpx.Client(trust_env=False, headers=headers) as asking:
            answers = [asking.get(url) for _ in range(60)]
            late = next(answer for answer in answers if answer.status_code == 429)
            assert late.json()["code"] == "too-many-requests"
            assert int(late.headers["Retry-After"]) >= 1
            wrong = [asking.get(url, headers={"Authorization": "Bearer x"}).status_code for _ in range(60)]
            assert (wrong[0], 429 in wrong) == (401, True)
        with hub.client() as client:
            assert client.session().role == "admin"  # the client waits, and who knows the token gets in
    finally:
        hub.stop()
