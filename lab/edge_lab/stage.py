"""Where a play takes place: hub, slow link, played board, daemon and app, put up in this order, taken down in reverse.

Also the tool box of fault injection: each of the processes can be killed without a word and started again, on the
same ports and the same files, as on a real board.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edge_hub.client import HubClient
from edge_lab.digits_app import MAX_LINE_BYTES, Answer, Ready
from edge_lab.errors import LabError, PartDiedError
from edge_lab.leashed import Leashed, wait_for
from edge_lab.played import PlayedBoard, PlayedConditions
from edge_lab.slow_link import SlowLink
from edge_sdk.errors import EdgeError, WireError
from edge_sdk.local import LocalClient, Status
from edge_sdk.mqtt import DeviceId
from edge_sdk.preference import Mode
from edge_sdk.wire import decode

if TYPE_CHECKING:
    from typing_extensions import Self

DEVICE = DeviceId(tenant="demo", device="board-1")
MODEL = "digits"
EDGE = (sys.executable, "-m", "edge_sdk.cli")
# Where the played board would throttle (the daemon's own limit is its profile's), and how it is before anybody plays.
LIMIT_C = 95.0
CALM = PlayedConditions(temp_c=55.0, battery_pct=100.0, charging=True, rtt_ms=0.0)
_UP_S = 30.0
_ENROLL_S = 20.0
_APP_S = 60.0
_LOOK_S = 2.0
_GRACE_S = {"app": 3.0, "daemon": 8.0, "hub": 20.0, "enrolment": 1.0}
_DOWN = ("app", "daemon", "enrolment", "hub")
_PORT_TRIES = 5
_JOIN_S = 5.0
# What this user's own installation may have set must not lead ours astray.
_FOREIGN = ("EDGE_DAEMON_", "EDGE_HUB_", "STATE_DIRECTORY", "NOTIFY_SOCKET", "PYTHONPATH", "PYTHONHOME")
# A play is short: samples and the round trip are taken as often as the daemon lets them be.
_OF_THE_PLAY = """
[state]
directory = "state"

[api]
socket = "api.sock"

[sensors]
root = "board"
played = true

[telemetry]
sample_every_s = 1.0
telemetry_every_s = 2.0
"""


def environment(scratch: Path) -> dict[str, str]:
    """Ours, without what would lead a process of the demonstration astray, and with temporary files in `scratch`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"TMPDIR": str(scratch)}


class Stage:
    """The processes of a play; a context manager that leaves none of them.

    Args:
        work: A private, empty directory with a short path (a unix socket lies in it).
        bundle: What the device serves as `digits`.
        data: The held-out digits, an `.npz` file.
        wish: The preference the device is configured with.
        embedded: Take the embedded broker even where mosquitto is installed.
        rate: Calls a second at most.
        wait: Sleeps; may raise to end everything.
        patient: Turns false when the user wants out at once.

    Attributes:
        board: The files the daemon's sensors read.
        socket: Of the daemon.
        answers: What the app said, growing.
    """

    def __init__(
        self,
        work: Path,
        *,
        bundle: Path,
        data: Path,
        wait: Callable[[float], None],
        wish: Mode = Mode.ACCURACY,
        embedded: bool = False,
        rate: float = 25.0,
        patient: Callable[[], bool] = lambda: True,
    ) -> None:
        self.work = work.absolute()
        self.socket = self.work / "api.sock"
        self.hub_data = self.work / "hub"
        self.state = self.work / "state"
        self.logs = self.work / "logs"
        self._scratch = self.work / "tmp"
        for folder in (self.logs, self.state, self._scratch, self.work / "board"):
            folder.mkdir(exist_ok=True)
        self.board = PlayedBoard(self.work / "board", CALM, limit_c=LIMIT_C)
        self.answers: list[Answer] = []
        self._bundle = bundle.absolute()
        self._data = data.absolute()
        self._wish = wish
        self._embedded = ("--embedded",) if embedded else ()
        self._rate = rate
        self._wait = wait
        self._patient = patient
        self._processes: dict[str, Leashed] = {}
        self._listen = self._mqtt = ("127.0.0.1", 0)
        self._link: SlowLink | None = None
        self._hub: HubClient | None = None
        self._hearing: threading.Thread | None = None
        self._app_ready = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down; may be called twice."""
        for name in _DOWN:
            self.stop(name)
        if self._hub is not None:
            self._hub.close()
        if self._link is not None:
            self._link.close()

    @property
    def hub(self) -> HubClient:
        """The hub's HTTP API, as an administrator on this machine asks it."""
        if self._hub is None:
            raise ValueError("the hub was not started")
        return self._hub

    @property
    def link(self) -> SlowLink:
        """The device's way to the broker."""
        if self._link is None:
            raise ValueError("the link is there once the device is enrolled")
        return self._link

    def require(self) -> None:
        """Every process that was started must be running.

        Raises:
            PartDiedError: One is not.
        """
        for process in self._processes.values():
            process.require()

    # ------------------------------------------------------------------------------------------- putting up

    def start(self) -> Status:
        """Put up everything, and return what the daemon says of itself.

        Raises:
            LabError: A part does not come up.
        """
        self.start_hub()
        self.enroll()
        status = self.start_daemon()
        self.start_app()
        return status

    def start_hub(self) -> None:
        """Start the hub and its broker, on the ports it had before or on free ones.

        Raises:
            PartDiedError: It does not come up.
        """
        fixed = self._link is not None  # a device knows the way to the broker
        for attempt in range(_PORT_TRIES):
            if not fixed:
                self._listen, self._mqtt = free_addresses(2)
            ports = ("--listen", _text(self._listen), "--mqtt", _text(self._mqtt))
            hub = self._start("hub", *EDGE, "hub", "run", "--data", str(self.hub_data), *ports, *self._embedded)
            try:
                wait_for(self._hub_answers, what="the hub", limit_s=_UP_S, needs=[hub], wait=self._wait)
            except PartDiedError as error:
                self.stop("hub")
                # Between looking for a free port and the hub's taking it, somebody else may have had it.
                if "taken" not in str(error) or attempt == _PORT_TRIES - 1:
                    raise
            else:
                return

    def enroll(self) -> None:
        """Make the device known to the hub and write its configuration.

        Raises:
            LabError: The hub does not enroll it.
        """
        written = self.work / "enrolled.toml"
        command = ("hub", "enroll", str(DEVICE), "-o", str(written), "--data", str(self.hub_data))
        enrolling = self._start("enrolment", *EDGE, *command)
        wait_for(
            lambda: enrolling.status is not None,
            what="the enrolment",
            limit_s=_ENROLL_S,
            needs=[],
            wait=self._wait,
        )
        status = enrolling.status
        self.stop("enrolment")
        if status != 0:
            raise LabError("the device could not be enrolled", hint=enrolling.last_words())
        self._link = SlowLink(self._mqtt)
        # As enrolled, but by way of the slow link, and with the bundle at hand.
        enrolled = written.read_text("utf-8").partition("[models]")[0]
        port = f"port = {self._link.address[1]}\nprobe_every_s = 1.0"
        by_link, count = re.subn(r"(?m)^port = \d+$", port, enrolled)
        if count != 1:
            raise LabError("the enrolled configuration names no port", where=str(written))
        wish = f'{{ mode = "{self._wish.value}" }}'
        models = f'[models]\n{MODEL} = {{ bundle = "{self._bundle}", preference = {wish} }}\n'
        configuration = self.work / "device.toml"
        configuration.touch(0o600)
        configuration.write_text(by_link + models + _OF_THE_PLAY, encoding="utf-8")

    def start_daemon(self) -> Status:
        """Start the daemon, and return what it says of itself once it answers.

        Raises:
            PartDiedError: It does not come up.
        """
        daemon = self._start("daemon", *EDGE, "daemon", "run", "--config", str(self.work / "device.toml"))
        found: list[Status] = []

        def answers() -> bool:
            try:
                found.append(self.status())
            except EdgeError:
                return False
            return True

        wait_for(answers, what="the daemon", limit_s=_UP_S, needs=[daemon], wait=self._wait)
        return found[0]

    def start_app(self) -> None:
        """Start the app, and return once its model is loaded and it begins to classify.

        Raises:
            PartDiedError: It does not come up.
        """
        self._app_ready.clear()
        app = self._start(
            "app", sys.executable, "-m", "edge_lab.digits_app", "--model", MODEL, "--socket", str(self.socket),
            "--data", str(self._data), "--rate", str(self._rate), piped=True,
        )  # fmt: skip
        self._hearing = threading.Thread(target=self._hear, args=(app.stdout,), name="hears-app")
        self._hearing.start()
        wait_for(self._app_ready.is_set, what="the app", limit_s=_APP_S, needs=[app], wait=self._wait)

    def status(self) -> Status:
        """What the daemon says of itself now.

        Raises:
            DaemonUnreachableError: It does not answer.
        """
        with LocalClient(self.socket, timeout_s=_LOOK_S) as client:
            return client.call("GET", "/v1/status", Status)

    # ------------------------------------------------------------------------------------------ taking down

    def stop(self, name: str) -> None:
        """Stop `app`, `daemon` or `hub` in order; harmless where it does not run."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.stop(grace_s=_GRACE_S[name], patient=self._patient)
        if name == "app":
            self._heard_out()

    def kill(self, name: str) -> None:
        """End `app`, `daemon` or `hub` as the out-of-memory killer would: it cannot put anything in order.

        The broker is not killed with the hub; it notices by itself that the hub is gone.
        """
        self._processes.pop(name).kill()
        if name == "app":
            self._heard_out()

    def kill_broker(self) -> int:
        """End the broker likewise; the hub is to start it again. Returns the id of the process that was killed."""
        (broker,) = self._processes["hub"].children()
        os.kill(broker, signal.SIGKILL)
        return broker

    # --------------------------------------------------------------------------------------------- in detail

    def _start(self, name: str, *argv: str, piped: bool = False) -> Leashed:
        log = self.logs / f"{name}.log"
        # The directory for temporary files holds no Python, so `-m` finds nothing of the user's there.
        process = Leashed(name, argv, log=log, env=environment(self._scratch), cwd=self._scratch, piped=piped)
        self._processes[name] = process
        return process

    def _hub_answers(self) -> bool:
        try:
            client = HubClient.of(url=f"http://{_text(self._listen)}", data=self.hub_data)
        except EdgeError:  # it has not made its directory yet
            return False
        try:
            connected = client.health().connected
        except EdgeError:
            connected = False
        if not connected:
            client.close()
            return False
        if self._hub is not None:
            self._hub.close()
        self._hub = client
        return True

    def _hear(self, stdout: IO[bytes]) -> None:
        """Take down what the app says, until it ends."""
        while True:
            try:
                line = stdout.readline(MAX_LINE_BYTES)
            except ValueError:  # closed under our hands
                return
            if not line.endswith(b"\n"):
                return
            # What a library prints on its own account is no message of the app's.
            with suppress(WireError):
                if self._app_ready.is_set():
                    self.answers.append(decode(line, Answer, where="the app"))
                else:
                    decode(line, Ready, where="the app")
                    self._app_ready.set()

    def _heard_out(self) -> None:
        if self._hearing is not None:
            self._hearing.join(_JOIN_S)
            self._hearing = None


def free_addresses(count: int) -> list[tuple[str, int]]:
    """Loopback ports that nobody has just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [each.getsockname() for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
