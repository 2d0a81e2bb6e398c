"""The local API of the daemon: HTTP/1.1 with JSON bodies on a unix socket, its messages and its client.

| request | body | answer |
|---|---|---|
| `GET /v1/status` | | `Status` |
| `GET /v1/explain` | | `Explanation` |
| `POST /v1/prefer` | `mqtt.Prefer` fields | `Done` |
| `POST /v1/pin` | `PinRequest` | `Done` |
| `POST /v1/unpin` | `UnpinRequest` | `Done` |
| `POST /v1/position` | `PositionReport` | `Done` |
| `POST /v1/apps` | `Register` | `Registered` |
| `POST /v1/apps/APP/report` | `AppReport` | `Assignment` |
| `GET /v1/apps/APP/assignment?after=SERIAL&wait_s=S` | | `Assignment`, as soon as its serial exceeds `after` |
| `POST /v1/apps/APP/pin` | `AppPin` | `Assignment` |
| `POST /v1/apps/APP/prefer` | `AppPrefer` | `Assignment` |
| `DELETE /v1/apps/APP` | | `Done` |

An error is answered with a 4xx or 5xx status and an `ErrorBody`. The socket's path: `--socket`, else
`EDGE_DAEMON_SOCKET`, else `/run/edge/api.sock` where that directory can be used, else `$XDG_RUNTIME_DIR/edge/api.sock`,
else `/tmp/edge-UID/api.sock`.
"""

from __future__ import annotations

import contextlib
import http
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from msgspec import Meta

from edge_sdk.errors import CommandError, DaemonUnreachableError, EdgeError, PinnedError, UnknownVariantError, WireError
from edge_sdk.mqtt import Because, Conditions, Decision, ModelState
from edge_sdk.preference import Preference
from edge_sdk.wire import Celsius, Count, Millis, Name, Percent, Sha256, Text, Token, Unix, Wire, decode, encode

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk._unix_http import UnixConnection

SPEAKS = 4  # what this side understands; see `Register`
KNOWS_RATES = 2  # since then: advice, samples of latencies, accelerators
KNOWS_SERVERS = 3
KNOWS_TOKENS = 4  # of a server, and an authority of its own
PATIENCE_S = 1.0  # that an app waits for a server, where no limit says when an answer is late
SOCKET_VARIABLE = "EDGE_DAEMON_SOCKET"
MAX_BODY_BYTES = 256 * 1024
TIMEOUT_S = 10.0

T = TypeVar("T")

Version = Annotated[int, Meta(ge=1, le=1000)]
Variants = Annotated[tuple[Name, ...], Meta(max_length=1000)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]  # a second


class Register(Wire, frozen=True, kw_only=True):
    """An app announces itself.

    Attributes:
        model: The daemon's name for the model, or None when the app opened a bundle itself.
        manifest: SHA-256 of `manifest.json`, to find the model by its content.
        name: What the app calls itself, for people.
        speaks: What the app understands; 1, where it does not say. The daemon answers with what both do, and uses no
            message or field that is newer. A daemon from before it refuses the field: then it is left out.
        runs: The variants it can run, where it knows the bundle; None: those for the CPU.
        preference: What this app wants. Its limits count beside those of everybody else, the strictest of each; its
            mode only where nobody's word sets one.
    """

    model: Name | None = None
    manifest: Sha256 | None = None
    name: Annotated[str, Meta(max_length=200)] = ""
    pid: Count = 0
    preference: Preference | None = None
    speaks: Version = 1
    runs: Variants | None = None


ServerFile = Annotated[str, Meta(min_length=1, max_length=16_384)]  # a path of the configuration, made absolute


class AssignedServer(Wire, frozen=True, kw_only=True):
    """A server that runs the model, too: `model` is its name there.

    Attributes:
        token_file: The app reads the token that it asks with there, and never hears it from the daemon (since 4).
        ca_file: Certificates to check the server's by; None takes the system's (since 4).
    """

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    model: Annotated[str, Meta(min_length=1, max_length=500)]
    token_file: ServerFile | None = None
    ca_file: ServerFile | None = None

    @property
    def since(self) -> int:
        """The version from which on an app knows all of this."""
        return KNOWS_SERVERS if self.token_file is None and self.ca_file is None else KNOWS_TOKENS


class Assignment(Wire, frozen=True, kw_only=True):
    """Which variant the app is to run. `serial` counts up with every change.

    Attributes:
        max_latency_ms: A call that takes longer is late.
        most_per_s: Advice where no variant keeps up with the calls there are: so many a second would fit (since 2).
        server: To be asked first; `variant` stands by and computes what does not come in time (since 3).
    """

    serial: Count
    variant: Name
    because: Because
    pinned_by: Literal["app", "operator", "hub"] | None = None
    max_latency_ms: Millis | None = None
    most_per_s: Rate | None = None
    server: AssignedServer | None = None


class Registered(Wire, frozen=True, kw_only=True):
    """The daemon's answer: the app's identity, where the bundle lies, and what to run first."""

    app: Token
    model: Name
    bundle: Annotated[str, Meta(max_length=4096)]
    assignment: Assignment
    speaks: Version = 1


class AppUsage(Wire, frozen=True, kw_only=True):
    """How an app's accelerator fares.

    Attributes:
        name: As it was asked for, such as `edgetpu:usb:0`.
        busy_pct: Of the time since the last report.
        limit_c: From here on it is to be spared.
        restarts: How often it fell out, and the CPU stood in, since the app began.
    """

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    busy_pct: Percent | None = None
    temp_c: Celsius | None = None
    limit_c: Celsius | None = None
    restarts: Count = 0


class AppReport(Wire, frozen=True, kw_only=True):
    """What an app did since its last report, about a second ago; at once after a late or slow call, 5 a second at most.

    Attributes:
        active: The variant that answers calls now.
        switched_ms: How long the switch to `active` took, once, in the first report after it.
        failed_variant: A variant that could not be loaded, with `failure` as the reason.
        p50_ms: Of the calls of `active` in this window only.
        arrived: Calls that came, also those that still wait (since 2, like what follows up to `usage`).
        latencies_ms: Some inferences of `active`, in the order they came.
        slow_ms: The slowest inference that was late, or took more than 1.6 times the usual and half of the limit.
        runs: The variants it can run, once after it has opened the bundle.
        computes_on: Who computes now: `cpu`, or the delegate.
        usage: Of the accelerator, where it has one.
        waited_ms: How long the call of `slow_ms` waited for the engine before it was computed (since 3, like all that
            follows).
        sent: Calls that the server was asked in, and `replied` of them that it answered in time; `active` computed the
            others.
        remote_p50_ms: What its answers took, also those that came too late.
        server_failure: Why the server that was assigned cannot be asked, once for each time it was tried.
    """

    active: Name
    calls: Count = 0
    late: Count = 0
    failed: Count = 0
    p50_ms: Millis | None = None
    p95_ms: Millis | None = None
    switched_ms: Millis | None = None
    failed_variant: Name | None = None
    failure: Text | None = None
    arrived: Count | None = None
    latencies_ms: Annotated[tuple[Millis, ...], Meta(max_length=20)] = ()
    slow_ms: Millis | None = None
    runs: Variants | None = None
    computes_on: Annotated[str, Meta(max_length=200)] | None = None
    usage: AppUsage | None = None
    waited_ms: Millis | None = None
    sent: Count = 0
    replied: Count = 0
    remote_p50_ms: Millis | None = None
    server_failure: Text | None = None


class AppPin(Wire, frozen=True, kw_only=True):
    """The app's own pin; None takes it back."""

    variant: Name | None


class AppPrefer(Wire, frozen=True, kw_only=True):
    """What the app wants from now on; None is nothing."""

    preference: Preference | None


class PinRequest(Wire, frozen=True, kw_only=True):
    """An operator's pin."""

    model: Name
    variant: Name


class UnpinRequest(Wire, frozen=True, kw_only=True):
    """Take the operator's pin back, of one model or of all."""

    model: Name | None = None


class PreferRequest(Wire, frozen=True, kw_only=True):
    """An operator's preference, for one model or for all."""

    model: Name | None = None
    preference: Preference


class PositionReport(Wire, frozen=True, kw_only=True):
    """Where the board is, from whatever knows it.

    Attributes:
        lat: Degrees of WGS 84, north is positive.
        lon: Degrees, east is positive.
        for_s: It counts this long; tell it anew before.
    """

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]
    for_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 600.0


class Done(Wire, frozen=True, kw_only=True):
    """It is done."""

    text: Text = "done"


class ErrorBody(Wire, frozen=True, kw_only=True):
    """Why not."""

    code: Name
    text: Text


class AppStatus(Wire, frozen=True, kw_only=True):
    """One app as the daemon sees it.

    Attributes:
        most_per_s: The calls a second it was advised to keep below.
        computes_on: Who computes for it, as it said.
    """

    app: Token
    name: str
    pid: Count
    model: Name
    active: Name | None = None
    p50_ms: Millis | None = None
    p95_ms: Millis | None = None
    calls: Count = 0
    most_per_s: Rate | None = None
    computes_on: Annotated[str, Meta(max_length=200)] | None = None
    usage: AppUsage | None = None


class Status(Wire, frozen=True, kw_only=True):
    """All that `edge daemon status` shows.

    Attributes:
        left_out: Configured models that can't be served, and why.
        trouble: What hinders the daemon now, such as a full disk.
    """

    at: Unix
    started: Unix
    software: Text
    profile: Name | None
    board: Text | None
    conditions: Conditions
    models: dict[Name, ModelState]
    apps: tuple[AppStatus, ...]
    hub: Literal["none", "connecting", "connected", "refused"]
    hub_text: Text = ""
    spooled: Count = 0
    dropped: Count = 0
    left_out: dict[Name, Text] = {}
    trouble: tuple[Text, ...] = ()


class Explanation(Wire, frozen=True, kw_only=True):
    """The last decisions, newest first."""

    decisions: tuple[Decision, ...]


def socket_path(given: str | os.PathLike[str] | None = None) -> Path:
    """Where the daemon's socket is, or is to be."""
    if given:
        return Path(given)
    if variable := os.environ.get(SOCKET_VARIABLE):
        return Path(variable)
    system = Path("/run/edge")
    if (system / "api.sock").exists() or os.access(system if system.is_dir() else system.parent, os.W_OK):
        return system / "api.sock"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "edge" / "api.sock"
    return Path(f"/tmp/edge-{os.getuid()}/api.sock")  # noqa: S108 - the directory is made with mode 0700 and checked


class LocalClient:
    """One keep-alive connection to the daemon; not for several threads at once.

    Args:
        path: The socket, see `socket_path`.
        timeout_s: Deadline of connecting and of each answer.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = socket_path(path)
        self._timeout_s = timeout_s
        self._connection: UnixConnection | None = None
        self._is_interrupted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        """End a call that another thread is in, however far it is, and all that come: `DaemonUnreachableError`."""
        self._is_interrupted = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # it was closed already
                sock.shutdown(socket.SHUT_RDWR)

    def call(self, method: str, path: str, kind: type[T], body: Any = None, *, timeout_s: float | None = None) -> T:
        """One request and its answer.

        Raises:
            DaemonUnreachableError: Nobody answers on the socket, or not in time.
            PinnedError: A higher pin is in force.
            UnknownVariantError: The model has no such variant.
            CommandError: The daemon refused, with its code and reason.
        """
        from http.client import HTTPException  # brings email: the daemon, which has our messages only, does without

        from edge_sdk._unix_http import UnixConnection

        payload = None if body is None else encode(body)
        try:
            if self._connection is None:
                self._connection = UnixConnection(self.path, self._timeout_s)
                self._connection.connect()
            if self._is_interrupted:
                raise ConnectionAbortedError("it was interrupted")
            if self._connection.sock is not None:
                self._connection.sock.settimeout(timeout_s or self._timeout_s)
            self._connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            response = self._connection.getresponse()
            answer = response.read(MAX_BODY_BYTES + 1)
        except (OSError, HTTPException) as cause:
            self.close()
            raise DaemonUnreachableError(
                f"no daemon answers ({str(cause) or type(cause).__name__})",
                where=str(self.path),
                hint="start one with 'edge daemon run', or name its socket with --socket or EDGE_DAEMON_SOCKET",
            ) from cause
        if response.status < http.HTTPStatus.BAD_REQUEST:
            return decode(answer, kind, where=f"{method} {path}", max_bytes=MAX_BODY_BYTES)
        raise _refusal(decode(answer, ErrorBody, where=f"{method} {path}", max_bytes=MAX_BODY_BYTES))


def _refusal(body: ErrorBody) -> EdgeError:
    known: dict[str, type[EdgeError]] = {
        PinnedError.code: PinnedError,
        UnknownVariantError.code: UnknownVariantError,
        WireError.code: WireError,
    }
    error = known.get(body.code, CommandError)(body.text)
    if type(error) is CommandError:
        error.code = body.code  # type: ignore[misc]  # the daemon's own code is the one a script matches
    return error
