"""HTTP to a hub with the standard library alone: a command that asks one question starts in a fraction of the time.

Connections are kept for the next request of whichever thread; a stream has one of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_hub.errors import HubUnreachableError
from edge_hub.trust import Trust, explained
from edge_sdk.errors import UsageError

_CONNECT_S = 5.0
_IDLE_S = 5.0  # the hub closes after 15 s; a request must not meet that
_KEPT = 8
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_PART_BYTES = 64 * 1024
_MAX_LINE_BYTES = 4 * 1024 * 1024
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Sends requests to one hub. Any number of threads may use it.

    Args:
        url: Such as `http://127.0.0.1:8080`; with a path where a proxy puts the hub below one.
        headers: Of each request.
        trust: Whose certificate counts, with `https://`.

    Raises:
        UsageError: It is no such URL.
        CertificateError: A file of whom to trust cannot be read.
    """

    def __init__(self, url: str, headers: Mapping[str, str], trust: Trust) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise UsageError(f"{url[:200]!r} is no URL of a hub", hint="such as http://127.0.0.1:8080")
        self.url = url
        self._host, self._port = parts.hostname, port or _PORTS[parts.scheme]
        self._base = parts.path.rstrip("/")
        self._trust = trust
        self._secure = trust.context() if parts.scheme == "https" else None
        self._headers = dict(headers)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def ask(self, method: str, path: str, content: bytes | None, *, timeout_s: float) -> Answer:
        """One request and its answer.

        Raises:
            HubUnreachableError: Nobody answers, or not in time, or with no HTTP.
        """
        with self._errors():
            connection = self._take()
            done = False
            try:
                response = self._send(connection, method, path, content, timeout_s)
                body = response.read(_MAX_ANSWER_BYTES + 1)
                if len(body) > _MAX_ANSWER_BYTES:
                    raise http.client.HTTPException(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
                done = not response.will_close
                # Names in small letters, as HTTP does not tell them apart.
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Answer(status=response.status, headers=headers, content=body)
            finally:
                self._give_back(connection, still_good=done)

    @contextlib.contextmanager
    def lines(self, path: str, *, silence_s: float) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The status of an answer without end, and its lines as they come.

        Raises:
            HubUnreachableError: Nobody answers, or nothing came for so long; also while the lines are read.
        """
        with self._errors():
            connection = self._connection()
            try:
                response = self._send(connection, "GET", path, None, silence_s)
                yield response.status, _lines(response)
            finally:
                connection.close()

    @contextlib.contextmanager
    def body(self, path: str, *, silence_s: float) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The status of an answer of any length, and its parts as they come.

        Raises:
            HubUnreachableError: Nobody answers, nothing came for so long, or it broke off; also while it is read.
        """
        connection = self._connection()
        try:
            with self._errors():
                response = self._send(connection, "GET", path, None, silence_s)
            yield response.status, self._parts(response)
        finally:
            connection.close()

    def _parts(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                with self._errors():
                    part = response.read(_PART_BYTES)
            except HubUnreachableError as error:
                if isinstance(error.__cause__, http.client.IncompleteRead):
                    raise HubUnreachableError(
                        "the answer broke off", where=self.url, hint="the hub's log says why; ask again"
                    ) from error.__cause__
                raise
            if not part:
                return
            yield part

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None, timeout_s: float
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.connect()
        sock: socket.socket = connection.sock
        sock.settimeout(timeout_s)
        headers = self._headers | ({"Content-Type": "application/json"} if content is not None else {})
        connection.request(method, f"{self._base}{path}", content, headers)
        return connection.getresponse()

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            idle, self._idle = self._idle, []
            fresh = [one for one in idle if time.monotonic() - one[0] < _IDLE_S]
            found = fresh.pop()[1] if fresh else None
            self._idle = fresh
        for at, connection in idle:
            if time.monotonic() - at >= _IDLE_S and connection is not found:
                connection.close()
        return found or self._connection()

    def _give_back(self, connection: http.client.HTTPConnection, *, still_good: bool) -> None:
        with self._lock:
            if still_good and len(self._idle) < _KEPT:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_S)
        if self._trust.told_in is not None:
            self._secure = self._trust.context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=_CONNECT_S, context=self._secure)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException, UnicodeError) as cause:
            raise explained(cause, self.url, self._host) or HubUnreachableError(
                f"no hub answers ({str(cause) or type(cause).__name__})",
                where=self.url,
                hint="start one with 'edge hub run', or name it with --hub URL",
            ) from cause


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(_MAX_LINE_BYTES):
        yield line.rstrip(b"\r\n")
