"""An app and a daemon of different ages speak with each other: each says no more than the other understands."""

from __future__ import annotations

import contextlib
import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.errors import WireError
from edge_sdk.link import DaemonLink
from edge_sdk.local import SPEAKS, AppReport, AppUsage, Assignment

pytestmark = pytest.mark.device

APP = "0123456789abcdef0123456789abcdef"
ASSIGNMENT = {"serial": 1, "variant": "int8", "because": {"code": "start", "text": "first choice"}}
# What the first version of the local API took, and nothing else.
REGISTER = {"model", "manifest", "name", "pid", "preference"}
REPORT = {"active", "calls", "late", "failed", "p50_ms", "p95_ms", "switched_ms", "failed_variant", "failure"}
# And the second.
REGISTER_2 = REGISTER | {"speaks", "runs"}
REPORT_2 = REPORT | {"arrived", "latencies_ms", "slow_ms", "runs", "computes_on", "usage"}


class OldDaemon(socketserver.ThreadingUnixStreamServer):
    """Answers as a daemon of an older version did: an unknown field is a bad request."""

    daemon_threads = True

    def __init__(self, path: Path, *, speaks: int = 1) -> None:
        self.speaks = speaks
        self.heard: list[tuple[str, dict[str, Any]]] = []
        super().__init__(str(path), _Answering)


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "an app"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        assert isinstance(self.server, OldDaemon)
        self.server.heard.append((self.path, body))
        is_register = self.path == "/v1/apps"
        known = ((REGISTER, REPORT), (REGISTER_2, REPORT_2))[self.server.speaks - 1]
        strange = set(body) - known[0 if is_register else 1]
        if strange:
            text = f"not as expected: Object contains unknown field `{strange.pop()}`"
            self._answer(400, {"code": WireError.code, "text": text})
        elif is_register:
            said = {"app": APP, "model": "digits", "bundle": "/b", "assignment": ASSIGNMENT}
            self._answer(200, said if self.server.speaks == 1 else {**said, "speaks": self.server.speaks})
        else:
            self._answer(200, ASSIGNMENT)

    def do_DELETE(self) -> None:
        self._answer(200, {"text": "goodbye"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@contextlib.contextmanager
def daemon_of(speaks: int) -> Iterator[OldDaemon]:
    with tempfile.TemporaryDirectory(prefix="edge-") as folder, OldDaemon(Path(folder, "s"), speaks=speaks) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def old() -> Iterator[OldDaemon]:
    with daemon_of(1) as server:
        yield server


def test_a_daemon_from_before_servers_hears_nothing_of_them() -> None:
    with daemon_of(2) as server:
        link = DaemonLink(
            socket=str(server.server_address),
            model="digits",
            manifest=None,
            preference=None,
            name="new",
            runs=("int8",),
        )
        assert link.registered.speaks == 2
        link.say(
            AppReport(
                active="int8",
                arrived=4,
                slow_ms=2.0,
                computes_on="cpu",
                waited_ms=1.0,
                sent=3,
                replied=2,
                remote_p50_ms=9.0,
                server_failure="no",
            )
        )
        link.close()
        assert server.heard[-1][1] == {"active": "int8", "arrived": 4, "slow_ms": 2.0, "computes_on": "cpu"}


def test_a_new_app_registers_with_an_old_daemon_and_leaves_out_what_that_does_not_know(old: OldDaemon) -> None:
    link = DaemonLink(
        socket=str(old.server_address), model="digits", manifest=None, preference=None, name="new", runs=("int8", "tpu")
    )
    assert link.registered.speaks == 1
    told = link.say(
        AppReport(
            active="int8",
            calls=3,
            p50_ms=1.0,
            arrived=4,
            latencies_ms=(1.0, 2.0),
            slow_ms=2.0,
            runs=("int8", "tpu"),
            computes_on="edgetpu",
            usage=AppUsage(name="edgetpu", busy_pct=10.0),
        )
    ).assignment
    link.close()
    assert told == Assignment(serial=1, variant="int8", because=told.because)
    assert [set(body) - REGISTER for path, body in old.heard if path == "/v1/apps"] == [{"speaks", "runs"}, set()]
    assert old.heard[-1][1] == {"active": "int8", "calls": 3, "p50_ms": 1.0}


def test_what_a_register_says_of_its_age_is_left_out_where_it_is_the_first() -> None:
    assert SPEAKS > 1  # the default is the first version, so that an app of that age need not say so
