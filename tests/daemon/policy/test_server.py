"""A server as an action: who is told to ask it, when nobody is any more, and what is said of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from climbing import Climber
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Event as Told
from edge_daemon.policies.contract import Factory, Replied, Second, Setting, Verdict, Why
from edge_daemon.policy import tables, way
from edge_daemon.policy.because import explained
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.state import PolicyState, dump, initial, load
from edge_daemon.policy.types import (
    AppCannotAsk,
    AppJoined,
    AppLeft,
    AppPinned,
    AppReported,
    Assign,
    Decided,
    Event,
    Instruction,
    Looked,
    ModelFacts,
    Paused,
    Pinned,
    PinnedBy,
    PolicyFailed,
    Preferred,
    ServerFacts,
    Tick,
    Unpinned,
    VariantFacts,
)
from edge_sdk.mqtt import Conditions, Decision
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

LADDER = (("large", 79.0, 90.0), ("small", 74.0, 30.0), ("tiny", 60.0, 5.0), ("slow", 82.0, 900.0), ("odd", 73.0, 60.0))
SERVER = ServerFacts(quality=84.0, payload_kb=30.0, server_ms=25.0)
SPARED = replace(SERVER, spares=True)
METERED = "the server is left out: the network is metered"
WISH = Preference(mode=Mode.ACCURACY, max_latency_ms=250.0)
CALM = Conditions(temp_c=45.0, temp_limit_c=75.0, charging=True, rtt_ms=900.0, up_mbps=0.01)  # to the hub: no matter


class Board:
    """One model with a server, and a clock that goes on with each second."""

    def __init__(
        self,
        factory: Factory | None = None,
        *,
        asks: bool = True,
        rtt_ms: float | None = 20.0,
        server: ServerFacts = SERVER,
        metered: bool | None = None,
    ) -> None:
        variants = tuple(
            VariantFacts(id=name, quality=quality, latency_ms=latency_ms, measured=True, size_bytes=1000)
            for name, quality, latency_ms in LADDER
        )
        self.facts = (ModelFacts(name="m", variants=variants, server=server),)
        self.frame = Frame(use="optimal", factory=factory or registry.find("optimal"))
        self.state: PolicyState = initial(self.facts)
        self.now_s = 0.0
        self.said: list[Instruction] = []
        self.rtt_ms, self.metered = rtt_ms, metered
        self.took_ms: float | None = 60.0
        self.tell(Preferred(model=None, preference=WISH), AppJoined(app="app", model="m", asks=asks))
        self.seconds(1)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.state, instructions = self.frame.step(self.state, event)
            self.said += instructions

    def seconds(self, count: int) -> bool:
        """So many seconds with 10 requests each; whether the server is asked at the end."""
        for _ in range(count):
            self.now_s += 1.0
            if not way.is_fresh(self.state.way, self.state.now_s, tables.LOOK_EVERY_S):
                self.tell(Looked(rtt_ms=self.rtt_ms))
            for app in self.state.apps:
                self.tell(self.report(app.app))
            self.tell(self.tick())
        return self.state.models[0].asks

    def tick(self) -> Tick:
        conditions = msgspec.structs.replace(CALM, metered=self.metered)
        return Tick(now_s=self.now_s, at=1e9 + self.now_s, conditions=conditions)

    def report(self, app: str) -> AppReported:
        assigned = self.assigned(app)
        takes = {name: latency_ms for name, _, latency_ms in LADDER}[assigned.decision.variant]
        if not assigned.asks:
            return AppReported(
                app=app, variant=assigned.decision.variant, calls=10, late=0, p50_ms=takes, p95_ms=None, arrived=10,
                latencies_ms=(takes,) * 5,
            )  # fmt: skip
        in_time = self.took_ms is not None and self.took_ms < 250.0 - takes
        return AppReported(
            app=app, variant=assigned.decision.variant, calls=10, late=0, p50_ms=None if in_time else takes,
            p95_ms=None, arrived=10, slow_ms=None if in_time else takes, now_s=self.now_s, sent=10,
            replied=10 if in_time else 0, remote_ms=self.took_ms,
        )  # fmt: skip

    def assigned(self, app: str = "app") -> Assign:
        found = self.state.assignment(app)
        assert found is not None
        return found

    @property
    def decision(self) -> Decision:
        decision = self.state.models[0].decision
        assert decision is not None
        return decision

    @property
    def toggles(self) -> int:
        texts = ["asks the server" in item.decision.because.text.split(" instead")[0] for item in self.decided]
        return sum(one != other for one, other in itertools.pairwise(texts))

    @property
    def decided(self) -> list[Decided]:
        return [item for item in self.said if isinstance(item, Decided)]


class Asker(Climber):
    """Asks whenever it may, and notes what it is told."""

    settings: list[Setting] = []
    told: list[Told] = []

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        Asker.settings.append(setting)

    def step(self, state: Any, event: Told) -> tuple[Any, tuple[Verdict, ...]]:
        Asker.told.append(event)
        verdicts = []
        for index, task in enumerate(self.setting.tasks):
            asking = [action for action in task.actions if action.remote]
            best = max(asking or task.actions, key=lambda action: (action.hedge == "small", action.quality))
            verdicts.append(Verdict(task=index, action=best.id, why=Why(code="gain")))
        return state, tuple(verdicts)


def fails(_: Setting) -> Asker:
    raise ValueError("no such policy")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    Asker.settings, Asker.told = [], []


def seconds_told() -> list[Second]:
    return [event for event in Asker.told if isinstance(event, Second)]


def test_a_server_that_answers_well_in_time_is_asked_while_the_best_variant_stands_by() -> None:
    board = Board(rtt_ms=None)
    assert not board.seconds(5)
    assert board.decision.variant == "large"
    board.rtt_ms = 20.0
    assert board.seconds(10)
    assigned = board.assigned()
    assert (assigned.asks, assigned.decision.variant) == (True, "large")
    assert "asks the server (84 points), large stands by" in board.decision.because.text
    assert board.decision.because.code == "network"
    assert board.toggles == 1


def test_what_is_offered_is_never_the_server_alone_and_the_best_in_time_stand_by_with_the_fastest() -> None:
    Board(Asker)
    (task,) = Asker.settings[-1].tasks
    asking = [action for action in task.actions if action.remote]
    assert [action.hedge for action in asking] == ["large", "small", "odd", "tiny"]
    assert {(a.quality, a.latency_ms, a.payload_kb, a.power_w) for a in asking} == {(84.0, 25.0, 30.0, 1.1)}
    assert len([action for action in task.actions if not action.remote]) == len(LADDER)


def test_a_board_without_a_server_is_told_of_the_way_to_the_hub_as_before() -> None:
    board = Board(Asker, asks=False)
    board.seconds(3)
    assert not any(action.remote for task in Asker.settings[-1].tasks for action in task.actions)
    assert (seconds_told()[-1].rtt_ms, seconds_told()[-1].up_mbps) == (900.0, 0.01)


def test_the_way_to_the_server_is_what_the_policy_is_told_of_and_no_answer_is_infinite() -> None:
    board = Board(Asker)
    board.seconds(2)
    assert (seconds_told()[-1].rtt_ms, seconds_told()[-1].up_mbps) == (20.0, pytest.approx(30 * 8 / 15.0))
    seen = seconds_told()[-1].tasks[0]
    assert (seen.action, seen.sent, seen.replied, seen.requests) == ("server+small", 10, 10, 10)
    board.tell(Looked(rtt_ms=None), Tick(now_s=board.now_s + 1.0, at=1e9, conditions=CALM))
    assert seconds_told()[-1].rtt_ms == math.inf
    for later in range(2, 20):
        board.tell(Tick(now_s=board.now_s + later, at=1e9, conditions=CALM))
    assert (seconds_told()[-1].rtt_ms, seconds_told()[-1].up_mbps) == (None, None)  # nobody looked for too long


def test_a_server_that_is_gone_is_left_within_seconds_and_asked_again_once_it_is_back() -> None:
    board = Board()
    assert board.seconds(10)
    board.rtt_ms = board.took_ms = None
    assert not board.seconds(4)
    assert board.decision.variant == "large"
    assert board.decision.because.text.startswith("the server ")
    assert not board.seconds(30)
    board.rtt_ms, board.took_ms = 20.0, 60.0
    assert board.seconds(30)


def test_a_server_that_is_too_slow_is_tried_about_once_a_minute_and_else_left_alone() -> None:
    board = Board()
    board.took_ms = 2000.0
    asked = sum(board.seconds(1) for _ in range(300))
    assert 0 < asked <= 15
    assert 4 <= board.toggles <= 12
    texts = [each.decision.because.text for each in board.decided]
    assert any(
        text.startswith("the server takes about 2000 ms: large (79 points in 90 ms) instead of") for text in texts
    )


def test_nobody_is_told_to_ask_who_does_not_know_how_and_the_reason_says_so() -> None:
    board = Board(asks=False)
    assert not board.seconds(20)
    assert not board.assigned().asks
    assert "the server is left out: the SDK is from before servers, or told to ask none" in (
        explained(board.state)[0].because.text
    )
    assert len(explained(board.state, "m")) == len(board.state.explain("m"))


def test_an_app_that_cannot_ask_computes_while_another_one_asks() -> None:
    board = Board()
    board.tell(AppJoined(app="old", model="m", asks=False))
    assert board.seconds(10)
    assert board.assigned().asks
    assert not board.assigned("old").asks
    told = board.assigned("old").decision
    assert told.because.text.endswith(
        f"does not ask it (the SDK is from before servers, or told to ask none), so {told.variant} computes"
    )


def test_a_refusal_is_the_reason_and_holds_longer_each_time() -> None:
    board = Board(Asker)
    assert board.seconds(2)
    board.tell(AppCannotAsk(app="app", reason="another signature"))
    assert not board.assigned().asks
    assert "the server is left out: another signature" in board.decision.because.text
    assert not board.seconds(int(tables.CANNOT_ASK_S) - 2)
    until = (not board.seconds(1) for _ in range(10))
    assert any(not waits for waits in until)
    board.tell(AppCannotAsk(app="app", reason="another signature"))
    assert not board.seconds(int(2 * tables.CANNOT_ASK_S) - 2)
    assert board.seconds(10)
    assert board.state.apps[0].refusals == 0  # it answered since


def test_who_could_not_ask_is_told_to_again_although_another_one_asks_all_the_while() -> None:
    board = Board(Asker)
    board.tell(AppJoined(app="other", model="m", asks=True))
    assert board.seconds(3)
    board.tell(AppCannotAsk(app="other", reason="another signature"))
    assert not board.assigned("other").asks
    board.said.clear()
    assert board.seconds(int(tables.CANNOT_ASK_S) + 2)
    (told,) = [item for item in board.said if isinstance(item, Assign)]
    assert (told.app, told.asks) == ("other", True)
    assert board.toggles <= 1


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_a_model_that_the_server_does_not_answer_keeps_no_other_from_asking(order: tuple[str, str]) -> None:
    board = Board(Asker)
    one = board.facts[0]
    board.facts = (one, replace(one, name="n"))
    board.state, board.said = initial(board.facts), []
    board.tell(Preferred(model=None, preference=WISH), Looked(rtt_ms=20.0))
    board.tell(AppJoined(app="good", model="m", asks=True), AppJoined(app="bad", model="n", asks=True))
    asked = {"m": 0, "n": 0}
    for _ in range(100):
        board.now_s += 1.0
        for app in order:
            board.took_ms = 60.0 if app == "good" else None
            board.tell(board.report(app))
        board.tell(Tick(now_s=board.now_s, at=1e9 + board.now_s, conditions=CALM))
        for model in board.state.models:
            asked[model.name] += model.asks
    assert asked["m"] > 90
    assert asked["n"] < 10
    assert "answers others in time, and not this app" in explained(board.state, "n")[0].because.text


def test_several_apps_leave_a_server_that_vanishes_and_ask_it_again_once_it_is_back() -> None:
    board = Board(Asker)
    board.tell(AppJoined(app="other", model="m", asks=True))
    assert board.seconds(5)
    board.rtt_ms = board.took_ms = None
    assert not board.seconds(6)
    board.rtt_ms, board.took_ms = 20.0, 60.0
    assert board.seconds(6)
    assert board.assigned().asks
    assert board.assigned("other").asks


def test_a_pause_keeps_nobody_waiting_for_a_server_that_is_gone_and_changes_no_variant() -> None:
    board = Board()
    assert board.seconds(10)
    variant = board.decision.variant
    board.tell(Paused(paused=True))
    assert board.seconds(5)
    board.rtt_ms = board.took_ms = None
    assert not board.seconds(5)
    assert board.decision.variant == variant
    assert board.decision.because.code == "network"
    board.rtt_ms, board.took_ms = 20.0, 60.0
    assert not board.seconds(10)
    board.tell(Paused(paused=False))
    assert board.seconds(10)


def test_a_pin_asks_nobody() -> None:
    board = Board()
    assert board.seconds(10)
    board.tell(Pinned(model="m", variant="large", by=PinnedBy.OPERATOR))
    assert not board.seconds(3)
    assert not board.assigned().asks
    board.tell(Unpinned(model="m", by=PinnedBy.OPERATOR))
    assert board.seconds(10)
    board.tell(AppPinned(app="app", variant="tiny"))
    assert (board.assigned().asks, board.assigned().decision.variant) == (False, "tiny")


def test_the_wait_of_a_slow_call_is_handed_to_the_policy() -> None:
    board = Board(Asker)
    board.tell(
        AppReported(
            app="app",
            variant="small",
            calls=1,
            late=1,
            p50_ms=90.0,
            p95_ms=None,
            slow_ms=90.0,
            waited_ms=33.0,
            now_s=1.2,
        )
    )
    (reply,) = [event for event in Asker.told if isinstance(event, Replied)]
    assert (reply.latency_ms, reply.waited_ms) == (90.0, 33.0)


def test_a_restart_asks_nobody_until_somebody_looked() -> None:
    board = Board()
    assert board.seconds(10)
    kept = load(dump(board.state))
    assert kept is not None
    again = initial(board.facts, kept)
    assert (again.models[0].asks, again.models[0].decision, again.way) == (False, None, None)
    board.state = again
    board.tell(AppJoined(app="app", model="m", asks=True))
    board.rtt_ms = board.took_ms = None
    assert not board.seconds(5)
    assert "asks the server" not in board.decision.because.text


def test_the_last_app_leaves_and_another_one_asks() -> None:
    board = Board()
    assert board.seconds(10)
    board.tell(AppLeft(app="app"))
    board.seconds(3)
    board.tell(AppJoined(app="next", model="m", asks=True))
    assert board.seconds(10)


@pytest.mark.parametrize("use", ["optimal", "rules", "alert"])
def test_a_server_that_is_spared_is_left_within_the_second_in_which_the_network_is_metered(use: str) -> None:
    board = Board(registry.find(use), server=SPARED, metered=False)
    assert board.seconds(20)
    board.metered = True
    assert not board.seconds(1)
    assert not board.assigned().asks
    assert board.decision.because.code == "network"
    assert METERED in board.decision.because.text
    assert not [action for task in board.state.plugged.setting.tasks for action in task.actions if action.remote]
    assert not board.seconds(60)
    assert METERED in explained(board.state)[0].because.text
    board.metered = False
    assert board.seconds(20)
    assert METERED not in explained(board.state)[0].because.text


def test_it_is_left_also_where_the_variant_that_is_to_compute_may_not_come_back_yet() -> None:
    board = Board(Asker, server=SPARED)
    assert board.state.models[0].asks
    assert board.state.models[0].left
    board.metered = True
    assert not board.seconds(1)
    assert METERED in board.decision.because.text


def test_a_tick_between_two_seconds_leaves_it_too_and_a_pause_or_a_policy_that_fails_keeps_nobody_asking() -> None:
    board = Board(server=SPARED)
    assert board.seconds(10)
    board.now_s, board.metered = board.now_s + 0.25, True
    board.tell(board.tick())
    assert not board.state.models[0].asks
    assert board.decision.because.text.startswith("the network is metered: ")
    assert explained(board.state)[0].because.text.count("metered") == 1
    for happens in (Paused(paused=True), None):
        board = Board(Asker, server=SPARED)
        assert board.seconds(10)
        board.metered = True
        if happens is None:
            board.frame = replace(board.frame, factory=fails)
        else:
            board.tell(happens)
        assert not board.seconds(1)
        assert not board.assigned().asks
        assert "the network is metered" in explained(board.state)[0].because.text


def test_a_server_that_may_be_asked_whatever_it_costs_is_decided_on_as_if_nothing_were_metered() -> None:
    boards = [Board(metered=metered) for metered in (None, True)]
    for board in boards:
        for board.rtt_ms, board.took_ms in ((20.0, 60.0), (None, None), (20.0, 60.0), (900.0, 2000.0)):
            board.seconds(15)
    assert boards[0].said == boards[1].said
    assert boards[1].toggles > 1


def test_what_is_not_known_to_be_metered_is_not_and_a_silent_sensor_is_taken_at_its_last_word_for_a_while() -> None:
    board = Board(server=SPARED, metered=None)
    assert board.seconds(10)
    board.metered = True
    board.seconds(2)
    board.metered = None
    kept = load(dump(board.state))
    assert kept is not None
    assert kept.metered_s == board.state.metered_s
    assert load(dump(replace(board.state, metered_s=board.state.now_s + 1.0))) is None
    assert not board.seconds(int(tables.SENSOR_HOLD_S))
    assert board.seconds(10)


def test_of_two_models_the_one_whose_server_is_spared_computes_here_and_the_other_asks() -> None:
    board = Board(server=SPARED)
    one = board.facts[0]
    board.facts = (one, replace(one, name="n", server=SERVER))
    board.state, board.metered = initial(board.facts), True
    board.tell(Preferred(model=None, preference=WISH), Looked(rtt_ms=20.0))
    board.tell(AppJoined(app="app", model="m", asks=True), AppJoined(app="other", model="n", asks=True))
    board.seconds(20)
    assert [model.asks for model in board.state.models] == [False, True]
    assert METERED in explained(board.state, "m")[0].because.text
    assert METERED not in explained(board.state, "n")[0].because.text


def test_a_pin_says_nothing_of_a_server_that_is_spared_and_a_model_without_one_neither() -> None:
    board = Board(server=SPARED, metered=True)
    board.tell(Pinned(model="m", variant="large", by=PinnedBy.OPERATOR))
    board.seconds(2)
    assert METERED not in explained(board.state)[0].because.text
    board.facts = (replace(board.facts[0], server=None),)
    board.state = initial(board.facts)
    board.tell(AppJoined(app="app", model="m", asks=True))
    board.seconds(3)
    assert METERED not in explained(board.state)[0].because.text


def test_why_an_app_asks_nobody_is_said_in_its_own_words_where_it_has_some() -> None:
    board = Board(asks=False)
    board.tell(AppLeft(app="app"), AppJoined(app="app", model="m", why="the SDK is too old for this server"))
    assert not board.seconds(5)
    assert "the server is left out: the SDK is too old for this server" in explained(board.state)[0].because.text
    board.tell(replace(board.report("app"), sent=1, replied=1))
    assert not board.seconds(5)


@pytest.mark.parametrize("use", ["optimal", "rules", "alert", "static", "static-fast"])
def test_a_pin_that_goes_and_comes_again_within_a_dwell_fails_no_policy(use: str) -> None:
    board = Board(registry.find(use), asks=False)
    board.seconds(2)
    for event in (
        Pinned(model="m", variant="tiny", by=PinnedBy.HUB),
        Unpinned(model="m", by=PinnedBy.HUB),
        Pinned(model="m", variant="tiny", by=PinnedBy.HUB),
    ):
        board.tell(event)
        board.seconds(1)
    assert not any(isinstance(item, PolicyFailed) for item in board.said)


@pytest.mark.parametrize("use", ["optimal", "rules", "alert", "static", "static-fast"])
def test_every_policy_decides_whatever_the_server_does(use: str) -> None:
    board = Board(registry.find(use), rtt_ms=None)
    for board.rtt_ms, board.took_ms in (
        (None, None),
        (20.0, 60.0),
        (20.0, None),
        (0.0, 5000.0),
        (900.0, 1e-9),
        (5.0, 9.0),
    ):
        board.seconds(20)
    assert not [item for item in board.said if isinstance(item, PolicyFailed)]
    asked = any("asks the server" in item.decision.because.text for item in board.decided)
    assert asked == (not use.startswith("static"))


SEEN = st.none() | st.floats(0, 5000)
PAYS = st.sampled_from([False, False, False, None, True])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(SEEN, SEEN, PAYS, st.sampled_from(["", "refuses", "pins", "frees", "old", "leaves", "again"])),
        min_size=5, max_size=40,
    ),
    st.sampled_from([Asker, registry.find("optimal")]),
)  # fmt: skip
def test_a_server_is_asked_only_while_it_answers_and_never_again_within_a_dwell(
    seconds: list[tuple[float | None, float | None, bool | None, str]], factory: Factory
) -> None:
    board = Board(factory, server=SPARED)
    left_s = -math.inf
    for board.rtt_ms, board.took_ms, board.metered, happens in seconds:
        before = board.state.models[0].asks
        if happens == "refuses":
            board.tell(AppCannotAsk(app="app", reason="no"))
        elif happens in {"pins", "frees"}:
            board.tell(
                Pinned(model="m", variant="tiny", by=PinnedBy.HUB)
                if happens == "pins"
                else Unpinned(model=None, by=PinnedBy.HUB)
            )
        elif happens == "old":
            board.tell(AppJoined(app="old", model="m"))
        elif happens == "leaves":
            board.tell(AppLeft(app="app"))
        elif happens == "again":
            board.tell(AppJoined(app="app", model="m", asks=True))
        word = happens in {"pins", "frees"}  # somebody's word forgets what was left
        left_s = -math.inf if word else board.now_s if before and not board.state.models[0].asks else left_s
        before = board.state.models[0].asks
        now = board.seconds(1)
        if now and not before:
            assert board.now_s - left_s >= tables.DWELL_S
        left_s = board.now_s if before and not now else left_s
        model = board.state.models[0]
        if now and board.state.apps:
            assert way.told(board.state.way, board.state.now_s)[0] not in {None, math.inf}
            assert model.pin is None
            assert board.state.metered_s is None
        for app in board.state.apps:
            assigned = board.assigned(app.app)
            assert not assigned.asks or (now and app.app == "app")
            assert model.variant(assigned.decision.variant) is not None
    assert not [item for item in board.said if isinstance(item, PolicyFailed)]


def test_what_can_be_sent_follows_from_what_an_answer_took_beyond_the_round_trip() -> None:
    seen = way.looked(None, 1.0, 40.0)
    assert way.told(seen, 2.0) == (40.0, tables.MOST_MBPS)
    seen = way.answered(seen, 2.0, 145.0, payload_kb=30.0, server_ms=25.0)
    assert way.told(seen, 2.0) == (40.0, pytest.approx(3.0))
    faster = way.answered(seen, 3.0, 35.0, payload_kb=30.0, server_ms=25.0)
    assert faster.rtt_ms == pytest.approx(10.0)
    late = way.unanswered(seen, 3.0, 132.5, payload_kb=30.0, server_ms=25.0)
    assert way.told(late, 3.0) == (40.0, pytest.approx(1.2))
    assert way.told(late, 64.0) == (None, None)
    assert way.known_mbps(replace(seen, seen_s=99.0), 99.0) == tables.MOST_MBPS
    assert way.looked(seen, 4.0, 50.0).up_mbps == seen.up_mbps
    assert way.looked(way.looked(seen, 4.0, None), 6.0, 50.0).up_mbps is None
    assert way.unanswered(None, 1.0, 250.0, payload_kb=1.0, server_ms=0.0) is None
