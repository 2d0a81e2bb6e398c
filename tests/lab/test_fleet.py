"""A played fleet: what its devices tell, how they answer, and that a hub has everything they sent, once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S, until
from fleet_stage import PlayedFleet
from hub_stage import HubProcess
from hypothesis import given
from hypothesis import strategies as st

from edge_daemon.clock import SystemClock
from edge_hub.api import Credentials
from edge_hub.rows import estimated_w_of
from edge_lab.errors import FleetError
from edge_lab.fleet import connection, packets
from edge_lab.fleet.cast import FATES, part_of
from edge_lab.fleet.device import Device, Habits
from edge_lab.fleet.fleet import Plan, names
from edge_lab.fleet.tally import Tally
from edge_lab.fleet.track import Track, rehearse
from edge_sdk.cli.main import main
from edge_sdk.mqtt import Event, Explain, Pause, Pin, Report, State

FEW = 3


@pytest.fixture(scope="module")
def track() -> Track:
    return rehearse(part_of(FATES[1]), seed=1)


@given(bodies=st.lists(st.binary(max_size=300), max_size=5), cuts=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_a_stream_is_cut_into_packets_however_it_arrives(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(packets.publish("t", body, 7, retain=False) for body in bodies)
    splitter, found, at = packets.Splitter(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        found += splitter.feed(stream[at : at + size])
        at += size
    assert [packets.received(first, body) for first, body in found] == [
        packets.Received("t", body, False, 7) for body in bodies
    ]


def test_what_is_no_packet_is_refused() -> None:
    with pytest.raises(FleetError):
        packets.Splitter().feed(b"\x30\xff\xff\xff\xff\x01")


class Left:
    """A party that waits for the end of its connection."""

    def __init__(self) -> None:
        self.why: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connected(self) -> None:
        raise AssertionError

    def arrived(self, message: packets.Received) -> None:
        raise AssertionError

    def lost(self, why: str, *, refused: bool) -> None:
        self.why.set_result(f"{why}, {refused}")


@pytest.mark.parametrize("says", [b"", b"\x20\x03\x00\x00\x00"], ids=["nothing", "only welcome"])
def test_a_broker_that_falls_silent_is_left(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_GREETING_S", 0.2)

    async def scene() -> None:
        ended = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(says)
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
            ended.set()

        party = Left()
        login = packets.Login(
            client_id="t:a", username="", password="", keepalive_s=1, session_expiry_s=0, will_topic="t",
            will_payload=b"", will_delay_s=0,
        )  # fmt: skip
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as broker:
            where = broker.sockets[0].getsockname()
            await asyncio.get_running_loop().create_connection(
                lambda: connection.Connection(login, ("t",), party), *where
            )
            assert await asyncio.wait_for(party.why, PATIENCE_S) == "the broker is silent, False"
            await asyncio.wait_for(ended.wait(), PATIENCE_S)

    asyncio.run(scene())


def test_a_track_tells_of_switches_with_the_reasons_of_the_real_policy(track: Track) -> None:
    switches = [event for event in track.events if event.kind == "switch"]
    assert {"latency", "thermal", "battery", "recovered"} & {e.because.code for e in switches if e.because is not None}
    assert all(e.because is not None and e.new is not None and e.new in e.because.text for e in switches)
    assert [one.at for one in track.samples] == sorted(one.at for one in track.samples)
    charge = [one.conditions.battery_pct for one in track.samples]
    assert charge == sorted(charge, key=lambda pct: -(pct or 0.0))


def test_without_a_sensor_the_hub_shows_what_the_policy_takes_the_whole_board_to_draw(track: Track) -> None:
    idle_w = track.part.site.board.idle_w
    drawn_w = [
        estimated_w_of(State(at=moment.at_s, conditions=track.sample_at(moment.at_s).conditions, models=moment.models))
        for moment in track.moments
    ]
    told_w = [watts for watts in drawn_w if watts is not None]
    assert len(told_w) > len(drawn_w) / 2
    assert all(idle_w <= watts < idle_w + 10 for watts in told_w)


def device_of(track: Track, port: int) -> tuple[Device, Tally]:
    given, tally = Credentials(device="t/a", host="127.0.0.1", port=port, username="", password=""), Tally()
    habits, clock, rng = Habits(report_s=1.0), SystemClock(), random.Random(0)
    return Device(given, track, at_s=0.0, habits=habits, clock=clock, tally=tally, rng=rng), tally


def test_a_device_that_is_not_let_in_is_refused_and_has_lost_nothing(track: Track) -> None:
    async def scene() -> None:
        ended = asyncio.Event()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x20\x03\x00\x87\x00")
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
            ended.set()

        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as broker:
            device, tally = device_of(track, broker.sockets[0].getsockname()[1])
            device.start(0.0)
            await asyncio.wait_for(ended.wait(), PATIENCE_S)
            await device.close()
        assert (tally.refused, tally.lost, tally.connections) == (1, 0, 0)

    asyncio.run(scene())


def test_a_device_times_a_bounded_number_of_messages_while_the_hub_is_away(track: Track) -> None:
    device, _ = device_of(track, 1)
    for _ in range(3):
        device._tell(*(Event(at=1.0, kind="started"),) * 500)
    assert len(device._composed) == 1000
    asyncio.run(device.close())


def test_a_tenant_that_is_no_name_is_refused_before_anything_is_rehearsed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hub", "simulate", "--tenant", "a/b", "--data", str(tmp_path / "no-hub-is-asked")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not TENANT/DEVICE" in line


def test_boards_take_part_in_the_ratio_of_their_shares() -> None:
    cast = names(Plan(devices=660, tenant="t", duration_s=1.0))
    whole = sum(fate.share for fate in FATES)
    for fate in FATES:
        assert sum(one is fate for _, one in cast) == pytest.approx(660 * fate.share / whole, abs=fate.share)
    assert len({device for device, _ in cast}) == 660


@pytest.fixture
def fleet(hub: HubProcess) -> Iterator[PlayedFleet]:
    played = PlayedFleet(hub, FEW)
    yield played
    played.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path / "h")
    process.start()
    yield process
    process.stop()


@pytest.mark.broker
def test_a_fleet_reports_obeys_and_has_everything_confirmed_once(hub: HubProcess, fleet: PlayedFleet) -> None:
    fleet.until_online()
    with hub.client() as client:
        devices = client.devices()
        one, other, third = [device for device, _ in names(Plan(devices=FEW, tenant="sim", duration_s=None))]
        for device, command in (
            (one, Pin(model="classifier", variant="lite0-int8")),
            (other, Report()),
            (third, Pause()),
        ):
            id_ = client.send([device], command, expires_s=60)[str(device)]
            assert client.command(id_, wait_s=60).state == "done"
        id_ = client.send([one], Explain(), expires_s=60)[str(one)]
        reply = client.command(id_, wait_s=60).reply
        assert reply is not None
        assert reply.result["decisions"][0]["because"]["code"] == "pin"
        assert len(reply.result["decisions"]) > 1  # it remembers what its track decided before

        def pinned() -> bool:
            state = client.device(one).device.state
            return state is not None and state.models["classifier"].active == "lite0-int8"

        until(pinned, "the pin")
    assert all(view.birth is not None and view.birth.models for view in devices)
    told = fleet.finish()
    assert told["status"] == 0
    assert (told["confirmed"], told["unconfirmed"], told["replies"]) == (told["sent"], 0, 4)
    with hub.client() as client:
        until(lambda: client.health().online == 0, "the goodbyes, which nobody confirms")
        health = client.health()
    assert (health.messages, health.malformed, health.online) == (told["sent"], 0, 0)
