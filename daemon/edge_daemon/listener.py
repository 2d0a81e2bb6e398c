"""HTTP/1.1 on a unix socket: connections, deadlines and sizes. What is answered is `edge_daemon.api`'s business.

Every bound here is on something a careless or hostile local process controls: how many connections, how long a
request may take to arrive, how large it may be. A request whose sender goes away is given up.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from edge_daemon.errors import RequestError
from edge_daemon.peers import Peer, admit, group_id, peer_of
from edge_sdk.errors import AddressInUseError, StorageError, TransportError
from edge_sdk.local import MAX_BODY_BYTES, ErrorBody
from edge_sdk.wire import encode

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 450  # an app has two; 200 apps and a few operators stay below the usual limit of 1024 open files
MAX_OF_ONE_PROCESS = 64  # so that one that runs wild does not shut the others out
MAX_HEADER_BYTES = 16 * 1024
REQUEST_S = 10.0  # from a request's first byte to its last
IDLE_S = 75.0  # between two requests; apps report every second
ANSWER_S = 10.0  # for a peer that does not read
LAST_ANSWER_S = 1.0  # for what is still asked when the daemon ends
_TOLD = 8  # beyond the limits, so many are told why; further ones are hung up on
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, whole."""

    method: str
    target: str
    body: bytes
    peer: Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Its answer; `body` is JSON."""

    status: int
    body: bytes


Handler = Callable[[Request], Awaitable[Response]]


class Listener:
    """The socket and its connections.

    Args:
        path: Where the socket is to be; its directory is made with mode 0750 if absent.
        handler: Answers a request; must not raise.
        group: Whose members may speak to the daemon, beside its own user and root.
    """

    def __init__(self, path: Path, handler: Handler, *, group: str | None = None) -> None:
        self.path = path
        self._handler = handler
        self._group = None if group is None else group_id(group)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._of_process: collections.Counter[int] = collections.Counter()
        self._busy: set[asyncio.Task[None]] = set()  # those that answer a request
        self._ending = False

    async def open(self) -> None:
        """Listen. A socket that a dead daemon left is replaced.

        Raises:
            AddressInUseError: A living daemon answers there, or something that is no socket lies there.
            StorageError: The directory or the socket cannot be made.
        """
        try:
            _make_directory(self.path.parent, self._group)
            _clear(self.path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._bind(listening)
                self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=_CHUNK)
            except BaseException:
                listening.close()
                raise
        except OSError as cause:
            raise StorageError(
                f"the socket cannot be made: {cause.strerror or cause}",
                where=str(self.path),
                hint="name another place with --socket or under [api] socket",
            ) from cause
        self._inode = self.path.stat().st_ino

    async def close(self) -> None:
        """Stop listening, let requests under way be answered for a moment, end all connections, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._ending = True
        for task in self._connections - self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=LAST_ANSWER_S)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=LAST_ANSWER_S)
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # not the socket of a daemon that came after us
                self.path.unlink()
        self._server = None

    def _bind(self, listening: socket.socket) -> None:
        # Bound under a mask, so that there is no moment at which everybody could connect.
        mask = os.umask(0o177)
        try:
            listening.bind(str(self.path))
        finally:
            os.umask(mask)
        if self._group is not None:
            os.chown(self.path, -1, self._group)
        self.path.chmod(0o660)
        listening.setblocking(False)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio calls us in one
        self._connections.add(task)
        peer = peer_of(writer.get_extra_info("socket"))
        self._of_process[peer.pid] += 1
        try:
            if (
                len(self._connections) <= MAX_CONNECTIONS + _TOLD
                and self._of_process[peer.pid] <= MAX_OF_ONE_PROCESS + _TOLD
            ):
                await self._converse(task, peer, reader, writer)
        except (ConnectionError, asyncio.TimeoutError, TimeoutError):
            writer.transport.abort()  # the peer went away or dawdled; what it did not read is its own loss
        except asyncio.CancelledError:
            writer.transport.abort()  # we are closing; asyncio would log a cancelled connection as an error
        finally:
            self._connections.discard(task)
            self._busy.discard(task)
            self._of_process -= collections.Counter({peer.pid: 1})  # and forget it at zero
            writer.close()

    async def _converse(
        self, task: asyncio.Task[None], peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = _Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        try:
            if len(self._connections) > MAX_CONNECTIONS or self._of_process[peer.pid] > MAX_OF_ONE_PROCESS:
                raise RequestError("too many connections", status=http.HTTPStatus.SERVICE_UNAVAILABLE)
            admit(peer, self._group)
        except TransportError as error:
            # The request is read first: an answer to a question not yet asked confuses HTTP clients.
            with contextlib.suppress(RequestError):  # that it is none makes no difference
                await asyncio.wait_for(_next_request(connection, reader, peer), REQUEST_S)
            await _answer(connection, writer, failure(error), last=True)
            return
        while True:
            try:
                # A first byte may take long to come; once it is there, the rest has to hurry.
                if not connection.trailing_data[0]:
                    first = await asyncio.wait_for(reader.read(_CHUNK), IDLE_S)
                    connection.receive_data(first)
                request = await asyncio.wait_for(_next_request(connection, reader, peer), REQUEST_S)
            except RequestError as error:
                await _answer(connection, writer, failure(error), last=True)
                return
            if request is None:
                return
            self._busy.add(task)
            response = await self._answer_or_hangup(request, connection, reader)
            if response is None:
                return
            await _answer(connection, writer, response, last=self._ending)
            self._busy.discard(task)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer_or_hangup(
        self, request: Request, connection: _Connection, reader: asyncio.StreamReader
    ) -> Response | None:
        """The handler's answer, or None if the peer hung up before it came."""
        answering = asyncio.ensure_future(self._handler(request))
        listening = asyncio.ensure_future(reader.read(_CHUNK))
        try:
            await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
            hung_up = listening.done() and not listening.cancelled() and not listening.result()
            return None if hung_up and not answering.done() else await answering
        finally:
            answering.cancel()
            listening.cancel()
            await asyncio.wait({answering, listening})
            if not listening.cancelled() and listening.exception() is None:
                connection.receive_data(listening.result())  # the start of the next request


class _Connection(h11.Connection):
    """Knows whether it is asked by HEAD, also where the rest of the request is none."""

    is_head = False


async def _next_request(connection: _Connection, reader: asyncio.StreamReader, peer: Peer) -> Request | None:
    """The next request, or None at the end of the conversation.

    Raises:
        RequestError: It is no HTTP, or too large.
    """
    head: h11.Request | None = None
    connection.is_head = False
    body = bytearray()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as cause:
            raise RequestError(f"not HTTP/1.1: {cause}", status=cause.error_status_hint) from cause
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            head = event
            connection.is_head = event.method == b"HEAD"
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise RequestError(
                    f"a body of more than {MAX_BODY_BYTES} bytes", status=http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                )
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return Request(
                method=head.method.decode("ascii"), target=head.target.decode("ascii"), body=bytes(body), peer=peer
            )
        else:  # ConnectionClosed, or PAUSED after a protocol switch that we never do
            return None


async def _answer(
    connection: _Connection, writer: asyncio.StreamWriter, response: Response, *, last: bool = False
) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(response.body)))]
    if last:
        headers.append(("Connection", "close"))
    writer.write(connection.send(h11.Response(status_code=response.status, headers=headers)) or b"")
    if not connection.is_head:  # which is answered by the headers alone (RFC 9110, 9.3.2)
        writer.write(connection.send(h11.Data(data=response.body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await asyncio.wait_for(writer.drain(), ANSWER_S)


def failure(error: TransportError) -> Response:
    """The answer to a request that the daemon does not serve."""
    status = error.status if isinstance(error, RequestError) else int(http.HTTPStatus.FORBIDDEN)
    return Response(status=status, body=encode(ErrorBody(code=error.code, text=str(error)[:1000])))


def _make_directory(path: Path, group: int | None) -> None:
    """Make the socket's directory, or refuse one in which another user could put a socket of his own."""
    if not path.is_dir():
        path.mkdir(parents=True, mode=0o750)
        if group is not None:
            os.chown(path, -1, group)
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()} or (status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX):
        raise StorageError(
            "the socket's directory belongs to another user or can be written by everybody",
            where=str(path),
            hint="name another place with --socket or under [api] socket",
        )


def _clear(path: Path) -> None:
    """Remove a socket nobody answers on.

    Raises:
        AddressInUseError: Somebody answers, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressInUseError(
            "something that is no socket lies here", where=str(path), hint="give this daemon another --socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, TimeoutError):
            pass  # somebody listens, but is busy
    raise AddressInUseError(
        "another daemon answers here", where=str(path), hint="stop it, or give this one another --socket"
    )
