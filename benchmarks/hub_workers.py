"""Whether a hub of two workers counts each message once when one is killed. `python benchmarks/hub_workers.py`.

Starts PostgreSQL in a temporary directory (with fsync, as in earnest), and `edge hub run --store ... --workers 2` with
its own mosquitto. Several devices send telemetry with QoS 1, as fast as the broker takes it and each message once: what
the broker has confirmed is never sent again, so whatever a killed worker had in its hands must come from the broker's
session and the store. In the middle one worker is killed with SIGKILL. At the end the log must have a row for each
message, once. Devices and broker run on the same machine: rates are lower bounds.

PostgreSQL's programs are those of Debian's package `postgresql`, or those on the PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hub_fleet import PATIENCE_S, cpu_s, running_hub
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_sdk import mqtt
from edge_sdk.mqtt import Conditions, DeviceId, ModelStats, Sample, Tele, Up
from edge_sdk.wire import new_token

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from postgres_stage import PostgresServer, binaries

WINDOW = 100


class Device:
    """Publishes telemetry, each message once, and counts what the broker confirms."""

    def __init__(self, who: DeviceId, port: int, password: str) -> None:
        self.who = who
        self.boot = new_token()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=str(who).replace("/", ":"), protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.username_pw_set(str(who), password)
        self._client.max_inflight_messages_set(WINDOW)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, count: int, after: int, reached: threading.Event) -> None:
        """Publish so many; `reached` is set when so many of them are confirmed."""
        sent: list[Any] = []
        for seq in range(1, count + 1):
            now = time.time()
            sample = Sample(
                at=now,
                window_s=10.0,
                conditions=Conditions(temp_c=51.0, load_pct=40.0, battery_pct=80.0),
                models={"digits": ModelStats(variant="small-int8", calls=100, p50_ms=4.0, p95_ms=9.0)},
            )
            envelope = mqtt.UpEnvelope(id=new_token(), boot=self.boot, seq=seq, sent=now, body=Tele(samples=(sample,)))
            sent.append(self._client.publish(mqtt.up_topic(self.who, Up.TELE), mqtt.pack(envelope), qos=1))
            if seq > WINDOW:
                sent[seq - WINDOW - 1].wait_for_publish(PATIENCE_S)
            if seq == after:
                reached.set()
        for one in sent[-WINDOW:]:
            one.wait_for_publish(PATIENCE_S)
        if not all(one.is_published() for one in sent):
            sys.exit(f"{self.who}: the broker has not confirmed everything")


def workers_of(hub: int) -> list[int]:
    """Process ids of the hub's workers."""
    found = Path(f"/proc/{hub}/task/{hub}/children").read_text().split()
    return [int(pid) for pid in found if b"edge_hub.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8, help="that send at once (default 8)")
    parser.add_argument("--messages", type=int, default=30_000, help="of all together (default 30000)")
    parser.add_argument("--workers", type=int, default=2, help="of which one is killed (default 2)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if min(args.devices, args.messages // max(args.devices, 1), args.workers) < 1:
        parser.error("all counts are from 1 up")
    if binaries() is None:
        sys.exit("PostgreSQL is not installed: apt-get install postgresql")
    result = measure(args.devices, args.messages // args.devices, args.workers)
    print(json.dumps(result, indent=2) if args.json else "\n".join(f"{k:32}{v}" for k, v in result.items()))
    if not result["rows"] == result["rows_distinct"] == result["confirmed_by_the_broker"]:
        sys.exit("not each message is one row")


def measure(count: int, each: int, workers: int) -> dict[str, Any]:
    """So many devices that send so many messages each."""
    with ExitStack() as ends:
        server = PostgresServer(fast=False)
        ends.callback(server.close)
        server.start()
        work = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
        hub = ends.enter_context(running_hub(work, "--store", server.url(), "--workers", str(workers)))
        client = ends.enter_context(hub.client())
        devices = []
        for number in range(count):
            who = DeviceId(tenant="bench", device=f"d{number}")
            devices.append(Device(who, hub.mqtt, client.enrol(who, again=False).password))
            ends.callback(devices[-1].close)
        first, *others = workers_of(hub.pid)
        before = {pid: cpu_s(pid) for pid in others}
        reached = threading.Event()
        began = time.monotonic()
        sending = [threading.Thread(target=device.send, args=(each, each // 3, reached)) for device in devices]
        for one in sending:
            one.start()
        reached.wait(PATIENCE_S)
        stored = server.sql("SELECT count(*) FROM log")[0][0]
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        for one in sending:
            one.join()
        confirmed_s = time.monotonic() - began
        while server.sql("SELECT count(*) FROM log")[0][0] < count * each and time.monotonic() - began < PATIENCE_S * 3:
            time.sleep(0.1)
        stored_s = time.monotonic() - began
        rows, distinct = server.sql("SELECT count(*), count(DISTINCT (boot, seq)) FROM log")[0]
        repeated, counted = server.sql("SELECT sum(duplicates)::bigint, sum(messages)::bigint FROM devices")[0]
        used = sum(cpu_s(pid) - before[pid] for pid in others if pid in workers_of(hub.pid))
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "workers": workers,
            "confirmed_by_the_broker": count * each,
            "rows_when_one_was_killed": stored,
            "rows": rows,
            "rows_distinct": distinct,
            "messages_counted": counted,
            "repetitions_absorbed": repeated,
            "ranges_of_numbers": server.sql("SELECT count(*) FROM numbers")[0][0],
            "confirmed_by_the_broker_s": round(confirmed_s, 2),
            "all_stored_s": round(stored_s, 2),
            "stored_per_s": round(count * each / stored_s),
            "all_stored_after_the_kill_s": round(began + stored_s - killed, 2),
            "surviving_workers_cpu_s": round(used, 2),
        }


if __name__ == "__main__":
    main()
