"""Brokers of others, and a door before a broker through which a test sees and hinders who goes in and out."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from daemon_stage import Broker, free_port, listens, until

BUILD = Path(__file__).resolve().parents[1] / "build"
AMQTT = "amqtt==0.12.1"
AEDES = "aedes@1.2.0"
INSTALL_S = 300.0

_IOTCORE = "from edge_hub.broker._iotcore_child import main; main()"
_AMQTT = """
import asyncio, sys
from amqtt.broker import Broker

async def main():
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}}
    broker = Broker({"listeners": listeners, "plugins": plugins})
    await broker.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""
_AEDES = """
import { Aedes } from 'aedes';
import { createServer } from 'node:net';
const broker = await Aedes.createBroker();
createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1');
"""


class OtherBroker:
    """A broker that is not the hub's own choice, on a port of loopback, without accounts.

    Args:
        kind: `iotcore`, `amqtt` or `aedes`.
        directory: Of its files.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.port = free_port()
        self.log = directory / f"{kind}.log"
        self._kind, self._directory = kind, directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(exist_ok=True)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, cwd=self._directory)
        until(self._accepts, f"{self._kind}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _command(self) -> list[str]:
        if self._kind == "iotcore":
            pytest.importorskip("iotcore", reason="the broker extra is not installed")
            return [sys.executable, "-c", _IOTCORE, "127.0.0.1", str(self.port), str(self._directory)]
        if self._kind == "amqtt":
            return [str(_python_with_amqtt()), "-c", _AMQTT, str(self.port)]
        script = _node_with_aedes() / "broker.mjs"
        script.write_text(_AEDES, "utf-8")
        return ["node", str(script), str(self.port)]

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        return listens(self.port)


def broker_of(kind: str, directory: Path) -> Broker | OtherBroker:
    """A broker of this kind, not started yet."""
    return Broker(directory) if kind == "mosquitto" else OtherBroker(kind, directory)


def _python_with_amqtt() -> Path:
    folder = BUILD / "venvs" / "amqtt"
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not (stamp.exists() and stamp.read_text() == AMQTT):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL_S)
        subprocess.run([python, "-m", "pip", "install", "-q", AMQTT], check=True, timeout=INSTALL_S)
        stamp.write_text(AMQTT)
    return python


def _node_with_aedes() -> Path:
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("node and npm are not installed")
    folder = BUILD / "aedes"
    stamp = folder / "installed"
    if not (stamp.exists() and stamp.read_text() == AEDES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}')
        subprocess.run(["npm", "install", "--silent", AEDES], check=True, timeout=INSTALL_S, cwd=folder)
        stamp.write_text(AEDES)
    return folder


class Door:
    """Passes connections on to a broker; knows MQTT 3.1.1 only, where it is to, as an old broker does.

    Args:
        inner: Port of the broker.
        only_old: Answer a CONNECT of MQTT 5 as MQTT 3.1.1 says it: return code 1, and hang up (section 3.2.2.3).
    """

    def __init__(self, inner: int, *, only_old: bool) -> None:
        self.versions: set[int] = set()
        self._inner, self._only_old = inner, only_old
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Break every connection."""
        for one in tuple(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(outer,)))
            self._threads[-1].start()

    def _serve(self, outer: socket.socket) -> None:
        with contextlib.suppress(OSError), outer:
            first = outer.recv(4096)
            level = first[first.find(b"MQTT") + 4] if b"MQTT" in first else 0
            self.versions.add(level)
            if level == 5 and self._only_old:
                outer.sendall(b"\x20\x02\x00\x01")
                return
            with socket.create_connection(("127.0.0.1", self._inner)) as inner:
                inner.sendall(first)
                back = threading.Thread(target=self._pump, args=(inner, outer))
                self._open |= {outer, inner}
                back.start()
                self._pump(outer, inner)
                back.join()
                self._open -= {outer, inner}

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                sink.sendall(block)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
