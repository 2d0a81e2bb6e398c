"""The hub's HTTP API as methods, one a route: what the `edge hub` commands speak through."""

from __future__ import annotations

import http
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlencode

import msgspec

from edge_hub import environment
from edge_hub.alerts.rules import Rule
from edge_hub.alerts.views import (
    AlertPage,
    AlertView,
    RuleList,
    RuleView,
    Silence,
    SilenceList,
    SilenceRequest,
)
from edge_hub.api import (
    Accepted,
    BatchView,
    CommandPage,
    CommandRequest,
    CommandView,
    Credentials,
    CredentialsList,
    DesiredRequest,
    DesiredView,
    DeviceDetail,
    DeviceList,
    DeviceView,
    EnrolAllRequest,
    EnrolRequest,
    EventPage,
    EventView,
    ExportQuery,
    Health,
    HistoryView,
    LabelsRequest,
    Quarantine,
    QuarantinedView,
    RemoveAllRequest,
    Removed,
    to_json,
)
from edge_hub.api_admin import (
    AuditPage,
    AuditView,
    GroupList,
    GroupRequest,
    GroupView,
    Login,
    NewToken,
    RoleName,
    Session,
    TokenList,
    TokenRequest,
    TokenView,
)
from edge_hub.datadir import DataDir
from edge_hub.errors import AnswerError, QueryError, TokenRefusedError
from edge_hub.overview import FleetView, ModelList, ModelUse
from edge_hub.rows import Row, RowList
from edge_hub.transport import Answer, Transport
from edge_hub.trust import Trust
from edge_sdk.errors import EXIT_USAGE, UsageError, WireError
from edge_sdk.local import ErrorBody
from edge_sdk.mqtt import Command, DeviceId
from edge_sdk.wire import decode

if TYPE_CHECKING:
    from typing_extensions import Self

_ANSWER_S = 15.0
_ORDER_S = 60.0  # to thousands of devices
_ENROL_S = 60.0  # of a thousand devices, each with a certificate
_EXPORT_S = 120.0  # between two parts of it: rows that are not wanted are read, too
_SILENCE_S = 40.0  # of a stream; the hub sends a sign of life every 15 s
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_USAGE = frozenset({UsageError.code, QueryError.code})

T = TypeVar("T")


class HubClient:
    """Asks a hub.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: The administrator's.
        ca: Who may have signed its certificate (PEM), with `https://`; None means the system's authorities.
        trust: The same in full, instead.

    Raises:
        UsageError: It is no such URL, or nothing that a hub makes a token of.
        CertificateError: There is no such file, or there are no certificates in it.
    """

    def __init__(self, url: str, token: str, *, ca: Path | None = None, trust: Trust | None = None) -> None:
        if not (token.isascii() and token.isprintable()):
            raise UsageError(
                "the token has characters that no token has", hint="is it one line, copied as it was told?"
            )
        self._token = token
        self._transport = Transport(url, {"Authorization": f"Bearer {token}"}, trust or Trust(ca=ca))
        self.url = url

    @classmethod
    def of(cls, *, url: str | None, data: Path | None, ca: Path | None = None) -> HubClient:
        """A client for the hub at `url`, or the one that `data` is the directory of, with its token.

        The hub that the directory is of is trusted by it; another one as well, where its authority signed.

        Raises:
            UsageError: Neither tells where the hub is, or there is no token.
        """
        if data is None:
            raise UsageError("no data directory", hint="name the hub's with --data DIR: its token lies there")
        if not data.is_dir():
            raise UsageError(
                "there is no such directory",
                where=str(data),
                hint=f"start a hub with 'edge hub run --data', or say by {environment.URL} and {environment.TOKEN} "
                "where one is",
            )
        directory = DataDir(data)
        token, settings = directory.read_token(), directory.read_settings()
        if token is None or (url is None and settings is None):
            raise UsageError(
                "no hub has run with this data directory", where=str(data), hint="start one with 'edge hub run --data'"
            )
        where = url or (settings.url if settings is not None else "")
        return cls(where, token, trust=Trust.named(ca, where, elsewhere=url is not None) or Trust.of(directory, url))

    @classmethod
    def asked(cls, *, url: str | None, data: Path, ca: str | None = None) -> HubClient:
        """The same for who types a command, perhaps far from that directory, with what the environment says.

        `EDGE_HUB_URL` and, for a hub that is said by a URL, `EDGE_HUB_CA` stand in for their options; `EDGE_HUB_TOKEN`
        goes before the directory's token.

        Raises:
            UsageError: Nothing tells where the hub is, or there is no token.
        """
        url, token = url or environment.value(environment.URL), environment.value(environment.TOKEN)
        named = None if ca is None else Path(ca)
        if token is None:
            return cls.of(url=url, data=data, ca=named)
        directory = DataDir(data) if url is None and data.is_dir() else None
        settings = None if directory is None else directory.read_settings()
        if url is None and settings is None:
            raise UsageError("a token but no hub", hint=f"name its API with --hub URL or in {environment.URL}")
        where = url or (settings.url if settings is not None else "")
        return cls(where, token, trust=Trust.named(named, where, elsewhere=url is not None) or Trust.of(directory, url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def health(self) -> Health:
        """How the hub is. All methods raise `HubUnreachableError`, `TokenRefusedError` or `AnswerError`."""
        return self._ask("GET", "/api/v1/health", Health, unwell=True)

    def devices(self) -> tuple[DeviceView, ...]:
        """All devices."""
        return self._ask("GET", "/api/v1/devices", DeviceList).devices

    def rows(self, query: str = "") -> tuple[Row, ...]:
        """The devices that a query means, in short."""
        return self._ask("GET", _with("/api/v1/rows", query=query or None), RowList).rows

    def fleet(self) -> FleetView:
        """Totals."""
        return self._ask("GET", "/api/v1/fleet", FleetView)

    def models(self) -> tuple[ModelUse, ...]:
        """Models, their variants, and where they run."""
        return self._ask("GET", "/api/v1/models", ModelList).models

    def device(self, device: DeviceId) -> DeviceDetail:
        """One device, with what happened to it last."""
        return self._ask("GET", f"/api/v1/devices/{device}", DeviceDetail)

    def history(
        self,
        device: DeviceId,
        *,
        since: float | None = None,
        until: float | None = None,
        step_s: float | None = None,
    ) -> HistoryView:
        """A device over time: the last day, unless told otherwise."""
        path = _with(f"/api/v1/devices/{device}/history", since=since, until=until, step_s=step_s)
        return self._ask("GET", path, HistoryView)

    def events(
        self,
        *,
        device: DeviceId | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> tuple[EventView, ...]:
        """The last events, or those after one, by ascending id."""
        path = _with("/api/v1/events", device=device, after=after, before=before, limit=limit)
        return self._ask("GET", path, EventPage).events

    def quarantine(self) -> tuple[QuarantinedView, ...]:
        """The last refused messages, the newest first."""
        return self._ask("GET", "/api/v1/quarantine", Quarantine).messages

    def export(self, what: str, into: BinaryIO, asked: ExportQuery) -> None:
        """Write rows of one kind into a file as they come. What raises left a part of them in it.

        Args:
            what: One of `api.Kept`.
            into: Stays open.
            asked: Which rows, and how they are written.
        """
        path = _with(f"/api/v1/export/{what}", **msgspec.to_builtins(asked))
        with self._transport.body(path, silence_s=_EXPORT_S) as (status, chunks):
            if status >= http.HTTPStatus.BAD_REQUEST:
                raise self._refusal(status, next(chunks, b""), path)
            into.writelines(chunks)

    def metrics(self) -> str:
        """The page for Prometheus."""
        return self._raw("GET", "/metrics").decode()

    def openapi(self) -> dict[str, Any]:
        """The description of the API for programs."""
        return self._ask("GET", "/api/v1/openapi.json", dict[str, Any])

    # ------------------------------------------------------------------------------------------------- orders

    def send(self, devices: Sequence[DeviceId], command: Command, *, expires_s: float) -> dict[str, str]:
        """Send a command to each device; returns the ids by device."""
        request = CommandRequest(devices=tuple(map(str, devices)), command=command, expires_s=expires_s)
        return self.order(request).ids

    def send_to(self, query: str, command: Command, *, expires_s: float) -> Accepted:
        """Send a command to each device that a query means now."""
        return self.order(CommandRequest(query=query, command=command, expires_s=expires_s))

    def order(self, request: CommandRequest) -> Accepted:
        """Send a command; the answer names the batch and each command."""
        return self._ask("POST", "/api/v1/commands", Accepted, request, timeout_s=_ORDER_S)

    def commands(self, *, before: float | None = None, limit: int = 100) -> tuple[CommandView, ...]:
        """The last commands of the fleet, the newest first."""
        return self._ask("GET", _with("/api/v1/commands", before=before, limit=limit), CommandPage).commands

    def batch(self, batch: str) -> BatchView:
        """What became of commands that were ordered at once."""
        return self._ask("GET", f"/api/v1/batches/{batch}", BatchView)

    def cancel(self, id_: str) -> CommandView:
        """Give up on a command; its state says whether that came in time."""
        return self._ask("DELETE", f"/api/v1/commands/{id_}", CommandView)

    def cancel_batch(self, batch: str) -> BatchView:
        """Give up on all of a batch that wait."""
        return self._ask("DELETE", f"/api/v1/batches/{batch}", BatchView)

    def desired(self, device: DeviceId) -> DesiredView:
        """A device's desired document, and how far the device is."""
        return self._ask("GET", f"/api/v1/devices/{device}/desired", DesiredView)

    def set_desired(self, device: DeviceId, request: DesiredRequest) -> DesiredView:
        """Replace it."""
        return self._ask("PUT", f"/api/v1/devices/{device}/desired", DesiredView, request)

    def set_labels(self, device: DeviceId, labels: dict[str, str]) -> None:
        """Replace a device's labels."""
        self._ask("PUT", f"/api/v1/devices/{device}/labels", LabelsRequest, LabelsRequest(labels=labels))

    # ------------------------------------------------------------------------------------------ groups, alerts

    def groups(self) -> tuple[GroupView, ...]:
        """Named queries, by name."""
        return self._ask("GET", "/api/v1/groups", GroupList).groups

    def group(self, name: str) -> GroupView:
        """One of them."""
        return self._ask("GET", f"/api/v1/groups/{name}", GroupView)

    def put_group(self, name: str, query: str) -> GroupView:
        """Name a query."""
        return self._ask("PUT", f"/api/v1/groups/{name}", GroupView, GroupRequest(query=query))

    def delete_group(self, name: str) -> None:
        """Forget the name."""
        self._raw("DELETE", f"/api/v1/groups/{name}")

    def alerts(
        self, *, open_only: bool = False, device: DeviceId | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[AlertView, ...]:
        """Alerts, the newest first."""
        path = _with("/api/v1/alerts", open=1 if open_only else None, device=device, before=before, limit=limit)
        return self._ask("GET", path, AlertPage).alerts

    def acknowledge(self, alert: int) -> AlertView:
        """Say that it was seen."""
        return self._ask("POST", f"/api/v1/alerts/{alert}/acknowledge", AlertView)

    def silences(self) -> tuple[Silence, ...]:
        """What nobody is told of."""
        return self._ask("GET", "/api/v1/silences", SilenceList).silences

    def silence(self, request: SilenceRequest) -> Silence:
        """Tell nobody for a while."""
        return self._ask("POST", "/api/v1/silences", Silence, request)

    def end_silence(self, name: str) -> None:
        """Tell of them again."""
        self._raw("DELETE", f"/api/v1/silences/{name}")

    def rules(self) -> tuple[RuleView, ...]:
        """Alert rules, by name."""
        return self._ask("GET", "/api/v1/rules", RuleList).rules

    def rule(self, name: str) -> RuleView:
        """One of them."""
        return self._ask("GET", f"/api/v1/rules/{name}", RuleView)

    def put_rule(self, name: str, rule: Rule) -> RuleView:
        """Make a rule, or replace it."""
        return self._ask("PUT", f"/api/v1/rules/{name}", RuleView, rule)

    def delete_rule(self, name: str) -> None:
        """Remove a rule; a built-in one is again as it came."""
        self._raw("DELETE", f"/api/v1/rules/{name}")

    # ----------------------------------------------------------------------------------------------- the hub's

    def audit(self, *, before: int | None = None, limit: int = 100) -> tuple[AuditView, ...]:
        """Who did what, the newest first."""
        return self._ask("GET", _with("/api/v1/audit", before=before, limit=limit), AuditPage).entries

    def session(self) -> Session:
        """Who asks, and what they may."""
        return self._ask("GET", "/api/v1/session", Session)

    def log_in(self) -> Session:
        """Exchange the token for a cookie, as a browser does; what is asked after that still goes by the token."""
        return self._ask("POST", "/api/v1/session", Session, Login(token=self._token))

    def log_out(self) -> None:
        """Let go of the cookie."""
        self._raw("DELETE", "/api/v1/session")

    def tokens(self) -> tuple[TokenView, ...]:
        """Tokens, without themselves."""
        return self._ask("GET", "/api/v1/tokens", TokenList).tokens

    def make_token(self, name: str, role: RoleName, *, expires_s: float | None = None) -> NewToken:
        """Make a token; it is in this answer and nowhere else."""
        return self._ask("POST", "/api/v1/tokens", NewToken, TokenRequest(name=name, role=role, expires_s=expires_s))

    def withdraw_token(self, name: str) -> None:
        """End a token and its sessions."""
        self._raw("DELETE", f"/api/v1/tokens/{name}")

    def command(self, id_: str, *, wait_s: float = 0.0) -> CommandView:
        """What became of a command, waited for at most so long."""
        path = f"/api/v1/commands/{id_}?wait_s={wait_s:g}"
        return self._ask("GET", path, CommandView, timeout_s=wait_s + _ANSWER_S)

    def enrol(self, device: DeviceId, *, again: bool) -> Credentials:
        """Give a device credentials; the password is in this answer and nowhere else."""
        return self._ask("POST", "/api/v1/devices", Credentials, EnrolRequest(device=str(device), again=again))

    def revoke(self, device: DeviceId) -> None:
        """Let a device in no more, until it is enrolled again."""
        self._raw("DELETE", f"/api/v1/devices/{device}/credentials")

    def remove(self, device: DeviceId) -> Removed:
        """Take a device out of the fleet, with all that is kept of it."""
        return self._ask("DELETE", f"/api/v1/devices/{device}", Removed, timeout_s=_ORDER_S)

    def remove_all(self, devices: Sequence[DeviceId]) -> Removed:
        """Take devices out of the fleet, at most 1000 at once."""
        request = RemoveAllRequest(devices=tuple(map(str, devices)))
        return self._ask("POST", "/api/v1/removals", Removed, request, timeout_s=_ORDER_S)

    def enrol_all(self, devices: Sequence[DeviceId], *, again: bool) -> tuple[Credentials, ...]:
        """Give devices credentials, at most 1000 at once."""
        request = EnrolAllRequest(devices=tuple(map(str, devices)), again=again)
        return self._ask("POST", "/api/v1/enrolments", CredentialsList, request, timeout_s=_ENROL_S).devices

    def news(self, *, after: int | None = None) -> Iterator[tuple[str, bytes]]:
        """What happens from now on (and the events after `after`): topic and JSON, until the hub ends."""
        path = _with("/api/v1/stream", after=after)
        with self._transport.lines(path, silence_s=_SILENCE_S) as (status, lines):
            if status >= http.HTTPStatus.BAD_REQUEST:
                raise self._refusal(status, b"\n".join(lines), path)
            topic, data = "message", b""
            for line in lines:
                if line.startswith(b"event: "):
                    topic = line[7:].decode("ascii", "replace")
                elif line.startswith(b"data: "):
                    data = line[6:]
                elif not line and data:
                    yield topic, data
                    topic, data = "message", b""

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any = None,
        *,
        timeout_s: float = _ANSWER_S,
        unwell: bool = False,
    ) -> T:
        content = self._raw(method, path, body, timeout_s=timeout_s, unwell=unwell)
        return decode(content, kind, where=f"{self.url}{path[:100]}", max_bytes=_MAX_ANSWER_BYTES)

    def _raw(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = _ANSWER_S, unwell: bool = False
    ) -> bytes:
        content = None if body is None else to_json(body)
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._transport.ask(method, path, content, timeout_s=timeout_s)
            wait_s = _wait_s(answer)
            if wait_s is None or time.monotonic() + wait_s > deadline:
                break
            time.sleep(wait_s)
        if answer.status >= http.HTTPStatus.BAD_REQUEST and not unwell:
            raise self._refusal(answer.status, answer.content, path)
        return answer.content

    def _refusal(self, status: int, content: bytes, path: str) -> AnswerError | TokenRefusedError:
        try:
            body = decode(content, ErrorBody, where=path)
        except WireError:
            body = ErrorBody(code=AnswerError.code, text=f"HTTP status {status}: is this a hub?")
        if body.code == TokenRefusedError.code:
            return TokenRefusedError(
                "the hub refuses the token", where=self.url, hint="is --data this hub's directory?"
            )
        error = AnswerError(body.text, answer=body.code, status=status)
        error.code = body.code  # type: ignore[misc]  # the hub's own code is the one a script matches
        if body.code in _USAGE:
            error.exit_status = EXIT_USAGE  # type: ignore[misc]  # as where it is found here
        return error


def _with(path: str, **query: Any) -> str:
    """The path with those parameters that are given."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _wait_s(answer: Answer) -> float | None:
    """How long to wait before the same is asked again; None where it was answered."""
    if answer.status != http.HTTPStatus.TOO_MANY_REQUESTS:
        return None
    told = answer.headers.get("retry-after", "1")
    return float(told) if told.isascii() and told.isdigit() and len(told) <= 4 else 1.0  # noqa: PLR2004 - hours
