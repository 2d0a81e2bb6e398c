"""Connections to one server, kept open, a bounded number of them: one request at a time on each.

The request is written by hand, so that tensors are sent from where they lie; the answer is read by `http.client`, whose
every read waits for no longer than the call's deadline leaves. Redirects are not followed: a token would follow them.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from edge_sdk.errors import ModelClosedError, RemoteAnswerError, RemoteUnreachableError
from edge_sdk.remote.deadline import Deadline

_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the server is.

    Attributes:
        host: Its name or number.
        tls: Encrypts; None does not.
        where: The address, for errors.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        headers: Of the answer, by any spelling of their names.
        body: Nobody else's memory.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytearray


class Connection:
    """One connection; after any error it is of no more use.

    Raises:
        RemoteUnreachableError: Nobody answers there.
        RemoteTimeoutError: It does not stand in time.
    """

    def __init__(self, target: Target, deadline: Deadline) -> None:
        self._where = target.where
        self.exchanges = 0
        self.is_spent = False  # the server ends it
        self._sock = _connected(target, deadline)

    @property
    def is_quiet(self) -> bool:
        """The other end has neither closed it nor sent what nobody asked for."""
        try:
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False

    def exchange(self, parts: Sequence[bytes | memoryview], deadline: Deadline, *, most_bytes: int) -> Answer:
        """Send one request and read its answer whole.

        Args:
            parts: Request line, headers and body, in pieces.
            deadline: Until when the answer must be there.
            most_bytes: A larger body is refused.

        Raises:
            RemoteUnreachableError: The connection was lost before anything of an answer came.
            RemoteTimeoutError: The answer is not there in time.
            RemoteAnswerError: It is no HTTP, cut off, or too large.
        """
        self.exchanges += 1
        stream = _Stream(self._sock, deadline)
        lost: OSError | None = None
        try:
            try:
                for part in parts:
                    self._sock.settimeout(deadline.left())  # of all of `sendall`, not of each packet
                    self._sock.sendall(part)
            except TimeoutError:
                raise
            except OSError as cause:
                lost = cause  # a server that refuses a body may have said why before it hung up
            made = http.client.HTTPResponse(cast("socket.socket", _Makes(stream)))  # of a socket it asks nothing else
            with contextlib.closing(made) as response:
                response.begin()
                self.is_spent = response.will_close or lost is not None
                return Answer(status=response.status, headers=response.msg, body=self._body(response, most_bytes))
        except TimeoutError as cause:
            raise deadline.passed() from cause
        except (http.client.HTTPException, OSError, ValueError) as cause:
            if not stream.received:
                what = f"the connection was lost: {reason(lost or cause)}"
                raise RemoteUnreachableError(what, where=self._where) from cause
            raise RemoteAnswerError(f"the answer is cut off or no HTTP: {reason(cause)}", where=self._where) from cause

    def close(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _body(self, response: http.client.HTTPResponse, most_bytes: int) -> bytearray:
        """The body, as long as the server says it is, or in pieces where it does not say."""
        if response.length is not None:
            if response.length > most_bytes:
                raise self._too_large(most_bytes)
            body = bytearray(response.length)
            there = 0
            with memoryview(body) as view:
                while there < len(body):
                    read = response.readinto(view[there:])
                    if not read:
                        raise http.client.IncompleteRead(b"", len(body) - there)
                    there += read
            return body
        body = bytearray()
        while piece := response.read(_BUFFER_BYTES):
            if len(body) + len(piece) > most_bytes:
                raise self._too_large(most_bytes)
            body += piece
        return body

    def _too_large(self, most_bytes: int) -> RemoteAnswerError:
        return RemoteAnswerError(f"the answer is larger than {most_bytes} bytes", where=self._where)


class Pool:
    """Connections for several threads, the one that was used last first. Safe for any number of threads.

    Args:
        target: Where they lead.
        most: How many there may be; who needs one more waits for one.
    """

    def __init__(self, target: Target, *, most: int) -> None:
        self.target, self._most = target, most
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[Connection] = []
        self._lent = 0
        self._is_closed = False

    @contextlib.contextmanager
    def lend(self, deadline: Deadline, *, fresh: bool = False) -> Iterator[Connection]:
        """A connection; it comes back when the block ends well, and is closed when it does not.

        Args:
            deadline: Until when one must stand.
            fresh: Not one that stood already.

        Raises:
            RemoteUnreachableError: Nobody answers.
            RemoteTimeoutError: All are busy, or none stands, until the deadline.
            ModelClosedError: After `close`.
        """
        connection = self._take(deadline, fresh=fresh)
        try:
            if connection is None:
                connection = Connection(self.target, deadline)
            yield connection
        except BaseException:
            if connection is not None:
                connection.close()
            self._give_back(None)
            raise
        if connection.is_spent:
            connection.close()
        self._give_back(None if connection.is_spent else connection)

    def close(self) -> None:
        """Close those that are idle now, and the others as they come back. May be repeated."""
        with self._changed:
            self._is_closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in idle:
            connection.close()

    def lose(self) -> None:
        """In the child of a fork: close its copies; the parent's connections stand, and so does their lock."""
        self._changed = threading.Condition(threading.Lock())
        self.close()

    def _take(self, deadline: Deadline, *, fresh: bool) -> Connection | None:
        """One that is idle; None where the caller may make one. Either is counted as lent."""
        stale: list[Connection] = []
        try:
            with self._changed:
                while True:
                    if self._is_closed:
                        raise ModelClosedError("the engine was closed", where=self.target.where, hint="open it again")
                    if fresh:
                        stale, self._idle = self._idle, []
                    while self._idle:
                        connection = self._idle.pop()
                        if connection.is_quiet:
                            self._lent += 1
                            return connection
                        stale.append(connection)
                    if self._lent < self._most:
                        self._lent += 1
                        return None
                    self._changed.wait(deadline.left())
        finally:
            for connection in stale:
                connection.close()

    def _give_back(self, connection: Connection | None) -> None:
        with self._changed:
            self._lent -= 1
            if connection is not None and not self._is_closed:
                self._idle.append(connection)
                connection = None
            self._changed.notify()
        if connection is not None:
            connection.close()


class _Stream(io.RawIOBase):
    """The answer as it comes in; no read waits beyond the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self.received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        count = self._sock.recv_into(buffer)
        self.received += count
        return count


class _Makes:
    """What `HTTPResponse` asks of a socket."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._stream, _BUFFER_BYTES)


def reason(cause: Exception) -> str:
    """Why, in a few words on one line."""
    text = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)[:200]
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _connected(target: Target, deadline: Deadline) -> socket.socket:
    """A socket to the first of the host's addresses that answers, encrypted where that is wanted."""
    last: OSError | None = None
    for found in _addresses(target, deadline):
        try:
            return _opened(found, target, deadline)
        except TimeoutError as cause:  # noqa: PERF203 - one address after the other
            raise deadline.passed() from cause
        except OSError as cause:  # ssl.SSLError is one
            if last is None or cause.errno != errno.EAFNOSUPPORT:  # a board without IPv6 says nothing of the host
                last = cause
    hint = "look at the certificate, or give ca_file" if isinstance(last, ssl.SSLError) else "look at address and host"
    what = f"cannot connect: {reason(last or OSError())}"
    raise RemoteUnreachableError(what, where=target.where, hint=hint) from last


def _opened(found: Any, target: Target, deadline: Deadline) -> socket.socket:
    """A socket to one address, as `socket.getaddrinfo` gives it."""
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(deadline.left())
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls is None:
            return sock
        sock.settimeout(deadline.left())
        return target.tls.wrap_socket(sock, server_hostname=target.host)
    except BaseException:
        sock.close()
        raise


def _addresses(target: Target, deadline: Deadline) -> list[Any]:
    """Of the host. The system's resolver knows no deadline, so that it is asked on a thread of its own."""
    found: list[Any] = []
    trouble: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as cause:
            trouble.append(cause)

    with contextlib.suppress(ValueError):
        ipaddress.ip_address(target.host)
        ask()
    if not found and not trouble:
        asking = threading.Thread(target=ask, name="edge-resolve", daemon=True)
        try:
            asking.start()
        except RuntimeError as cause:  # the process may have no more threads, or ends
            what = f"the host's name cannot be looked up: {reason(cause)}"
            raise RemoteUnreachableError(what, where=target.where, hint="give its number, or free memory") from cause
        asking.join(deadline.left())
    if trouble:
        what = f"the host's name is not known: {reason(trouble[0])}"
        raise RemoteUnreachableError(what, where=target.where, hint="look at the name") from trouble[0]
    if not found:
        raise deadline.passed()
    return found
