"""A hub and a played fleet as real processes, and what is measured on them; `benchmarks/hub.py` makes rows of it.

The figures are of a whole: hub with its broker, fleet, and this program share the machine. What others take of it
meanwhile is told beside each figure.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_hub.client import HubClient
from edge_sdk import mqtt
from edge_sdk.conditions import Conditions
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Up
from edge_sdk.wire import new_token

PROGRAM = (sys.executable, "-c", "import sys; from edge_sdk.cli import main; sys.exit(main())")
PATIENCE_S = 60.0
LAST_LINES = 5
PROBES = "probe"


class HubAtWork:
    """`edge hub run` with its own broker, on free ports, in a directory of its own.

    Args:
        work: Where its data and log lie.
        options: Further arguments.
    """

    def __init__(self, work: Path, *options: str) -> None:
        self.data = work / "hub"
        self.log = work / "hub.log"
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            self._http, self.mqtt = one.getsockname()[1], other.getsockname()[1]
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it says that all is well."""
        # A broker named in the environment is somebody's real one.
        environment = {name: value for name, value in os.environ.items() if name != "EDGE_HUB_BROKER"}
        ports = ("--listen", f"127.0.0.1:{self._http}", "--mqtt", f"127.0.0.1:{self.mqtt}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, "hub", "run", "--data", str(self.data), "--log", "warning", *ports, *self._options],
                stderr=log,
                stdout=log,
                env=environment,
                cwd=self.data.parent,
            )
        self.until_well()

    def until_well(self) -> None:
        """Return once it is well (again)."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(EdgeError, FileNotFoundError), self.client() as client:
                if client.health().ok:
                    return
            time.sleep(0.1)
        sys.exit(f"the hub is not well: {self.said[-1000:]}")

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Of its API and dashboard."""
        return f"http://127.0.0.1:{self._http}"

    @property
    def pid(self) -> int:
        """Of the hub itself."""
        if self._process is None:
            raise ValueError("the hub does not run")
        return self._process.pid

    def children(self) -> dict[int, str]:
        """Its own processes, broker and workers: command by id."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def kill(self, child: int) -> None:
        """Kill one of its own processes, and return once another one is in its place."""
        before = self.children()
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while child in (now := self.children()) or sorted(now.values()) != sorted(before.values()):
            if time.monotonic() > deadline:
                sys.exit(f"the hub does not start its {before[child]} again: {self.said[-1000:]}")
            time.sleep(0.02)

    def client(self) -> HubClient:
        """Of its API."""
        return HubClient.of(url=self.url, data=self.data)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def hub_cpu_s(self) -> float:
        """Of the hub itself, so far."""
        return cpu_s(self.pid)

    def rss_mb(self) -> float:
        """Resident memory of the hub itself now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def running_hub(work: Path, *options: str) -> Iterator[HubAtWork]:
    """A hub that is well; it ends with the block."""
    hub = HubAtWork(work, *options)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()


class FleetAtWork:
    """`edge hub simulate`.

    Args:
        hub: It reports to.
        options: Further arguments.
    """

    def __init__(self, hub: HubAtWork, *options: str) -> None:
        self._process = subprocess.Popen(
            [*PROGRAM, "hub", "simulate", "--data", str(hub.data), "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: list[str] = []
        self._hearing = threading.Thread(target=self._hear)
        self._hearing.start()

    def until_up(self, hub: HubAtWork, count: int) -> None:
        """Return once so many devices are online."""
        deadline = time.monotonic() + PATIENCE_S + count / 50
        with hub.client() as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(EdgeError):
                    if client.health().online >= count:
                        return
                time.sleep(0.5)
        sys.exit(f"the fleet does not come up: {self._said[-LAST_LINES:]}")

    def finish(self) -> dict[str, Any]:
        """End it, and return what it counted."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        out = "" if self._process.stdout is None else self._process.stdout.read()
        self._process.wait(2 * PATIENCE_S)
        self._hearing.join()
        if not out:
            sys.exit(f"the fleet failed: {self._said[-LAST_LINES:]}")
        counted: dict[str, Any] = json.loads(out)
        return counted

    def _hear(self) -> None:
        self._said += self._process.stderr or ()


@dataclass(slots=True)
class Seen:
    """What probes found.

    Attributes:
        waits_s: From publishing a report to its row in the API's stream.
        sent: Reports published; what was never seen in a row was followed by a newer one within the quarter of a second
            over which rows are gathered.
        replies_s: By command: from asking to the stream's word that it ended.
    """

    waits_s: list[float] = field(default_factory=list)
    sent: int = 0
    replies_s: dict[str, float] = field(default_factory=dict)


class Probe:
    """A device among the fleet whose every report is told from the others by its temperature.

    Args:
        hub: It reports to.
        name: Of the device.
    """

    def __init__(self, hub: HubAtWork, name: str) -> None:
        self.who = DeviceId(tenant=PROBES, device=name)
        self.sent = 0
        self._boot = new_token()
        with hub.client() as client:
            given = client.enrol(self.who, again=True)
        self._up = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=f"probe:{name}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.username_pw_set(given.username, given.password)
        self._client.on_connect = lambda *_: self._up.set()
        self._client.on_socket_open = lambda _c, _d, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.connect(given.host, given.port)
        self._client.loop_start()
        if not self._up.wait(PATIENCE_S):
            sys.exit("a probe does not get through to the broker")

    def report(self) -> float:
        """Publish a report, and return the temperature in it."""
        self.sent += 1
        temp_c = round(20 + (self.sent % 100_000) / 1000, 3)
        now = time.time()
        sample = mqtt.Sample(at=now, window_s=1.0, conditions=Conditions(temp_c=temp_c))
        envelope = mqtt.UpEnvelope(
            id=new_token(), boot=self._boot, seq=self.sent, sent=now, body=mqtt.Tele(samples=(sample,))
        )
        self._client.publish(mqtt.up_topic(self.who, Up.TELE), mqtt.pack(envelope), qos=1)
        return temp_c

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


class Watching:
    """Reads the API's stream, as a dashboard does, and sends reports whose rows it then looks for.

    Args:
        hub: Whose stream.
        probe: Sends the reports; None only reads.
        every_s: Between two reports; longer than rows are gathered, or one would hide behind the next.
    """

    def __init__(self, hub: HubAtWork, probe: Probe | None = None, *, every_s: float = 1.0) -> None:
        self.seen = Seen()
        self._probe = probe
        self._every_s = every_s
        self._sent: dict[float, float] = {}
        self._over = threading.Event()
        self._open = threading.Event()
        self._noted = threading.Condition()
        self._client = hub.client()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self._sending = threading.Thread(target=self._send)
        self._sending.start()

    def until_open(self) -> None:
        """Return once the stream tells something: what happens from now on is seen."""
        if not self._open.wait(PATIENCE_S):
            sys.exit("the hub's stream tells nothing")

    def until_replied(self, commands: Collection[str]) -> None:
        """Return once all of these ended."""
        with self._noted:
            if not self._noted.wait_for(lambda: self.seen.replies_s.keys() >= set(commands), PATIENCE_S):
                sys.exit(f"not all of {len(commands)} commands are answered within {PATIENCE_S:.0f} s")

    def stop(self) -> Seen:
        """End it, and return what was seen; what is still on its way has a moment to come."""
        self._over.set()
        self._sending.join()
        with self._noted:
            self._noted.wait_for(lambda: not self._sent, min(2.0, 2 * self._every_s))
        self._client.close()
        return self.seen

    def _send(self) -> None:
        rng = random.Random(1)  # noqa: S311 - spreads reports
        while self._probe is not None and not self._over.wait(self._every_s * rng.uniform(0.6, 1.4)):
            temp_c = self._probe.report()
            self._sent[temp_c] = time.monotonic()
            self.seen.sent += 1

    def _read(self) -> None:
        mark = b"" if self._probe is None else f'"{self._probe.who}"'.encode()
        with contextlib.suppress(EdgeError, RuntimeError):
            for topic, body in self._client.news():
                now_s = time.monotonic()
                self._open.set()
                if topic == "rows" and mark and mark in body:
                    self._found(body, now_s)
                elif topic == "command":
                    command = json.loads(body)
                    with self._noted:
                        self.seen.replies_s.setdefault(command["id"], now_s)
                        self._noted.notify_all()

    def _found(self, body: bytes, now_s: float) -> None:
        with self._noted:
            for row in json.loads(body)["rows"]:
                if row["device"].startswith(f"{PROBES}/") and row["temp_c"] in self._sent:
                    self.seen.waits_s.append(now_s - self._sent.pop(row["temp_c"]))
            self._noted.notify_all()


class Sizing:
    """Notes the hub's memory each second, until stopped."""

    def __init__(self, hub: HubAtWork) -> None:
        self.found_mb: list[float] = []
        self._hub = hub
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look)
        self._looking.start()

    def stop(self) -> list[float]:
        """What was found."""
        self._over.set()
        self._looking.join()
        return self.found_mb

    def _look(self) -> None:
        while not self._over.wait(1.0):
            with contextlib.suppress(OSError):
                self.found_mb.append(self._hub.rss_mb())


def cpu_s(pid: int) -> float:
    """User and system time so far; fields 14 and 15 of proc(5) stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(found: list[float], share: float) -> float:
    """Of what was found; nothing found is for ever."""
    ordered = sorted(found)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("inf")
