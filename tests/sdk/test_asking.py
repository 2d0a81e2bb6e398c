"""Calls by way of a server: asked first, what stands by computes the rest, and none is lost when that changes."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemon_stage import CERTIFICATES, PATIENCE_S, make_certificates, until
from remote_stage import ONES, Asked, Stage, X, Y, good, http, says, stalls

from edge_sdk import asking
from edge_sdk.asking import SERVER, Asking
from edge_sdk.local import AssignedServer
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote import errands
from edge_sdk.tally import Tally

pytestmark = pytest.mark.device

SHAPE = TensorSpec(name="x", shape=(-1, 4), dtype="float32")


class Model:
    """What the stage's model takes and gives."""

    inputs = (SHAPE,)
    outputs = (TensorSpec(name="y", shape=(-1, 4), dtype="float32"),)


class Other:
    """What takes something else."""

    inputs = (TensorSpec(name="x", shape=(-1, 5), dtype="float32"),)
    outputs = (TensorSpec(name="y", shape=(-1, 4), dtype="float32"),)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


class Scene:
    """A model whose variant `small` computes here at once."""

    def __init__(self, model: Any = Model) -> None:
        self.told: list[None] = []
        self.tally = Tally(lambda: self.told.append(None))
        self.tally.limit_ms = 10_000.0
        self.changes: list[None] = []
        self.asking = Asking(model, self.here, self.tally, lambda: self.changes.append(None))

    def here(self, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        self.tally.ran("small", 3.0)
        return "small", [np.asarray(arrays[0]) * 0]

    def ask(self, stage: Stage, **fields: Any) -> None:
        self.asking.tell(AssignedServer(**{"url": stage.url, "model": "m"} | fields))
        until(lambda: self.asking.is_on or self.asking.failure, "the server to be opened")

    def run(self) -> str:
        return self.asking.run([ONES])[0]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.asking.close()


def test_the_server_answers_and_is_counted(scene: Scene, stage: Stage) -> None:
    assert scene.run() == "small"
    scene.ask(stage)
    who, (answer,) = scene.asking.run([ONES])
    assert who == SERVER
    assert np.array_equal(answer, 2 * ONES)
    taken = scene.tally.take("small")
    assert (taken.calls, taken.sent, taken.replied, taken.late) == (2, 1, 1, 0)
    assert taken.remote_p50_ms is not None
    assert scene.asking.in_flight == 0


def test_what_the_server_does_not_answer_is_computed_here_told_at_once_and_counted(scene: Scene, stage: Stage) -> None:
    stage.script = [says(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")]
    scene.ask(stage)
    assert [scene.run() for _ in range(3)] == ["small"] * 3
    assert len(scene.told) == 1
    taken = scene.tally.take("small")
    assert (taken.calls, taken.sent, taken.replied, taken.failed) == (3, 3, 0, 0)
    assert taken.slow_ms == pytest.approx(3.0, abs=3.0)
    assert taken.remote_p50_ms is None


def test_a_server_that_stalls_costs_no_more_than_the_limit(scene: Scene, stage: Stage) -> None:
    stage.script = [stalls]
    scene.tally.limit_ms = 50.0
    scene.ask(stage)
    assert [scene.run() for _ in range(6)] == ["small"] * 6
    taken = scene.tally.take("small")
    assert (taken.sent, taken.replied) == (4, 0)  # beyond so many outstanding none is sent
    stage.script = [good]
    stage.hang_up()


def test_an_answer_about_other_samples_is_none(scene: Scene, stage: Stage) -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [7] * 8}
    stage.script = [says(http(json.dumps({"outputs": [output]}).encode())), good]
    scene.ask(stage)
    assert [scene.run(), scene.run()] == ["small", SERVER]
    taken = scene.tally.take("small")
    assert (taken.sent, taken.replied) == (2, 1)


def test_to_ask_no_longer_and_again_opens_nothing_anew_and_loses_no_call(scene: Scene, stage: Stage) -> None:
    scene.ask(stage)
    asked = AssignedServer(url=stage.url, model="m")
    who: list[str] = []
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            who.append(scene.run())

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        before = len(who)
        scene.asking.tell(None if turn % 2 else asked)
        until(lambda before=before: len(who) > before + 3, "calls to go on")
    ended.set()
    for thread in threads:
        thread.join()
    assert {*who} == {SERVER, "small"}
    taken = scene.tally.take("small")
    assert taken.calls == len(who)
    assert len([each for each in stage.asked if each.line.startswith("GET")]) <= 3


def test_another_signature_is_a_failure_for_as_long_as_it_is_told(stage: Stage) -> None:
    scene = Scene(Other)
    scene.ask(stage)
    assert scene.asking.failure is not None
    assert "of the remote engine are" in scene.asking.failure
    assert scene.run() == "small"
    asked = len(stage.asked)
    scene.asking.tell(AssignedServer(url=stage.url, model="m"))
    assert len(stage.asked) == asked
    scene.asking.tell(None)
    assert scene.asking.failure is None
    until(lambda: len(scene.changes) == 1, "the model to be told")
    scene.asking.close()
    scene.asking.close()


def test_a_model_the_server_does_not_have_is_a_failure_and_another_server_is_tried(scene: Scene, stage: Stage) -> None:
    with Stage(model=None) as empty:
        scene.ask(empty)
        assert scene.asking.failure is not None
    scene.ask(stage)
    assert scene.run() == SERVER


TOKEN = "hush-0123456789abcdef"


def guarded(sock: socket.socket, asked: Asked, stopped: threading.Event) -> None:
    """Whoever has the token, and nobody else."""
    if asked.headers.get("authorization") == f"Bearer {TOKEN}":
        good(sock, asked, stopped)
    else:
        sock.sendall(http(b'{"error": "a token is asked for"}', status="401 Unauthorized"))


def test_the_token_is_read_from_its_file_and_sent_with_each_request(scene: Scene, stage: Stage, tmp_path: Path) -> None:
    stage.script = [guarded]
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    scene.ask(stage, token_file=str(file))
    assert [scene.run(), scene.run()] == [SERVER, SERVER]
    assert {each.headers.get("authorization") for each in stage.asked} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("field", "content", "said"),
    [
        ("token_file", None, "the token cannot be read: No such file"),
        ("token_file", b"\n", "the file of the token is empty"),
        ("token_file", b"hush\nhush\n", "several lines"),
        ("token_file", b"\xef\xbb\xbfhush", "byte order mark"),
        ("ca_file", None, "the certificates cannot be read: No such file"),
        ("ca_file", b"", "the certificates cannot be read: "),
        ("ca_file", b"hush", "the certificates cannot be read: "),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_file_that_is_of_no_use_asks_nobody_and_is_one_clear_line(
    scene: Scene, stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    *, scheme: str, field: str, content: bytes | None, said: str,
) -> None:  # fmt: skip
    if scheme == "grpcs":
        pytest.importorskip("grpc", reason="the grpc extra is not installed")
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    scene.ask(stage, url=stage.url.replace("http", scheme), **{field: str(file)})
    assert scene.asking.failure is not None
    assert scene.asking.failure.startswith(f"{file}: ")
    assert said in scene.asking.failure
    assert "hush" not in caplog.text
    assert caplog.text.count("the server cannot be asked, calls are computed here") == 1
    assert "\n" not in scene.asking.failure
    assert [scene.run() for _ in range(3)] == ["small"] * 3
    assert stage.connections == 0


def test_a_server_that_lets_nobody_in_any_more_is_given_up_once_and_with_a_new_token_asked_again(
    scene: Scene, stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage.script = [guarded]
    file = tmp_path / "token"
    file.write_text(TOKEN[::-1])
    told = AssignedServer(url=stage.url, model="m", token_file=str(file))
    scene.ask(stage, token_file=str(file))
    before = len(scene.changes)
    threads = [threading.Thread(target=scene.run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scene.run() == "small"
    assert not scene.asking.is_on
    assert scene.asking.failure is not None
    assert "the server answers 401: a token is asked for; look at the token" in scene.asking.failure
    assert caplog.text.count("the server cannot be asked, calls are computed here") == 1
    assert len(scene.changes) == before + 1
    taken = scene.tally.take("small")
    assert (taken.calls, taken.sent, taken.failed) == (4, 0, 0)  # it says nothing of the way there
    asked = len(stage.asked)
    scene.asking.tell(told)  # as each report's answer does
    assert scene.run() == "small"
    assert len(stage.asked) == asked
    file.write_text(TOKEN)
    scene.asking.tell(None)
    scene.ask(stage, token_file=str(file))
    assert scene.run() == SERVER
    assert scene.asking.failure is None
    assert not {*[TOKEN, TOKEN[::-1]]} & {*caplog.text.split()}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_of_another_authority_is_given_up_too_and_with_that_authority_asked_again(
    scene: Scene, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = []
    for name in ("old", "new"):
        place = tmp_path / name
        place.mkdir()
        make_certificates(place)
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(place / CERTIFICATES["cert"], place / CERTIFICATES["key"])
    talk = stage._talk

    def encrypted(sock: socket.socket) -> None:
        try:
            wrapped = contexts[0].wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
        else:
            stage._socks.append(wrapped)  # which it ends with its own
            talk(wrapped)

    monkeypatch.setattr(stage, "_talk", encrypted)
    file = tmp_path / "ca.pem"
    file.write_bytes((tmp_path / "old" / "ca.pem").read_bytes())
    fields = {"url": stage.url.replace("http", "https"), "ca_file": str(file)}
    stage.script = [says(http(b"{}", "Connection: close", status="500 No")), good]
    scene.ask(stage, **fields)
    del contexts[0]
    assert scene.run() == "small"  # and the connection is gone
    assert scene.run() == "small"
    assert "certificate verify failed" in until(lambda: scene.asking.failure, "the refusal")
    assert not scene.asking.is_on
    file.write_bytes((tmp_path / "new" / "ca.pem").read_bytes())
    scene.asking.tell(None)
    scene.ask(stage, **fields)
    assert scene.run() == SERVER


@pytest.mark.parametrize("is_asked", [True, False])
def test_who_is_shut_out_after_the_wait_is_told_so_unless_another_server_is_asked_by_then(
    scene: Scene, stage: Stage, *, is_asked: bool
) -> None:
    released = threading.Event()

    def later(sock: socket.socket, _: Asked, __: threading.Event) -> None:
        released.wait(PATIENCE_S)
        sock.sendall(http(b"{}", status="403 Forbidden"))

    stage.script = [later]
    scene.tally.limit_ms = 20.0
    scene.ask(stage)
    assert scene.run() == "small"
    scene.tally.limit_ms = 10_000.0
    with Stage() as other:
        if not is_asked:
            scene.asking.tell(AssignedServer(url=other.url, model="m"))
        released.set()
        if is_asked:
            assert "answers 403" in until(lambda: scene.asking.failure, "the refusal")
        else:
            until(lambda: scene.asking.is_on, "the other server")
            assert scene.asking.failure is None
        assert scene.run() == ("small" if is_asked else SERVER)


def test_after_its_end_calls_are_computed_here(scene: Scene, stage: Stage) -> None:
    scene.ask(stage)
    scene.asking.close()
    scene.asking.tell(AssignedServer(url=stage.url, model="m"))
    assert scene.run() == "small"
    assert not scene.asking.is_on


def test_an_answer_that_comes_late_still_tells_how_long_it_took(scene: Scene, stage: Stage) -> None:
    released = threading.Event()

    def later(sock: Any, asked: Any, stopped: threading.Event) -> None:
        released.wait(30)
        good(sock, asked, stopped)

    stage.script = [later]
    scene.tally.limit_ms = 20.0
    scene.ask(stage)
    assert scene.run() == "small"
    released.set()
    took = until(lambda: scene.tally.take("small").remote_p50_ms, "the late answer")
    assert took > 0


def test_told_once_more_while_it_ends_it_opens_nothing_anew(scene: Scene, stage: Stage) -> None:
    told = AssignedServer(url=stage.url, model="m")
    closing = threading.Thread(target=scene.asking.close)

    def while_it_ends(sock: socket.socket, _: Asked, stopped: threading.Event) -> None:
        closing.start()
        stopped.wait(0.2)  # less would miss it, and fail nothing
        scene.asking.tell(told)
        stage.model = {"name": "m", "inputs": [X], "outputs": [Y]}
        sock.sendall(http(json.dumps(stage.model).encode()))

    stage.model = while_it_ends
    scene.asking.tell(told)
    until(lambda: closing.ident is not None and not closing.is_alive(), "its end")
    until(lambda: scene.changes, "the end of what opens")
    assert stage.connections == 1
    assert scene.run() == "small"


def test_a_call_that_the_server_drops_while_it_ends_is_computed_before_the_end(scene: Scene, stage: Stage) -> None:
    dropped = threading.Event()
    order: list[str] = []
    closed = threading.Event()

    def drops(_: socket.socket, __: Asked, ___: threading.Event) -> None:
        dropped.wait(PATIENCE_S)
        raise ConnectionAbortedError

    def here(arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        closed.wait(0.2)  # less would miss it, and fail nothing
        order.append("computed")
        return "small", list(arrays)

    stage.script = [drops]
    scene.asking = Asking(Model, here, scene.tally, lambda: None)
    scene.ask(stage)
    calling = threading.Thread(target=scene.run)
    calling.start()
    until(lambda: stage.inferences, "the call")
    closing = threading.Thread(target=lambda: (scene.asking.close(), order.append("closed"), closed.set()))
    closing.start()
    dropped.set()
    closing.join(PATIENCE_S)
    calling.join(PATIENCE_S)
    assert order == ["computed", "closed"]


def test_a_new_server_is_asked_while_the_old_one_still_owes_an_answer(
    scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name in ((asking, "_LONGEST_S"), (errands, "_JOIN_S")):
        monkeypatch.setattr(place, name, 2 * PATIENCE_S)
    with Stage(script=[stalls]) as old:
        scene.tally.limit_ms = 20.0
        scene.ask(old)
        assert scene.run() == "small"
        scene.tally.limit_ms = 10_000.0
        scene.ask(stage)
        assert scene.run() == SERVER


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_while_it_opens_keeps_nobody_from_opening_it_later(stage: Stage) -> None:
    class Faulty(Model):
        def __init__(self) -> None:
            self.faults = [ZeroDivisionError()]

        @property
        def inputs(self) -> tuple[TensorSpec, ...]:
            if self.faults:
                raise self.faults.pop()
            return Model.inputs

    model = Faulty()
    scene = Scene(model)
    scene.asking.tell(AssignedServer(url=stage.url, model="m"))
    until(lambda: not model.faults and scene.asking._opening is None, "the fault")
    assert scene.run() == "small"
    scene.ask(stage)
    assert scene.run() == SERVER
    scene.asking.close()


def test_where_no_thread_can_be_had_calls_are_computed_here(scene: Scene, stage: Stage) -> None:
    before = threading.stack_size(1 << 46)  # more than any machine has
    try:
        scene.asking.tell(AssignedServer(url=stage.url, model="m"))
        assert not scene.asking.is_on
        threading.stack_size(before)
        scene.ask(stage)
        threading.stack_size(1 << 46)
        assert scene.run() == "small"
    finally:
        threading.stack_size(before)
    assert scene.run() == SERVER


def test_what_is_forgotten_while_it_asks_ends(stage: Stage) -> None:
    scene = Scene()
    scene.ask(stage)
    assert scene.run() == SERVER
    del scene
    gc.collect()
    until(lambda: not any(each.name.startswith("edge-") for each in threading.enumerate()), "the end of its threads")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_forgets_it_without_waiting_for_a_thread_of_the_parent(scene: Scene, stage: Stage) -> None:
    scene.ask(stage)
    opened = scene.asking._open
    assert opened is not None
    with opened.errands._lock:  # as a thread that has just got an answer may hold it
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            scene.asking.lose()
            opened.errands._lock = threading.Lock()  # the child's main thread holds the other one
            opened.errands._lock.acquire()
            scene.asking.close()
            del scene.asking
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert scene.run() == SERVER
