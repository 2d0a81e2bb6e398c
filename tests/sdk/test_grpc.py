"""The protocol over gRPC: our engine against our server, and against one that lies."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from remote_stage import ONES, START_S, TINY, ServeProcess, served

from edge_sdk import Engine, RemoteEngine
from edge_sdk.cli import main
from edge_sdk.errors import (
    InputShapeError,
    ModelClosedError,
    RemoteAnswerError,
    RemoteRefusedError,
    RemoteTimeoutError,
    RemoteUnreachableError,
)
from edge_sdk.remote.budget import RetryBudget

grpc = pytest.importorskip("grpc", reason="the grpc extra is not installed")
pytest.importorskip("starlette", reason="the serve extra is not installed")

A, B = np.array([[1, 2]], np.float32), np.array([[3, 5]], np.float32)
TOKEN = "0123456789abcdef-secret"


@pytest.fixture(scope="module", autouse=True)
def _warm() -> Iterator[None]:
    """gRPC keeps a few descriptors for the life of the process; they are no test's."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(START_S)
        yield
    server.stop(None).wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    place = tmp_path_factory.mktemp("grpc")
    (place / "token").write_text(TOKEN)
    options = ("--grpc-port", "0", "--max-body-mb", "0.1", "--token-file", str(place / "token"))
    with served(place, TINY / "two_by_two.tflite", *options) as server:
        yield server
        assert server.end() == 0, server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_our_engine_gets_what_the_model_gives(server: ServeProcess) -> None:
    address = server.told["grpc"]
    with RemoteEngine(address, model="two_by_two", version="1", token=TOKEN) as remote:
        with Engine(TINY / "two_by_two.tflite") as here:
            assert remote.inputs == here.inputs
            for arrays in ([A, B], [A[0], B[0]], [np.repeat(A, 3, 0), np.repeat(B, 3, 0)]):
                for far, near in zip(remote.run(arrays), here.run(arrays), strict=True):
                    assert np.array_equal(far, near)
                    assert far.flags.writeable
        with pytest.raises(InputShapeError):
            remote.run([A, np.ones((1, 3), np.float32)])
    with pytest.raises(ModelClosedError):
        remote.run([A, B])


def test_a_token_a_model_and_a_version_are_looked_at(server: ServeProcess) -> None:
    address = server.told["grpc"]
    with pytest.raises(RemoteRefusedError, match="UNAUTHENTICATED"):
        RemoteEngine(address, model="two_by_two", token="wrong")
    for options in ({"model": "other"}, {"model": "two_by_two", "version": "2"}):
        with pytest.raises(RemoteRefusedError, match="NOT_FOUND") as caught:
            RemoteEngine(address, token=TOKEN, **options)
        assert caught.value.status == 404


def test_nobody_at_the_address_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RemoteUnreachableError) as caught:
        RemoteEngine(f"grpc://127.0.0.1:{port}", model="m", budget=RetryBudget(most=0))
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_ends_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(TINY / "dense_fp32.tflite"), "--port", "0", "--grpc-port", port]) == 1
    assert "[address-in-use]" in capsys.readouterr().err


@contextlib.contextmanager
def lying(answer: Callable[[Any, Any], bytes]) -> Iterator[str]:
    """A server of the model `m` that answers inferences with these bytes."""
    from edge_sdk.remote.grpc_messages import MESSAGES, SERVICE

    def metadata(_: Any, __: Any) -> Any:
        told = MESSAGES["ModelMetadataResponse"](name="m")
        told.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
        told.outputs.add(name="y", datatype="FP32", shape=[-1, 4])
        return told

    handlers = {
        "ModelMetadata": grpc.unary_unary_rpc_method_handler(
            metadata, response_serializer=lambda message: message.SerializeToString()
        ),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=MESSAGES["ModelInferRequest"].FromString
        ),
    }
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def output(raw: bytes | None = None, *, id_: str = "", numbers: Any = (), **changes: Any) -> bytes:
    from edge_sdk.remote.grpc_messages import MESSAGES

    told = MESSAGES["ModelInferResponse"](id=id_)
    made = told.outputs.add(**{"name": "y", "datatype": "FP32", "shape": [1, 4]} | changes)
    made.contents.fp32_contents.extend(numbers)
    if raw is not None:
        told.raw_output_contents.append(raw)
    answer: bytes = told.SerializeToString()
    return answer


LIES: dict[str, bytes] = {
    "nothing": b"",
    "no message": b"\xff\xff\xff",
    "too few bytes": output(ONES.tobytes()[:-4]),
    "another shape": output(ONES.tobytes(), shape=[4]),
    "a negative shape": output(ONES.tobytes(), shape=[-1, -4]),
    "another datatype": output(ONES.tobytes(), datatype="INT32"),
    "text": output(ONES.tobytes(), datatype="BYTES"),
    "another name": output(ONES.tobytes(), name="z"),
    "too few numbers": output(numbers=[1, 2, 3]),
    "another request's answer": output(ONES.tobytes(), id_="another"),
    "too much": output(bytes(200_000)),
}


def test_answers_that_were_not_announced_are_refused_and_numbers_are_taken_too() -> None:
    script = [*LIES.values(), output(ONES.tobytes()), output(numbers=[1, 1, 1, 1])]
    turn = iter(script)
    with (
        lying(lambda _, __: next(turn)) as address,
        RemoteEngine(address, model="m", max_answer_bytes=100_000) as remote,
    ):
        for _ in LIES:
            with pytest.raises(RemoteAnswerError):
                remote.run([ONES])
        for _ in range(2):
            assert np.array_equal(remote.run([ONES])[0], ONES)


def test_a_server_that_stalls_is_left_in_time() -> None:
    go = threading.Event()

    def stalls(_: Any, __: Any) -> bytes:
        go.wait(START_S)
        return b""

    with lying(stalls) as address:
        with RemoteEngine(address, model="m") as remote:
            remote._deadline_s = 0.3  # opening it may have taken a busy machine longer
            with pytest.raises(RemoteTimeoutError):
                remote.run([ONES])
        go.set()
