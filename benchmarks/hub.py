"""What a hub bears: one row for each figure. `python benchmarks/hub.py [--json]`.

`ingest`: the processor time of a message against a bare subscriber's (`hub_ingest.py`). `fleet`: 5,000 played devices
(`edge hub simulate`), one batched report each 10 s: what is lost or doubled, the time from publishing a report to its
row in the API's stream, the hub's memory. `workers`: two workers on PostgreSQL, one killed (`hub_workers.py`).
`command`: one to 500 devices. `page`: the fleet page in a browser (`hub_page.py`). `offline`: a day without a hub
(`hub_offline.py`). `kill` (only when it is asked for): 1,000 devices while hub and broker are killed at random.

Hub, broker, fleet and probes share the machine. What other processes took of it is told as `others`, in cores: with
much of that the times say more of the neighbours than of the hub.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_fleet
from figures import Figure, figure, shown
from hub_fleet import FleetAtWork, HubAtWork, Probe, Sizing, Watching, quantile, running_hub
from quiet import Others

from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Report

HERE = Path(__file__).parent
DEVICES = 5000
COMMANDED = 500
KILLED = 1000
ROUNDS = 5
SETTLE_S = 5.0  # after a fleet (again) connected: the burst of births, states and passwords is no part of a figure
SLOWEST_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        seconds: How long a fleet is looked at.
        scale: Share of the devices that the figure names.
    """

    seconds: float
    scale: float
    work: Path

    def devices(self, whole: int) -> int:
        """So many of them."""
        return max(1, round(whole * self.scale))


def ingest(_options: Options) -> list[Figure]:
    """Processor time of a message against a bare subscriber's."""
    found = called("hub_ingest.py")
    return [
        Figure(
            what="hub ingest against a bare subscriber, CPU a message",
            value=found["hub_to_bare"],
            low=found.get("hub_to_bare_least"),
            high=found.get("hub_to_bare_most"),
            unit="x",
            samples=found["rounds"],
            target=2.5,
            detail=f"{found['hub_cpu_us_per_message']} us a message, {found['messages_per_s']} a second",
        )
    ]


def fleet(options: Options) -> list[Figure]:
    """5,000 devices for five minutes."""
    count = options.devices(DEVICES)
    with running_hub(options.work) as hub:
        playing = FleetAtWork(hub, "--devices", str(count), "--every", "10")
        playing.until_up(hub, count)
        time.sleep(SETTLE_S)
        probe = Probe(hub, "one")
        others, sizes, watching = Others(), Sizing(hub), Watching(hub, probe)
        cpu_s, began_s = hub.hub_cpu_s(), time.monotonic()
        time.sleep(options.seconds)
        share, cpu_share = others.share(), (hub.hub_cpu_s() - cpu_s) / (time.monotonic() - began_s)
        seen, found_mb = watching.stop(), sizes.stop()
        told = playing.finish()
        with hub.client() as client:
            health = until_stored(hub, told["sent"] + probe.sent)
            began_s = time.monotonic()
            rows = client.rows()
            rows_s = time.monotonic() - began_s
        probe.close()
    sent = told["sent"] + probe.sent
    what = f"{count} devices, a report each 10 s, {options.seconds:.0f} s"
    detail = f"{sent} sent in all, {health.duplicates} came twice, hub {cpu_share:.2f} cores, others {share:.2f}"
    return [
        Figure(what=f"{what}: lost", value=max(0, sent - health.messages), target=0, samples=sent, detail=detail),
        Figure(what=f"{what}: counted twice", value=max(0, health.messages - sent), target=0, samples=sent),
        Figure(what=f"{what}: unconfirmed at the end", value=told["unconfirmed"], target=0, samples=sent),
        Figure(
            what=f"{what}: report to API, p99",
            value=round(quantile(seen.waits_s, 0.99), 3),
            low=round(min(seen.waits_s, default=0), 3),
            high=round(max(seen.waits_s, default=0), 3),
            unit="s",
            samples=len(seen.waits_s),
            target=2.0,
            detail=f"median {quantile(seen.waits_s, 0.5):.2f} s, of {seen.sent} probes",
        ),
        figure(f"{what}: hub RSS", found_mb, unit="MB", detail=f"at most {max(found_mb):.0f} MB"),
        Figure(what=f"{what}: hub RSS at most", value=round(max(found_mb), 1), unit="MB", target=150.0),
        Figure(what=f"all {len(rows)} rows from the API", value=round(rows_s, 3), unit="s", target=1.0),
    ]


def command(options: Options) -> list[Figure]:
    """One command to 500 devices, five times."""
    count = options.devices(COMMANDED)
    times, worst, replies = [], [], []
    with running_hub(options.work) as hub:
        playing = FleetAtWork(hub, "--devices", str(count), "--every", "10")
        playing.until_up(hub, count)
        time.sleep(SETTLE_S)
        others = Others()
        with hub.client() as client:
            devices = [DeviceId.parse(row.device) for row in client.rows()]
            for _ in range(ROUNDS):
                watching = Watching(hub)
                watching.until_open()
                began_s = time.monotonic()
                ids = client.send(devices, Report(), expires_s=60)
                watching.until_replied(ids.values())
                heard = watching.stop().replies_s
                took = [heard[id_] - began_s for id_ in ids.values()]
                times += took
                worst.append(quantile(took, 0.99))
                done = [client.command(id_) for id_ in list(ids.values())[:20]]
                replies.append(sum(one.state == "done" for one in done) / len(done))
        share = others.share()
        told = playing.finish()
    what = f"a command to {count} devices"
    return [
        figure(f"{what}: all replied, p99", worst, unit="s", target=2.0, detail=f"others {share:.2f} cores"),
        Figure(
            what=f"{what}: replies",
            value=told["replies"],
            samples=ROUNDS,
            target=ROUNDS * count,
            detail=f"median {statistics.median(times):.2f} s; {told['commands']} commands arrived",
        ),
        Figure(what=f"{what}: share done", value=statistics.mean(replies), target=1.0, at_most=False),
    ]


def kill(options: Options) -> list[Figure]:
    """Hub, broker and workers are killed at random while 1,000 devices report."""
    count = options.devices(KILLED)
    rng = random.Random(6)  # noqa: S311 - chooses whom to kill
    killed: dict[str, int] = {}
    well: list[float] = []
    with running_hub(options.work) as hub:
        playing = FleetAtWork(hub, "--devices", str(count), "--every", "5", "--churn", "0.2")
        playing.until_up(hub, count * 9 // 10)
        until_s = time.monotonic() + options.seconds
        while time.monotonic() < until_s:
            time.sleep(rng.uniform(5, 15))
            whom = {hub.pid: "hub"} | hub.children()
            pid = rng.choice(list(whom))
            killed[whom[pid]] = killed.get(whom[pid], 0) + 1
            began_s = time.monotonic()
            if pid == hub.pid:
                hub.stop(signal.SIGKILL)
                hub.start()  # as systemd does
            else:
                hub.kill(pid)
                hub.until_well()
            well.append(time.monotonic() - began_s)
        time.sleep(SETTLE_S)
        told = playing.finish()
        health = until_stored(hub, told["sent"])
    sent = told["sent"]
    what = f"{count} devices, {sum(killed.values())} kills"
    return [
        Figure(what=f"{what}: lost", value=max(0, sent - health.messages), target=0, samples=sent, detail=str(killed)),
        Figure(
            what=f"{what}: counted twice",
            value=max(0, health.messages - sent),
            target=0,
            samples=sent,
            detail=f"{health.duplicates} came twice",
        ),
        Figure(what=f"{what}: unconfirmed at the end", value=told["unconfirmed"], target=0, samples=sent),
        figure(f"{what}: well again after", well, unit="s"),
    ]


def workers(_options: Options) -> list[Figure]:
    """Two workers on PostgreSQL, one killed in the middle."""
    found = called("hub_workers.py")
    sent, rows, distinct = found["confirmed_by_the_broker"], found["rows"], found["rows_distinct"]
    what = f"{found['workers']} workers on PostgreSQL, one killed, {sent} messages"
    detail = f"killed after {found['rows_when_one_was_killed']}; all stored in {found['all_stored_s']} s"
    return [
        Figure(what=f"{what}: lost", value=max(0, sent - distinct), target=0, samples=sent, detail=detail),
        Figure(what=f"{what}: rows more than once", value=rows - distinct, target=0, samples=rows),
        Figure(what=f"{what}: counted twice", value=max(0, found["messages_counted"] - sent), target=0, samples=sent),
    ]


def page(options: Options) -> list[Figure]:
    """The fleet page with 5,000 devices in a real browser."""
    found = called("hub_page.py", "--minutes", f"{min(10.0, options.seconds / 30):g}")
    heap = found["heap_mb"]
    paint, update = found["first_paint_ms"], found["update_ms"]
    return [
        Figure(
            what=f"fleet page, {found['devices']} devices: first paint",
            value=paint["p50"],
            high=paint["most"],
            low=paint["p50"],
            unit="ms",
            samples=paint["n"],
            target=1000.0,
            detail=f"its rows after {found['first_rows_ms']['p50']} ms",
        ),
        Figure(
            what="fleet page: update, p95",
            value=update["p95"],
            low=update["p50"],
            high=update["most"],
            unit="ms",
            samples=update["n"],
            target=200.0,
        ),
        Figure(
            what="fleet page: growth of the browser's heap",
            value=heap["growth_mb"],
            unit="MB",
            samples=len(heap["values"]),
            detail=f"of {heap['values'][-1] if heap['values'] else 0} MB, each {heap['every_s']} s",
        ),
    ]


def offline(_options: Options) -> list[Figure]:
    """A day without a hub at 1 Hz, then back; as `hub_offline.py` tells it."""
    found = called("hub_offline.py")
    return [Figure(what="24 h offline", value=0.0, detail=json.dumps(found)[:2000])]


ROWS: dict[str, Callable[[Options], list[Figure]]] = {
    "ingest": ingest,
    "fleet": fleet,
    "workers": workers,
    "command": command,
    "page": page,
    "offline": offline,
    "kill": kill,
}
USUAL = tuple(name for name in ROWS if name != "kill")


def until_stored(hub: HubAtWork, count: int) -> Any:
    """The hub's health once it has so many messages, or has had the time to."""
    deadline = time.monotonic() + hub_fleet.PATIENCE_S
    while True:
        try:
            with hub.client() as client:
                health = client.health()
        except EdgeError:
            health = None
        if health is not None and (health.messages >= count or time.monotonic() > deadline):
            return health
        if time.monotonic() > deadline:
            sys.exit(f"the hub does not answer: {hub.said[-1000:]}")
        time.sleep(0.5)


def called(script: str, *words: str) -> dict[str, Any]:
    """What another benchmark prints with `--json`."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), "--json", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOWEST_S,
    )
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"{script} ended with {done.returncode}: {done.stderr[-1000:]}")
    return dict(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(USUAL), help=f"of {', '.join(ROWS)} (default all but kill)")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long a fleet is looked at (default 300)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the devices (default 1)")
    parser.add_argument("--dir", type=Path, help="where the store lies: the disk is part of the result")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = args.rows.split(",")
    if not set(names) <= set(ROWS) or args.seconds <= 0 or not 0 < args.scale <= 1:
        parser.error(f"rows are {', '.join(ROWS)}; seconds from 0 up, a scale up to 1")
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        sys.exit("mosquitto is not installed: the embedded broker is not what is measured here")
    figures, skipped = [], []
    for name in names:
        if name in {"workers", "page", "offline"} and not (HERE / f"hub_{name}.py").exists():
            skipped.append(name)
            continue
        with tempfile.TemporaryDirectory(prefix="edge-", dir=args.dir) as work:
            figures += ROWS[name](Options(seconds=args.seconds, scale=args.scale, work=Path(work)))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if args.json:
        told = {"machine": machine, "rows": [each.as_json() for each in figures], "skipped": skipped}
        print(json.dumps(told, indent=2))
    else:
        print(machine, shown(figures), *(f"not measured: {name}" for name in skipped), sep="\n")
    if any(each.met is False for each in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
