"""The spool: what was recorded is waiting, confirmed, or counted as dropped; whatever happens in between."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_daemon.spool import ROW_BYTES, Limits, Message, Spool
from edge_daemon.store import Store
from edge_sdk.mqtt import Conditions, Event, Reply, ReplyStatus, Sample, Tele, Up, unpack_up
from edge_sdk.wire import new_token

pytestmark = pytest.mark.device


def tele(samples: int = 1) -> Message:
    one = Sample(at=1.0, window_s=1.0, conditions=Conditions(missing={"temp_c": "no zone"}))
    return Message(body=Tele(samples=(one,) * samples))


def event(text: str = "") -> Message:
    return Message(body=Event(at=1.0, kind="sensor", text=text or None))


def reply() -> Message:
    return Message(body=Reply(status=ReplyStatus.DONE), reply_to=new_token())


@pytest.fixture
def make(tmp_path: Path):
    stores = []

    def make(boot: str = "b" * 32, **limits: float) -> Store:
        for store in stores:
            store.close()
        known = Limits(max_bytes=int(limits.get("max_bytes", 1e6)), max_age_s=limits.get("max_age_s", 100.0))
        stores[:] = [Store(tmp_path / "state", boot=boot, limits=known)]
        return stores[0]

    yield make
    for store in stores:
        store.close()


def kinds(store: Store) -> list[Up]:
    return [one.kind for one in store.payloads(store.waiting(1000))]


def test_replies_go_first_then_events_then_telemetry_each_in_order(make) -> None:
    store = make()
    store.commit(1.0, messages=[tele(), event("1"), reply(), event("2")])
    assert kinds(store) == [Up.REPLY, Up.EVENT, Up.EVENT, Up.TELE]
    waiting = store.payloads(store.waiting(10))
    assert [unpack_up(one.kind, one.payload).seq for one in waiting] == [3, 2, 4, 1]


def test_what_waited_at_the_connection_is_told_from_what_is_new_but_for_replies(make) -> None:
    store = make()
    store.commit(1.0, messages=[tele(), event("old"), reply(), tele()])
    mark = store.last_row()
    store.commit(1.0, messages=[tele(), event("new"), reply()])

    def numbers(rows: list[int]) -> list[int]:
        return [unpack_up(one.kind, one.payload).seq for one in store.payloads(rows)]

    live, backlog = store.split(10, mark)
    assert (numbers(live), numbers(backlog)) == ([3, 7, 6, 5], [2, 1, 4])
    assert [numbers(rows) for rows in store.split(2, mark)] == [[3, 7], [2, 1]]


def test_only_the_named_numbers_of_the_named_boot_leave(make) -> None:
    store = make(boot="1" * 32)
    store.commit(1.0, messages=[event() for _ in range(5)])
    store = make(boot="2" * 32)
    store.commit(1.0, messages=[event() for _ in range(5)])
    assert store.acknowledge("1" * 32, [(2, 3), (5, 9)]) == 3
    assert store.acknowledge("1" * 32, [(2, 3)]) == 0
    assert store.acknowledge("3" * 32, [(0, 2**53)]) == 0
    waiting = [unpack_up(one.kind, one.payload) for one in store.payloads(store.waiting(100))]
    assert [(e.boot[0], e.seq) for e in waiting] == [("1", 1), ("1", 4), *(("2", n) for n in range(1, 6))]


def test_where_room_is_short_telemetry_goes_first_and_is_counted(make) -> None:
    store = make(max_bytes=3000)
    store.commit(1.0, messages=[reply()])
    while store.spool.totals().dropped == 0:
        store.commit(1.0, messages=[tele()])
    dropped = store.spool.totals().dropped
    store.commit(1.0, messages=[event()])
    assert store.spool.totals().dropped == dropped + 1
    assert Up.EVENT in kinds(store)
    for _ in range(20):
        store.commit(1.0, messages=[event()])
    assert Up.TELE not in kinds(store)
    stored = store.commit(1.0, messages=[tele()])
    assert stored == (), "nothing less important is left to go"
    assert kinds(store)[0] is Up.REPLY
    assert store.spool.totals().bytes <= 3000


def test_what_was_dropped_is_told_once(make) -> None:
    store = make(max_age_s=10.0)
    store.commit(1.0, messages=[tele(), tele()])
    assert store.tidy(100.0) == 2
    told = [unpack_up(one.kind, one.payload).body for one in store.payloads(store.waiting(10))]
    assert [(e.kind, e.text.split()[0]) for e in told] == [("spool-dropped", "2")]
    assert store.tidy(100.0) == 0
    assert store.spool.totals().dropped == 2


def test_a_device_that_is_away_for_long_keeps_telemetry_and_not_news_of_what_it_dropped(make) -> None:
    store = make(max_bytes=20_000, max_age_s=1e6)
    for second in range(0, 20_000, 10):
        if second % 30 == 0:
            store.commit(float(second), messages=[tele()])
        store.tidy(float(second))
    assert kinds(store).count(Up.EVENT) == 1
    assert kinds(store).count(Up.TELE) > 20
    lost = store.spool.totals().unreported
    store = make(boot="c" * 32, max_bytes=20_000, max_age_s=1e6)
    assert store.tidy(20_000.0) == 0, "the one of before the restart still waits"
    store.acknowledge("b" * 32, [(1, 2**53)])
    assert store.tidy(20_000.0) == lost > 0


def test_a_clock_that_learns_the_time_makes_nothing_old(make) -> None:
    store = make(max_age_s=100.0)
    store.commit(5.0, messages=[event()])
    assert store.tidy(1.7e9 + 5.0, stepped_s=1.7e9) == 0
    assert kinds(store) == [Up.EVENT]
    assert store.tidy(1.7e9 + 200.0) == 1


def test_what_was_recorded_without_a_clock_is_not_too_old_for_a_daemon_that_begins_with_one(make) -> None:
    store = make(max_age_s=100.0)
    store.commit(5.0, messages=[event()])
    store = make(boot="c" * 32, max_age_s=100.0)
    assert store.tidy(1.8e9) == 0
    assert kinds(store) == [Up.EVENT]
    assert store.tidy(1.8e9 + 101.0) == 1


def test_a_clock_set_back_does_not_keep_things_for_ever(make) -> None:
    store = make(max_age_s=100.0)
    store.commit(1e6, messages=[event()])
    assert store.tidy(1000.0) == 0
    assert store.tidy(1101.0) == 1


def test_numbers_go_on_after_a_reopening_within_one_boot(make) -> None:
    store = make()
    store.commit(1.0, messages=[event()])
    store.acknowledge("b" * 32, [(1, 1)])
    store = make()
    stored = store.commit(1.0, messages=[event()])
    assert unpack_up(Up.EVENT, stored[0].payload).seq == 2


def test_a_batch_is_compressed_and_stays_the_same_bytes(make) -> None:
    store = make()
    stored = store.commit(1.0, messages=[tele(30)])[0]
    assert stored.payload[0] == 0x78
    assert len(unpack_up(Up.TELE, stored.payload).body.samples) == 30
    assert store.payloads(store.waiting(1))[0].payload == stored.payload


class SpoolMachine(RuleBasedStateMachine):
    """Every message is confirmed, dropped and counted, or still there: never lost, never there after it went."""

    MAX_BYTES = 6000

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="edge-spool-"))
        self.boots = 0
        self.now = 1000.0
        self.recorded: set[tuple[str, int]] = set()
        self.confirmed: set[tuple[str, int]] = set()
        self.store: Store | None = None
        self.restart()

    def teardown(self) -> None:
        assert self.store is not None
        self.store.close()
        shutil.rmtree(self.directory)

    @property
    def spool(self) -> Spool:
        assert self.store is not None
        return self.store.spool

    def waiting(self) -> set[tuple[str, int]]:
        assert self.store is not None
        envelopes = [unpack_up(one.kind, one.payload) for one in self.store.payloads(self.store.waiting(10_000))]
        return {(envelope.boot, envelope.seq) for envelope in envelopes}

    @rule()
    def restart(self) -> None:
        if self.store is not None:
            self.store.close()
        self.boots += 1
        limits = Limits(max_bytes=self.MAX_BYTES, max_age_s=50.0)
        self.store = Store(self.directory, boot=f"{self.boots:032x}", limits=limits)
        self.seq = 0

    @rule(kind=st.sampled_from([tele, event, reply]), count=st.integers(1, 4))
    def record(self, kind, count: int) -> None:
        assert self.store is not None
        self.store.commit(self.now, messages=[kind() for _ in range(count)])
        for _ in range(count):
            self.seq += 1
            self.recorded.add((f"{self.boots:032x}", self.seq))

    @rule(boot=st.integers(1, 4), first=st.integers(0, 20), length=st.integers(0, 10))
    def confirm(self, boot: int, first: int, length: int) -> None:
        assert self.store is not None
        before = self.waiting()
        named = {(b, s) for b, s in before if b == f"{boot:032x}" and first <= s <= first + length}
        assert self.store.acknowledge(f"{boot:032x}", [(first, first + length)]) == len(named)
        self.confirmed |= named
        assert self.waiting() == before - named

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        assert self.store is not None
        self.now += seconds
        if self.store.tidy(self.now):
            self.seq += 1  # the event that tells of it
            self.recorded.add((f"{self.boots:032x}", self.seq))

    @invariant()
    def one_event_at_most_tells_of_what_was_dropped(self) -> None:
        assert self.store is not None
        bodies = [unpack_up(one.kind, one.payload).body for one in self.store.payloads(self.store.waiting(10_000))]
        assert sum(isinstance(body, Event) and body.kind == "spool-dropped" for body in bodies) <= 1

    @invariant()
    def nothing_is_lost_uncounted(self) -> None:
        waiting = self.waiting()
        assert waiting <= self.recorded
        assert not waiting & self.confirmed
        gone = self.recorded - waiting - self.confirmed
        assert len(gone) == self.spool.totals().dropped

    @invariant()
    def the_totals_are_true_and_within_bounds(self) -> None:
        assert self.store is not None
        waiting = self.store.payloads(self.store.waiting(10_000))
        totals = self.spool.totals()
        assert totals.rows == len(waiting)
        assert totals.bytes == sum(len(one.payload) + ROW_BYTES for one in waiting)
        assert totals.bytes <= self.MAX_BYTES


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
