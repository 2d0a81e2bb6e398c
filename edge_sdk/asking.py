"""A model's calls by way of a server: it is asked first, and what does not come in time is computed here.

The daemon says whether and whom. While it does, the variant it assigned stays in force and stands by, so nothing is
loaded and no call waits when the server is no longer to be asked. A server that was once opened stays so until another
one takes its place: to ask again is then a matter of the next call. How a call is hedged is said in
`edge_sdk.remote.errands`.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_sdk.errors import EdgeError, InputError, ModelClosedError, RemoteError, RemoteRefusedError
from edge_sdk.local import PATIENCE_S

if TYPE_CHECKING:
    from edge_sdk.local import AssignedServer
    from edge_sdk.remote.engine import RemoteEngine
    from edge_sdk.remote.errands import Counts, Errands, Run
    from edge_sdk.remote.hedged import Faced
    from edge_sdk.tally import Tally

_log = logging.getLogger(__name__)

SERVER: Final = "server"  # who computes, where it is no delegate
_LONGEST_S: Final = 5.0  # of one request, whoever waits for it
_OUTSTANDING: Final = 4
_CANNOT: Final = "the server cannot be asked, calls are computed here: %s"
_JOIN_S: Final = _LONGEST_S + 1.0
_MAX_FAILURE: Final = 1000
_SHUT_OUT: Final = (401, 403)  # RFC 9110, 15.5.2 and 15.5.4: whoever asks, whatever the request

Runs = Callable[[Sequence[Any]], tuple[str, list[Any]]]  # who answered, and the answers


class _Admitted:
    """Calls to a server, for as long as that lets the app in and is the one it says it is.

    Args:
        call: One of them.
        shut_out: Told when that is over, by whichever call finds out, in the thread of that.
    """

    def __init__(self, call: Run, shut_out: Callable[[_Admitted, RemoteError], None]) -> None:
        self._call, self._shut_out = call, shut_out
        self.is_shut_out = False

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """See `AnyEngine.run`."""
        try:
            return self._call(arrays)
        except RemoteError as error:
            if _is_shut_out(error):
                self.is_shut_out = True
                self._shut_out(self, error)
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    server: AssignedServer
    remote: RemoteEngine
    admitted: _Admitted
    errands: Errands
    counts: Counts

    def close(self) -> None:
        """Bounded: a request has its deadline."""
        self.errands.end()
        self.errands.join()
        self.remote.close()


class Asking:
    """Asks a server as it is told to. Safe for any number of threads.

    Args:
        model: What it takes and gives; the server has to do the same.
        here: Computes a call on this board.
        tally: Of the calls.
        changed: The server can be asked from now on, or cannot; in a thread of its own, must be quick.
    """

    def __init__(self, model: Faced, here: Runs, tally: Tally, changed: Callable[[], None]) -> None:
        self._model, self._here, self._tally, self._changed = model, here, tally, changed
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._told: AssignedServer | None = None
        self._refused: AssignedServer | None = None  # told, and cannot be asked
        self._failure = ""
        self._open: _Open | None = None
        self._asked: _Open | None = None  # the same, while it is to be asked
        self._forgotten: weakref.finalize[Any, Asking] | None = None  # ends what is open
        self._opening: threading.Thread | None = None
        self._is_closed = False
        self._under_way = 0  # calls that a server was to be asked in
        self._waiting = 0  # of these, those that wait for it
        self._stood_by = ""

    @property
    def is_on(self) -> bool:
        """Whether calls go to a server first."""
        return self._asked is not None

    @property
    def in_flight(self) -> int:
        """Calls that wait for a server."""
        return self._waiting

    @property
    def failure(self) -> str | None:
        """Why the server that is told cannot be asked, for as long as it is told."""
        return self._failure or None

    def tell(self, server: AssignedServer | None) -> None:
        """Ask this server from now on; None asks nobody. Returns at once: one that is new is opened meanwhile."""
        with self._lock:
            self._told = server
            if server != self._refused:
                self._refused, self._failure = None, ""
            self._asked = self._ready(server)
            is_new = server is not None and self._asked is None and self._refused is None
            if is_new and self._opening is None and not self._is_closed:
                opening = threading.Thread(target=self._open_told, name="edge-server", daemon=True)
                try:
                    opening.start()
                except RuntimeError as error:  # there is no room for a thread now: the next report asks again
                    _log.debug("the server is not opened yet: %s", error)
                else:
                    self._opening = opening

    def _ready(self, server: AssignedServer | None) -> _Open | None:
        """What is open of it and answers; with the lock held."""
        opened = self._open
        is_ready = opened is not None and opened.server == server and not opened.admitted.is_shut_out
        return opened if is_ready else None

    def run(self, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        """Who answered, and the answers.

        Raises:
            EdgeError: What computing here raises.
        """
        asked = self._asked
        if asked is None:
            return self._here(arrays)
        with self._lock:
            self._under_way += 1
        try:
            return self._asked_first(asked, arrays)
        finally:
            with self._lock:
                self._under_way -= 1
                self._ended.notify_all()

    def close(self) -> None:
        """Ask nobody any more, wait for what is under way, bounded. May be repeated."""
        with self._lock:
            self._is_closed, self._told, self._asked = True, None, None
            opened, self._open = self._open, None
            opening = self._opening
        if opening is not None and opening is not threading.current_thread():
            opening.join(_JOIN_S)
        if opened is not None:
            opened.close()
        with self._lock:  # whom it did not answer is computed here yet
            self._ended.wait_for(lambda: not self._under_way, _JOIN_S)

    def lose(self) -> None:
        """In the child of a fork: threads and connections are the parent's."""
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._is_closed, self._told, self._asked, self._open, self._opening = True, None, None, None, None
        self._under_way = 0
        if self._forgotten is not None:
            self._forgotten.detach()  # it would wait for a lock that a thread of the parent may have held

    def _asked_first(self, asked: _Open, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        began_s = time.perf_counter()
        was_sent, answer = self._answer(asked, arrays)
        if answer is not None:
            self._tally.replied()
            return SERVER, answer
        here_s = time.perf_counter()
        ran = self._here(arrays)
        ended_s = time.perf_counter()
        if was_sent and not asked.admitted.is_shut_out:  # that it refused says nothing of the way there
            self._tally.stood_in((ended_s - began_s) * 1e3, (ended_s - here_s) * 1e3)
        if ran[0] != self._stood_by:  # what another variant took says nothing of this one
            self._stood_by = ran[0]
            asked.counts.forget_local()
        asked.counts.local_took(ended_s - here_s)
        return ran

    def _answer(self, asked: _Open, arrays: Sequence[Any]) -> tuple[bool, list[Any] | None]:
        """Whether the server was asked, and its answer, where there is one in time."""
        limit_ms = self._tally.limit_ms
        deadline_s = PATIENCE_S if limit_ms is None else min(limit_ms / 1e3, _LONGEST_S)
        with self._lock:
            self._waiting += 1
        try:
            return asked.errands.ask(arrays, deadline_s - self._local_s(asked, deadline_s))
        except (InputError, ModelClosedError):  # here it is taken, or refused in the model's own words
            return False, None
        finally:
            with self._lock:
                self._waiting -= 1

    def _local_s(self, asked: _Open, deadline_s: float) -> float:
        """The time to keep for computing here; none where that alone takes longer than there is."""
        local_s = asked.counts.local_s() if self._stood_by else 0.0
        if not local_s:
            usual_ms = self._tally.usual_ms
            local_s = deadline_s / 2 if usual_ms is None else usual_ms / 1e3
        return local_s if local_s < deadline_s else 0.0

    def _open_told(self) -> None:
        """The thread; a fault in it that nobody foresaw keeps the next one from nothing."""
        try:
            self._open_all()
        finally:
            with self._lock:
                if self._opening is threading.current_thread():
                    self._opening = None

    def _open_all(self) -> None:
        """Open what is told, and what is told meanwhile."""
        while True:
            with self._lock:
                server = None if self._is_closed else self._told
                ready = self._ready(server)
                if server is None or server == self._refused or ready is not None:
                    self._asked, self._opening = ready, None
                    break
            self._open_one(server)
        self._changed()

    def _open_one(self, server: AssignedServer) -> None:
        try:
            found = self._opened(server)
        except EdgeError as error:
            _log.warning(_CANNOT, str(error))
            with self._lock:
                if server == self._told:
                    self._refused, self._failure = server, str(error)[:_MAX_FAILURE]
            return
        with self._lock:
            if self._is_closed:
                needless: _Open | None = found
            else:
                needless, self._open = self._open, found
                self._asked = found if server == self._told else None  # at once: to close the other one takes time
                if self._forgotten is not None:
                    self._forgotten.detach()
                self._forgotten = weakref.finalize(self, found.errands.end)  # where nobody calls `close`
        if needless is not None:
            needless.close()

    def _give_up(self, admitted: _Admitted, error: RemoteError) -> None:
        """The server that is open has shut us out; of calls that find that out at once, one says it."""
        with self._lock:
            opened = self._open
            if opened is None or opened.admitted is not admitted or opened.server != self._told:
                return
            if self._refused == opened.server:
                return
            self._asked, self._refused, self._failure = None, opened.server, str(error)[:_MAX_FAILURE]
        _log.warning(_CANNOT, str(error))
        self._changed()

    def _opened(self, server: AssignedServer) -> _Open:
        # Who has no server does without what these bring.
        from edge_sdk.remote.engine import RemoteEngine
        from edge_sdk.remote.errands import Counts, Errands
        from edge_sdk.remote.hedged import check_same, matching
        from edge_sdk.tokenfile import read_token

        token = None if server.token_file is None else read_token(server.token_file)
        remote = RemoteEngine(
            server.url, model=server.model, deadline_s=_LONGEST_S, token=token, ca_file=server.ca_file
        )
        try:
            check_same(remote, self._model)
        except EdgeError:
            remote.close()
            raise
        # Whom these tell holds the model, and a thread of errands holds them.
        tally, asking = weakref.ref(self._tally), weakref.ref(self)

        def took(ms: float) -> None:
            if (told := tally()) is not None:
                told.remote_took(ms)

        def shut_out(admitted: _Admitted, error: RemoteError) -> None:
            if (told := asking()) is not None:
                told._give_up(admitted, error)  # noqa: SLF001 - a function of this class

        counts = Counts(took)
        _log.info("the server %s is asked first from now on", remote.where)
        admitted = _Admitted(matching(remote, self._model), shut_out)
        errands = Errands(admitted.run, counts, most=_OUTSTANDING)
        return _Open(server=server, remote=remote, admitted=admitted, counts=counts, errands=errands)


def _is_shut_out(error: RemoteError) -> bool:
    """Whether it is for the token or the authority, so that the next request fares no better."""
    from ssl import SSLCertVerificationError  # who asks nobody does without

    if isinstance(error, RemoteRefusedError):
        return error.status in _SHUT_OUT
    return isinstance(error.__cause__, SSLCertVerificationError)
