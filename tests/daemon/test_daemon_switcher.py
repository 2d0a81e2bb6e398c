"""What the policy's memory and its disk hold is the same, whoever goes away meanwhile and whenever it restarts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from daemon_stage import tiny_bundle

from edge_daemon import catalogue, commanding
from edge_daemon.api import Api
from edge_daemon.apps import SILENT_S, App, Apps
from edge_daemon.catalogue import Catalogue, Served
from edge_daemon.config import Config
from edge_daemon.journal import Journal
from edge_daemon.lanes import Lane
from edge_daemon.listener import Request
from edge_daemon.peers import Peer
from edge_daemon.policies import registry
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.types import AppJoined, Event, Pinned, PinnedBy, Preferred
from edge_daemon.position import Whereabouts
from edge_daemon.recorder import Recorder
from edge_daemon.spool import Limits, Message
from edge_daemon.store import Answer, Store
from edge_daemon.switcher import Switcher
from edge_daemon.tasks import TaskOwner
from edge_daemon.wishes.schedule import Override, Schedule, When
from edge_daemon.wishes.state import AppWish, Site
from edge_sdk.errors import StorageError
from edge_sdk.local import AppPrefer, Explanation, Register, Status
from edge_sdk.manifest import Latency, Origin
from edge_sdk.mqtt import (
    MAX_UP_BYTES,
    Conditions,
    DownEnvelope,
    Measure,
    ModelState,
    Reply,
    ReplyStatus,
    State,
    Up,
    pack,
    unpack_up,
)
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import encode, new_token

pytestmark = pytest.mark.device

UTC = ZoneInfo("UTC")
EVENING = datetime(2026, 11, 27, 23, tzinfo=UTC).timestamp()
HOUR_S = 3600.0
QUIET_NIGHT = Schedule(
    name="night", when=When(begin="22:00", end="06:00"), preference=Override(mode=Mode.BATTERY, min_accuracy=80.0)
)
ORDERS = (
    Pinned(model="digits", variant="quick", by=PinnedBy.HUB),
    Preferred(model="digits", preference=Preference(mode=Mode.SPEED)),
)


class Board:
    """A store in its lane that outlives switchers, and clocks that a test sets."""

    def __init__(self, served: Mapping[str, Served], *schedules: Schedule) -> None:
        self.passed_s, self.begins = 0.0, EVENING
        self.store: Store
        self.lane = Lane("store")
        self._served, self._site = served, Site(zone=UTC, schedules=schedules)

    def monotonic(self) -> float:
        return 100.0 + self.passed_s

    def wall(self) -> float:
        return self.begins + self.passed_s

    async def starts(self) -> Switcher:
        """A switcher of a daemon that starts, or starts again."""
        frame = Frame(use="rules", factory=registry.find("rules"))
        self.apps = Apps()
        switcher = Switcher(self._served, self.apps, self.store, self.lane, self, frame=frame, site=self._site)
        await switcher.restore()
        await switcher.tick(Conditions())
        return switcher

    def api(self, switcher: Switcher) -> Api:
        async def status() -> Status:
            raise NotImplementedError

        return Api(
            catalogue=Catalogue(served=self._served),
            apps=self.apps,
            switcher=switcher,
            recorder=Recorder(sample_every_s=5.0, telemetry_every_s=30.0, now_s=self.monotonic()),
            journal=Journal(self.store, self.lane, self),
            clock=self,
            whereabouts=Whereabouts(None, self.monotonic),
            status=status,
            used=lambda *_: None,
        )

    def hangs(self) -> threading.Event:
        """The disk does nothing before this is set."""
        goes_on = threading.Event()
        self.lane._calls.put((asyncio.get_running_loop().create_future(), goes_on.wait))
        return goes_on


@pytest.fixture
def served(tmp_path: Path) -> Mapping[str, Served]:
    bundle = tiny_bundle(tmp_path / "digits-1.edge")
    return catalogue.read(Config(models={"digits": str(bundle.path)}), None, "/").served


@contextlib.asynccontextmanager
async def begun(served: Mapping[str, Served], *schedules: Schedule) -> AsyncIterator[Board]:
    board = Board(served, *schedules)
    limits = Limits(max_bytes=10_000_000, max_age_s=1e6)
    board.store = await board.lane.run(lambda: Store(None, boot=new_token(), limits=limits))
    try:
        yield board
    finally:
        await board.lane.run(board.store.close)
        assert board.lane.close(5.0)


def of(switcher: Switcher) -> ModelState:
    return switcher.models()["digits"]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_whose_sender_went_away_counts_in_memory_as_on_the_disk(
    served: Mapping[str, Served], order: Event
) -> None:
    command = Answer(command=new_token(), sent=1.0)
    reply = Message(body=Reply(status=ReplyStatus.DONE), reply_to=command.command)

    async def scene() -> None:
        async with begun(served) as board:
            switcher = await board.starts()
            goes_on = board.hangs()
            ordering = asyncio.ensure_future(switcher.commit([order], messages=[reply], answer=command))
            await asyncio.sleep(0)
            ordering.cancel()
            await asyncio.sleep(0)
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await ordering
            assert await board.lane.run(lambda: board.store.commands.recall(command.command)), "it was answered"
            here = of(switcher)
            assert here.pinned == "quick" or here.preference.mode is Mode.SPEED
            await switcher.save()
            after = of(await board.starts())
            assert (after.pinned, after.preference) == (here.pinned, here.preference)

    asyncio.run(scene())


def test_what_was_cancelled_and_failed_changes_nothing(
    served: Mapping[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    async def scene() -> None:
        async with begun(served) as board:
            switcher = await board.starts()
            goes_on = board.hangs()
            with monkeypatch.context() as broken:
                broken.setattr(board.store, "commit", refuses)
                ordering = asyncio.ensure_future(switcher.commit([ORDERS[0]]))
                await asyncio.sleep(0)
                ordering.cancel()
                await asyncio.sleep(0)
                goes_on.set()
                with pytest.raises(asyncio.CancelledError):
                    await ordering
            assert of(switcher).pinned is None
            await switcher.commit([ORDERS[0]])
            assert of(switcher).pinned == "quick"

    asyncio.run(scene())


def test_a_disk_that_hangs_holds_nobody_who_is_cancelled_twice(served: Mapping[str, Served]) -> None:
    async def scene() -> None:
        async with begun(served) as board:
            switcher = await board.starts()
            goes_on = board.hangs()
            ordering = asyncio.ensure_future(switcher.commit([ORDERS[0]]))
            for _ in range(2):
                await asyncio.sleep(0)
                ordering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ordering
            goes_on.set()

    asyncio.run(scene())


def test_a_word_that_set_a_schedule_aside_for_one_night_does_not_do_so_the_next_after_a_restart(
    served: Mapping[str, Served],
) -> None:
    async def scene() -> None:
        async with begun(served, QUIET_NIGHT) as board:
            switcher = await board.starts()
            assert of(switcher).preference.mode is Mode.BATTERY
            await switcher.commit([Preferred(model="digits", preference=Preference(mode=Mode.SPEED))])
            assert of(switcher).preference.mode is Mode.SPEED
            for hour in range(1, 24):  # until 22:00
                board.passed_s = hour * HOUR_S
                await switcher.tick(Conditions())
            assert of(switcher).preference.mode is Mode.BATTERY, "the next night"
            await switcher.save()
            assert of(await board.starts()).preference.mode is Mode.BATTERY

    asyncio.run(scene())


def test_a_battery_that_is_to_last_for_hours_is_not_to_last_as_long_again_after_a_restart(
    served: Mapping[str, Served],
) -> None:
    async def scene() -> None:
        async with begun(served) as board:
            board.begins = 1000.0  # no clock that outlives a power cut
            switcher = await board.starts()
            await switcher.commit([Preferred(model="digits", preference=Preference(battery_for_s=8 * HOUR_S))])
            board.begins = EVENING
            await switcher.tick(Conditions())
            until = of(switcher).preference.battery_until
            assert until is not None
            board.passed_s = 6 * HOUR_S
            await switcher.tick(Conditions())
            await switcher.save()
            assert of(await board.starts()).preference.battery_until == until

    asyncio.run(scene())


async def goodbye(
    board: Board, switcher: Switcher, api: Api, app: App
) -> tuple[threading.Event, asyncio.Future[Any], asyncio.Future[None]]:
    """What lets the disk go on, an order that the disk holds up, and an app that leaves meanwhile."""
    goes_on = board.hangs()
    ordering = asyncio.ensure_future(switcher.commit([ORDERS[0]]))
    await asyncio.sleep(0)
    leaving = asyncio.ensure_future(api.leave(app, "it said goodbye"))
    await asyncio.sleep(0)
    return goes_on, ordering, leaving


def test_an_app_whose_goodbye_meets_a_slow_disk_leaves_no_wish_behind(served: Mapping[str, Served]) -> None:
    async def scene() -> None:
        async with begun(served) as board:
            switcher = await board.starts()
            api = board.api(switcher)
            app = board.apps.join(Register(model="digits"), "digits", 0, board.monotonic())
            wish = AppWish(app=app.id, model="digits", preference=Preference(max_latency_ms=1.0))
            await switcher.feed(wish, AppJoined(app=app.id, model="digits"))
            goes_on, ordering, leaving = await goodbye(board, switcher, api, app)
            leaving.cancel()  # it did not wait for the answer
            with pytest.raises(asyncio.CancelledError):
                await leaving
            goes_on.set()
            await ordering
            board.passed_s += SILENT_S + 1
            for gone in board.apps.gone(board.monotonic()):
                await api.leave(gone, "it was silent for too long")
            assert switcher.state.app(app.id) is None
            assert of(switcher).preference.max_latency_ms is None

    asyncio.run(scene())


def test_a_wish_that_comes_while_its_app_leaves_over_a_slow_disk_does_not_stay(served: Mapping[str, Served]) -> None:
    async def scene() -> None:
        async with begun(served) as board:
            switcher = await board.starts()
            api = board.api(switcher)
            app = board.apps.join(Register(model="digits"), "digits", 0, board.monotonic())
            await switcher.feed(AppWish(app=app.id, model="digits"), AppJoined(app=app.id, model="digits"))
            goes_on, ordering, leaving = await goodbye(board, switcher, api, app)
            path = f"/v1/apps/{app.id}/prefer"
            body, peer = encode(AppPrefer(preference=Preference(max_latency_ms=1.0))), Peer(pid=1, uid=0, gid=0)
            wishing = asyncio.ensure_future(api.handle(Request(method="POST", target=path, body=body, peer=peer)))
            await asyncio.sleep(0)
            goes_on.set()
            await asyncio.wait({ordering, leaving, wishing})
            assert of(switcher).preference.max_latency_ms is None

    asyncio.run(scene())


def test_what_was_measured_is_answered_once_the_disk_takes_it(
    served: Mapping[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commanding, "_AGAIN_S", 0.01)
    command = new_token()
    order = DownEnvelope(id=command, sent=EVENING, body=Measure(model="digits", variant="quick"))

    class Measurer:
        async def measure(self, _model: str, _variant: str | None) -> tuple[Latency, ...]:
            return (Latency(variant="quick", origin=Origin.MEASURED, machine="here", median_ms=12.0, samples=10),)

    async def scene() -> None:
        async with begun(served) as board:
            commit, refused, tasks = board.store.commit, asyncio.Event(), TaskOwner()

            def full(*_: object, **__: object) -> None:
                loop.call_soon_threadsafe(refused.set)
                raise StorageError("the disk is full")

            loop, switcher = asyncio.get_running_loop(), await board.starts()
            recorder = Recorder(sample_every_s=5.0, telemetry_every_s=30.0, now_s=0.0)
            ordering = commanding.Commanding(
                switcher, board.store, board.lane, board,
                recorder=recorder, measurer=Measurer(), tasks=tasks, state=State,
            )  # fmt: skip
            monkeypatch.setattr(board.store, "commit", full)
            await ordering.command(pack(order), retained=False)
            await asyncio.wait_for(refused.wait(), 30)
            monkeypatch.setattr(board.store, "commit", commit)
            await asyncio.wait_for(asyncio.gather(*tasks._tasks.values()), 30)
            found = await board.lane.run(lambda: board.store.commands.recall(command))
            assert found is not None
            assert found.reply is not None
            assert unpack_up(Up.REPLY, found.reply).body.status is ReplyStatus.DONE

    asyncio.run(scene())


def test_a_command_that_was_cut_short_is_answered_once_the_disk_takes_it(
    served: Mapping[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commanding, "_AGAIN_S", 0.01)
    command = Answer(command=new_token(), sent=5.0)

    class Idle:
        async def measure(self, _model: str, _variant: str | None) -> tuple[Latency, ...]:
            raise NotImplementedError

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    async def scene() -> None:
        async with begun(served) as board:
            await board.lane.run(lambda: board.store.begin(command, 6.0))
            switcher, tasks = await board.starts(), TaskOwner()
            recorder = Recorder(sample_every_s=5.0, telemetry_every_s=30.0, now_s=0.0)
            ordering = commanding.Commanding(
                switcher, board.store, board.lane, board,
                recorder=recorder, measurer=Idle(), tasks=tasks, state=State,
            )  # fmt: skip
            with monkeypatch.context() as broken:
                broken.setattr(board.store, "commit", full)
                await ordering.restore()
            await asyncio.wait_for(asyncio.gather(*tasks._tasks.values()), 30)
            found = await board.lane.run(lambda: board.store.commands.recall(command.command))
            assert found is not None
            assert found.reply is not None
            assert unpack_up(Up.REPLY, found.reply).body.code == "interrupted"

    asyncio.run(scene())


def test_of_many_models_as_much_is_explained_as_fits_into_one_message(served: Mapping[str, Served]) -> None:
    digits = served["digits"]
    names = [f"digits-{number}" for number in range(40)]
    many = {name: replace(digits, name=name, facts=replace(digits.facts, name=name)) for name in names}

    async def scene() -> None:
        async with begun(many) as board:
            switcher = await board.starts()
            for turn in range(60):
                board.passed_s += 1.0
                await switcher.tick(Conditions())
                variant = ("quick", "exact")[turn % 2]
                await switcher.feed(*(Pinned(model=name, variant=variant, by=PinnedBy.HUB) for name in names))
            told = switcher.explain()
            reply = Reply(status=ReplyStatus.DONE, result=msgspec.Raw(encode(Explanation(decisions=told))))
            stored = await board.lane.run(lambda: board.store.commit(1.0, messages=[Message(body=reply)]))
            assert len(stored[0].payload) <= MAX_UP_BYTES
            assert told[0].at == max(decision.at for decision in told)
            assert len(switcher.explain("digits-7")) == 50

    asyncio.run(scene())
