"""The API for people and programs: rows, totals, sessions of browsers, roles, limits, what every answer carries."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_stage import until
from hub_stage import FakeDevice, HubProcess

from edge_hub.api import DesiredRequest
from edge_hub.client import HubClient
from edge_hub.errors import AnswerError
from edge_hub.overview import OpenAlerts, fleet_view
from edge_hub.rows import ModelRow, Row
from edge_hub.web.fleet_metrics import MAX_LABELS, fleet_metrics
from edge_sdk.mqtt import (
    Because,
    Birth,
    Conditions,
    Decision,
    DeviceId,
    ModelState,
    ModelStats,
    Sample,
    ServedModel,
    ServedVariant,
    State,
    Tele,
    Up,
)

pytestmark = pytest.mark.broker

NAMES = iter(range(1, 1000))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One for all: each test has devices of its own."""
    with HubProcess(tmp_path_factory.mktemp("hub")) as process:
        yield process


@pytest.fixture
def client(hub: HubProcess) -> Iterator[HubClient]:
    with hub.client() as asking:
        yield asking


@pytest.fixture
def device(hub: HubProcess) -> Iterator[Callable[..., FakeDevice]]:
    """Makes devices of a tenant of their own."""
    with ExitStack() as ends:
        tenant = f"t{next(NAMES)}"

        def make(name: str = "cam") -> FakeDevice:
            who = DeviceId(tenant=tenant, device=name)
            made = FakeDevice(hub.mqtt, hub.enrol(who), who)
            ends.callback(made.close)
            return made

        yield make


SERVED = ServedModel(
    name="digits",
    version="1",
    variants=(
        ServedVariant(id="fp32", precision="fp32", quality=99.0, size_bytes=4000, latency_ms=20.0),
        ServedVariant(id="int8", precision="int8", quality=95.0, size_bytes=1000, latency_ms=5.0),
    ),
)


def born(cam: FakeDevice, *, profile: str = "rpi4", software: str = "edge 1") -> None:
    birth = Birth(online=True, profile=profile, board="Pi", software=software, models=(SERVED,))
    cam.retain(Up.BIRTH, birth)


def reports(cam: FakeDevice, *, temp_c: float, variant: str = "int8", desired_version: int = 0, **more: Any) -> None:
    now = time.time()
    decision = Decision(model="digits", variant=variant, because=Because(code="thermal", text="hot"), at=now)
    model = ModelState(active=variant, decision=decision, apps=1, on="cpu", **more)
    conditions = Conditions(temp_c=temp_c, battery_pct=50.0)
    state = State(at=now, conditions=conditions, models={"digits": model}, desired_version=desired_version)
    cam.retain(Up.STATE, state)
    stats = ModelStats(variant=variant, calls=100, late=4, p95_ms=7.5)
    sample = Sample(at=now - 1, window_s=5.0, conditions=conditions, models={"digits": stats})
    cam.confirmed(cam.send(Up.TELE, Tele(samples=(sample,))))


def row(client: HubClient, cam: FakeDevice, look: Callable[[Row], bool]) -> Row:
    def find() -> Row | None:
        (found,) = client.rows(f"device = {cam.device}")
        return found if look(found) else None

    return until(find, "the row")


def test_a_row_says_in_short_what_a_device_runs_and_why(client: HubClient, device: Callable[..., FakeDevice]) -> None:
    cam = device()
    born(cam)
    reports(cam, temp_c=71.0)
    found = row(client, cam, lambda one: one.temp_c is not None and one.profile is not None)
    assert (found.online, found.profile, found.board, found.temp_c, found.window_s) == (True, "rpi4", "Pi", 71.0, 5.0)
    (model,) = found.models
    assert (model.name, model.version, model.variant, model.on) == ("digits", "1", "int8", "cpu")
    assert (model.code, model.calls, model.late, model.p95_ms, model.pinned) == ("thermal", 100, 4, 7.5, False)


def test_what_a_device_does_not_know_is_null(hub: HubProcess, client: HubClient) -> None:
    who = DeviceId(tenant=f"t{next(NAMES)}", device="new")
    hub.enrol(who)
    with raw(hub) as asking:
        answer = asking.get("/api/v1/rows", params={"query": f"device = {who}"})
    (found,) = answer.json()["rows"]
    assert found["temp_c"] is None
    assert found["models"] == []
    assert set(found) == set(Row.__struct_fields__)


def test_a_query_chooses_and_a_bad_one_points_at_the_column(
    client: HubClient, device: Callable[..., FakeDevice]
) -> None:
    hot, cool = device("hot"), device("cool")
    for cam, temp_c in ((hot, 80.0), (cool, 40.0)):
        born(cam)
        reports(cam, temp_c=temp_c)
        row(client, cam, lambda one: one.temp_c is not None and one.online)
    found = client.rows(f"tenant = {hot.device.tenant} and temp_c > 70 and variant in (int8) and online")
    assert [one.device for one in found] == [str(hot.device)]
    with pytest.raises(AnswerError) as caught:
        client.rows("temperature > 3")
    assert caught.value.code == "query"
    assert "column 1" in str(caught.value)


def test_totals_count_what_runs_where(client: HubClient, device: Callable[..., FakeDevice]) -> None:
    cam = device()
    cam.retain(Up.BIRTH, Birth(online=True, profile="imx93", models=(renamed("faces"),)))
    now = time.time()
    state = State(at=now, conditions=Conditions(), models={"faces": ModelState(active="int8", apps=1, on="ethos-u")})
    cam.retain(Up.STATE, state)
    row(client, cam, lambda one: bool(one.models) and one.models[0].on == "ethos-u" and one.online)
    found = client.fleet()
    assert ("faces", "1", "int8", 1) in {(v.model, v.version, v.variant, v.devices) for v in found.variants}
    assert ("ethos-u", 1) in {(a.on, a.devices) for a in found.accelerators}
    assert ("imx93", 1) in {(p.profile, p.devices) for p in found.profiles}
    health = found.health
    assert health.ok + health.warning + health.critical + health.offline == found.devices
    faces = next(one for one in client.models() if one.name == "faces")
    assert [variant.id for variant in faces.variants] == ["fp32", "int8"]
    use = faces.variants[1].profiles["imx93"]
    assert (use.active, use.able) == (1, 1)


def renamed(name: str) -> ServedModel:
    return ServedModel(name=name, version="1", variants=SERVED.variants)


def test_changed_rows_come_by_the_stream(client: HubClient, device: Callable[..., FakeDevice]) -> None:
    cam = device()
    news = client.news()
    try:
        started = next_of(news, "retry", cam, start=True)
        assert started is None
        found = next_of(news, "rows", cam)
        assert found is not None
        assert found["profile"] == "rpi4"
    finally:
        news.close()


def next_of(news: Any, topic: str, cam: FakeDevice, *, start: bool = False) -> dict[str, Any] | None:
    """The next row of this device; `start` only makes it happen."""
    if start:
        born(cam)
        return None
    for told, body in news:
        if told == topic:
            for one in json.loads(body)["rows"]:
                if one["device"] == str(cam.device) and one["profile"]:
                    return dict(one)
    return None


# ------------------------------------------------------------------------------------------- browsers and roles


def raw(hub: HubProcess, token: str | None = "") -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token or hub.token}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{hub.http}", trust_env=False, headers=headers)


def test_a_browser_changes_nothing_without_the_value_no_other_site_can_read(hub: HubProcess) -> None:
    group = "/api/v1/groups/mine"
    with raw(hub, token=None) as browser:
        assert browser.post("/api/v1/session", json={"token": "wrong"}).status_code == 401
        logged_in = browser.post("/api/v1/session", json={"token": hub.token})
        assert logged_in.status_code == 200
        assert logged_in.json()["role"] == "admin"
        assert "httponly" in logged_in.headers["set-cookie"].lower()
        assert browser.get("/api/v1/fleet").status_code == 200
        without = browser.put(group, json={"query": "online"})
        assert (without.status_code, without.json()["code"]) == (403, "cross-site")
        assert browser.put(group, json={"query": "online"}, headers={"X-Edge-CSRF": "0" * 64}).status_code == 403
        csrf = browser.cookies["edge-hub-csrf"]
        assert csrf == browser.get("/api/v1/session").json()["csrf"]
        assert browser.put(group, json={"query": "online"}, headers={"X-Edge-CSRF": csrf}).status_code == 200
        # Of another session it is worth nothing.
        browser.post("/api/v1/session", json={"token": hub.token})
        assert browser.delete(group, headers={"X-Edge-CSRF": csrf}).status_code == 403
        assert (
            browser.delete("/api/v1/session", headers={"X-Edge-CSRF": browser.cookies["edge-hub-csrf"]}).status_code
            == 204
        )
        assert browser.get("/api/v1/fleet").status_code == 401


def test_groups_say_how_many_they_mean_also_beside_one_that_means_nothing_any_more(client: HubClient) -> None:
    total = len(client.devices())
    for name, query in (
        ("all", "not device = nobody"),
        ("none", "device = nobody"),
        ("gone", "online"),
        ("broken", "group:gone"),
    ):
        client.put_group(name, query)
    client.delete_group("gone")
    found = {one.name: one.devices for one in client.groups() if one.name != "mine"}
    assert found == {"all": total, "none": 0, "broken": 0}


def test_who_logs_out_takes_every_copy_of_the_cookie_along(hub: HubProcess) -> None:
    url = f"http://127.0.0.1:{hub.http}"

    def status(cookies: dict[str, str]) -> int:
        return httpx.get(f"{url}/api/v1/rows", cookies=cookies).status_code

    with httpx.Client(base_url=url) as browser, httpx.Client(base_url=url) as other:
        for one in (browser, other):
            one.post("/api/v1/session", json={"token": hub.token})
        stolen, kept = dict(browser.cookies), dict(other.cookies)
        assert (status(stolen), status(kept)) == (200, 200)
        answer = browser.delete("/api/v1/session", headers={"X-Edge-CSRF": stolen["edge-hub-csrf"]})
        assert answer.status_code == 204
        assert (status(stolen), status(kept)) == (401, 200)


def test_a_cookie_that_was_tampered_with_opens_nothing(hub: HubProcess) -> None:
    with raw(hub, token=None) as browser:
        browser.post("/api/v1/session", json={"token": hub.token})
        value = browser.cookies["edge-hub"]
        expires, nonce, mac, name = value.split(".", 3)
        later = f"{int(expires) + 1}.{nonce}.{mac}.{name}"
        for forged in (
            later,
            f"{expires}.{nonce}.{mac}.other",
            "x",
            "1.2.3",
            f"{expires}.{nonce}.{'0' * 64}.{name}",
            "",
        ):
            answer = httpx.get(
                f"http://127.0.0.1:{hub.http}/api/v1/fleet", headers={"Cookie": f"edge-hub={forged}"}, trust_env=False
            )
            assert answer.status_code == 401, forged


def test_each_role_may_what_it_is_for(hub: HubProcess, client: HubClient) -> None:
    viewer = client.make_token("looks", "viewer").token
    operator = client.make_token("steers", "operator", expires_s=3600).token
    asked = [
        ("GET", "/api/v1/rows", 200, 200),
        ("PUT", "/api/v1/groups/g", 403, 200),
        ("GET", "/api/v1/tokens", 403, 403),
    ]
    asked += [("POST", "/api/v1/devices", 403, 403), ("PUT", "/api/v1/rules/r", 403, 403)]
    for method, path, as_viewer, as_operator in asked:
        for token, status in ((viewer, as_viewer), (operator, as_operator)):
            with raw(hub, token) as asking:
                answer = asking.request(method, path, json={"query": "online"} if method == "PUT" else None)
            assert answer.status_code == status, (method, path, answer.text)
    assert {one.name: one.role for one in client.tokens()} == {"looks": "viewer", "steers": "operator"}
    assert all(one.last_used is not None for one in client.tokens())
    with raw(hub, token=None) as browser:
        browser.post("/api/v1/session", json={"token": viewer})
        assert browser.get("/api/v1/rows").status_code == 200
        client.withdraw_token("looks")
        assert browser.get("/api/v1/rows").status_code == 401
    assert viewer not in (hub.data / "hub.db").read_bytes().decode("latin-1")
    client.withdraw_token("steers")


def test_every_answer_tells_browsers_to_run_nothing_from_elsewhere(hub: HubProcess) -> None:
    with raw(hub, token=None) as asking:
        for path in ("/", "/api/v1/rows", "/nothing", "/metrics"):
            headers = asking.get(path).headers
            assert headers["content-security-policy"].startswith("default-src 'self'"), path
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"


def test_desired_documents_say_what_differs_and_since_when(
    client: HubClient, device: Callable[..., FakeDevice]
) -> None:
    cam = device()
    born(cam)
    reports(cam, temp_c=40.0)
    row(client, cam, lambda one: one.temp_c is not None)
    before = time.time()
    told = client.set_desired(cam.device, DesiredRequest(pins={"digits": "fp32"}))
    assert not told.in_step
    assert told.since is not None
    assert before - 1 <= told.since <= time.time() + 1
    (difference,) = told.differences
    assert (difference.what, difference.desired, difference.reported) == ("pins.digits", "fp32", None)
    reports(cam, temp_c=40.0, variant="fp32", desired_version=1, pinned="fp32", pinned_by="hub")
    row(client, cam, lambda one: one.in_step)
    after = client.desired(cam.device)
    assert (after.in_step, after.since, after.differences) == (True, None, ())


# ------------------------------------------------------------------------------------------------------ metrics

DOCS = Path(__file__).parents[2] / "docs"
METRIC = re.compile(r"\bedge_hub_\w+")


def given(page: str) -> dict[str, set[str]]:
    """The names of metrics with the labels each has."""
    found: dict[str, set[str]] = {}
    for line in page.splitlines():
        match = re.match(r"(?:# TYPE )?(edge_hub_\w+)(?:\{(.*)\})?", line)
        if match:
            found.setdefault(match[1], set()).update(re.findall(r"(\w+)=\"", match[2] or ""))
    return found


def test_the_grafana_dashboard_asks_for_what_the_metrics_give(client: HubClient) -> None:
    metrics = given(client.metrics())
    board = json.loads((DOCS / "grafana" / "edge-hub.json").read_text("utf-8"))
    asked = [target for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 15
    for target in asked:
        names = METRIC.findall(target["expr"])
        assert names, target
        assert set(names) <= set(metrics), target
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert all(labels <= metrics[name] or not metrics[name] for name in names), target
    text = (DOCS / "reference" / "hub-api.md").read_text("utf-8")
    assert {name for name in metrics if f"`{name}" not in text} == set()


def test_metrics_stay_few_in_a_large_fleet() -> None:
    rows = [
        Row(
            device=f"t/d{n}",
            online=True,
            models=(ModelRow(name=f"m{n}", variant="v", calls=1, late=0),),
            temp_c=float(n),
        )
        for n in range(500)
    ]
    view = fleet_view(rows, OpenAlerts(), now=0.0)
    found = {metric.name: metric for metric in fleet_metrics(view, rows, [])}
    running = found["edge_hub_running_devices"]
    assert len(running.values) == MAX_LABELS + 1
    assert sum(value for _, value in running.values) == 500
    assert {labels["of"]: value for labels, value in found["edge_hub_temp_celsius"].values}["max"] == 499


def test_many_wrong_passwords_at_once_are_answered_and_counted(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    hub.start()
    try:
        with ThreadPoolExecutor(16) as pool, raw(hub, token=None) as browser:
            answers = list(pool.map(lambda _: browser.post("/api/v1/session", json={"token": "x"}), range(60)))
        assert {answer.status_code for answer in answers} == {401, 429}
        with hub.client() as client:
            assert client.session().name == "admin"
    finally:
        hub.stop()
