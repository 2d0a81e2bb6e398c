"""An app at its daemon's word where threads and a restart of the daemon cross each other."""

from __future__ import annotations

import contextlib
import gc
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S, tiny_bundle, until

from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.errors import DaemonUnreachableError
from edge_sdk.link import UNKNOWN_APP
from edge_sdk.local import Assignment, Done, ErrorBody, LocalClient, Registered
from edge_sdk.mqtt import Because
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import encode, new_token

pytestmark = pytest.mark.device


def assigned(serial: int, variant: str) -> Assignment:
    return Assignment(serial=serial, variant=variant, because=Because(code="start", text="as it is"))


class Played(socketserver.ThreadingUnixStreamServer):
    """A daemon of one app that says what it is told to say.

    Attributes:
        apps: That registered; only the one that is `known` may say anything more.
        gone: That said goodbye.
        now: What the app is told in answer to all that it says.
        later: What the first app is told once it asks for what is next, and that is `released`.
    """

    daemon_threads = True

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.bundle = bundle
        self.apps: list[str] = []
        self.gone: list[str] = []
        self.known = ""
        self.now = self.later = assigned(1, "exact")
        self.released, self.ended = threading.Semaphore(0), threading.Event()
        super().__init__(str(path), _Answering)

    def joined(self) -> Registered:
        self.known = new_token()
        self.apps.append(self.known)
        self.now = assigned(1, "exact")
        return Registered(app=self.known, model="digits", bundle=str(self.bundle.path), assignment=self.now, speaks=3)


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Played

    def address_string(self) -> str:
        return "an app"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/v1/apps":
            self._answer(self.server.joined())
        elif self.server.known in self.path:
            self._answer(self.server.now)
        else:
            self._answer(ErrorBody(code=UNKNOWN_APP, text="who?"), status=404)

    def do_GET(self) -> None:
        if self.server.apps[0] in self.path:
            self.server.released.acquire(timeout=PATIENCE_S)
            self._answer(self.server.later)
        else:
            self.server.ended.wait(PATIENCE_S)
            self.close_connection = True

    def do_DELETE(self) -> None:
        self.server.gone.append(self.path.rpartition("/")[2])
        self._answer(Done(text="goodbye"))

    def _answer(self, body: object, *, status: int = 200) -> None:
        if self.server.ended.is_set():
            self.close_connection = True
            return
        payload = encode(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Played]:
    bundle = tiny_bundle(tmp_path / "digits-1.edge")
    with tempfile.TemporaryDirectory(prefix="edge-") as folder, Played(Path(folder, "s"), bundle) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.ended.set()
        server.released.release()
        server.shutdown()
        thread.join()


def test_what_an_app_was_told_before_its_daemon_restarted_does_not_drown_what_it_is_told_after(daemon: Played) -> None:
    with EdgeModel("digits", socket=str(daemon.server_address)) as model:
        assert model._follower is not None
        link = model._follower._link
        with model._turn:  # as whoever says something to the daemon holds it
            daemon.later = assigned(7, "exact")
            daemon.released.release()
            until(link._applying.locked, "the old word to be taken in")
            daemon.known = "nobody, after a restart"
            model.prefer(Preference(mode=Mode.SPEED))
        assert len(daemon.apps) == 2
        daemon.now = assigned(2, "quick")
        until(lambda: model.active == "quick", "the new word to be followed")


def test_advice_that_the_app_stumbles_over_does_not_keep_it_from_following(
    daemon: Played, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[float | None] = []

    def stumbles(most_per_s: float | None) -> None:
        told.append(most_per_s)
        raise KeyError(most_per_s)

    with EdgeModel("digits", socket=str(daemon.server_address), on_advice=stumbles) as model:
        daemon.later = Assignment(
            serial=2, variant="quick", because=Because(code="start", text="as it is"), most_per_s=4.0
        )
        daemon.released.release()
        until(lambda: model.active == "quick", "the assignment to be followed")
    assert told == [4.0]
    assert "on_advice failed" in caplog.text


def test_a_model_that_is_forgotten_says_goodbye_and_leaves_neither_thread_nor_socket(daemon: Played) -> None:
    model = EdgeModel("digits", socket=str(daemon.server_address))
    assert model.active == "exact"
    del model
    gc.collect()
    until(lambda: daemon.gone == daemon.apps, "the goodbye")
    until(lambda: not any(each.name.startswith("edge-") for each in threading.enumerate()), "the end of its threads")
    gc.collect()  # a socket that was left would warn


def test_a_client_that_is_interrupted_before_it_waits_does_not_wait(daemon: Played) -> None:
    with contextlib.closing(LocalClient(str(daemon.server_address))) as client:
        client.interrupt()
        with pytest.raises(DaemonUnreachableError, match="interrupted"):
            client.call("POST", "/v1/apps", Registered)
