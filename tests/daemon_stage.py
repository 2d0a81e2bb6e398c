"""What the tests of the daemon are played on: a bundle, a real broker, a hub that notes and confirms, a daemon.

All are real: processes that can be killed, on free ports and in the test's own directory. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edge_sdk import bundle, mqtt
from edge_sdk.bundle import Bundle
from edge_sdk.errors import DaemonUnreachableError
from edge_sdk.local import LocalClient, Status
from edge_sdk.manifest import EvidenceFile, Manifest
from edge_sdk.mqtt import Ack, DeviceId, Down, DownEnvelope, Up, UpEnvelope
from edge_sdk.wire import decode, encode, new_token

TINY = Path(__file__).parent / "data" / "tiny"
PATIENCE_S = 60.0  # what is waited for comes within one or two; a busy machine takes its time
DEVICE = DeviceId(tenant="acme", device="board-1")
PASSWORD = "of the device"

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """What `look` finds, as soon as it is something."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.02)


def noticed(
    changed: threading.Condition,
    look: Callable[[], T | None],
    what: str,
    patience_s: float = PATIENCE_S,
    *,
    told: Callable[[], object] = str,
) -> T:
    """As `until`, for what another thread notes: it is asked whenever that says so. `told` is said where it fails."""
    deadline = time.monotonic() + patience_s
    with changed:
        while True:
            found = look()
            if found:
                return found
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{what}: not within {patience_s:.0f} s {told()}"
            changed.wait(min(left_s, 0.2))


# Below those that kernels hand out by themselves (from 32768), or another server, of a test that runs beside, would get
# one before it is bound, or while who has it is away; and from elsewhere in each process.
_ports = itertools.cycle(random.SystemRandom().sample(range(11_000, 32_000), 20_000))


def free_port() -> int:
    """A port that nobody has, nor will be given unless by name."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


# ------------------------------------------------------------------------------------------------------- bundle


def tiny_bundle(path: Path, *, name: str = "digits") -> Bundle:
    """A bundle of two real models: `exact` (98 %, 2 ms) and `quick` (95 %, 0.5 ms)."""
    blobs, variants = {}, []
    for id_, file, precision, quality, macs in (
        ("exact", "dense_fp32.tflite", "fp32", 98.0, 2_000_000),
        ("quick", "dense_int8.tflite", "int8", 95.0, 500_000),
    ):
        content = (TINY / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = TINY / file
        variants.append(
            {
                "id": id_,
                "source": name,
                "blob": digest,
                "size_bytes": len(content),
                "transfer_bytes": len(content),
                "precision": precision,
                "target": {"delegate": "cpu"},
                "quality": {
                    "metric": "accuracy",
                    "value": quality,
                    "drop": 98.0 - quality,
                    "interval": 0.5,
                    "agreement": quality,
                    "samples": 360,
                },
                "cost": {"macs": macs, "parameters": 100},
            }
        )
    plain = {
        "format": 1,
        "name": name,
        "version": "1",
        "created": 1_700_000_000.0,
        "sources": [{"name": name, "framework": "tflite", "sha256": "0" * 64}],
        "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [-1, 3], "dtype": "float32"}],
        "metric": "accuracy",
        "reference": "exact",
        "variants": variants,
        "fronts": {},
    }
    manifest = decode(encode(plain), Manifest, where="test")
    return bundle.write(path, manifest, blobs, evidence=EvidenceFile(format=1), report="<html></html>")


# ------------------------------------------------------------------------------------------------------- broker


class Broker:
    """A mosquitto on loopback with a password file and the access list that the hub writes.

    Args:
        directory: Of its files; empty.
        persistent: It keeps sessions and retained messages over a clean restart.
        encrypted: It speaks TLS, with a certificate for 127.0.0.1 of an authority made here, `directory / "ca.pem"`.
    """

    HUB = "hub"
    HUB_PASSWORD = "of the hub"

    def __init__(self, directory: Path, *, persistent: bool = True, encrypted: bool = False) -> None:
        self.port = free_port()
        self.log = directory / "mosquitto.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(exist_ok=True)
        (directory / "data").mkdir()
        accounts = directory / "passwords"
        accounts.touch(mode=0o600)
        for user, password in ((self.HUB, self.HUB_PASSWORD), (str(DEVICE), PASSWORD)):
            subprocess.run(
                [_program("mosquitto_passwd"), "-b", accounts, user, password], check=True, capture_output=True
            )
        (directory / "access").write_text(
            f"user {self.HUB}\ntopic readwrite edge/v1/#\n"
            "pattern write edge/v1/%u/up/#\npattern read edge/v1/%u/down/#\n"
        )
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {accounts}",
            f"acl_file {directory / 'access'}",
            f"persistence {'true' if persistent else 'false'}",
            f"persistence_location {directory / 'data'}/",
            "set_tcp_nodelay true",
        ]
        if encrypted:
            make_certificates(directory)
            lines += [f"{name}file {directory / file}" for name, file in CERTIFICATES.items()]
        if os.geteuid() == 0:  # as root it would become another user, who can't read the password file
            lines.append("user root")
        (directory / "conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Return once it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program("mosquitto"), "-v", "-c", self._directory / "conf"], stdout=log, stderr=log
            )
        until(self._accepts, "the broker")

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it without a word."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Lose what it kept; it must not run."""
        for path in (self._directory / "data").iterdir():
            path.unlink()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return listens(self.port)


CERTIFICATES = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}


def make_certificates(directory: Path) -> None:
    """An authority, and a certificate of it for 127.0.0.1, good for a day; to the letter, as Python 3.13 asks for."""
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for command in (
        ("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=test authority",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        ("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"),
        ("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
         "-out", "server.pem", "-extfile", "names"),
    ):  # fmt: skip
        subprocess.run([_program("openssl"), *command], cwd=directory, check=True, capture_output=True)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    assert found, f"{name} is not installed"
    return found


# ------------------------------------------------------------------------------------------------------- hub


def end(client: Any) -> None:
    """Disconnect a client of paho's; it would keep its pair of sockets until it is collected.

    And the connection, where its thread was making a new one just then.
    """
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


class NotingHub:
    """An MQTT client that notes what devices send, and acknowledges it if it is to.

    Args:
        port: Of the broker.
        acknowledging: It confirms each spooled message at once.
    """

    def __init__(self, port: int, *, acknowledging: bool = True) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.acknowledging = acknowledging
        self.noted: list[tuple[Up, UpEnvelope[Any]]] = []
        self.retained: list[tuple[Up, UpEnvelope[Any]]] = []
        self._changed = threading.Condition()
        client = self._client = Client(
            CallbackAPIVersion.VERSION2, client_id="hub", protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(Broker.HUB, Broker.HUB_PASSWORD)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.reconnect_delay_set(1, 1)
        self._subscribed = False
        client.connect("127.0.0.1", port, keepalive=10)
        client.loop_start()
        self.when(lambda: self._subscribed, "the hub's subscription")

    def close(self) -> None:
        end(self._client)

    def when(self, look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
        """What `look` finds, as soon as it is something; it is asked whenever a message came."""
        return noticed(self._changed, look, what, patience_s, told=lambda: f"noted: {self.noted[-5:]}")

    def bodies(self, kind: Up) -> list[Any]:
        return [envelope.body for noted, envelope in list(self.noted) if noted is kind]

    def numbers(self) -> set[tuple[str, int]]:
        """(boot, seq) of everything that a device keeps until it is confirmed."""
        return {(envelope.boot, envelope.seq) for _, envelope in list(self.noted) if envelope.seq}

    def birth(self, *, online: bool = True, after: int = 0) -> UpEnvelope[Any]:
        """The first such birth beyond the first `after` messages."""

        def look() -> UpEnvelope[Any] | None:
            births = (e for kind, e in self.noted[after:] if kind is Up.BIRTH and e.body.online is online)
            return next(births, None)

        return self.when(look, f"a birth, online {online}")

    def event(self, kind: str, after: int = 0) -> mqtt.Event:
        def look() -> mqtt.Event | None:
            events = (e.body for up, e in self.noted[after:] if up is Up.EVENT and e.body.kind == kind)
            return next(events, None)

        return self.when(look, f"an event {kind}")

    def order(self, body: Any, *, expires_in_s: float = 60.0, id_: str | None = None) -> str:
        """Send a command; its id."""
        now = time.time()
        envelope = DownEnvelope(id=id_ or new_token(), sent=now, expires=now + expires_in_s, body=body)
        self.publish(Down.CMD, mqtt.pack(envelope))
        return envelope.id

    def reply(self, command: str) -> mqtt.Reply:
        return self.replies(command, 1)[0].body

    def replies(self, command: str, count: int) -> list[UpEnvelope[mqtt.Reply]]:
        def look() -> list[UpEnvelope[mqtt.Reply]] | None:
            found = [e for kind, e in self.noted if kind is Up.REPLY and e.reply_to == command]
            return found if len(found) >= count else None

        return self.when(look, f"reply {count} to {command[:8]}")

    def publish(self, kind: Down, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(mqtt.down_topic(DEVICE, kind), payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def acknowledge_all(self) -> None:
        """Confirm what was noted so far, and from now on at once."""
        self.acknowledging = True
        for boot, seq in sorted(self.numbers()):
            self._acknowledge(boot, seq)

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe("edge/v1/+/+/up/#", qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        _, kind = mqtt.parse_up_topic(message.topic)
        envelope = mqtt.unpack_up(kind, message.payload)
        with self._changed:
            (self.retained if message.retain else self.noted).append((kind, envelope))
            self._changed.notify_all()
        if self.acknowledging and envelope.seq:
            self._acknowledge(envelope.boot, envelope.seq)

    def _acknowledge(self, boot: str, seq: int) -> None:
        envelope = DownEnvelope(id=new_token(), sent=time.time(), body=Ack(boot=boot, ranges=((seq, seq),)))
        self._client.publish(mqtt.down_topic(DEVICE, Down.ACK), mqtt.pack(envelope), qos=1)


# ------------------------------------------------------------------------------------------------------- daemon


class DaemonProcess:
    """`edge daemon run` in a directory of the test's.

    Args:
        directory: Of its configuration, state, socket and log.
        config: TOML.
        environment: Added to a clean one.
    """

    def __init__(self, directory: Path, config: str = "", *, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.config = directory / "daemon.toml"
        self.socket = directory / "api.sock"
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self._environment = {**clean_environment(directory), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(exist_ok=True)
        self.config.write_text(f'state.directory = "state"\n{config}')
        self.config.chmod(0o600)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def start(self, *options: str, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*EDGE, "daemon", "run", "--config", str(self.config), "--socket", str(self.socket), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.directory,
            )
        if ready:
            until(self.answers, "the daemon")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        status = self._process.wait(PATIENCE_S)
        self._process = None
        return status

    def kill(self) -> None:
        """Kill it without a word."""
        self.stop(signal.SIGKILL)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit status, once it ended by itself."""
        assert self._process is not None
        status = self._process.wait(patience_s)
        self._process = None
        return status

    def status(self) -> Status:
        with LocalClient(self.socket) as client:
            return client.call("GET", "/v1/status", Status)

    def says(self, text: str, patience_s: float = PATIENCE_S) -> None:
        until(lambda: text in self.said, f"the log to say {text!r}; it says {self.said[-2000:]}", patience_s)

    def answers(self) -> bool:
        """Whether it is there yet."""
        assert self._process is not None
        assert self._process.poll() is None, self.said
        try:
            self.status()
        except DaemonUnreachableError:
            return False
        return True


EDGE = (sys.executable, "-c", "import sys; from edge_sdk.cli import main; sys.exit(main())")


def clean_environment(home: Path) -> dict[str, str]:
    """Without what this user's own installation may have set."""
    foreign = ("EDGE_", "STATE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "HOME": str(home)}


def reporting(port: int, **telemetry: float) -> str:
    """The configuration of a daemon that reports to this broker, and often."""
    rates = {"sample_every_s": 1.0, "telemetry_every_s": 1.0, **telemetry}
    return "\n".join(
        (
            "[device]",
            f'tenant = "{DEVICE.tenant}"',
            f'name = "{DEVICE.device}"',
            "[mqtt]",
            'host = "127.0.0.1"',
            f"port = {port}",
            f'password = "{PASSWORD}"',
            "will_delay_s = 0",
            "probe_every_s = 1",
            "[telemetry]",
            *(f"{name} = {value}" for name, value in rates.items()),
            "",
        )
    )


def serving(path: Path, name: str = "digits") -> str:
    return f'[models]\n{name} = "{path}"\n'


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own, mounted at `path`; needs root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)  # what failed may still use it


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
