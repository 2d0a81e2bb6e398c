"""The small parts of the daemon, each for itself: outbox, recorder, remarks, clock, lanes, tasks, log, catalogue."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_stage import tiny_bundle

from edge_daemon import catalogue, logs, notify, tasks
from edge_daemon.clock import Steps, SystemClock
from edge_daemon.config import Config, ModelSection, ServerSection
from edge_daemon.errors import NotAllowedError
from edge_daemon.lanes import Lane
from edge_daemon.logs import Seldom
from edge_daemon.outbox import RESEND_MAX_S, Outbox
from edge_daemon.peers import Peer, admit, group_id, peer_of
from edge_daemon.recorder import Recorder
from edge_daemon.remarks import Remarks
from edge_daemon.spool import Limits, Message
from edge_daemon.store import Store
from edge_daemon.tasks import TaskOwner
from edge_sdk import profile
from edge_sdk.errors import ConfigError, StorageError
from edge_sdk.local import AppReport, AssignedServer
from edge_sdk.manifest import Latency, Origin, TensorSpec
from edge_sdk.mqtt import Conditions, Throttle, Up, unpack_up
from edge_sdk.wire import encode, new_token

pytestmark = pytest.mark.device


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.monotonic_s = 100.0
        self.wall_s = 1.7e9

    def monotonic(self) -> float:
        return self.monotonic_s

    def wall(self) -> float:
        return self.wall_s


class TestOutbox:
    def test_a_row_is_sent_once_and_again_when_it_is_not_confirmed_in_time(self) -> None:
        outbox = Outbox(resend_s=10.0)
        assert outbox.due([1, 2], 0.0) == [1, 2]
        outbox.sent([1, 2], 0.0)
        assert outbox.due([1, 2, 3], 5.0) == [3]
        outbox.sent([3], 5.0)
        assert outbox.next_s(5.0) == 5.0
        assert outbox.due([1, 2, 3], 10.0) == [1, 2]

    def test_a_hub_that_is_silent_is_asked_ever_less_often(self) -> None:
        outbox, now, gaps = Outbox(resend_s=10.0), 0.0, []
        outbox.due([1], now)
        outbox.sent([1], now)
        for _ in range(6):
            gap = outbox.next_s(now)
            now += gap
            gaps.append(gap)
            assert outbox.due([1], now) == [1]
            outbox.sent([1], now)
        assert gaps == sorted(gaps)
        assert gaps[-1] == RESEND_MAX_S
        outbox.heard()
        assert outbox.next_s(now) == 10.0

    def test_what_is_new_goes_at_once_and_the_backlog_follows_paced_and_in_order(self) -> None:
        outbox, now, old, sent = Outbox(backlog_per_s=10.0), 100.0, list(range(1, 101)), []
        while old:
            due = outbox.due([1000 + int(now)], now, backlog=old[: outbox.window])
            outbox.sent(due, now)
            outbox.heard()
            live = [row for row in due if row > 1000]
            assert due[: len(live)] == live
            sent += [(now, row) for row in due if row <= 1000]
            old = [row for row in old if row not in due]
            now += min(outbox.next_s(now), 1.0) or 0.05
        assert [row for _, row in sent] == list(range(1, 101))
        for begin in range(100, int(now)):
            assert sum(begin <= at < begin + 1 for at, _ in sent) <= 20, "a second's worth, and what was saved for one"
        assert 8.0 <= now - 100.0 <= 12.0

    def test_a_new_connection_starts_anew(self) -> None:
        outbox = Outbox()
        outbox.sent(outbox.due([1], 0.0), 0.0)
        assert outbox.due([1], 1.0) == []
        outbox.forget()
        assert outbox.due([1], 1.0) == [1]


class TestRecorder:
    def test_a_window_holds_what_apps_did_in_it(self) -> None:
        recorder = Recorder(sample_every_s=5.0, telemetry_every_s=10.0, now_s=0.0)
        recorder.saw("m", AppReport(active="a", calls=10, late=1, p50_ms=1.0, p95_ms=2.0))
        recorder.saw("m", AppReport(active="a", calls=90, failed=2, p50_ms=3.0, p95_ms=9.0))
        assert not recorder.sample(4.9, 104.9, Conditions(), {"m": "a", "n": None})
        assert recorder.sample(5.0, 105.0, Conditions(), {"m": "a", "n": None})
        assert recorder.batch(5.0) is None
        recorder.sample(10.0, 110.0, Conditions(), {"m": "a"})
        batch = recorder.batch(10.0)
        assert batch is not None
        first, second = batch.samples
        stats = first.models["m"]
        assert (stats.calls, stats.late, stats.failed, stats.p50_ms, stats.p95_ms) == (100, 1, 2, 3.0, 9.0)
        assert first.models["n"].variant is None
        assert second.models["m"].calls == 0
        assert second.models["m"].p50_ms is None
        assert recorder.batch(10.0, all_of_it=True) is None

    def test_quantiles_are_of_the_variant_that_ended_the_window(self) -> None:
        recorder = Recorder(sample_every_s=1.0, telemetry_every_s=1.0, now_s=0.0)
        recorder.saw("m", AppReport(active="slow", calls=10, p50_ms=50.0))
        recorder.saw("m", AppReport(active="fast", calls=1, p50_ms=1.0))
        recorder.sample(1.0, 1.0, Conditions(), {"m": "fast"})
        batch = recorder.batch(1.0)
        assert batch is not None
        stats = batch.samples[0].models["m"]
        assert (stats.variant, stats.p50_ms, stats.calls) == ("fast", 1.0, 11)

    def test_quantiles_weigh_what_was_computed_here_and_not_what_a_server_answered(self) -> None:
        recorder = Recorder(sample_every_s=1.0, telemetry_every_s=1.0, now_s=0.0)
        recorder.saw("m", AppReport(active="a", calls=100, sent=100, replied=99, p50_ms=50.0))
        recorder.saw("m", AppReport(active="a", calls=10, p50_ms=3.0))
        recorder.sample(1.0, 1.0, Conditions(), {"m": "a"})
        batch = recorder.batch(1.0)
        assert batch is not None
        assert (batch.samples[0].models["m"].calls, batch.samples[0].models["m"].p50_ms) == (110, 3.0)

    def test_a_batch_is_never_larger_than_the_protocol_takes(self) -> None:
        recorder = Recorder(sample_every_s=1.0, telemetry_every_s=1e5, now_s=0.0)
        for second in range(1, 700):
            recorder.sample(float(second), float(second), Conditions(), {})
        sizes = []
        while (batch := recorder.batch(700.0, all_of_it=True)) is not None:
            sizes.append(len(batch.samples))
        assert sizes == [600, 99]

    def test_a_batch_of_many_models_is_one_that_a_hub_takes(self, tmp_path: Path) -> None:
        draw, names = random.Random(1), [f"camera-{number}" for number in range(100)]
        recorder = Recorder(sample_every_s=5.0, telemetry_every_s=600.0, now_s=0.0)
        store = Store(tmp_path, boot=new_token(), limits=Limits(max_bytes=10_000_000, max_age_s=1e6))
        count = 0
        for second in range(5, 601, 5):
            for name in names:
                report = AppReport(active="a", calls=draw.randint(1, 999), p50_ms=draw.random(), p95_ms=draw.random())
                recorder.saw(name, report)
            recorder.sample(float(second), 1e9 + second, Conditions(load_pct=draw.random()), dict.fromkeys(names, "a"))
            batch = recorder.batch(float(second), all_of_it=second == 600)
            if batch is not None:
                (sent,) = store.commit(1.0, messages=[Message(body=batch)])
                count += len(unpack_up(Up.TELE, sent.payload).body.samples)
        store.close()
        assert count == 120


class TestRemarks:
    def test_throttling_is_told_when_it_changes(self) -> None:
        remarks = Remarks()
        assert remarks.of(Conditions(), 0.0, 1.0) == []
        told = remarks.of(Conditions(throttle=Throttle.THERMAL), 1.0, 2.0)
        assert [(e.kind, e.text) for e in told] == [("throttle", "thermal (before: none)")]
        assert remarks.of(Conditions(throttle=Throttle.THERMAL), 2.0, 3.0) == []

    def test_a_sensor_that_flaps_is_told_once_a_minute(self) -> None:
        remarks, here, gone = Remarks(), Conditions(), Conditions(missing={"temp_c": "no zone", "rtt_ms": "no hub"})
        remarks.of(here, 0.0, 0.0)
        told = [remark for s in range(1, 60) for remark in remarks.of(gone if s % 2 else here, s, s)]
        assert [e.text for e in told] == ["temp_c is gone: no zone"]
        told = [remark for s in range(60, 200) for remark in remarks.of(here, s, s)]
        assert [e.text for e in told] == ["temp_c is back"]

    def test_what_a_board_does_not_have_is_no_event(self) -> None:
        remarks = Remarks()
        assert remarks.of(Conditions(missing={"battery_pct": "none"}), 0.0, 0.0) == []


def test_a_clock_that_is_set_is_noticed() -> None:
    clock = SetClock()
    steps = Steps(clock)
    clock.monotonic_s += 10
    clock.wall_s += 10
    assert abs(steps.since()) < 1e-6
    clock.monotonic_s += 10
    clock.wall_s += 3610
    assert steps.since() == pytest.approx(3600)
    clock.monotonic_s += 10
    clock.wall_s -= 90
    assert steps.since() == pytest.approx(-100)
    assert SystemClock().wall() > 0
    assert SystemClock().monotonic() <= SystemClock().monotonic()


class TestLanes:
    def test_calls_are_done_in_order_in_one_thread_and_errors_come_back(self) -> None:
        async def scene() -> None:
            lane, seen = Lane("test"), []
            names = await asyncio.gather(
                *(lane.run(lambda n=n: seen.append(n) or threading.current_thread().name) for n in range(20))
            )
            assert seen == list(range(20))
            assert set(names) == {"edge-test"}

            def fail() -> None:
                raise StorageError("full")

            with pytest.raises(StorageError):
                await lane.run(fail)
            assert lane.close(5.0)

        asyncio.run(scene())

    def test_a_lane_that_hangs_does_not_hold_up_the_end(self) -> None:
        async def scene() -> None:
            lane, release = Lane("test"), threading.Event()
            hanging = asyncio.ensure_future(lane.run(release.wait))
            await asyncio.sleep(0)
            assert not lane.close(0.05)
            release.set()
            await hanging

        asyncio.run(scene())


class TestTasks:
    def test_a_vital_task_that_fails_is_told_and_another_begins_anew(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(tasks, "RESTART_AFTER_S", 0.01)

        async def scene() -> None:
            owner, runs, steady = TaskOwner(), [], asyncio.Event()

            async def stumbling() -> None:
                runs.append(1)
                if len(runs) < 3:
                    raise ValueError("again")
                steady.set()
                await asyncio.sleep(3600)

            async def vital() -> None:
                raise KeyError("lost")

            owner.spawn("stumbling", stumbling, vital=False)
            await asyncio.wait_for(steady.wait(), 60)
            assert not owner.failed.is_set()
            owner.spawn("vital", vital)
            await asyncio.wait_for(owner.failed.wait(), 60)
            assert isinstance(owner.failure, KeyError)
            await owner.stop_all(5)

        asyncio.run(scene())
        assert "vital failed; the daemon stops" in caplog.text

    def test_a_task_that_does_not_end_is_left_after_the_limit(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scene() -> None:
            owner, release = TaskOwner(), asyncio.Event()

            async def stubborn() -> None:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
                await release.wait()

            owner.spawn("stubborn", stubborn)
            await asyncio.sleep(0)
            await owner.stop("stubborn", 0.05)
            release.set()
            await asyncio.sleep(0.05)

        asyncio.run(scene())
        assert "stubborn did not end" in caplog.text


class TestNotify:
    def test_systemd_hears_each_word_and_silence_is_no_error(
        self, short_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        assert not notify.notify("READY=1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(short_path / "notify"))
            listening.settimeout(60)
            monkeypatch.setenv("NOTIFY_SOCKET", str(short_path / "notify"))
            assert notify.notify("READY=1")
            assert listening.recv(100) == b"READY=1"
        assert not notify.notify("WATCHDOG=1"), "nobody listens any more"

    def test_the_watchdog_is_fed_only_by_whom_it_concerns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        for text, seconds in (("30000000", 30.0), ("", None), ("0", None), ("soon", None)):
            monkeypatch.setenv("WATCHDOG_USEC", text)
            assert notify.watchdog_s() == seconds
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        monkeypatch.setenv("WATCHDOG_PID", "1")
        assert notify.watchdog_s() is None


class TestLog:
    def test_repeats_are_held_back_and_counted(self) -> None:
        seldom = Seldom(60.0)
        assert seldom.allows(0.0) == 0
        assert [seldom.allows(float(s)) for s in range(1, 10)] == [None] * 9
        assert seldom.allows(60.0) == 9
        assert [seldom.ending(at_s) for at_s in (60.0, 120.0, 180.0)] == [None, " (1 more such lines held back)", ""]

    def test_under_the_journal_each_line_has_its_priority(self) -> None:
        record = logging.LogRecord("x", logging.WARNING, "f", 1, "two\nlines", None, None)
        assert logs._Line(journal=True).format(record) == "<4>two\n<4>    lines"
        assert logs._Line(journal=False).format(record).endswith("warning two\n    lines")


class TestPeers:
    def test_the_kernel_says_who_it_is(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            assert peer_of(ours) == Peer(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())

    def test_only_the_own_user_root_and_the_group_may_speak(self) -> None:
        stranger = Peer(pid=1, uid=4_000_000, gid=4_000_001)
        admit(Peer(pid=1, uid=0, gid=0), None)
        admit(Peer(pid=1, uid=os.geteuid(), gid=4_000_001), None)
        admit(stranger, 4_000_001)
        for group in (None, 4_000_002):
            with pytest.raises(NotAllowedError, match=r"\[api\] group"):
                admit(stranger, group)

    def test_a_group_that_does_not_exist_is_a_mistake_in_the_configuration(self) -> None:
        assert group_id(grp.getgrgid(0).gr_name) == 0
        with pytest.raises(ConfigError, match="no group"):
            group_id("no-such-group-here")


# ------------------------------------------------------------------------------------------------------- catalogue


def timed(variant: str, threads: int, at: float, **fields: Any) -> Latency:
    entry = {"variant": variant, "origin": Origin.MEASURED, "machine": "here", "threads": threads, "at": at}
    return Latency(**(entry | {"median_ms": float(threads)} | fields))


def test_latencies_are_of_one_number_of_threads_where_they_can_be(tmp_path: Path) -> None:
    variants = tiny_bundle(tmp_path / "digits-1.edge").manifest.variants

    def threads(*evidence: Latency) -> dict[str, int]:
        found = catalogue.latencies_of(variants, evidence, machine="here", profile="rpi4")
        return {id_: latency.threads for id_, latency in found.items()}

    both = (timed("exact", 1, 1.0), timed("quick", 1, 1.0))
    assert threads(*both, timed("quick", 4, 9.0)) == {"exact": 1, "quick": 1}
    assert threads(*both, timed("quick", 4, 9.0), timed("exact", 4, 9.0)) == {"exact": 1, "quick": 1}
    assert threads(timed("exact", 4, 1.0), timed("quick", 4, 1.0), timed("quick", 1, 9.0)) == {"exact": 4, "quick": 4}
    assert threads(timed("exact", 2, 1.0), timed("quick", 4, 1.0)) == {"exact": 2, "quick": 4}
    board = timed("quick", 8, 1.0, machine="another", profile="rpi4")
    assert threads(timed("exact", 1, 1.0), board) == {"exact": 1, "quick": 8}


def test_of_the_same_number_of_threads_the_newest_counts(tmp_path: Path) -> None:
    variants = tiny_bundle(tmp_path / "digits-1.edge").manifest.variants
    evidence = (timed("exact", 1, 2.0, median_ms=7.0), timed("exact", 1, 1.0, median_ms=5.0))
    assert catalogue.latencies_of(variants, evidence, machine="here", profile=None)["exact"].median_ms == 7.0


def test_what_a_variant_took_on_another_delegate_is_not_taken_for_it(tmp_path: Path) -> None:
    variants = tiny_bundle(tmp_path / "digits-1.edge").manifest.variants
    evidence = (timed("exact", 1, 1.0, delegate="cpu"), timed("exact", 1, 2.0, median_ms=0.1, delegate="gpu"))
    assert catalogue.latencies_of(variants, evidence, machine="here", profile=None)["exact"].median_ms == 1.0


def test_what_is_predicted_for_a_board_counts_for_a_profile_made_from_it(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "digits-1.edge")
    entries = [
        {"variant": variant, "origin": "predicted", "machine": board, "profile": board, "median_ms": ms}
        for variant, board, ms in (("exact", "rpi4", 20.0), ("quick", "rpi4", 8.0), ("quick", "camera", 9.0))
    ]
    (bundle.path / "evidence.json").write_bytes(encode({"format": 1, "latency": entries}))
    config = Config(models={"digits": str(bundle.path)})
    for base, told in ((None, [None, 9.0]), ("rpi4", [20.0, 9.0])):
        camera = msgspec.structs.replace(profile.load("rpi4"), id="camera", extends=base)
        read = catalogue.read(config, camera, str(tmp_path))
        assert [one.latency_ms for one in read.served["digits"].shown.variants] == told


def test_what_is_sent_to_a_server_follows_from_the_inputs(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")  # one input of 4 floats
    server = ServerSection(url="http://board-2:8080", model="big", quality=99.0, server_ms=25.0)
    models = {"digits": ModelSection(bundle=str(bundle.path), server=server), "alone": str(bundle.path)}
    read = catalogue.read(Config(models=models), None, "/")
    facts = read.served["digits"].facts.server
    assert facts is not None
    assert (facts.quality, facts.server_ms, facts.payload_kb) == (99.0, 25.0, pytest.approx(0.416))
    assert facts.spares
    assert read.served["digits"].server == AssignedServer(url="http://board-2:8080", model="big")
    assert read.server == read.served["digits"].server
    assert (read.served["alone"].server, read.served["alone"].facts.server) == (None, None)
    assert catalogue._size_bytes(TensorSpec(name="image", shape=(-1, 224, 224, 3), dtype="uint8")) == 150_528
    assert catalogue._size_bytes(TensorSpec(name="flags", shape=(2,), dtype="bool")) == 2


def test_a_bundle_whose_evidence_is_damaged_is_served_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tiny_bundle(tmp_path / "digits-1.edge")
    (bundle.path / "evidence.json").write_text("{")
    read = catalogue.read(Config(models={"digits": str(bundle.path)}), None, "/")
    assert read.broken == ()
    assert [one.latency_ms for one in read.served["digits"].shown.variants] == [None, None]
    assert "evidence.json: not as expected" in caplog.text
