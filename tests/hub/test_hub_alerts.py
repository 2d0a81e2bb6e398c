"""Alerts ring once for each thing that is wrong, end once, survive restarts, and reach those who are to be told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_stage import AnyStore, Place

from edge_hub.alerts import delivery as delivering
from edge_hub.alerts import ways
from edge_hub.alerts.alerting import Alerting, Hands
from edge_hub.alerts.delivery import GIVE_UP_S, Delivery, Notice
from edge_hub.alerts.evaluation import compiled, evaluate
from edge_hub.alerts.holding import Holding
from edge_hub.alerts.rules import BUILT_IN, Rule, in_force
from edge_hub.alerts.silences import SILENCE
from edge_hub.alerts.views import Silence
from edge_hub.alerts.ways import Webhook
from edge_hub.census import Census
from edge_hub.errors import QueryError
from edge_hub.rows import Facts, Fleet, facts_of
from edge_hub.store.records import AlertRecord, Arrival, DeviceRecord, RuleRecord
from edge_sdk import mqtt
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Sample, State, Tele, Up, UpEnvelope
from edge_sdk.wire import encode, new_token

CAM = DeviceId(tenant="acme", device="cam1")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md"
HOT = Rule(when="temp_c > 80", clear="not temp_c > 75", for_s=60.0, text="too hot", value="temp_c")


def facts(temp_c: float | None, *, online: bool = True, now: float = 0.0) -> Facts:
    sample = Sample(at=now, window_s=5.0, conditions=Conditions(temp_c=temp_c))
    record = DeviceRecord(
        device=CAM,
        enrolled=1.0,
        first_seen=1.0,
        last_seen=now,
        online=online,
        boot=None,
        birth=None,
        state=None,
        sample=sample,
        messages=1,
        duplicates=0,
        desired_version=0,
    )
    return facts_of(record, Fleet(now=now))


@dataclass
class Played:
    """The evaluation of one rule on one device over time, with a store of the test's own."""

    rule: Rule
    opened: dict[tuple[str, DeviceId], AlertRecord] = field(default_factory=dict)
    pending: Any = field(default_factory=dict)
    told: list[tuple[float, str]] = field(default_factory=list)

    def look(self, now: float, temp_c: float | None, *, online: bool = True) -> None:
        rules, broken = compiled({"hot": self.rule}, {})
        assert not broken
        seen = [facts(temp_c, online=online, now=now)]
        found = evaluate(rules, seen, opened=self.opened, pending=self.pending, now=now)
        for alert in found.begin:
            assert (alert.rule, alert.device) not in self.opened
            self.opened[alert.rule, alert.device] = alert
            self.told.append((now, "began"))
        for alert in found.end:
            del self.opened[alert.rule, alert.device]
            self.told.append((now, "ended"))
        self.pending = found.pending


def test_a_condition_has_to_hold_and_to_ease() -> None:
    play = Played(HOT)
    for now, temp_c in (
        (0, 85.0),
        (50, 85.0),
        (55, 79.0),
        (60, 85.0),
        (110, 85.0),
        (120, 85.0),
        (130, 78.0),
        (140, 75.0),
    ):
        play.look(float(now), temp_c)
    assert play.told == [(120.0, "began"), (140.0, "ended")]


def test_a_device_that_is_away_keeps_its_alerts_and_gets_none() -> None:
    play = Played(Rule(when="temp_c > 80"))
    play.look(0.0, 85.0, online=False)
    play.look(5.0, 85.0)
    play.look(10.0, 20.0, online=False)
    assert play.told == [(5.0, "began")]
    play.look(15.0, 20.0)
    assert play.told[1:] == [(15.0, "ended")]


def test_a_clock_that_is_set_back_neither_rings_early_nor_never() -> None:
    play = Played(HOT)
    for now in (1000.0, 100.0, 150.0, 161.0):
        play.look(now, 85.0)
    assert play.told == [(161.0, "began")]


def test_an_alert_says_the_number_with_its_unit() -> None:
    play = Played(Rule(when="temp_c > 80", text="too hot", value="temp_c", severity="critical"))
    play.look(0.0, 83.25)
    (alert,) = play.opened.values()
    assert (alert.text, alert.value, alert.severity) == ("too hot: temperature 83.25 °C", 83.25, "critical")


def test_alerts_of_rules_that_are_gone_end_and_of_rules_that_cannot_be_asked_stay() -> None:
    alert = AlertRecord(id=1, rule="hot", device=CAM, severity="info", began=1.0, text="x")
    opened = {("hot", CAM): alert}
    rules, broken = compiled({"hot": Rule(when="group:gone")}, {})
    assert (rules, list(broken)) == ((), ["hot"])
    assert evaluate((), [], opened=opened, pending={}, kept=frozenset(broken), now=1.0).end == ()
    assert evaluate((), [], opened=opened, pending={}, now=1.0).end == (alert,)
    assert compiled({"hot": Rule(when="online", enabled=False)}, {}) == ((), {})


TEMPERATURES = st.lists(st.tuples(st.floats(1, 40), st.sampled_from([70.0, 76.0, 79.0, 81.0, 90.0, None])), max_size=40)


@given(TEMPERATURES)
def test_beginnings_and_ends_alternate_and_keep_the_dwell(steps: list[tuple[float, float | None]]) -> None:
    play, now, hot_since = Played(HOT), 0.0, None
    for pause_s, temp_c in steps:
        now += pause_s
        hot = temp_c is not None and temp_c > 80
        hot_since = (hot_since if hot_since is not None else now) if hot else None
        before = len(play.told)
        play.look(now, temp_c)
        if len(play.told) > before and play.told[-1][1] == "began":
            assert hot_since is not None
            assert now - hot_since >= 60.0
    assert [what for _, what in play.told] == [("began", "ended")[n % 2] for n in range(len(play.told))]


def test_the_built_in_rules_are_documented_and_can_be_asked() -> None:
    text = PAGE.read_text("utf-8")
    for name, rule in BUILT_IN.items():
        rule.check({})
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert f"`{rule.when}`" in row
        assert rule.severity in row
        assert rule.clear is None or f"`{rule.clear}`" in row
    for key in Rule.__struct_fields__:
        assert f"| `{key}` |" in text
    with pytest.raises(QueryError, match="clear, column 1"):
        Rule(when="online", clear="nothing").check({})
    with pytest.raises(UsageError, match="value"):
        Rule(when="online", value="profile").check({})


def test_a_kept_rule_replaces_the_built_in_one_and_what_cannot_be_read_does_not_count() -> None:
    mine = RuleRecord(name="hot", body=encode(HOT), changed=1.0)
    odd = RuleRecord(name="new", body=b'{"when": "online", "of": "a later version"}', changed=1.0)
    group = RuleRecord(name="group:x", body=b"online", changed=1.0)
    found = in_force((mine, odd, group))
    assert found["hot"] == HOT
    assert set(found) == set(BUILT_IN)


# ------------------------------------------------------------------------------------------- in a real store


class Scene:
    """A store with one device, and the parts that work on it; made anew, they are another process."""

    def __init__(self, place: Place, store: AnyStore) -> None:
        self.now = 10_000.0
        self.stepped_s = 0.0  # by how much the hub's wall clock was set since
        self.place = place
        self.seq = 0
        self.boot = new_token()
        self.store = store

    def parts(self) -> Alerting:
        self.census = Census(self.store, clock=self.wall)
        hands = Hands(spread=lambda _: None, tell=lambda: None)
        return Alerting(
            store=self.store,
            census=self.census,
            hands=hands,
            clock=self.wall,
            steady=lambda: self.now,
        )

    def wall(self) -> float:
        return self.now + self.stepped_s

    def delivery(self, way: Any) -> Delivery:
        return Delivery(way, store=self.store, census=self.census, clock=lambda: self.now)

    async def measures(self, temp_c: float) -> None:
        self.seq += 1
        conditions = Conditions(temp_c=temp_c)
        birth = UpEnvelope(id=new_token(), boot=self.boot, seq=0, sent=self.now, body=Birth(online=True))
        sample = Sample(at=self.now, window_s=5.0, conditions=conditions)
        tele = UpEnvelope(id=new_token(), boot=self.boot, seq=self.seq, sent=self.now, body=Tele(samples=(sample,)))
        state = UpEnvelope(
            id=new_token(), boot=self.boot, seq=0, sent=self.now, body=State(at=self.now, conditions=conditions)
        )
        await self.store.commit(
            [
                Arrival(device=CAM, kind=kind, envelope=one, payload=mqtt.pack(one), received=self.now)
                for kind, one in ((Up.BIRTH, birth), (Up.TELE, tele), (Up.STATE, state))
            ]
        )

    async def restart(self) -> Alerting:
        await self.store.close()
        self.store = await self.place.open()
        return self.parts()


def play(place: Place, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        scene = Scene(place, await place.open())
        try:
            await story(scene)
        finally:
            await scene.store.close()

    asyncio.run(run())


def test_a_restart_neither_loses_nor_repeats_an_alert(place: Place) -> None:
    async def story(scene: Scene) -> None:
        alerting = scene.parts()
        await scene.measures(90.0)
        await alerting.step()
        scene.now += 40
        alerting = await scene.restart()  # while the condition has held for 40 s of 60
        await scene.measures(90.0)
        await alerting.step()
        assert await scene.store.alerts() == ()
        scene.now += 25
        alerting = await scene.restart()
        await alerting.step()
        (alert,) = await scene.store.alerts(open_only=True)
        assert (alert.rule, alert.began) == ("hot", 10_000.0)
        alerting = await scene.restart()
        await alerting.step()
        assert await scene.store.alerts() == (alert,)
        await scene.measures(40.0)
        await alerting.step()
        await alerting.step()
        (ended,) = await scene.store.alerts()
        assert ended.ended == scene.now

    play(place, story)


@pytest.mark.parametrize("stepped_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_while_the_hub_runs_changes_no_hold(place: Place, stepped_s: float) -> None:
    async def story(scene: Scene) -> None:
        async def hot() -> list[float]:
            return [alert.began for alert in await scene.store.alerts() if alert.rule == "hot"]

        alerting = scene.parts()
        await scene.measures(90.0)
        await alerting.step()
        for passed_s, set_by_s in ((10.0, stepped_s), (10.0, -stepped_s), (10.0, stepped_s)):
            scene.now += passed_s
            scene.stepped_s += set_by_s
            await alerting.step()
            assert await hot() == []
        alerting = await scene.restart()  # what is in the store is by the clock as it is now
        for passed_s in (0.0, 15.0, 14.0):
            scene.now += passed_s
            await alerting.step()
            assert await hot() == []
        scene.now += 2.0
        await alerting.step()
        assert await hot() == [10_000.0 + stepped_s]

    play(place, story)


def test_holds_are_written_when_they_change_and_when_a_write_did_not_happen() -> None:
    holding = Holding()
    assert holding.pending((), now=1000.0, steady_s=5.0) == {}
    first = holding.left({"hot": {str(CAM): 1000.0}}, now=1000.0, steady_s=5.0)
    assert first is not None
    for now, kept, is_written in ((1001.0, (first,), False), (1002.0, (), True), (1003.5, (first,), False)):
        found = holding.pending(kept, now=now, steady_s=now - 995.0)
        assert found == {"hot": {str(CAM): 1000.0}}
        record = holding.left({"hot": {str(CAM): 1000.0}}, now=now, steady_s=now - 995.0)
        assert (record is not None) is is_written


@dataclass
class Heard:
    """A way that notes what it is told, and fails as often as it is told to."""

    name: str = "test"
    notices: list[Notice] = field(default_factory=list)
    failures: int = 0

    async def tell(self, notice: Notice) -> str | None:
        if self.failures:
            self.failures -= 1
            return "nobody there"
        self.notices.append(notice)
        return None

    @property
    def ids(self) -> list[str]:
        return [notice.id for notice in self.notices]


async def ring(scene: Scene, temp_c: float) -> None:
    """The device is this hot for long enough."""
    alerting = scene.parts()
    await scene.measures(temp_c)
    await alerting.step()
    scene.now += 61
    await alerting.step()


def test_each_beginning_and_each_end_is_told_once_also_over_failures_and_restarts(place: Place) -> None:
    async def story(scene: Scene) -> None:
        heard = Heard()
        scene.parts()
        await scene.delivery(heard).step()  # the way is known from now on
        await ring(scene, 90.0)
        heard.failures = 2
        delivery = scene.delivery(heard)
        await delivery.step()
        await delivery.step()
        assert heard.ids == []
        await scene.restart()
        await scene.delivery(heard).step()
        await scene.delivery(heard).step()
        (began,) = heard.ids
        await ring(scene, 40.0)
        await ring(scene, 90.0)
        await scene.delivery(heard).step()
        await scene.delivery(heard).step()
        number = began.split("-")[0]
        assert heard.ids[:2] == [f"{number}-began", f"{number}-ended"]
        assert [notice.what for notice in heard.notices] == ["began", "ended", "began"]

    play(place, story)


def test_a_way_that_is_new_is_not_told_of_what_is_long_over(place: Place) -> None:
    async def story(scene: Scene) -> None:
        await ring(scene, 90.0)
        await ring(scene, 40.0)
        heard = Heard()
        await scene.delivery(heard).step()
        await scene.delivery(heard).step()
        assert heard.ids == []

    play(place, story)


def test_what_cannot_be_told_for_hours_is_given_up(place: Place) -> None:
    async def story(scene: Scene) -> None:
        heard = Heard()
        scene.parts()
        await scene.delivery(heard).step()
        await ring(scene, 90.0)
        heard.failures = 1
        scene.now += GIVE_UP_S
        delivery = scene.delivery(heard)
        await delivery.step()
        assert (heard.ids, delivery.given_up) == ([], 1)
        await ring(scene, 40.0)
        await delivery.step()
        assert heard.ids == []  # nobody is told the end of what they were not told

    play(place, story)


def test_what_is_too_much_is_passed_over_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "MAX_WAITING", 3)
    monkeypatch.setattr(delivering, "_PAGE", 2)

    async def story(scene: Scene) -> None:
        heard = Heard()
        scene.parts()
        delivery = scene.delivery(heard)
        await delivery.step()
        await scene.measures(20.0)
        for rule in ("first", "second", "third", "fourth", "fifth"):
            await scene.store.raise_alert(
                AlertRecord(rule=rule, device=CAM, severity="warning", began=scene.now, text="x")
            )
        heard.failures = 2
        for _ in range(3):
            await delivery.step()
        assert [notice.alert.rule for notice in heard.notices] == ["third", "fourth", "fifth"]
        assert delivery.given_up == 2

    play(place, story)


def test_in_a_silence_nobody_is_told(place: Place) -> None:
    async def story(scene: Scene) -> None:
        heard = Heard()
        scene.parts()
        await scene.delivery(heard).step()
        quiet = Silence(name="s", query="tenant = acme", rule="hot", until=scene.now + 3600, by="ann")
        await scene.store.put_rule(RuleRecord(name=f"{SILENCE}s", body=encode(quiet), changed=1.0))
        await ring(scene, 90.0)
        await scene.delivery(heard).step()
        assert heard.ids == []
        assert len(await scene.store.alerts(open_only=True)) == 1
        scene.now += 3600
        await ring(scene, 40.0)  # also forgets the silence
        assert [one.name for one in await scene.store.rules() if one.name.startswith(SILENCE)] == []
        await ring(scene, 90.0)
        await scene.delivery(heard).step()
        assert [notice.what for notice in heard.notices] == ["began"]

    play(place, story)


# --------------------------------------------------------------------------------------------------- webhooks


@dataclass
class Receiver:
    """An HTTP server that notes what is posted to it."""

    port: int = 0
    status: int = 204
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            noted.posts.append((dict(self.headers), body))
            self.send_response(noted.status)
            if noted.status == 307:
                self.send_header("Location", f"http://127.0.0.1:{noted.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        noted.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield noted
        finally:
            server.shutdown()
            thread.join()


def notice() -> Notice:
    from edge_hub.alerts.views import AlertView

    view = AlertView(id=7, rule="hot", device=str(CAM), severity="warning", began=1.0, text="too hot")
    return Notice(id="7-began", what="began", alert=view)


def test_a_webhook_is_signed_over_its_time_and_body() -> None:
    with receiver() as there:
        trouble = asyncio.run(Webhook(f"http://127.0.0.1:{there.port}/hook", "secret").tell(notice()))
    assert trouble is None
    ((headers, body),) = there.posts
    assert json.loads(body)["alert"]["rule"] == "hot"
    signed = headers["X-Edge-Timestamp"].encode() + b"." + body
    assert headers["X-Edge-Signature"] == f"sha256={hmac.new(b'secret', signed, hashlib.sha256).hexdigest()}"
    assert headers["X-Edge-Delivery"] == "7-began"


@pytest.mark.parametrize("status", [307, 404, 500])
def test_a_webhook_that_does_not_take_it_is_no_success_and_no_redirect_is_followed(status: int) -> None:
    with receiver() as there:
        there.status = status
        trouble = asyncio.run(Webhook(f"http://127.0.0.1:{there.port}/hook", "secret").tell(notice()))
        assert trouble == f"status {status}"
        assert len(there.posts) == 1
    gone = asyncio.run(Webhook(f"http://127.0.0.1:{there.port}/hook", "secret").tell(notice()))
    assert gone


def test_a_webhook_that_answers_by_drops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_WHOLE_S", 0.3)

    async def play() -> str | None:
        over = asyncio.Event()

        async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(b"HTTP/1.1 204 No Content\r\nX-Slow: ")
                while not over.is_set():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            telling = Webhook(f"http://127.0.0.1:{port}/hook", "secret").tell(notice())
            trouble = await asyncio.wait_for(telling, 60.0)
            await asyncio.wait_for(over.wait(), 60.0)
        return trouble

    assert asyncio.run(play()) == "no answer within 0 s"


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://a b", "http://x:99999", "//x", "http://x\n"])
def test_a_bad_webhook_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Webhook(url, "secret")
    assert not url or url not in str(caught.value)
