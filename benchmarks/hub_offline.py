"""A board that records once a second, is away for a day, and comes back. `python benchmarks/hub_offline.py`.

The daemon's own recorder, spool and uplink, and a real hub with a mosquitto. The day is played as fast as the disk
takes it (86,400 records); coming back runs by a clock that goes faster than the wall's, which the uplink is paced by.
Told are what the spool grew to and its bound, what was dropped, how long the backlog took by the board's clock, whether
it came in order, and how long a report of now took while the backlog was on its way. The hub is asked what it stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hub_ingest import PATIENCE_S, ending, free_ports, mosquitto, running_hub

from edge_daemon.config import MqttSection
from edge_daemon.lanes import Lane
from edge_daemon.recorder import Recorder
from edge_daemon.spool import Limits, Message
from edge_daemon.store import Store
from edge_daemon.uplink import Uplink
from edge_hub.client import HubClient
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Event, State
from edge_sdk.wire import new_token

WHO = DeviceId(tenant="bench", device="away")
CONDITIONS = Conditions(temp_c=55.25, battery_pct=61.0, power_w=3.5, load_pct=34.0, memory_available_mb=2950)


class FastClock:
    """Both clocks, so many times as fast as the machine's."""

    def __init__(self, speed: float) -> None:
        self._speed, self._began = speed, time.monotonic()
        self._wall = time.time()

    def monotonic(self) -> float:
        """See `edge_daemon.clock.Clock`."""
        return (time.monotonic() - self._began) * self._speed

    def wall(self) -> float:
        """See `edge_daemon.clock.Clock`."""
        return self._wall + self.monotonic()


def be_away(store: Store, *, hours: float, every_s: float) -> tuple[int, int]:
    """Record a day; the most bytes the spool had, and the records."""
    recorder = Recorder(sample_every_s=1.0, telemetry_every_s=every_s, now_s=0.0)
    now, most, records = time.time() - hours * 3600, 0, int(hours * 3600)
    for second in range(1, records + 1):
        recorder.sample(float(second), now + second, CONDITIONS, {"digits": "small-int8"})
        batch = recorder.batch(float(second))
        if batch is not None:
            store.commit(now + second, messages=[Message(body=batch)])
            most = max(most, store.spool.totals().bytes)
    return most, records


async def come_back(store: Store, lane: Lane, section: MqttSection, clock: FastClock, boot: str) -> list[float]:
    """Connect and drain; seconds, by the wall, that each event of now took to be confirmed."""

    async def ignore(_payload: bytes, _retained: bool) -> None:
        """No orders are expected."""

    def state() -> State:
        return State(at=clock.wall(), conditions=CONDITIONS, spooled=store.spool.totals().rows)

    uplink = Uplink(
        section,
        WHO,
        boot,
        store=store,
        store_lane=lane,
        clock=clock,
        birth=lambda online: Birth(online=online),
        state=state,
        on_command=ignore,
        on_desired=ignore,
        on_round_trip=lambda _: None,
        on_look=lambda _: None,
    )
    running = asyncio.create_task(uplink.run())
    while uplink.status != "connected":  # noqa: ASYNC110 - it rings no bell
        await asyncio.sleep(0.01)
    uplink.poke()
    took = []
    while (await lane.run(store.spool.totals)).rows:
        began = time.perf_counter()
        told = Message(body=Event(at=clock.wall(), kind="sensor", text="now"))
        (stored,) = await lane.run(lambda told=told: store.commit(clock.wall(), messages=[told]))
        uplink.poke()
        while await lane.run(lambda row=stored.row: store.payloads([row])):
            await asyncio.sleep(0.002)
            uplink.poke()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.2)
    await uplink.close(5.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0, help="away (default 24)")
    parser.add_argument("--every-s", type=float, default=30.0, help="length of a batch of telemetry (default 30)")
    parser.add_argument("--spool-mb", type=float, default=64.0, help="bound of the spool (default 64)")
    parser.add_argument("--speed", type=float, default=10.0, help="of the clock while it comes back (default 10)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    port, _ = free_ports()
    with (
        tempfile.TemporaryDirectory(prefix="edge-") as work,
        ending(mosquitto(Path(work), port)),
        running_hub(Path(work), port) as (_, client),
    ):
        found = measure(args, Path(work), client, MqttSection(host="127.0.0.1", port=port))
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:28}{v}" for k, v in found.items()))


def measure(args: argparse.Namespace, work: Path, client: HubClient, section: MqttSection) -> dict[str, Any]:
    """Be away, come back, and ask the hub."""
    lane, boot = Lane("store"), new_token()
    limits = Limits(max_bytes=int(args.spool_mb * 1e6), max_age_s=168 * 3600.0)

    async def play() -> dict[str, Any]:
        store = await lane.run(lambda: Store(work / "state", boot=boot, limits=limits))
        began = time.perf_counter()
        most, records = await lane.run(lambda: be_away(store, hours=args.hours, every_s=args.every_s))
        away_s = time.perf_counter() - began
        waiting = (await lane.run(store.spool.totals)).rows
        clock = FastClock(args.speed)
        took = await come_back(store, lane, section, clock, boot)
        drained_s = clock.monotonic()
        totals = await lane.run(store.spool.totals)
        await lane.run(store.close)
        return {
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "records": records,
            "messages": waiting,
            "spool_mb_most": round(most / 1e6, 2),
            "spool_mb_bound": args.spool_mb,
            "dropped": totals.dropped,
            "record_us": round(1e6 * away_s / records, 1),
            "drained_s_by_its_clock": round(drained_s, 1),
            "backlog_per_s": round(waiting / drained_s, 1),
            "live_ms_median": round(1000 * statistics.median(took), 1),
            "live_ms_most": round(1000 * max(took), 1),
            "live_reports": len(took),
        }

    found = asyncio.run(play())
    lane.close(PATIENCE_S)
    record = client.device(WHO).device
    found |= {"stored": record.messages, "stored_twice": record.messages - found["messages"] - found["live_reports"]}
    return found


if __name__ == "__main__":
    main()
