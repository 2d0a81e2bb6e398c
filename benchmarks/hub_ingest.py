"""How fast a hub makes messages durable, and what that costs. `python benchmarks/hub_ingest.py`.

Starts mosquitto, `edge hub run` and a bare subscriber: gmqtt, which takes the very same messages at the very same time,
acknowledges them, and stores nothing. What the hub takes more of the processor than that one is what decoding,
committing and acknowledging to devices cost. First one device sends one event at a time: the time from publishing to
the hub's acknowledgement, which goes out after the commit. Then several devices send with a window of unacknowledged
messages, as a spool being replayed does: messages a second, and the processor time of hub, bare subscriber and broker
for each. At the end the hub is asked how many it has; fewer than were sent is a failure.

The devices run in this process and take processor time as well: on a small machine the rate is a lower bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gmqtt
from hub_fleet import PROGRAM, cpu_s
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_hub.client import HubClient
from edge_hub.link import RECEIVE_MAXIMUM, SUBSCRIPTIONS
from edge_sdk import mqtt
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Down, Up
from edge_sdk.wire import new_token

PATIENCE_S = 30.0
WINDOW = 100


class Device:
    """Publishes events and counts their acknowledgements."""

    def __init__(self, who: DeviceId, port: int) -> None:
        self.who = who
        self.boot = new_token()
        self.seq = 0
        self.acked: set[int] = set()
        self.changed = threading.Condition()
        self._ready = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=str(who).replace("/", ":"), protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe(mqtt.down_topic(who, Down.ACK), qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._take
        # Or each event waits 40 ms behind the answer to an acknowledgement (Nagle against delayed ACKs).
        self._client.on_socket_open = self._opened
        self._client.max_inflight_messages_set(WINDOW)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not self._ready.wait(PATIENCE_S):
            sys.exit(f"{who} does not get through to the broker")

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def send(self) -> None:
        """Publish the next event."""
        self.seq += 1
        now = time.time()
        body = mqtt.Event(at=now, kind="sensor", text="benchmark")
        envelope = mqtt.UpEnvelope(id=new_token(), boot=self.boot, seq=self.seq, sent=now, body=body)
        self._client.publish(mqtt.up_topic(self.who, Up.EVENT), mqtt.pack(envelope), qos=1)

    def await_acks(self, count: int) -> None:
        """Return when so many are acknowledged."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.acked) >= count, PATIENCE_S):
                sys.exit(f"{self.who}: {len(self.acked)} of {count} acknowledged, and nothing for {PATIENCE_S:.0f} s")

    def send_many(self, count: int) -> None:
        """Publish so many, never more than the window ahead of the acknowledgements."""
        first = self.seq
        for number in range(1, count + 1):
            self.await_acks(first + number - WINDOW)
            self.send()
        self.await_acks(first + count)

    def _opened(self, _client: Client, _data: object, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _take(self, _client: Client, _data: object, message: Any) -> None:
        ack = mqtt.unpack_down(Down.ACK, message.payload).body
        with self.changed:
            for first, last in ack.ranges:
                self.acked.update(range(first, last + 1))
            self.changed.notify_all()


def free_ports() -> tuple[int, int]:
    """Two loopback ports that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """A process's id; it ends with the block."""
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def mosquitto(work: Path, port: int) -> subprocess.Popen[bytes]:
    """A broker of everybody's on loopback, with the windows that the hub gives its own."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", "max_inflight_messages 1000",
             "max_queued_messages 100000", "set_tcp_nodelay true", "log_type error")  # fmt: skip
    (work / "conf").write_text("\n".join(lines) + "\n", "utf-8")
    return subprocess.Popen([program, "-c", work / "conf"])


async def subscribe_bare(port: int) -> None:
    """Take every message, acknowledge it and forget it."""
    logging.disable()
    client = gmqtt.Client("bare", clean_session=True, receive_maximum=RECEIVE_MAXIMUM)
    client.on_message = lambda *_: 0
    client.on_subscribe = lambda *_: print("subscribed", flush=True)
    await client.connect("127.0.0.1", port)
    client.subscribe([gmqtt.Subscription(topic, qos=1) for topic in SUBSCRIPTIONS])
    await asyncio.Event().wait()


@contextmanager
def running_bare(port: int) -> Iterator[int]:
    """A bare subscriber's process id."""
    process = subprocess.Popen([sys.executable, __file__, "--bare", str(port)], stdout=subprocess.PIPE)
    with ending(process) as pid:
        if process.stdout is None or not process.stdout.readline():
            sys.exit("the bare subscriber does not get through to the broker")
        yield pid


@contextmanager
def running_hub(work: Path, broker: int) -> Iterator[tuple[int, HubClient]]:
    """A hub at a broker: its process id, and a client."""
    http, _ = free_ports()
    data = work / "hub"
    log = work / "log"
    # A broker named in the environment is somebody's real one.
    environment = {name: value for name, value in os.environ.items() if name != "EDGE_HUB_BROKER"}
    command = [*PROGRAM, "hub", "run", "--data", str(data), "--log", "warning"]
    with log.open("wb") as output:
        hub = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{http}", "--broker", f"mqtt://127.0.0.1:{broker}"],
            stderr=output,
            env=environment,
            cwd=work,
        )
    with ending(hub) as pid:
        yield pid, until_well(hub, data, log)


def until_well(hub: subprocess.Popen[bytes], data: Path, log: Path) -> HubClient:
    """A client for the hub, once it says that all is well."""
    deadline = time.monotonic() + PATIENCE_S
    while hub.poll() is None and time.monotonic() < deadline:
        try:
            client = HubClient.of(url=None, data=data)
            if client.health().ok:
                return client
            client.close()
        except EdgeError:
            pass  # not yet
        time.sleep(0.05)
    sys.exit(f"the hub does not start: {log.read_text()[-1000:]}")


def one_by_one(device: Device, count: int) -> list[float]:
    """Milliseconds from publishing to the acknowledgement, sorted."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        device.send()
        device.await_acks(device.seq)
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def all_at_once(devices: list[Device], count: int) -> float:
    """Seconds until each device has so many acknowledged."""
    with ThreadPoolExecutor(len(devices)) as senders:
        began = time.perf_counter()
        sending = [senders.submit(device.send_many, count) for device in devices]
        for one in sending:
            one.result()  # raises what ended a sender early
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8, help="that send at once (default 8)")
    parser.add_argument("--messages", type=int, default=1000, help="of each of them in a round (default 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the rate is told (default 5)")
    parser.add_argument("--single", type=int, default=100, help="messages sent one by one first (default 100)")
    parser.add_argument("--dir", type=Path, help="where the store lies: the disk is half of the result")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", type=int, metavar="PORT", help="be the bare subscriber at this broker")
    args = parser.parse_args()
    if args.bare is not None:
        asyncio.run(subscribe_bare(args.bare))
    if min(args.devices, args.messages, args.rounds, args.single) < 1:
        parser.error("all counts are from 1 up")
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        sys.exit("mosquitto is not installed: the embedded broker is not what is measured here")
    with ExitStack() as ends:
        work = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="edge-", dir=args.dir)))
        port, _ = free_ports()
        pids = {"broker": ends.enter_context(ending(mosquitto(work, port)))}
        pids["hub"], client = ends.enter_context(running_hub(work, port))
        ends.enter_context(client)
        pids["bare"] = ends.enter_context(running_bare(port))
        devices = []
        for number in range(args.devices):
            devices.append(Device(DeviceId(tenant="bench", device=f"d{number}"), port))
            ends.callback(devices[-1].close)
        waits_ms = one_by_one(devices[0], args.single)
        rates, ratios, used = [], [], dict.fromkeys(pids, 0.0)
        for _ in range(args.rounds):
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            rates.append(args.devices * args.messages / all_at_once(devices, args.messages))
            taken = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
            ratios.append(taken["hub"] / taken["bare"])
            used = {name: used[name] + taken[name] for name in used}
        total = args.devices * args.messages * args.rounds
        stored = client.health().messages
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "ack_p50_ms": round(statistics.median(waits_ms), 2),
        "ack_p95_ms": round(waits_ms[int(len(waits_ms) * 0.95)], 2),
        "ack_max_ms": round(waits_ms[-1], 2),
        "acks": len(waits_ms),
        "messages_per_s": round(statistics.median(rates)),
        "messages_per_s_least": round(min(rates)),
        "messages_per_s_most": round(max(rates)),
        "rounds": args.rounds,
        **{f"{name}_cpu_us_per_message": round(1e6 * seconds / total, 1) for name, seconds in used.items()},
        "hub_to_bare": round(used["hub"] / used["bare"], 2),
        "hub_to_bare_least": round(min(ratios), 2),
        "hub_to_bare_most": round(max(ratios), 2),
        "sent": total + args.single,
        "stored": stored,
    }
    print(json.dumps(result, indent=2) if args.json else "\n".join(f"{k:28}{v}" for k, v in result.items()))
    if stored != result["sent"]:
        sys.exit("not everything that was acknowledged is stored")


if __name__ == "__main__":
    main()
