"""Asks PiSugar's server, which knows the battery of its boards: lines of text on a unix socket, or on TCP here.

`get battery` is answered by `battery: 87.3`, `get battery_power_plugged` and `get battery_charging` by `true` or
`false` (PiSugar/pisugar-power-manager-rs, README). The server also tells every client of pressed buttons: lines that
are no answer are skipped. Old models do not know whether they are plugged in; there charging has to tell.

The socket lies in `/tmp`, where any user could put one: only one that belongs to root, or to us, is asked.
"""

from __future__ import annotations

import os
import re
import socket
import time

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Charge, Unavailable

_SOCKET = "tmp/pisugar-server.sock"
_ADDRESS = ("127.0.0.1", 8423)
_QUESTIONS = ("battery", "battery_power_plugged", "battery_charging")
_REQUEST = "".join(f"get {name}\n" for name in _QUESTIONS).encode()
_DEADLINE_S = 0.5  # of all it takes
_MOST_BYTES = 4096
_EVERY_READS = 5  # it reads its chip every second or so
_REST_READS = 60  # after it failed
_PERCENT = re.compile(r"\A\d{1,3}(\.\d{1,20})?\Z", re.ASCII)
_FULL = 100.0


class PiSugar:
    """A battery behind PiSugar's server.

    Args:
        files: Below whose root the socket is.
        has_network: Ask on TCP where there is no socket: never for another root than the machine's own.
    """

    def __init__(self, files: Files, *, has_network: bool) -> None:
        self._path = os.path.join(files.root, _SOCKET)  # noqa: PTH118 - as `Files` does
        self._has_network = has_network
        self._rest = 0
        self._said: Charge | Unavailable = Unavailable("PiSugar's server has not been asked yet")

    def read(self) -> Charge | Unavailable:
        """Charge and mains; the last answer for some seconds."""
        self._rest -= 1
        if self._rest < 0:
            self._said = self._ask()
            self._rest = (_REST_READS if isinstance(self._said, Unavailable) else _EVERY_READS) - 1
        return self._said

    def _ask(self) -> Charge | Unavailable:
        try:
            where, connection = self._connection()
            with connection:
                answers = _conversation(connection)
        except (OSError, ValueError) as cause:  # ValueError: a path with a NUL
            return Unavailable(f"no PiSugar server answers: {cause}")
        percent = answers.get("battery", "")
        if not _PERCENT.match(percent) or not 0 <= float(percent) <= _FULL:
            return Unavailable(f"PiSugar's server knows of no battery: {percent[:40]!r}")
        plugged = answers.get("battery_power_plugged", "")
        if plugged not in {"true", "false"}:
            plugged = answers.get("battery_charging", "")
        return Charge(percent=float(percent), charging={"true": True, "false": False}.get(plugged), source=where)

    def _connection(self) -> tuple[str, socket.socket]:
        """A connection to the server.

        Raises:
            OSError: There is none, or its socket is somebody else's.
        """
        try:
            owner = os.stat(self._path).st_uid  # noqa: PTH116 - as `Files` does
        except FileNotFoundError:
            if not self._has_network:
                raise
            return "PiSugar's server on TCP 8423", _connected(socket.AF_INET, _ADDRESS)
        if owner not in {0, os.geteuid()}:
            raise PermissionError(f"{self._path} belongs to user {owner}")
        return f"PiSugar's server on {_SOCKET}", _connected(socket.AF_UNIX, self._path)


def _connected(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    """A connection; `socket.create_connection` would load what resolves names, half a megabyte."""
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_DEADLINE_S)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _conversation(connection: socket.socket) -> dict[str, str]:
    """What is answered to the questions until all are, or the time is over."""
    until_s = time.monotonic() + _DEADLINE_S
    connection.sendall(_REQUEST)
    received = b""
    answers: dict[str, str] = {}
    while len(received) < _MOST_BYTES and len(answers) < len(_QUESTIONS):
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            break
        connection.settimeout(left_s)
        try:
            more = connection.recv(_MOST_BYTES)
        except TimeoutError:
            break
        received += more
        lines = received.decode("utf-8", "replace").split("\n")
        for line in lines if not more else lines[:-1]:
            name, colon, value = line.strip().partition(":")
            if colon and name in _QUESTIONS:
                answers[name] = value.strip()
        if not more:
            break
    return answers
