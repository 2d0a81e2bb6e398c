"""What `edge serve` adds to a call: the same bundle in this process and behind the server, in turn.

    python benchmarks/runtime_serve.py [--rounds 20] [--quick]

One client, an image of 224 x 224 x 3 floats (602,112 bytes) as binary tensor data, a keep-alive connection on loopback.
The model takes the mean of it, so that the inference is short; the server is a child process. A bare exchange of as
many bytes over the same kind of socket stands beside it: what of the time is the machine's and not ours.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from figures import Figure, figure, shown

from edge_converter import flatbuffer
from edge_sdk import EdgeModel, RemoteEngine, bundle
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Cost, EvidenceFile, Manifest, Precision, Quality, Source, Target, TensorSpec, Variant

SHAPE = (1, 224, 224, 3)
CALLS = 40  # a round
TARGET_MS = 2.0  # issue 4
START_S = 60


def mean_model() -> bytes:
    """A model that takes an image and gives the mean of each channel."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    axes, operator, code = schema.BufferT(), schema.OperatorT(), schema.OperatorCodeT()
    axes.data = np.frombuffer(np.array([1, 2], "<i4").tobytes(), np.uint8)
    kinds = (schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.FLOAT32)
    graph.tensors = []
    for number, (name, shape, kind) in enumerate(
        zip(("image", "axes", "mean"), (SHAPE, (2,), (1, 3)), kinds, strict=True)
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, number == 1
        graph.tensors.append(tensor)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    code.version = 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = (
        schema.BuiltinOptions.ReducerOptions,
        schema.ReducerOptionsT(),
    )
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT(), axes], [code], [graph]
    return flatbuffer.serialize(model)


def write_bundle(place: Path) -> Path:
    """A bundle of that one model."""
    content = mean_model()
    file = place / "mean.tflite"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    variant = Variant(
        id="fp32", source="mean", blob=sha256, size_bytes=len(content), transfer_bytes=len(content),
        precision=Precision.FP32, target=Target(), cost=Cost(macs=1, parameters=1),
        quality=Quality(metric="accuracy", value=100.0, drop=0.0, interval=0.0, agreement=100.0, samples=1),
    )  # fmt: skip
    manifest = Manifest(
        format=1, name="mean", version="1", created=0.0, metric="accuracy", reference="fp32", variants=(variant,),
        sources=(Source(name="mean", framework="tflite", sha256=sha256),),
        inputs=(TensorSpec(name="image", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="mean", shape=(1, 3), dtype="float32"),),
    )  # fmt: skip
    evidence = EvidenceFile(format=1)
    return bundle.write(place / "mean-1.edge", manifest, {sha256: file}, evidence=evidence, report="").path


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """`edge serve` in a child process; gives its address."""
    command = [sys.executable, "-m", "edge_sdk.cli", "serve", str(path), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            watch = threading.Timer(START_S, child.kill)
            watch.start()
            lines = iter(child.stdout.readline, b"}\n")
            told = json.loads(b"".join(lines) + b"}")
            watch.cancel()
            yield told["url"]
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(START_S)


@contextlib.contextmanager
def bare(size: int) -> Iterator[Callable[[], None]]:
    """Sends this many bytes to a child process, which answers with 64: the least that crossing over can cost."""
    code = (
        "import socket, sys\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "b = memoryview(bytearray(int(sys.argv[2])))\n"
        "while True:\n"
        "    n = 0\n"
        "    while n < len(b):\n"
        "        k = s.recv_into(b[n:])\n"
        "        if not k: sys.exit()\n"
        "        n += k\n"
        "    s.sendall(b[:64])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen([sys.executable, "-c", code, str(listener.getsockname()[1]), str(size)])
        listener.settimeout(START_S)
        sock, _ = listener.accept()
    content = bytes(size)
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange() -> None:
            sock.sendall(content)
            there = 0
            while there < 64:  # noqa: PLR2004 - as above
                there += len(sock.recv(64))

        yield exchange
    child.wait(START_S)


def median_ms(call: Callable[[], object], calls: int) -> float:
    """Of one call."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def rows(options: argparse.Namespace) -> list[Figure]:
    """What is added, and what of it the sockets are."""
    rounds = 3 if options.quick else options.rounds
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    with contextlib.ExitStack() as stack:
        path = write_bundle(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        url = stack.enter_context(serving(path))
        model = stack.enter_context(EdgeModel(path, variant="fp32"))
        remote = stack.enter_context(RemoteEngine(url, model="mean", budget=None))
        exchange = stack.enter_context(bare(image.nbytes))
        if not np.array_equal(model(image), remote.run([image])[0]):
            raise SystemExit("the server answers otherwise than the model")
        ways: dict[str, Callable[[], Any]] = {
            "here": lambda: model(image), "there": lambda: remote.run([image]), "bare": exchange
        }  # fmt: skip
        found: dict[str, list[float]] = {name: [] for name in ways}
        for call in ways.values():
            median_ms(call, CALLS)  # warm
        for _ in range(rounds):
            for name, call in ways.items():
                found[name].append(median_ms(call, CALLS))
    added = [there - here for here, there in zip(found["here"], found["there"], strict=True)]
    here, over = statistics.median(found["here"]), statistics.median(found["there"])
    return [
        figure(
            "edge serve adds to a call, 1 client, 602 KB, binary", added, unit="ms", target=TARGET_MS,
            detail=f"here {here:.2f} ms, there {over:.2f} ms; {CALLS} calls a round",
        ),
        figure("of these, as many bytes through a bare socket and back", found["bare"], unit="ms"),
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args()
    found = rows(options)
    print(
        json.dumps([each.as_json() for each in found], indent=2)
        if options.json
        else f"{machine_name()}\n{shown(found)}"
    )


if __name__ == "__main__":
    main()
