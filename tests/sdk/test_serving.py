"""`edge serve`: what it answers, what it refuses, how it ends; asked by our own engine and by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from remote_stage import START_S, TINY, ServeProcess, served

from edge_sdk import EdgeModel, Engine, Hedged, Pipeline, RemoteEngine, segments
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.errors import EdgeError, InputShapeError, RemoteRefusedError, StageFailedError
from edge_sdk.manifest import TensorSpec
from edge_sdk.serving.answering import answered
from edge_sdk.serving.served import Served
from edge_sdk.wire import decode, encode

pytest.importorskip("starlette", reason="the serve extra is not installed")

A, B = np.array([[1, 2]], np.float32), np.array([[3, 5]], np.float32)
EVERYWHERE = "0.0.0.0"  # noqa: S104 - that it is refused is what is tested
INFER = "/v2/models/two_by_two/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The model with two inputs and outputs, small bodies only."""
    place = tmp_path_factory.mktemp("serve")
    with served(place, TINY / "two_by_two.tflite", "--max-body-mb", "0.1", "--queue", "4") as server:
        yield server
        assert server.end() == 0, server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def ask(server: ServeProcess, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request by hand."""
    host = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=START_S)
    host.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = host.getresponse()
    content = answer.read()
    host.close()
    length = int(answer.headers.get("Inference-Header-Content-Length", len(content)))
    return answer.status, json.loads(content[:length])


def tensor(name: str, values: Any, **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1, 2], "data": values} | changes


def request(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs or [tensor("a", [1, 2]), tensor("b", [[3, 5]])]} | more).encode()


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("binary", [None, False])
def test_our_engine_gets_what_the_model_gives(server: ServeProcess, binary: bool | None) -> None:
    with RemoteEngine(server.url, model="two_by_two", binary=binary) as remote:
        with Engine(TINY / "two_by_two.tflite") as here:
            assert remote.inputs == here.inputs
            assert remote.outputs == here.outputs
            for arrays in ([A, B], [A[0], B[0]], [np.repeat(A, 3, 0), np.repeat(B, 3, 0)]):
                for far, near in zip(remote.run(arrays), here.run(arrays), strict=True):
                    assert far.shape == near.shape
                    assert np.array_equal(far, near)
        with pytest.raises(InputShapeError):
            remote.run([A, np.ones((1, 3), np.float32)])


def test_the_requests_of_the_protocol(server: ServeProcess) -> None:
    assert ask(server, "GET", "/v2/health/live") == (200, {"live": True})
    assert ask(server, "GET", "/v2/health/ready") == (200, {"ready": True})
    assert ask(server, "GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
    status, told = ask(server, "GET", "/v2/models/two_by_two")
    assert status == 200
    assert told["versions"] == ["1"]
    assert told["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [1, 2]}
    assert ask(server, "GET", "/v2/models/two_by_two/versions/1")[1] == told
    assert ask(server, "GET", "/v2/models/two_by_two/ready")[1] == {"name": "two_by_two", "ready": True}
    assert ask(server, "GET", "/v2/models/two_by_two/versions/1/ready")[0] == 200


def test_an_inference_in_json_by_hand(server: ServeProcess) -> None:
    status, told = ask(server, "POST", INFER, request(id="mine"))
    assert status == 200
    assert told["id"] == "mine"
    assert (told["model_name"], told["model_version"]) == ("two_by_two", "1")
    assert [(each["name"], each["data"]) for each in told["outputs"]] == [("total", [4, 7]), ("product", [3, 10])]
    status, told = ask(server, "POST", INFER, request(outputs=[{"name": "product"}]))
    assert [each["name"] for each in told["outputs"]] == ["product"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "expected"),
        (b"{", "truncated"),
        (b"\xff", "got"),
        (b"[]", "object"),
        (b'{"inputs": []}', "length"),
        (request().replace(b"[1, 2]}", b"[" * 50_000), "not as expected"),
        (request(tensor("a", [1, 2])), "'b' is not given"),
        (request(tensor("c", [1, 2])), "no input 'c'"),
        (request(tensor("a", [1, 2]), tensor("a", [1, 2])), "twice"),
        (request(tensor("a", [1, 2, 3]), tensor("b", [1, 2])), "3 numbers instead of 2"),
        (request(tensor("a", [1, "x"]), tensor("b", [1, 2])), "not FP32"),
        (request(tensor("a", [1, 2], datatype="INT32"), tensor("b", [1, 2])), "INT32 instead of FP32"),
        (request(tensor("a", [1, 2], datatype="BYTES"), tensor("b", [1, 2])), "BYTES"),
        (request(tensor("a", [1, 2], shape=[-1, 2]), tensor("b", [1, 2])), "shape"),
        (request(tensor("a", [1, 2, 3], shape=[1, 3]), tensor("b", [1, 2])), "takes [1, 2]"),
        (request(tensor("a", None, parameters={"binary_data_size": 8}), tensor("b", [1, 2])), "8 bytes, 0 are left"),
        (request(outputs=[{"name": "z"}]), "no output 'z'"),
        (request(outputs=[{"name": "total"}, {"name": "total"}]), "asked for twice"),
        (request() + b"more", "trailing"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(server: ServeProcess, body: bytes, word: str) -> None:
    status, told = ask(server, "POST", INFER, body or b" ")
    assert status == 400
    assert word in told["error"]


@pytest.mark.parametrize("length", ["x", "-1", "99999", "9" * 40])
def test_a_header_length_that_makes_no_sense_is_refused(server: ServeProcess, length: str) -> None:
    assert ask(server, "POST", INFER, request(), Inference_Header_Content_Length=length)[0] == 400


def test_bytes_left_over_are_refused(server: ServeProcess) -> None:
    body = request()
    status, told = ask(server, "POST", INFER, body + b"1234", Inference_Header_Content_Length=str(len(body)))
    assert status == 400
    assert "4 bytes are left over" in told["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/two_by_two/versions/2", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ],
)
def test_what_is_not_there_is_an_error_in_json(server: ServeProcess, method: str, path: str, status: int) -> None:
    found, told = ask(server, method, path)
    assert found == status
    assert told["error"]


def test_a_body_beyond_the_limit_and_a_compressed_one_are_refused(server: ServeProcess) -> None:
    status, told = ask(server, "POST", INFER, b"x" * 100_001)
    assert status == 413
    assert "100000" in told["error"]
    assert ask(server, "POST", INFER, request(), Content_Encoding="gzip")[0] == 415
    with RemoteEngine(server.url, model="two_by_two") as remote:
        assert np.array_equal(remote.run([A, B])[0], A + B)


def test_who_sends_half_a_request_and_goes_harms_nobody(server: ServeProcess) -> None:
    port = int(server.url.rpartition(":")[2])
    for part in (b"", b"POST", f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf".encode()):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(part)
    assert ask(server, "POST", INFER, request())[0] == 200


def test_a_full_server_says_when_to_come_again(server: ServeProcess) -> None:
    port = int(server.url.rpartition(":")[2])
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf".encode()
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    try:
        for sock in waiting:
            sock.sendall(head)
        found = 0
        while found != 503:  # until the four are in
            found, told = ask(server, "POST", INFER, request())
        assert "as many" in told["error"]
    finally:
        for sock in waiting:
            sock.close()
    while ask(server, "POST", INFER, request())[0] != 200:
        pass


def test_many_clients_are_answered_each_with_its_own(server: ServeProcess) -> None:
    with RemoteEngine(server.url, model="two_by_two", connections=4) as remote, ThreadPoolExecutor(8) as threads:
        totals = list(threads.map(lambda value: remote.run([A * value, B])[0], range(80)))
    assert all(np.array_equal(total, A * value + B) for value, total in enumerate(totals))


# ------------------------------------------------------------------------------------------------ what can be served


@pytest.fixture
def dense(make_bundle: Callable[..., Bundle]) -> Path:
    shapes: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
    }
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    return make_bundle(contents=contents, **shapes).path


def test_a_bundle_is_served_with_its_version_and_says_which_variant_answered(dense: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    with served(tmp_path, dense, "--variant", "dense_int8") as server:
        assert (server.told["model"], server.told["version"], server.told["variant"]) == ("digits", "1", "dense_int8")
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": x.tolist()}]})
        status, told = ask(server, "POST", "/v2/models/digits/infer", body.encode())
        assert status == 200
        assert told["parameters"] == {"variant": "dense_int8"}
        with EdgeModel(dense, variant="dense_int8") as model:
            near = model(x)
            with Hedged(RemoteEngine(server.url, model="digits"), model, deadline_s=30) as hedged:
                assert np.array_equal(hedged.run([x])[0], near)
                assert hedged.counts.remote == 1
                server.process.kill()
                server.process.wait(START_S)
                assert np.array_equal(hedged.run([x])[0], near)
                assert hedged.counts.failed == 1


def test_a_board_that_freezes_is_answered_for_and_comes_back(tmp_path: Path) -> None:
    with served(tmp_path, TINY / "two_by_two.tflite") as server, Engine(TINY / "two_by_two.tflite") as here:
        remote = RemoteEngine(server.url, model="two_by_two", deadline_s=START_S)
        with Hedged(remote, here, deadline_s=0.1) as engine:

            def ask_thrice() -> None:
                for _ in range(3):
                    assert np.array_equal(engine.run([A, B])[0], A + B)

            ask_thrice()
            server.process.send_signal(signal.SIGSTOP)
            ask_thrice()
            assert engine.counts.hedged >= 3
            server.process.send_signal(signal.SIGCONT)
            end_s = time.monotonic() + START_S
            while engine.counts.late < 3:
                assert time.monotonic() < end_s
                time.sleep(0.01)
            ask_thrice()
            counts = engine.counts
            assert counts.calls == counts.remote + counts.local == 9
            assert counts.hedged >= 3


def test_stored_integers_pass_untouched_under_a_name_of_ones_own(tmp_path: Path) -> None:
    x = np.array([[-128, 127, 0, 5]], np.int8)
    with served(tmp_path, TINY / "dense_int8_io.tflite", "--stored", "--name", "part-2") as server:
        with (
            RemoteEngine(server.url, model="part-2") as remote,
            Engine(TINY / "dense_int8_io.tflite", stored=True) as here,
        ):
            assert remote.inputs[0].dtype == "int8"
            far, near = remote.run([x])[0], here.run([x])[0]
            assert far.dtype == np.int8
            assert np.array_equal(far, near)
        assert server.end(signal.SIGINT) == 0


def test_a_token_is_asked_for_and_health_is_not(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef-secret\n")
    with served(tmp_path, TINY / "dense_fp32.tflite", "--token-file", str(token)) as server:
        assert ask(server, "GET", "/v2/health/live")[0] == 200
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic 0123456789abcdef-secret"}):
            assert ask(server, "GET", "/v2/models/dense_fp32", **given)[0] == 401
        with pytest.raises(RemoteRefusedError, match="token"):
            RemoteEngine(server.url, model="dense_fp32")
        with RemoteEngine(server.url, model="dense_fp32", token="0123456789abcdef-secret") as remote:
            assert remote.run([np.ones((1, 4), np.float32)])[0].shape == (1, 3)
        assert "secret" not in server.log.read_text()


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """The one line it says when it does not start."""
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))

    def line(*arguments: str, status: int = 2) -> str:
        try:
            found: object = main(["serve", *arguments])
        except SystemExit as end:  # of argparse
            found = end.code
        assert found == status
        told = capsys.readouterr()
        assert told.out == ""
        (one,) = [each for each in told.err.splitlines() if each.startswith("edge: ")]
        return one

    return line


def test_it_does_not_listen_beyond_this_machine_unless_told_to(tmp_path: Path, fails: Callable[..., str]) -> None:
    model = str(TINY / "dense_fp32.tflite")
    assert "--token-file" in fails(model, "--host", EVERYWHERE, "--port", "0")
    with served(tmp_path, model, "--host", EVERYWHERE, "--insecure-listen") as server:
        port = server.url.rpartition(":")[2]
        with RemoteEngine(f"http://127.0.0.1:{port}", model="dense_fp32"):
            pass


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["./no-such.edge"], "bundle"),
        ([str(TINY / "dense_fp32.tflite"), "--variant", "int8"], "usage"),
        ([str(TINY / "dense_fp32.tflite"), "--segment", "1"], "usage"),
        ([str(TINY / "dense_fp32.tflite"), "--token-file", "missing"], "usage"),
        ([str(TINY / "dense_fp32.tflite"), "--port", "99999"], "usage"),
        ([str(TINY / "dense_fp32.tflite"), "--max-body-mb", "nan"], "usage"),
        ([str(TINY / "dense_fp32.tflite"), "--name", "a b"], "usage"),
    ],
)
def test_what_cannot_be_served_is_one_line(fails: Callable[..., str], arguments: list[str], code: str) -> None:
    assert f"[{code}]" in fails(*arguments)


def test_a_port_that_is_taken_is_one_line(fails: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "[address-in-use]" in fails(str(TINY / "dense_fp32.tflite"), "--port", port, status=1)


def test_what_was_asked_is_answered_before_it_ends(tmp_path: Path) -> None:
    with served(tmp_path, TINY / "two_by_two.tflite") as server:
        port = int(server.url.rpartition(":")[2])
        body = request()
        with socket.create_connection(("127.0.0.1", port), timeout=START_S) as sock:
            sock.sendall(
                f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:10]
            )
            with RemoteEngine(server.url, model="two_by_two"):
                pass  # it has read what we sent
            ending = threading.Thread(target=server.end)
            ending.start()
            sock.sendall(body[10:])
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            ending.join(START_S)
        assert server.process.returncode == 0


def test_who_connects_and_sends_no_request_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn
    from uvicorn.server import ServerState

    from edge_sdk.serving import server

    async def plain(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def said() -> list[bytes]:
        config = uvicorn.Config(plain, log_config=None, lifespan="off", timeout_keep_alive=START_S)
        config.load()
        listening = await asyncio.get_running_loop().create_server(
            lambda: server.HurriedProtocol(config, ServerState(), {}), "127.0.0.1"
        )
        found = []
        async with listening:
            for parts in ([b""], [b"GET / HT"], [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET"]):
                reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
                for part in parts[:-1]:
                    writer.write(part)
                    found.append(await reader.readuntil(b"\r\n"))
                writer.write(parts[-1])
                found.append((await asyncio.wait_for(reader.read(), START_S))[-4:])
                writer.close()
                await writer.wait_closed()
        return found

    monkeypatch.setattr(server, "HEAD_S", 0.5)
    assert asyncio.run(said()) == [b"", b"", b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"]


def test_a_request_that_is_not_whole_when_the_grace_ends_gets_an_answer() -> None:
    from edge_sdk.serving.app import Host, build_app
    from edge_sdk.serving.gate import Gate

    gate = Gate(1)
    model = Served(
        name="m", version="1", inputs=(), outputs=(), run=lambda _: (None, []), active=lambda: None, close=lambda: None
    )
    sent: list[Any] = []

    async def ends_in_the_middle() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": [], "query_string": b""}
        with ThreadPoolExecutor(1) as executor:
            app = build_app(Host(served=model, gate=gate, executor=executor, token=None, max_body_bytes=100))
            asked = asyncio.ensure_future(app(scope, receive, send))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            asked.cancel()
            await asked

    asyncio.run(ends_in_the_middle())
    assert sent[0]["status"] == 503
    assert b"the server ends" in sent[1]["body"]
    assert gate.wait_empty(0)


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        f"from edge_sdk.cli import main; sys.exit(main(['serve', {str(TINY / 'dense_fp32.tflite')!r}]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=START_S)
    assert told.returncode == 2
    assert "adaptive-edge-sdk[serve]" in told.stderr


STUCK = """
import sys, threading, time
from edge_sdk.address import Address, bind
from edge_sdk.manifest import TensorSpec
from edge_sdk.serving.gate import Gate
from edge_sdk.serving.served import Served
from edge_sdk.serving.server import Limits, serve

def stuck(arrays):
    print("in it", flush=True)
    threading.Event().wait()

spec = (TensorSpec(name="x", shape=(1,), dtype="float32"),)
served = Served(name="m", version="1", inputs=spec, outputs=spec, run=stuck, active=lambda: None, close=lambda: None)
listener = bind(Address(host="127.0.0.1", port=0), what="test", hint="")
started = lambda: print(listener.getsockname()[1], flush=True)
idle = serve(served, listener, gate=Gate(4), limits=Limits(grace_s=0.5), token=None, started=started)
print("idle" if idle else "busy", flush=True)
import os; os._exit(0)
"""


def test_an_inference_that_hangs_does_not_keep_the_server_from_ending() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        tensors = [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]
        body = json.dumps({"inputs": tensors}).encode()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body)
            assert process.stdout.readline() == b"in it\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == b"busy\n"
        process.communicate(timeout=START_S)


@settings(max_examples=100, deadline=None)
@drawn(st.data())
def test_random_requests_raise_nothing_but_our_errors(data: st.DataObject) -> None:
    spec = (TensorSpec(name="x", shape=(-1, 2), dtype="float32"),)
    model = Served(
        name="m", version="1", inputs=spec, outputs=spec, run=lambda arrays: (None, list(arrays)), active=lambda: None,
        close=lambda: None,
    )  # fmt: skip
    good = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    changes = data.draw(st.dictionaries(st.sampled_from([*good, "parameters"]), anything, max_size=2))
    outer = data.draw(st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), anything, max_size=2))
    body = json.dumps({"inputs": [good | changes]} | outer).encode() + data.draw(st.binary(max_size=20))
    length = data.draw(st.none() | st.integers(-5, 500).map(str) | st.text(max_size=3))
    with contextlib.suppress(EdgeError):
        assert answered(model, body, length).body


def halves(place: Path) -> tuple[bytes, Path]:
    """A model, and the same in two segments, of which the second takes one tensor past the first."""
    from made_model import Made

    def whole(made: Made) -> tuple[list[int], list[int]]:
        x, y = made.tensor("x"), made.tensor("y")
        return [x, y], [made.op("ADD", made.op("TANH", x, name="t"), y, name="out")]

    def first(made: Made) -> tuple[list[int], list[int]]:
        x = made.tensor("x")
        return [x], [made.op("TANH", x, name="t")]

    def second(made: Made) -> tuple[list[int], list[int]]:
        t, y = made.tensor("t"), made.tensor("y")
        return [t, y], [made.op("ADD", t, y, name="out")]

    contents = [made.content(*build(made)) for build, made in ((each, Made()) for each in (whole, first, second))]

    def tensor(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "shape": [1, 4], "dtype": "float32"} | more

    def segment(number: int, inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
        content = contents[number]
        return {
            "number": number, "file": f"segment-{number}.tflite", "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content), "first": number - 1, "end": number, "inputs": inputs, "outputs": outputs,
            "macs": 0, "compute_ms": 0.0, "send_bytes": 0, "send_ms": 0.0,
        }  # fmt: skip

    plan = {
        "format": 1,
        "whole": {"sha256": hashlib.sha256(contents[0]).hexdigest(), "size_bytes": len(contents[0])},
        "inputs": [tensor("x"), tensor("y")],
        "outputs": [tensor("out", source=2)],
        "segments": [
            segment(1, [tensor("x")], [tensor("t")]),
            segment(2, [tensor("t", source=1), tensor("y")], [tensor("out")]),
        ],
        "timing": {"origin": "measured", "machine": "test", "threads": 1, "samples": 1, "whole_ms": 0.0},
        "verified": 1,
        "verified_with": "test",
    }
    files = {f"segment-{number}.tflite": contents[number] for number in (1, 2)}
    made = segments.write(place, decode(encode(plan), segments.SplitPlan, where="test"), files)
    return contents[0], made.path


def test_segments_on_two_hosts_give_what_the_whole_gives_bit_for_bit(tmp_path: Path, fails: Callable[..., str]) -> None:
    """What a pipeline does with stages on other hosts: tensors go as they are stored, some past a segment."""
    pytest.importorskip("edge_converter.flatbuffer", reason="the converter extra is not installed")
    model, place = halves(tmp_path / "in-2")
    samples = [[np.random.default_rng(each).normal(size=(1, 4)).astype(np.float32)] * 2 for each in range(6)]
    with Engine(model) as whole, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(served(tmp_path, place, "--segment", number)) for number in "12"]

        def far(number: int) -> RemoteEngine:
            return RemoteEngine(servers[number - 1].url, model=f"in-2-{number}", deadline_s=START_S)

        for numbers in ((2,), (1, 2)):
            with Pipeline(place, {number: far(number) for number in numbers}) as pipeline:
                for sample, (answer,) in zip(samples, pipeline.map(samples), strict=True):
                    assert np.array_equal(answer, whole.run(sample)[0])
        with Pipeline(place, {2: far(2)}) as pipeline:
            servers[1].process.kill()
            servers[1].process.wait(START_S)
            with pytest.raises(StageFailedError):
                pipeline.run(samples[0])
    assert "[usage]" in fails(str(place))
    assert "there is no segment 3" in fails(str(place), "--segment", "3")
