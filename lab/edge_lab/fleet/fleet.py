"""All devices of a played fleet in one event loop: enrolled, brought up one after the other, troubled, and counted."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from edge_daemon.clock import SystemClock
from edge_hub.api import Credentials
from edge_hub.client import HubClient
from edge_lab.errors import FleetError
from edge_lab.fleet.cast import FATES, Fate, part_of
from edge_lab.fleet.device import Device, Habits
from edge_lab.fleet.tally import Tally
from edge_lab.fleet.track import Track, rehearse
from edge_sdk.cli.output import say
from edge_sdk.mqtt import DeviceId

_AT_ONCE: Final = 500  # devices in one enrolment
_PER_S: Final = 250  # connections a second while the fleet comes up; mosquitto hashes each password in its one thread
_PATIENCE_S: Final = 30.0  # at the end, for what the hub has not confirmed yet
_LOOK_S: Final = 0.25
_SPARE_FILES: Final = 200
_AWAY_S: Final = (1.0, 30.0)
_RESTARTS: Final = 0.3  # of the devices that drop: they come back with another boot
_SLOW_S: Final = (0.2, 2.0)
_TOLD_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be played.

    Attributes:
        duration_s: From when the last device has been started; None is until interrupted.
        report_s: From one report of a device to the next.
        churn: Share of the devices that drop and return each minute.
        slow: Share of the devices whose link is slow.
    """

    devices: int
    tenant: str
    duration_s: float | None
    report_s: float = 10.0
    churn: float = 0.0
    slow: float = 0.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        waiting: Messages that the hub had not confirmed at the end.
        cpu_s: Of this process, from the first connection on.
    """

    devices: int
    connected: int
    waiting: int
    lasted_s: float
    cpu_s: float
    tally: Tally = field(default_factory=Tally)


class Fleet:
    """A fleet, to be run once.

    Args:
        plan: What is to be played.
        credentials: One for each device.
        tracks: By fate.
    """

    def __init__(self, plan: Plan, credentials: Sequence[Credentials], tracks: Sequence[Track]) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - plays, guards nothing
        self._tally = Tally()
        self._over = asyncio.Event()
        clock = SystemClock()
        self.devices = [
            Device(
                given,
                track,
                at_s=self._random.uniform(0, track.length_s),
                habits=Habits(report_s=plan.report_s, lag_s=self._lag_s()),
                clock=clock,
                tally=self._tally,
                rng=random.Random(self._random.getrandbits(64)),  # noqa: S311
            )
            for given, track in zip(credentials, cycle(tracks))
        ]

    def stop(self) -> None:
        """End before the time is over."""
        self._over.set()

    async def run(self) -> Outcome:
        """Play."""
        began_s, cpu_s = time.monotonic(), time.process_time()
        for number, device in enumerate(self.devices):
            device.start(number / _PER_S)
        troubles = asyncio.ensure_future(self._trouble())
        telling = asyncio.ensure_future(self._tell())
        duration_s = self._plan.duration_s
        patience_s = None if duration_s is None else duration_s + len(self.devices) / _PER_S
        try:
            await asyncio.wait_for(self._over.wait(), patience_s)
        except (asyncio.TimeoutError, TimeoutError):
            pass
        finally:
            for task in (troubles, telling):
                task.cancel()
            await asyncio.wait({troubles, telling})
        lasted_s, connected = time.monotonic() - began_s, sum(device.up for device in self.devices)
        await self._finish()
        waiting = sum(device.waiting for device in self.devices)
        await asyncio.gather(*(device.close() for device in self.devices))
        await asyncio.sleep(0)  # the transports close in the next turn of the loop
        return Outcome(
            devices=len(self.devices),
            connected=connected,
            waiting=waiting,
            lasted_s=lasted_s,
            cpu_s=time.process_time() - cpu_s,
            tally=self._tally,
        )

    async def _finish(self) -> None:
        """Let everything that waits be confirmed, as far as there is patience."""
        for number, device in enumerate(self.devices, start=1):
            device.finish()
            if number % _PER_S == 0:
                await asyncio.sleep(_LOOK_S)
        deadline_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline_s:
            waiting = [device for device in self.devices if device.waiting]
            if not waiting:
                return
            for device in waiting:
                device.send()
            await asyncio.sleep(_LOOK_S)

    async def _trouble(self) -> None:
        """Have devices drop and return."""
        per_s = self._plan.churn * len(self.devices) / 60
        while per_s > 0:
            await asyncio.sleep(self._random.expovariate(per_s))
            device = self._random.choice(self.devices)
            device.drop(away_s=self._random.uniform(*_AWAY_S), restart=self._random.random() < _RESTARTS)

    async def _tell(self) -> None:
        """A line now and then."""
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            tally, up = self._tally, sum(device.up for device in self.devices)
            say(
                f"edge: {up} of {len(self.devices)} connected; sent {tally.sent}, confirmed {tally.confirmed}, "
                f"replies {tally.replies}, reconnects {tally.reconnects}"
            )

    def _lag_s(self) -> float:
        return self._random.uniform(*_SLOW_S) if self._random.random() < self._plan.slow else 0.0


def names(plan: Plan) -> tuple[tuple[DeviceId, Fate], ...]:
    """Who takes part, and what it meets: fates in the ratio of their shares, spread evenly."""
    deck = [fate for fate in FATES for _ in range(fate.share)]
    random.Random(0).shuffle(deck)  # noqa: S311 - the same deck in every run
    return tuple(
        (DeviceId(tenant=plan.tenant, device=f"{fate.profile}-{number:05d}"), fate)
        for number, fate in zip(range(1, plan.devices + 1), cycle(deck))
    )


def enrol(client: HubClient, devices: Sequence[DeviceId]) -> list[Credentials]:
    """Credentials for each; those of an earlier run end."""
    found: list[Credentials] = []
    for begin in range(0, len(devices), _AT_ONCE):
        found += client.enrol_all(devices[begin : begin + _AT_ONCE], again=True)
    return found


def tracks_of(fates: Sequence[Fate], seed: int) -> dict[Fate, Track]:
    """The lives of these fates, each played once."""
    return {fate: rehearse(part_of(fate), seed + number) for number, fate in enumerate(dict.fromkeys(fates))}


def allow_files(count: int) -> None:
    """Let this process hold so many connections.

    Raises:
        FleetError: The system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise FleetError(
            f"{count} devices need {wanted} open files, and the system allows {hard}",
            hint=f"take fewer with --devices, or raise the limit: ulimit -Hn {wanted}",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
