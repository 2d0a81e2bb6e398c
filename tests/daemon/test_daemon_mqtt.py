"""The daemon and a hub over a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_stage import DEVICE, PASSWORD, PATIENCE_S, Broker, DaemonProcess, NotingHub, end, reporting, serving, until

from edge_daemon import trace
from edge_daemon.sensors.suite import SensorSuite
from edge_daemon.spool import Limits, Message
from edge_daemon.store import Store
from edge_sdk import mqtt
from edge_sdk.bundle import Bundle
from edge_sdk.local import AppReport, Assignment, LocalClient, Register, Registered
from edge_sdk.mqtt import Conditions, Desired, Down, DownEnvelope, ReplyStatus, Sample, Tele, Up
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import new_token

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

MakeDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def board(daemon: MakeDaemon, broker: Broker, digits: Bundle) -> DaemonProcess:
    """A daemon that serves `digits` and reports to the broker; not started."""
    return daemon(reporting(broker.port) + serving(digits.path))


class App:
    """An app, reduced to what it says to the daemon."""

    def __init__(self, board: DaemonProcess) -> None:
        self.client = LocalClient(board.socket)
        self.registered = self.client.call("POST", "/v1/apps", Registered, Register(model="digits", name="test"))
        self.report(self.registered.assignment.variant)

    def report(self, variant: str, **fields: float) -> Assignment:
        body = AppReport(active=variant, calls=10, p50_ms=1.0, p95_ms=2.0, **fields)
        return self.client.call("POST", f"/v1/apps/{self.registered.app}/report", Assignment, body)

    def follow(self) -> Assignment:
        """Report what one is told to run until one runs it."""
        told = self.report(self.registered.assignment.variant)
        return self.report(told.variant, switched_ms=3.0)


def test_a_birth_says_what_the_device_is_and_a_clean_end_that_it_goes(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    birth = hub.birth()
    assert [m.name for m in birth.body.models] == ["digits"]
    assert {v.id for v in birth.body.models[0].variants} == {"exact", "quick"}
    assert birth.seq == 0
    hub.event("started")
    assert board.stop() == 0
    gone = hub.birth(online=False)
    assert gone.boot == birth.boot
    hub.event("stopped")


def test_a_daemon_that_dies_is_told_by_its_will(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    birth = hub.birth()
    board.kill()
    will = hub.birth(online=False)
    assert will.boot == birth.boot


def test_a_late_will_names_the_boot_it_belongs_to(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    first = hub.birth()
    board.kill()
    board.start()
    second = hub.when(
        lambda: next((e for k, e in hub.noted if k is Up.BIRTH and e.body.online and e.boot != first.boot), None),
        "the second birth",
    )
    wills = [e for k, e in hub.noted if k is Up.BIRTH and not e.body.online]
    assert all(will.boot == first.boot != second.boot for will in wills)


def test_state_and_telemetry_come_and_confirmed_messages_leave_the_spool(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    state = hub.when(lambda: hub.bodies(Up.STATE), "a state")[0]
    assert state.models["digits"].decision.variant == "exact"
    tele = hub.when(lambda: hub.bodies(Up.TELE), "telemetry")[0]
    assert tele.samples[0].window_s >= 1
    assert tele.samples[0].models["digits"].variant is None
    until(lambda: board.status().spooled == 0, "an empty spool")
    until(lambda: board.status().conditions.rtt_ms is not None, "a round trip")
    assert board.status().hub == "connected"


def test_the_round_trips_of_the_connection_are_part_of_a_recording(
    board: DaemonProcess, hub: NotingHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_STATUS_TIMEOUT_S", PATIENCE_S)
    board.start()
    hub.birth()
    until(lambda: board.status().conditions.rtt_ms is not None, "a round trip")
    with SensorSuite(tmp_path) as suite:
        out, ended = tmp_path / "trace.csv", threading.Event()
        done = trace.record(
            out, suite, root=str(tmp_path), socket=str(board.socket), every_s=0.02, for_s=0.1, ended=ended
        )
    assert "rtt_ms" in done.played
    assert out.read_text().startswith("time_s,rtt_ms,")


def test_a_switch_is_told_with_its_reason_once_the_app_has_made_it(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    hub.birth()
    app = App(board)
    with app.client:
        command = hub.order(mqtt.Prefer(model="digits", preference=Preference(mode=Mode.SPEED)))
        assert hub.reply(command).status is ReplyStatus.DONE
        told = app.follow()
        switch = hub.event("switch")
        assert (switch.model, switch.old, switch.new) == ("digits", "exact", told.variant)
        assert switch.because is not None
        assert switch.because.code == "preference"
        assert switch.took_ms == 3.0
        state = hub.when(
            lambda: next((s for s in hub.bodies(Up.STATE) if s.models["digits"].active == told.variant), None),
            "a state that shows it",
        )
        assert state.models["digits"].preference.mode is Mode.SPEED
        assert state.models["digits"].apps == 1


def test_each_command_does_what_it_says_and_is_answered_once(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    hub.birth()
    pin = hub.order(mqtt.Pin(model="digits", variant="quick"))
    assert hub.reply(pin).status is ReplyStatus.DONE
    assert board.status().models["digits"].pinned_by == "hub"
    explain = hub.reply(hub.order(mqtt.Explain()))
    assert explain.result["decisions"][0]["because"]["code"] == "pin"
    assert hub.reply(hub.order(mqtt.Unpin())).status is ReplyStatus.DONE
    assert board.status().models["digits"].pinned is None
    assert hub.reply(hub.order(mqtt.Pause())).status is ReplyStatus.DONE
    assert board.status().models["digits"].paused
    assert hub.reply(hub.order(mqtt.Resume())).status is ReplyStatus.DONE
    assert not board.status().models["digits"].paused
    report = hub.reply(hub.order(mqtt.Report()))
    assert report.result["models"]["digits"]["decision"]["variant"]
    configure = hub.reply(hub.order(mqtt.Configure(telemetry_every_s=7.0)))
    assert configure.result == {"telemetry_every_s": 7.0, "sample_every_s": None}
    replied = [e.reply_to for k, e in hub.noted if k is Up.REPLY]
    assert len(replied) == len(set(replied)) == 7


def test_measure_times_variants_in_a_child_and_the_policy_learns_it(board: DaemonProcess, hub: NotingHub) -> None:
    pytest.importorskip("numpy")
    board.start()
    hub.birth()
    command = hub.order(mqtt.Measure(model="digits"))
    reply = hub.reply(command)
    assert reply.status is ReplyStatus.DONE, reply.text
    measured = {one["variant"]: one for one in reply.result["latencies"]}
    assert set(measured) == {"exact", "quick"}
    assert all(one["origin"] == "measured" and one["median_ms"] > 0 for one in measured.values())
    refused = hub.reply(hub.order(mqtt.Measure(model="digits", variant="nope")))
    assert (refused.status, refused.code) == (ReplyStatus.REFUSED, "unknown-variant")


def test_a_command_that_comes_too_late_is_not_run(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    hub.birth()
    reply = hub.reply(hub.order(mqtt.Pin(model="digits", variant="quick"), expires_in_s=-5))
    assert reply.status is ReplyStatus.EXPIRED
    assert board.status().models["digits"].pinned is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (mqtt.Pin(model="digits", variant="nope"), "unknown-variant"),
        (mqtt.Pin(model="letters", variant="exact"), "unknown-model"),
        (mqtt.Measure(model="letters"), "unknown-model"),
        (mqtt.Prefer(model="letters", preference=Preference()), "unknown-model"),
    ],
)
def test_an_impossible_command_is_refused_with_a_code(
    board: DaemonProcess, hub: NotingHub, body: mqtt.Command, code: str
) -> None:
    board.start()
    hub.birth()
    reply = hub.reply(hub.order(body))
    assert (reply.status, reply.code) == (ReplyStatus.REFUSED, code)
    assert reply.text


def test_a_replay_gets_the_same_answer_and_is_not_run_again(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    hub.birth()
    id_ = new_token()
    hub.order(mqtt.Pin(model="digits", variant="quick"), id_=id_)
    hub.replies(id_, 1)
    assert hub.reply(hub.order(mqtt.Unpin())).status is ReplyStatus.DONE
    hub.order(mqtt.Pin(model="digits", variant="quick"), id_=id_)
    first, second = hub.replies(id_, 2)
    assert first == second
    assert board.status().models["digits"].pinned is None


def test_a_replay_is_answered_from_memory_after_a_restart(board: DaemonProcess, hub: NotingHub) -> None:
    board.start()
    hub.birth()
    id_ = hub.order(mqtt.Pin(model="digits", variant="quick"))
    hub.replies(id_, 1)
    assert hub.reply(hub.order(mqtt.Unpin())).status is ReplyStatus.DONE
    board.kill()
    after = len(hub.noted)
    board.start()
    hub.birth(after=after)
    hub.order(mqtt.Pin(model="digits", variant="quick"), id_=id_)
    hub.replies(id_, 2)
    assert board.status().models["digits"].pinned is None


def test_what_is_no_command_is_refused_where_it_names_itself_and_ignored_elsewhere(
    board: DaemonProcess, hub: NotingHub
) -> None:
    board.start()
    hub.birth()
    id_ = new_token()
    malformed = b'{"id":"%s","sent":%d,"body":{"name":"explode"}}' % (id_.encode(), time.time())
    hub.publish(Down.CMD, b"\xff\xfe no JSON")
    hub.publish(Down.CMD, b"{}")
    hub.publish(Down.CMD, b"[" * 50_000)
    hub.publish(Down.CMD, b'{"id":"' + b"a" * 70_000 + b'"}')
    hub.publish(Down.ACK, b'{"id":1}')
    hub.publish(Down.CMD, malformed)
    reply = hub.reply(id_)
    assert (reply.status, reply.code) == (ReplyStatus.REFUSED, "malformed")
    assert "explode" in (reply.text or "")
    hub.publish(Down.CMD, malformed)
    assert len(hub.replies(id_, 2)) == 2
    assert hub.reply(hub.order(mqtt.Report())).status is ReplyStatus.DONE
    assert board.said.count("is ignored") == 1, "repeats are rate-limited"


def test_a_retained_command_is_ignored(board: DaemonProcess, hub: NotingHub) -> None:
    envelope = DownEnvelope(id=new_token(), sent=time.time(), body=mqtt.Pin(model="digits", variant="quick"))
    hub.publish(Down.CMD, mqtt.pack(envelope), retain=True)
    board.start()
    board.says("a retained command is ignored")
    assert board.status().models["digits"].pinned is None


def test_a_desired_version_is_applied_once_and_an_older_one_ignored(board: DaemonProcess, hub: NotingHub) -> None:
    def desire(version: int, variant: str | None) -> None:
        body = Desired(version=version, pins={"digits": variant}, preferences={"digits": Preference(mode=Mode.BATTERY)})
        envelope = DownEnvelope(id=new_token(), sent=time.time(), body=body)
        hub.publish(Down.DESIRED, mqtt.pack(envelope), retain=True)

    def reported(version: int) -> mqtt.State:
        found = hub.when(
            lambda: next((s for s in hub.bodies(Up.STATE) if s.desired_version == version), None), f"version {version}"
        )
        assert isinstance(found, mqtt.State)
        return found

    desire(3, "quick")
    board.start()
    state = reported(3)
    assert (state.models["digits"].pinned, state.models["digits"].pinned_by) == ("quick", "hub")
    assert state.models["digits"].preference.mode is Mode.BATTERY
    desire(2, "exact")
    desire(4, "nope")
    refused = hub.when(lambda: next((s for s in hub.bodies(Up.STATE) if s.desired_refused), None), "a refusal")
    assert "nope" in (refused.desired_refused or "")
    assert refused.desired_version == 3
    desire(5, None)
    state = reported(5)
    assert state.models["digits"].pinned is None
    assert state.desired_refused is None
    after = len(hub.noted)
    board.kill()
    board.start()
    hub.birth(after=after)
    assert board.status().models["digits"].preference.mode is Mode.BATTERY


def test_a_wrong_password_is_one_clear_line_and_the_daemon_works_on(
    daemon: MakeDaemon, broker: Broker, digits: Bundle
) -> None:
    board = daemon(reporting(broker.port).replace(PASSWORD, "wrong") + serving(digits.path))
    board.start()
    until(lambda: board.status().hub == "refused", "the refusal")
    status = board.status()
    assert "check user name and password" in status.hub_text
    assert str(DEVICE) in status.hub_text
    assert status.models["digits"].decision is not None
    time.sleep(1.0)
    assert board.said.count("check user name and password") == 1
    assert PASSWORD not in board.said
    assert "wrong" not in board.said
    assert board.stop() == 0


def test_an_unreachable_broker_is_one_clear_line_and_nothing_recorded_is_lost(
    daemon: MakeDaemon, broker: Broker, digits: Bundle
) -> None:
    broker.stop()
    board = daemon(reporting(broker.port) + serving(digits.path))
    board.start()
    until(lambda: board.status().hub_text, "the reason")
    assert board.status().hub == "connecting"
    assert "can't be reached" in board.status().hub_text
    until(lambda: board.status().spooled >= 3, "a spool that fills")
    assert board.said.count("can't be reached") == 1
    broker.start()
    hub = NotingHub(broker.port)
    try:
        hub.event("started")
        until(lambda: board.status().spooled == 0, "an empty spool")
    finally:
        hub.close()


def test_what_was_recorded_survives_the_end_of_daemon_and_broker(
    board: DaemonProcess, broker: Broker, hub: NotingHub
) -> None:
    hub.acknowledging = False
    board.start()
    hub.when(lambda: len(hub.bodies(Up.TELE)) >= 2, "telemetry")
    board.kill()
    broker.kill()
    broker.forget()
    kept = hub.numbers()
    assert kept
    board.start()
    until(lambda: board.status().spooled > len(kept), "more in the spool")
    after = len(hub.noted)
    broker.start()
    until(lambda: board.status().hub == "connected", "the connection")
    hub.when(lambda: kept <= {(e.boot, e.seq) for _, e in hub.noted[after:]}, "every message of before, again")
    hub.acknowledge_all()
    until(lambda: board.status().spooled == 0, "an empty spool")
    boots = {boot for boot, _ in hub.numbers()}
    assert len(boots) == 2
    for boot in boots:
        numbers = sorted(seq for b, seq in hub.numbers() if b == boot)
        assert numbers == list(range(1, len(numbers) + 1)), "no number is missing"
    assert board.status().dropped == 0


def test_a_board_that_was_away_for_a_day_tells_first_how_it_is_now(
    board: DaemonProcess, broker: Broker, hub: NotingHub
) -> None:
    """A day at a scale of 1 to 144: 600 records of one a second, each a message, left by a boot before."""
    before = "b" * 32
    store = Store(board.state, boot=before, limits=Limits(max_bytes=64_000_000, max_age_s=604_800.0))
    now = time.time()
    for first in range(0, 600, 50):
        ages = range(600 - first, 550 - first, -1)
        samples = [Sample(at=now - age_s, window_s=1.0, conditions=Conditions(temp_c=50.0)) for age_s in ages]
        store.commit(now, messages=[Message(body=Tele(samples=(one,))) for one in samples])
    store.close()
    board.start()

    def numbers() -> list[int]:
        return [envelope.seq for _, envelope in list(hub.noted) if envelope.boot == before]

    def live() -> bool:
        return any(kind is Up.TELE and envelope.boot != before for kind, envelope in list(hub.noted))

    hub.when(live, "telemetry of now")
    behind = len(numbers())
    assert behind < 600, "the backlog was sent first"
    assert hub.noted[0][0] in {Up.BIRTH, Up.STATE}
    found = hub.when(lambda: found if len(found := numbers()) >= min(behind + 60, 600) else None, "more of the backlog")
    found = list(dict.fromkeys(found))  # what was not confirmed in time comes again
    assert found == list(range(1, len(found) + 1))
    assert board.status().dropped == 0


def test_a_broker_that_dies_and_forgets_everything_loses_nothing(
    board: DaemonProcess, broker: Broker, hub: NotingHub
) -> None:
    board.start()
    birth = hub.birth()
    hub.when(lambda: hub.bodies(Up.TELE), "telemetry")
    broker.kill()
    broker.forget()
    until(lambda: board.status().hub == "connecting", "the loss to be noticed")
    until(lambda: board.status().spooled >= 2, "telemetry that waits")
    broker.start()
    until(lambda: board.status().spooled == 0, "an empty spool")
    assert {boot for boot, _ in hub.numbers()} == {birth.boot}
    numbers = sorted(seq for _, seq in hub.numbers())
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_hub_that_confirms_nothing_keeps_everything_in_the_spool(board: DaemonProcess, hub: NotingHub) -> None:
    hub.acknowledging = False
    board.start()
    hub.when(lambda: hub.bodies(Up.TELE), "telemetry")
    noted = len(hub.numbers())  # first: there will be more
    assert board.status().spooled >= noted > 0
    foreign = DownEnvelope(id=new_token(), sent=time.time(), body=mqtt.Ack(boot=new_token(), ranges=((0, 2**53),)))
    hub.publish(Down.ACK, mqtt.pack(foreign))
    assert hub.reply(hub.order(mqtt.Report())).status is ReplyStatus.DONE
    assert board.status().spooled >= 3, "another boot's numbers are not ours"


def test_another_client_with_our_name_is_suspected(board: DaemonProcess, broker: Broker, hub: NotingHub) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    board.start()
    hub.birth()
    client_id = f"{DEVICE.tenant}:{DEVICE.device}"
    twin = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
    twin.username_pw_set(str(DEVICE), PASSWORD)
    twin.connect("127.0.0.1", broker.port)
    twin.loop_start()
    try:
        board.says("used twice")
    finally:
        end(twin)
