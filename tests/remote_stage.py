"""Servers for the tests of remote engines: one that plays any fault, on raw sockets, and `edge serve` itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

START_S = 60
_NO_FAMILY = 255  # beyond AF_MAX of any kernel: the error is the one of AF_INET6 where there is no IPv6
TINY = Path(__file__).parent / "data" / "tiny"
X = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1, 4]}
BINARY = {"name": "stage", "version": "1", "extensions": ["binary_tensor_data"]}
ONES = np.ones((1, 4), np.float32)


@dataclass(kw_only=True)
class Asked:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return str(self.told["id"])

    @property
    def told(self) -> Any:
        length = int(self.headers.get("inference-header-content-length", len(self.body)))
        return json.loads(self.body[:length])

    @property
    def array(self) -> Any:
        """The one input, as float32."""
        (tensor,) = self.told["inputs"]
        if "data" in tensor:
            return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        length = int(self.headers["inference-header-content-length"])
        return np.frombuffer(self.body[length:], np.float32).reshape(tensor["shape"])


Plays = Callable[[socket.socket, Asked, threading.Event], None]


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def binary(content: bytes, *, asked: Asked, shape: list[int], **changes: Any) -> bytes:
    """A well-formed answer with these bytes as the output `y`; `changes` make it less so."""
    size = {"parameters": {"binary_data_size": len(content)}}
    output = {"name": "y", "datatype": "FP32", "shape": shape} | size | changes
    head = json.dumps({"model_name": "m", "id": asked.id, "outputs": [output]}).encode()
    return http(head + content, f"Inference-Header-Content-Length: {len(head)}")


def good(sock: socket.socket, asked: Asked, _: threading.Event) -> None:
    """Twice the input."""
    doubled = asked.array * 2
    if "data" in asked.told["inputs"][0]:
        output = Y | {"shape": list(doubled.shape), "data": doubled.tolist()}
        sock.sendall(http(json.dumps({"outputs": [output]}).encode()))
    else:
        sock.sendall(binary(doubled.tobytes(), asked=asked, shape=list(doubled.shape)))


def says(content: bytes) -> Plays:
    """These bytes, and the end of the connection."""

    def play(sock: socket.socket, _: Asked, __: threading.Event) -> None:
        sock.sendall(content)
        raise ConnectionAbortedError

    return play


def trickles(content: bytes) -> Plays:
    """A byte of this at a time, for ever."""

    def play(sock: socket.socket, _: Asked, stopped: threading.Event) -> None:
        sock.sendall(content)
        while not stopped.wait(0.02):
            sock.sendall(b" ")

    return play


def stalls(_: socket.socket, __: Asked, stopped: threading.Event) -> None:
    """Nothing at all."""
    stopped.wait(START_S)


@dataclass
class Stage:
    """A server on loopback that answers each inference as the script says; its last word is repeated.

    Attributes:
        script: One entry for each inference.
        server: What it says of itself; None answers 404.
        model: What it says of the model `m`.
        asked: All requests, as they came.
    """

    script: list[Plays] = field(default_factory=lambda: [good])
    server: Any = field(default_factory=lambda: dict(BINARY))
    model: Any = field(default_factory=lambda: {"name": "m", "inputs": [X], "outputs": [Y]})
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def inferences(self) -> list[Asked]:
        return [each for each in self.asked if each.line.startswith("POST")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(START_S)
        self.hang_up()
        for thread in self._threads:
            thread.join(START_S)

    def hang_up(self) -> None:
        """End every connection."""
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._socks.append(sock)
                self._threads.append(threading.Thread(target=self._talk, args=(sock,)))
                self._threads[-1].start()

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while line := stream.readline().decode().strip():
                headers = {}
                while pair := stream.readline().decode().strip():
                    name, _, value = pair.partition(":")
                    headers[name.lower()] = value.strip()
                asked = Asked(line=line, headers=headers, body=stream.read(int(headers.get("content-length", 0))))
                self.asked.append(asked)
                self._answer(sock, asked)

    def _answer(self, sock: socket.socket, asked: Asked) -> None:
        path = asked.line.split()[1]
        if path.endswith("/infer"):
            play = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            play(sock, asked, self._stopped)
            return
        told = self.server if path.endswith("/v2") else self.model
        if callable(told):
            told(sock, asked, self._stopped)
        elif told is None:
            sock.sendall(http(b'{"error": "not here"}', status="404 Not Found"))
        else:
            sock.sendall(http(json.dumps(told).encode()))


def speaks_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host has an address of a family that this machine does not speak, before and behind its own."""
    real = socket.getaddrinfo
    odd = (_NO_FAMILY, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 80, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [odd, *real(*given, **named), odd])


@dataclass(kw_only=True)
class ServeProcess:
    """`edge serve` as a child."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    told: dict[str, Any]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(START_S)


@contextlib.contextmanager
def served(place: Path, model: str | Path, *options: str) -> Iterator[ServeProcess]:
    """`edge serve` of this model on a port of its own, ended with the block."""
    log = place / f"serve-{len(list(place.glob('serve-*')))}.log"
    with log.open("wb") as file, start(place, [str(model), "--port", "0", "--json", *options], file) as process:
        assert process.stdout is not None
        watch = threading.Timer(START_S, process.kill)
        watch.start()
        try:
            told = json.loads(b"".join([*iter(process.stdout.readline, b"}\n"), b"}"]))
        finally:
            watch.cancel()
            watch.join()
        yield ServeProcess(process=process, log=log, url=told["url"], told=told)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(START_S)


@contextlib.contextmanager
def start(place: Path, arguments: Iterable[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`edge serve` with these arguments."""
    command = [sys.executable, "-m", "edge_sdk.cli", "serve", *arguments]
    environment = os.environ | {"EDGE_DAEMON_SOCKET": str(place / "no.sock")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
