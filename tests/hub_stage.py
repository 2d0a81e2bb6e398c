"""What the tests of the hub are played on: a hub with its real broker, and devices that are real MQTT clients."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
import ssl
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from daemon_stage import EDGE, PATIENCE_S, clean_environment, end, free_port, listens, noticed, until

from edge_hub.client import HubClient
from edge_hub.datadir import DataDir
from edge_hub.trust import Trust
from edge_sdk import mqtt
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import DeviceId, Down, DownEnvelope, Up, UpEnvelope
from edge_sdk.wire import new_token

T = TypeVar("T")

CAM = DeviceId(tenant="acme", device="cam1")
OTHER = DeviceId(tenant="acme", device="cam2")


class HubProcess:
    """`edge hub run` in a directory of the test's, on ports of its own.

    Args:
        directory: Of its data and log.
        options: Further arguments.
        environment: Further variables.
    """

    def __init__(self, directory: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data = directory / "hub"
        self.log = directory / "hub.log"
        self.http, self.mqtt = free_port(), free_port()
        self.options = options
        self.environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HubProcess:  # noqa: PYI034 - nothing derives from it
        """Run for the length of the block."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        scheme = "https" if any(option.startswith("--https") for option in self.options) else "http"
        return f"{scheme}://127.0.0.1:{self.http}"

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*EDGE, "hub", "run", "--data", str(self.data)),
                    *("--listen", f"127.0.0.1:{self.http}", "--mqtt", f"127.0.0.1:{self.mqtt}", *self.options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(self.directory) | self.environment,
                cwd=self.directory,
            )
        if ready:
            until(self._answers, "the hub")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        return self.wait()

    def kill(self) -> None:
        """Kill it without a word; its broker must go with it."""
        self.stop(signal.SIGKILL)
        until(lambda: not listens(self.mqtt), "the broker to end with its hub")

    def wait(self) -> int:
        """Its exit status, once it ended by itself."""
        assert self._process is not None
        status = self._process.wait(PATIENCE_S)
        self._process = None
        return status

    @contextlib.contextmanager
    def client(self, *, token: str | None = None) -> Iterator[HubClient]:
        token = token or self.token
        with HubClient(self.url, token, trust=Trust.of(DataDir(self.data), self.url)) as client:
            yield client

    def enrol(self, device: DeviceId = CAM) -> str:
        """Its password."""
        with self.client() as client:
            return client.enrol(device, again=False).password

    def messages(self, device: DeviceId = CAM) -> int:
        with self.client() as client:
            return client.device(device).device.messages

    def broker_pid(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found = [int(pid) for pid in children if "mosquitto" in Path(f"/proc/{pid}/comm").read_text()]
        (pid,) = found
        return pid

    def children(self) -> dict[int, str]:
        """Broker and workers: what they are by their process ids."""
        found = {}
        for pid in map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()):
            with contextlib.suppress(OSError):  # it has ended since
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = "worker" if b"edge_hub.worker" in command else "broker"
        return found

    def workers(self) -> list[int]:
        return [pid for pid, what in self.children().items() if what == "worker"]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said
        with contextlib.suppress(EdgeError, FileNotFoundError), self.client() as client:
            return client.health().ok
        return False


def hub_command(
    place: Path, *words: str, stdin: Any = subprocess.DEVNULL, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`edge hub ...`, typed in a directory, with these variables of the environment more."""
    return subprocess.run(
        [*EDGE, "hub", *words],
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=place,
        env=clean_environment(place) | environment,
    )


def is_stuck(descriptor: int) -> bool:
    """Whether a connection holds what nobody reads, and no more comes: the sockets between are full."""

    def unread() -> bytes:
        return fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))

    before = unread()
    time.sleep(0.5)
    return bytes(4) != before == unread()


async def till(look: Callable[[], object], what: str) -> None:
    """Wait for something in a loop of events; it is of another thread or process, or nothing tells of it."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def again_and_again(do: Callable[[], object], *, every_s: float = 0.1) -> Iterator[None]:
    """Beside the block, in a thread."""
    over = threading.Event()

    def doing() -> None:
        while not over.wait(every_s):
            do()

    thread = threading.Thread(target=doing)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class FakeDevice:
    """A device's side of the protocol, by hand: it sends what it is told to and notes what comes down.

    Args:
        port: Of the broker.
        password: From the enrolment.
        device: Who it is.
        topics: What it subscribes to; None takes what is its own.
        client_id: What it says it is called.
        connect_as: A user name and password that is not its own: at a broker of somebody else's.
        tls: How it encrypts; None does not.
        patience_s: How long it may take to be let in.
    """

    def __init__(
        self,
        port: int,
        password: str | None,
        device: DeviceId = CAM,
        *,
        topics: tuple[str, ...] | None = None,
        client_id: str | None = None,
        connect_as: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.device = device
        self.boot = new_token()
        self.seq = 0
        self.acked: set[int] = set()
        self.commands: list[DownEnvelope[Any]] = []
        self.desired: list[DownEnvelope[Any]] = []
        self.strangers: list[str] = []
        self.refused: str | None = None
        self.denied: list[str] = []
        self._changed = threading.Condition()
        self._topics = topics or tuple(mqtt.down_topic(device, kind) for kind in Down)
        self._subscribed = False
        client = self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"{device.tenant}:{device.device}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        if password is not None:
            client.username_pw_set(str(device), password)
        elif connect_as is not None:
            client.username_pw_set(*connect_as)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.reconnect_delay_set(1, 1)
        try:
            client.connect("127.0.0.1", port, keepalive=10)
            client.loop_start()
            self.when(lambda: self._subscribed or self.refused, "the subscription", patience_s)
        except BaseException:
            end(client)
            raise

    def close(self) -> None:
        end(self._client)

    def when(self, look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
        return noticed(self._changed, look, what, patience_s)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def send(self, kind: Up, body: Any, *, reply_to: str | None = None, seq: int | None = None) -> int:
        """Send a numbered message, or one again by its number; returns the number."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        envelope = UpEnvelope(id=new_token(), boot=self.boot, seq=seq, sent=time.time(), reply_to=reply_to, body=body)
        self.publish(mqtt.up_topic(self.device, kind), mqtt.pack(envelope))
        return seq

    def retain(self, kind: Up, body: mqtt.Birth | mqtt.State, *, boot: str | None = None) -> None:
        """Send what the broker keeps."""
        envelope = UpEnvelope(id=new_token(), boot=boot or self.boot, seq=0, sent=time.time(), body=body)
        self.publish(mqtt.up_topic(self.device, kind), mqtt.pack(envelope), retain=True)

    def born(self, *, online: bool = True, boot: str | None = None) -> None:
        self.retain(Up.BIRTH, mqtt.Birth(online=online), boot=boot)

    def insists(self, seq: int, text: str) -> None:
        """Send an event again by its number until it is confirmed, as a device does that lost its connection."""
        deadline = time.monotonic() + PATIENCE_S
        while seq not in self.acked:
            assert time.monotonic() < deadline, f"the acknowledgement of {seq}"
            self.send(Up.EVENT, mqtt.Event(at=1.0, kind="sensor", text=text), seq=seq)
            with self._changed:
                self._changed.wait_for(lambda: seq in self.acked, 0.5)

    def happens(self, text: str) -> int:
        """Send an event; returns its number."""
        return self.send(Up.EVENT, mqtt.Event(at=time.time(), kind="sensor", text=text))

    def confirmed(self, seq: int) -> None:
        self.when(lambda: seq in self.acked, f"the acknowledgement of {seq}")

    def command(self, number: int = 1) -> DownEnvelope[Any]:
        """The command that came as this one."""
        return self.when(lambda: self.commands[number - 1] if len(self.commands) >= number else None, "a command")

    def reply(self, command: str, status: mqtt.ReplyStatus = mqtt.ReplyStatus.DONE, **more: Any) -> int:
        return self.send(Up.REPLY, mqtt.Reply(status=status, **more), reply_to=command)

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            with self._changed:
                self.refused = str(reason)
                self._changed.notify_all()
            return
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, *_: Any) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _on_publish(self, _client: Any, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            with self._changed:
                self.denied.append(str(reason))
                self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        kinds = {mqtt.down_topic(self.device, kind): kind for kind in Down}
        kind = kinds.get(message.topic)
        with self._changed:
            if kind is None:
                self.strangers.append(message.topic)
            else:
                envelope = mqtt.unpack_down(kind, message.payload)
                if kind is Down.ACK and envelope.body.boot == self.boot:
                    for first, last in envelope.body.ranges:
                        self.acked.update(range(first, last + 1))
                elif kind is Down.CMD:
                    self.commands.append(envelope)
                elif kind is Down.DESIRED:
                    self.desired.append(envelope)
            self._changed.notify_all()
