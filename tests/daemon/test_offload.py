"""A daemon, an app and `edge serve`, all real processes: who computes follows the network, and no call fails."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import remote_stage
from daemon_stage import CERTIFICATES, PATIENCE_S, DaemonProcess, make_certificates, until

from edge_daemon.eventlog import replay
from edge_daemon.policies import registry
from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.local import Explanation, LocalClient

if TYPE_CHECKING:
    from typing_extensions import Self

pytestmark = pytest.mark.device
pytest.importorskip("starlette", reason="the serve extra is not installed")

X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
# Told a socket, it calls every 20 ms until its input ends; then says how many calls there were, which failed, and who
# answered. Before that it says when the server answers for the first time. An alarm ends it where the test does not.
APP = """
import json, select, signal, sys
signal.alarm(300)
import numpy as np
from edge_sdk import EdgeModel
from edge_sdk.errors import EdgeError
from edge_sdk.runtime import choose
choose()
X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
calls, failed, who = 0, [], {}
with EdgeModel("digits", socket=sys.stdin.readline().strip(), name="app") as model:
    expected = model(X)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        calls += 1
        try:
            by, (answer,) = model.answered([X])
            who[by] = who.get(by, 0) + 1
            if by == "server" and who[by] == 1:
                print("answered by the server", flush=True)
            assert answer.shape == expected.shape
        except EdgeError as error:
            failed.append(repr(error))
print(json.dumps({"calls": calls, "failed": failed, "who": who}))
"""


class Proxy:
    """Between clients and a server on a port of loopback; what goes to the server is held back by `delay_s`.

    Args:
        certificates: Where those of `make_certificates` are: with clients it speaks TLS then.
    """

    def __init__(self, certificates: Path | None = None) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._tls: ssl.SSLContext | None = None
        if certificates is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificates / CERTIFICATES["cert"], certificates / CERTIFICATES["key"])
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for sock in (self._listener, *self._socks):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
            except OSError:
                near.close()
                continue
            self._socks += [near, far]
            self._threads.append(threading.Thread(target=self._begin, args=(near, far)))
            self._threads[-1].start()

    def _begin(self, near: socket.socket, far: socket.socket) -> None:
        if self._tls is not None:
            near.settimeout(PATIENCE_S)
            try:
                near = self._tls.wrap_socket(near, server_side=True)
            except OSError:  # the daemon only looks whether it connects; or the client does not trust us
                return self._part(far)
            self._socks.append(near)
        return self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                for sock in select.select([near, far], [], [], 0.2)[0]:
                    content = sock.recv(65536)
                    while isinstance(sock, ssl.SSLSocket) and sock.pending():  # of which `select` does not know
                        content += sock.recv(sock.pending())
                    if not content:
                        return self._part(near, far)
                    if sock is near:
                        self._ended.wait(self.delay_s)
                    (far if sock is near else near).sendall(content)
        return self._part(near, far)

    @staticmethod
    def _part(*socks: socket.socket) -> None:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class App:
    """A process that calls, once there is a daemon to call."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def begin(self, daemon: DaemonProcess) -> None:
        """Call what this daemon serves."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{daemon.socket}\n".encode())
        self._process.stdin.flush()
        assert self.says() == "ready"

    def says(self) -> str:
        """The next that it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def end(self) -> dict[str, Any]:
        """Its last word."""
        said, _ = self._process.communicate(timeout=PATIENCE_S)
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        return told


def computes_on(daemon: DaemonProcess) -> str | None:
    return next((each.computes_on for each in daemon.status().apps), None)


def decided(daemon: DaemonProcess) -> str:
    with LocalClient(daemon.socket) as client:
        return client.call("GET", "/v1/explain", Explanation).decisions[0].because.text


def serving(bundle: Bundle, url: str, more: str = "", *, metered: bool = False) -> str:
    return (
        f'[models.digits]\nbundle = "{bundle.path}"\n'
        'preference = {mode = "accuracy", max_latency_ms = 2000}\n'
        f'server = {{url = "{url}", model = "digits", quality = 99.9{more}}}\n'
        f"[sensors]\nmetered = {str(metered).lower()}\n"  # else the machine's own network has a say
    )


def answering(refuses: threading.Event | None = None) -> remote_stage.Stage:
    """A server in this process that answers zeros of the right shape, until it `refuses`."""

    def zeros(sock: socket.socket, asked: remote_stage.Asked, _: threading.Event) -> None:
        if refuses is not None and refuses.is_set():
            sock.sendall(remote_stage.http(b'{"error": "who are you?"}', status="403 Forbidden"))
        else:
            sock.sendall(remote_stage.binary(bytes(12), asked=asked, shape=[1, 3]))

    outputs = [remote_stage.Y | {"shape": [-1, 3]}]
    model = {"name": "digits", "inputs": [remote_stage.X], "outputs": outputs}
    return remote_stage.Stage(model=model, script=[zeros])


def test_who_computes_follows_the_network_and_no_call_fails(
    daemon: Callable[..., DaemonProcess], digits: Bundle, tmp_path: Path
) -> None:
    with Proxy() as proxy, App() as app:
        process = daemon(serving(digits, proxy.url))
        process.start(ready=False)  # all three begin at once: one after the other takes a busy machine too long
        with remote_stage.served(tmp_path, digits.path, "--variant", "exact") as server:
            proxy.port = int(server.url.split(":")[2].split("/")[0])
            until(process.answers, "the daemon")
            app.begin(process)
            assert app.says() == "answered by the server"
            until(lambda: "asks the server (99.9 points), exact stands by" in decided(process), "the reason")
            proxy.delay_s = 3.0  # longer than answers may take
            process.says("does not answer; what it would compute is computed here")
            until(lambda: computes_on(process) == "cpu", "the app to compute alone")
            proxy.delay_s = 0.0
            until(lambda: computes_on(process) == "server", "the server to be asked again")
            server.end(how=remote_stage.signal.SIGKILL)
            until(lambda: computes_on(process) == "cpu", "the app to compute alone again")
            told = app.end()
        assert told["failed"] == []
        assert told["calls"] == sum(told["who"].values())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_with_a_token_and_an_authority_is_asked_by_who_has_both_and_else_explain_says_why(
    daemon: Callable[..., DaemonProcess], digits: Bundle, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    secret, wrong = "of-the-server-0123456789", "of-somebody-else-9876543210"
    (tmp_path / "kept").write_text(secret)
    (tmp_path / "token").write_text(wrong)
    with Proxy(tmp_path) as proxy:
        files = f', token_file = "{tmp_path / "token"}", ca_file = "{tmp_path / CERTIFICATES["ca"]}"'
        process = daemon(serving(digits, proxy.url, files))
        process.start(ready=False)
        options = ("--variant", "exact", "--token-file", str(tmp_path / "kept"))
        with remote_stage.served(tmp_path, digits.path, *options) as server:
            proxy.port = int(server.url.split(":")[2].split("/")[0])
            until(process.answers, "the daemon")
            with EdgeModel("digits", socket=process.socket) as model:
                reason = "the server answers 401: a token is asked for; look at the token"
                until(lambda: reason in decided(process), "the reason")
                assert model.answered([X])[0] != "server"
            (tmp_path / "token").write_text(f"{secret}\n")
            with EdgeModel("digits", socket=process.socket) as model:
                until(lambda: model.answered([X])[0] == "server", "the server to answer")
            assert not [said for said in (secret, wrong) if said in process.said + server.log.read_text()]
        assert process.stop() == 0


def test_a_server_that_refuses_in_the_middle_is_left_and_explain_says_so_while_another_app_may_ask_it(
    daemon: Callable[..., DaemonProcess], digits: Bundle
) -> None:
    refuses = threading.Event()
    with answering(refuses) as stage:
        process = daemon(serving(digits, stage.url))
        process.start()
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: model.answered([X])[0] == "server", "the server to answer")
            refuses.set()
            assert model.answered([X])[0] != "server"
            assert model.computes_on == "cpu"
            until(lambda: "the server is left out: http" in decided(process), "the reason")
            assert "the server answers 403: who are you?; give the server's token" in decided(process)
            refuses.clear()
            with EdgeModel("digits", socket=process.socket) as other:
                until(lambda: other.answered([X])[0] == "server", "the server to answer the other")
        process.says("cannot ask the server")


def test_while_the_network_is_metered_nothing_is_sent_to_the_server_and_explain_says_why(
    daemon: Callable[..., DaemonProcess], digits: Bundle
) -> None:
    with answering() as stage:
        process = daemon(serving(digits, stage.url, metered=True))
        process.start()
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: "the server is left out: the network is metered" in decided(process), "the reason")
            assert model.answered([X])[0] != "server"
        assert stage.connections == 0


def test_a_server_that_may_be_asked_whatever_it_costs_is_asked_while_the_network_is_metered(
    daemon: Callable[..., DaemonProcess], digits: Bundle
) -> None:
    with answering() as stage:
        process = daemon(serving(digits, stage.url, ', metered = "allow"', metered=True))
        process.start()
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: model.answered([X])[0] == "server", "the server to answer")


def test_an_app_whose_server_has_another_signature_computes_alone_and_explain_says_why(
    daemon: Callable[..., DaemonProcess], digits: Bundle
) -> None:
    with remote_stage.Stage(model={"name": "digits", "inputs": [remote_stage.X], "outputs": [remote_stage.Y]}) as stage:
        process = daemon(serving(digits, stage.url))
        process.start()
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: "the server is left out: the outputs of the remote engine" in decided(process), "the reason")
            assert model(X) is not None
            assert model.computes_on == "cpu"
        process.says("cannot ask the server")


def test_when_the_daemon_vanishes_the_app_computes_alone_and_a_replay_decides_as_it_did(
    daemon: Callable[..., DaemonProcess], digits: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "events.jsonl"
    with answering() as stage:
        process = daemon(serving(digits, stage.url))
        process.start("--record-events", str(log))
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: model(X) is not None and model.computes_on == "server", "the server to be asked")
            process.kill()
            until(lambda: model.computes_on == "cpu", "the end of the daemon's word")
            assert model(X) is not None
    replayed = list(replay(log, registry.find("optimal")))
    assert [each.decided for each in replayed] == [each.recorded for each in replayed]
    assert any("asks the server" in one.because.text for each in replayed for one in each.decided)


def test_a_pin_that_no_daemon_hears_asks_nobody_either(daemon: Callable[..., DaemonProcess], digits: Bundle) -> None:
    with answering() as stage:
        process = daemon(serving(digits, stage.url))
        process.start()
        with EdgeModel("digits", socket=process.socket) as model:
            until(lambda: model(X) is not None and model.computes_on == "server", "the server to be asked")
            process.kill()
            model.switch("quick")
            assert model.computes_on == "cpu"
            assert model.answered([X])[0] == "quick"
