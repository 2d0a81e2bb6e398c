"""A remote engine: what it gives, how long it takes at most, what it believes, what it tries again."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemon_stage import free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_stage import (
    BINARY,
    ONES,
    Asked,
    Plays,
    Stage,
    X,
    Y,
    binary,
    good,
    http,
    says,
    speaks_no_ipv6,
    stalls,
    trickles,
)

from edge_sdk import RemoteEngine
from edge_sdk.errors import (
    DelegateError,
    EdgeError,
    InputDtypeError,
    InputShapeError,
    InputValueError,
    MissingExtraError,
    ModelClosedError,
    RemoteAnswerError,
    RemoteError,
    RemoteRefusedError,
    RemoteTimeoutError,
    RemoteUnreachableError,
    TransportError,
    UsageError,
)
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote.budget import RetryBudget

pytestmark = pytest.mark.device


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def engine(stage: Stage, **options: Any) -> RemoteEngine:
    return RemoteEngine(stage.url, **{"model": "m", "deadline_s": 10.0} | options)


def hurried(remote: RemoteEngine, deadline_s: float) -> RemoteEngine:
    """From now on with this deadline; opening it may have taken a busy machine longer."""
    remote._deadline_s = deadline_s
    return remote


# ------------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("is_binary", [True, False])
def test_arrays_come_back_bit_for_bit(stage: Stage, is_binary: bool) -> None:
    if not is_binary:
        stage.server = {"name": "plain"}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with engine(stage) as remote:
        assert [(each.name, each.shape, each.dtype) for each in remote.inputs] == [("x", (-1, 4), "float32")]
        (y,) = remote.run([x])
    assert np.array_equal(y, x * 2)
    assert y.flags.writeable
    assert ("inference-header-content-length" in stage.inferences[0].headers) == is_binary


def test_a_server_that_says_nothing_of_itself_gets_json(stage: Stage) -> None:
    stage.server = None
    with engine(stage) as remote:
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    assert "data" in stage.inferences[0].told["inputs"][0]


def test_json_carries_no_nan_and_the_input_is_not_sent(stage: Stage) -> None:
    with engine(stage, binary=False) as remote, pytest.raises(InputValueError, match="NaN"):
        remote.run([ONES * np.nan])
    assert stage.inferences == []


def test_a_sample_without_the_batch_gives_an_answer_without_it(stage: Stage) -> None:
    with engine(stage) as remote:
        assert np.array_equal(remote.run([ONES[0]])[0], ONES[0] * 2)


def test_a_batch_goes_sample_by_sample_where_the_model_takes_one(stage: Stage) -> None:
    stage.model = {"name": "m", "inputs": [X | {"shape": [1, 4]}], "outputs": [Y | {"shape": [1, 4]}]}
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with engine(stage) as remote:
        assert np.array_equal(remote.run([x])[0], x * 2)
        assert remote.run([x[:0]])[0].shape == (0, 4)
    assert len(stage.inferences) == 3


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ([np.ones((1, 5), np.float32)], InputShapeError),
        ([ONES, ONES], InputShapeError),
        ([], InputShapeError),
        ([np.array(["text"])], InputDtypeError),
        ([[[1.0], [1.0, 2.0]]], InputShapeError),
    ],
)
def test_what_the_model_does_not_take_is_not_sent(stage: Stage, arrays: Any, error: type[EdgeError]) -> None:
    with engine(stage) as remote, pytest.raises(error):
        remote.run(arrays)
    assert stage.inferences == []


@pytest.mark.parametrize(
    "name", ["BOOL", "UINT8", "INT8", "INT16", "UINT16", "INT32", "UINT64", "INT64", "FP16", "FP64"]
)
def test_every_datatype_goes_there_and_back_untouched(stage: Stage, name: str) -> None:
    dtype = {"BOOL": "bool", "FP16": "float16", "FP64": "float64"}.get(name, name.lower())
    stage.model = {
        "name": "m",
        "inputs": [X | {"datatype": name, "shape": [2, 2]}],
        "outputs": [Y | {"datatype": name, "shape": [2, 2]}],
    }

    def echo(sock: socket.socket, asked: Asked, _: threading.Event) -> None:
        content = asked.body[int(asked.headers["inference-header-content-length"]) :]
        sock.sendall(binary(content, asked=asked, shape=[2, 2], datatype=name))

    stage.script = [echo]
    x = np.random.default_rng(1).integers(0, 2, (2, 2)).astype(dtype)
    if dtype != "bool":
        x[0, 0] = np.finfo(dtype).max if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min
    with engine(stage) as remote:
        (y,) = remote.run([x])
    assert y.dtype == x.dtype
    assert np.array_equal(x, y)


def test_outputs_are_told_apart_by_name(stage: Stage) -> None:
    stage.model = {"name": "m", "inputs": [X], "outputs": [Y, Y | {"name": "z"}]}

    def turned(sock: socket.socket, asked: Asked, _: threading.Event) -> None:
        outputs = [
            {"name": "z", "datatype": "FP32", "shape": [1, 4], "data": [[3, 3, 3, 3]]},
            {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 2.0, 2, 2]},
        ]
        sock.sendall(http(json.dumps({"outputs": outputs}).encode()))

    stage.script = [turned]
    with engine(stage) as remote:
        y, z = remote.run([ONES])
    assert (y == 2).all()
    assert (z == 3).all()


# --------------------------------------------------------------------------------------------------- lies and faults


def lies(**changes: Any) -> Plays:
    def play(sock: socket.socket, asked: Asked, _: threading.Event) -> None:
        sock.sendall(binary((asked.array * 2).tobytes(), asked=asked, **{"shape": [1, 4]} | changes))

    return play


def plain(**output: Any) -> Plays:
    return says(http(json.dumps({"outputs": [Y | {"shape": [1, 4]} | output]}).encode()))


LIES: dict[str, Plays] = {
    "another shape": lies(shape=[4, 1]),
    "a shape of other rank": lies(shape=[4]),
    "a shape of other size": lies(shape=[2, 4]),
    "a negative shape": lies(shape=[-1, 4]),
    "an endless shape": lies(shape=[2**39, 4]),
    "no numbers in an endless shape": lies(shape=[0, 2**40, 2**40], parameters={"binary_data_size": 0}),
    "no numbers listed in an endless shape": plain(shape=[0, 2**40, 2**40], data=[]),
    "another datatype": lies(datatype="INT32"),
    "text": lies(datatype="BYTES"),
    "an unknown datatype": lies(datatype="BF16"),
    "another name": lies(name="z"),
    "too many bytes": lies(parameters={"binary_data_size": 20}),
    "too few bytes": lies(parameters={"binary_data_size": 12}),
    "less than no bytes": lies(parameters={"binary_data_size": -4}),
    "a size that is no number": lies(parameters={"binary_data_size": True}),
    "no output": says(http(b'{"outputs": []}')),
    "an output twice": says(http(json.dumps({"outputs": [Y | {"shape": [1, 4], "data": [1] * 4}] * 2}).encode())),
    "no data": plain(),
    "too few numbers": plain(data=[1, 2, 3]),
    "ragged numbers": plain(data=[[1, 2], [3]]),
    "words": plain(data=["a", "b", "c", "d"]),
    "no list": plain(data=7),
    "nothing among numbers": plain(data=[1, None, 3, 4]),
    "another request's answer": says(http(b'{"id": "another", "outputs": []}')),
    "garbage": says(http(b"\xff\xfe garbage {")),
    "JSON of another kind": says(http(b"[1, 2]")),
    "nested too deeply": says(http(b"[" * 100_000)),
    "a header beyond the body": says(http(b"{}", "Inference-Header-Content-Length: 3")),
    "a header that is no number": says(http(b"{}", "Inference-Header-Content-Length: -1")),
    "no HTTP": says(b"220 mail.example ESMTP\r\n"),
    "half an answer": says(http(b"x" * 100)[:-50]),
    "half a header": says(b"HTTP/1.1 200 OK\r\nContent-Len"),
    "a body beyond the limit": says(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"),
    "chunks beyond the limit": says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 40
    ),
    "chunks cut off": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"),
    "a chunk of no size": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
    "a thousand headers": says(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n"),
}


@pytest.mark.parametrize("what", LIES)
def test_an_answer_that_is_not_what_was_announced_is_refused(stage: Stage, what: str) -> None:
    stage.script = [LIES[what], good]
    with engine(stage, max_answer_bytes=100_000) as remote:
        with pytest.raises(RemoteAnswerError) as caught:
            remote.run([ONES])
        assert np.array_equal(remote.run([ONES])[0], ONES * 2), "the next call has a connection that is in order"
    assert len(stage.inferences) == 2, "what was answered is not asked again"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_no_sample_and_two_are_no_answer_to_one(stage: Stage) -> None:
    stage.script = [plain(shape=[0, 4], data=[]), plain(shape=[2, 4], data=[1] * 8), good]
    with engine(stage) as remote:
        for _ in range(2):
            with pytest.raises(RemoteAnswerError, match="samples to 1"):
                remote.run([ONES[0]])
        assert np.array_equal(remote.run([ONES[0]])[0], ONES[0] * 2)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "m"},
        {"name": "m", "inputs": [], "outputs": [Y]},
        {"name": "m", "inputs": [X], "outputs": None},
        {"name": "m", "inputs": [X, X], "outputs": [Y]},
        {"name": "m", "inputs": [X | {"datatype": "BYTES"}], "outputs": [Y]},
        {"name": "m", "inputs": [X | {"datatype": "BF16"}], "outputs": [Y]},
        {"name": "m", "inputs": [X | {"shape": [-2]}], "outputs": [Y]},
        {"name": "m", "inputs": [X | {"shape": "4"}], "outputs": [Y]},
        [],
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    ],
)
def test_a_model_that_no_engine_can_be_is_refused_when_it_is_opened(stage: Stage, model: Any) -> None:
    stage.model = model
    with pytest.raises(RemoteAnswerError):
        engine(stage)


def test_what_the_server_does_not_say_the_caller_may(stage: Stage) -> None:
    stage.model = {"name": "m", "inputs": [], "outputs": None}
    declared = {
        "inputs": [TensorSpec(name="x", shape=(-1, 4), dtype="float32")],
        "outputs": [TensorSpec(name="y", shape=(-1, 4), dtype="float32")],
    }
    with engine(stage, **declared) as remote:
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    with pytest.raises(UsageError, match="complex64"):
        engine(stage, inputs=[TensorSpec(name="x", shape=(4,), dtype="complex64")], outputs=declared["outputs"])


def test_half_precision_needs_the_extension(stage: Stage) -> None:
    stage.model = {"name": "m", "inputs": [X | {"datatype": "FP16"}], "outputs": [Y]}
    with pytest.raises(RemoteAnswerError, match="FP16"):
        engine(stage, binary=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_bytes_raise_nothing_but_our_errors(stage: Stage, data: st.DataObject) -> None:
    head = data.draw(
        st.sampled_from(
            [
                b"",
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 200 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{",
                b'HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 9\r\n\r\n{"outputs"',
                b'HTTP/1.1 200 OK\r\n\r\n{"outputs":[{"name":"y","datatype":"FP32","shape":[1,4],"data":[',
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]
        )
    )
    stage.script = [says(head + data.draw(st.binary(max_size=200)))]
    with engine(stage, budget=RetryBudget(most=0)) as remote, pytest.raises(RemoteError):
        remote.run([ONES])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_an_answer_with_one_byte_changed_is_an_answer_or_our_error(stage: Stage, place: int, value: int) -> None:
    def play(sock: socket.socket, asked: Asked, _: threading.Event) -> None:
        answer = bytearray(binary((asked.array * 2).tobytes(), asked=asked, shape=[1, 4]))
        answer[place % len(answer)] = value
        sock.sendall(answer)
        raise ConnectionAbortedError

    stage.script = [play]
    with engine(stage, budget=RetryBudget(most=0)) as remote:
        try:
            (y,) = remote.run([ONES])
        except RemoteError:
            return
    assert y.shape == (1, 4)
    assert y.dtype == np.float32


# -------------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    "play",
    [
        stalls,
        trickles(b""),
        trickles(b"HTTP/1.1 200 OK\r\nX: "),
        trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        trickles(b"HTTP/1.1 200 OK\r\n\r\n"),
        trickles(b"HTTP/1.1 100 Continue\r\n\r\n"),
        trickles(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_no_trickle_stretches_the_deadline(stage: Stage, play: Plays) -> None:
    stage.script = [play]
    with engine(stage) as remote, pytest.raises(TimeoutError) as caught:
        hurried(remote, 0.15).run([ONES])
    assert isinstance(caught.value, RemoteTimeoutError)


def test_a_server_that_does_not_read_is_left_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        pytest.raises(RemoteTimeoutError),
    ):  # it accepts, and that is all
        RemoteEngine(f"http://127.0.0.1:{deaf.getsockname()[1]}", model="m", deadline_s=0.1)


def test_who_finds_all_connections_busy_waits_no_longer_than_the_deadline(stage: Stage) -> None:
    stage.script = [stalls]
    with engine(stage, connections=1) as remote, ThreadPoolExecutor(3) as threads:
        hurried(remote, 0.2)
        calls = [threads.submit(remote.run, [ONES]) for _ in range(3)]
        assert all(isinstance(call.exception(10), RemoteTimeoutError) for call in calls)


# ------------------------------------------------------------------------------------------------------- repetitions


def test_nobody_at_the_address_is_one_line() -> None:
    with pytest.raises(RemoteUnreachableError, match="refused"):
        RemoteEngine(f"http://127.0.0.1:{free_port()}", model="m", deadline_s=5)


def test_an_address_that_this_board_cannot_speak_to_is_passed_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks_no_ipv6(monkeypatch)
    with engine(stage) as remote:
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    with pytest.raises(RemoteUnreachableError, match="refused"):
        RemoteEngine(f"http://127.0.0.1:{free_port()}", model="m", deadline_s=5)


def test_a_name_that_no_thread_can_look_up_is_one_line() -> None:
    before = threading.stack_size(1 << 46)  # more than any machine has
    try:
        with pytest.raises(RemoteUnreachableError, match="cannot be looked up"):
            RemoteEngine("http://localhost:1", model="m", budget=RetryBudget(most=0))
    finally:
        threading.stack_size(before)


def test_a_name_nobody_knows_is_one_line() -> None:
    with pytest.raises(RemoteError) as caught:
        RemoteEngine("http://no-such-host.invalid", model="m", deadline_s=2, budget=RetryBudget(most=0))
    assert "no-such-host.invalid" in str(caught.value)


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("ModuleNotFoundError('No module named grpc')", "gRPC is not installed"),
        ("ImportError('cygrpc.so: undefined symbol: __atomic_exchange_8')", "cannot be loaded: .*undefined symbol"),
    ],
)
def test_a_grpc_that_is_not_there_or_does_not_load_is_one_line(
    fails: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "grpc" or name == "edge_sdk.remote.over_grpc"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "grpc.py").write_text(f"raise {fails}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=said):
        RemoteEngine("grpc://127.0.0.1:1", model="m")


BUSY = says(http(b'{"error": "busy"}', "Retry-After: 1", status="503 Service Unavailable"))


@pytest.mark.parametrize("play", [BUSY, says(b"")])
def test_a_server_that_is_busy_or_hangs_up_is_asked_again(stage: Stage, play: Plays) -> None:
    stage.script = [play, play, good]
    with engine(stage) as remote:
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    assert len(stage.inferences) >= 3


def test_the_budget_bounds_how_often(stage: Stage) -> None:
    stage.script = [BUSY]
    with engine(stage, budget=RetryBudget(share=0.0, most=1.0)) as remote:
        for _ in range(4):
            with pytest.raises(RemoteRefusedError, match="busy"):
                remote.run([ONES])
    assert len(stage.inferences) == 5


def test_a_budget_fills_with_calls() -> None:
    budget = RetryBudget(share=0.5, most=1.0)
    assert budget.take()
    assert not budget.take()
    budget.call()
    assert not budget.take()
    budget.call()
    assert budget.take()


def test_a_connection_that_was_closed_while_idle_costs_nothing(stage: Stage) -> None:
    with engine(stage, budget=RetryBudget(most=0)) as remote:
        remote.run([ONES])
        stage.hang_up()
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)


@pytest.mark.parametrize(
    ("status", "headers", "word"),
    [
        ("302 Found", ["Location: http://127.0.0.1:1/elsewhere"], "elsewhere"),
        ("401 Unauthorized", [], "token"),
        ("404 Not Found", [], "name and version"),
        ("500 Internal Server Error", [], "what went wrong"),
        ("204 No Content", [], "204"),
    ],
)
def test_a_refusal_says_what_the_server_said(stage: Stage, status: str, headers: list[str], word: str) -> None:
    stage.script = [says(http(b'{"error": "what went wrong"}', *headers, status=status))]
    with engine(stage) as remote, pytest.raises(RemoteRefusedError, match=word) as caught:
        remote.run([ONES])
    assert caught.value.status == int(status[:3])
    assert len(stage.inferences) == 1, "neither followed nor repeated"


def test_a_failure_is_of_the_network_and_of_an_engine() -> None:
    for kind in (RemoteUnreachableError, RemoteTimeoutError, RemoteRefusedError, RemoteAnswerError):
        assert issubclass(kind, TransportError)
        assert issubclass(kind, DelegateError)


# --------------------------------------------------------------------------------------------- the rest of its life


def test_threads_share_a_bounded_number_of_connections(stage: Stage) -> None:
    with engine(stage, connections=3) as remote, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: remote.run([ONES * number])[0][0, 0], range(60)))
    assert answers == [2.0 * number for number in range(60)]
    assert stage.connections <= 3


def test_token_and_headers_are_sent_and_never_shown(stage: Stage) -> None:
    with engine(stage, token="secret-of-mine", headers={"X-Site": "north"}) as remote:
        stage.script = [says(http(b"{}", status="403 Forbidden"))]
        with pytest.raises(RemoteRefusedError) as caught:
            remote.run([ONES])
    assert {each.headers["authorization"] for each in stage.asked} == {"Bearer secret-of-mine"}
    assert stage.asked[0].headers["x-site"] == "north"
    assert "secret" not in str(caught.value)


def test_a_version_and_names_with_odd_letters_are_quoted(stage: Stage) -> None:
    with engine(stage, model="a/b c", version="1?"):
        pass
    assert stage.asked[-1].line == "GET /v2/models/a%2Fb%20c/versions/1%3F HTTP/1.1"


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("127.0.0.1:80", {}),
        ("ftp://host", {}),
        ("http://", {}),
        ("http://host:99999", {}),
        ("http://user:secret@host", {}),
        ("http://host/?q", {}),
        ("http://ho st", {}),
        ("http://host/\r\nX: y", {}),
        ("http://host", {"model": ""}),
        ("http://host", {"deadline_s": 0}),
        ("http://host", {"deadline_s": float("nan")}),
        ("http://host", {"connections": 0}),
        ("http://host", {"token": "a\r\nb"}),
        ("http://host", {"headers": {"A b": "c"}}),
        ("https://host", {"ca_file": "missing.pem"}),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_sent(address: str, options: Any) -> None:
    with pytest.raises(UsageError) as caught:
        RemoteEngine(address, **{"model": "m"} | options)
    assert "secret" not in str(caught.value) or "user" not in str(caught.value)


def test_a_closed_engine_says_so(stage: Stage) -> None:
    remote = engine(stage)
    remote.close()
    remote.close()
    with pytest.raises(ModelClosedError):
        remote.run([ONES])


def test_close_waits_for_the_call_under_way(stage: Stage) -> None:
    there, go = threading.Event(), threading.Event()

    def waits(sock: socket.socket, asked: Asked, stopped: threading.Event) -> None:
        there.set()
        go.wait(30)
        good(sock, asked, stopped)

    stage.script = [waits]
    remote = engine(stage)
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(remote.run, [ONES])
        there.wait(30)
        closing = threads.submit(remote.close)
        go.set()
        assert np.array_equal(call.result(30)[0], ONES * 2)
        closing.result(30)


def test_a_forgotten_engine_leaves_no_connection(stage: Stage) -> None:
    remote = engine(stage)
    remote.run([ONES])
    del remote  # the leak check finds what stays open


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own_and_the_parent_goes_on(stage: Stage) -> None:
    with engine(stage) as remote:
        remote.run([ONES])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                remote.run([ONES])
            except ModelClosedError as error:
                status = 0 if "fork" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    assert stage.connections == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, with its key beside it."""
    file = tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=stage", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(file)]
    try:
        subprocess.run([*command, "-keyout", str(tmp_path / "key.pem")], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return file


def test_an_encrypted_server_is_checked_by_its_certificate(
    stage: Stage, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    talk: Callable[[socket.socket], None] = stage._talk

    def encrypted(sock: socket.socket) -> None:
        try:
            talk(context.wrap_socket(sock, server_side=True))
        except OSError:
            sock.close()

    monkeypatch.setattr(stage, "_talk", encrypted)
    address = stage.url.replace("http:", "https:")
    with RemoteEngine(address, model="m", ca_file=certificate) as remote:
        for _ in range(3):
            assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    assert stage.connections == 1
    with pytest.raises(RemoteUnreachableError, match="certificate"):
        RemoteEngine(address, model="m", budget=RetryBudget(most=0))


def test_a_server_that_does_not_know_the_extension_gets_numbers_by_force_only(stage: Stage) -> None:
    stage.server = BINARY
    with engine(stage, binary=False) as remote:
        assert np.array_equal(remote.run([ONES])[0], ONES * 2)
    assert [each.line.split()[1] for each in stage.asked] == ["/v2/models/m", "/v2/models/m/infer"]
