"""The hub's HTTP API as methods: what `edge hub devices`, `show`, `send`, `watch` and `enroll` speak through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from edge_hub.api import (
    Accepted,
    CommandRequest,
    CommandView,
    Credentials,
    CredentialsList,
    DeviceDetail,
    DeviceList,
    DeviceView,
    EnrolAllRequest,
    EnrolRequest,
    EventPage,
    EventView,
    Health,
    to_json,
)
from edge_hub.datadir import DataDir
from edge_hub.errors import AnswerError, HubUnreachableError, TokenRefusedError
from edge_sdk.errors import UsageError, WireError
from edge_sdk.local import ErrorBody
from edge_sdk.mqtt import Command, DeviceId
from edge_sdk.wire import decode

if TYPE_CHECKING:
    from typing_extensions import Self

_CONNECT_S = 5.0
_ANSWER_S = 15.0
_ENROL_S = 60.0  # of a thousand devices, each a commit
_SILENCE_S = 40.0  # of a stream; the hub sends a sign of life every 15 s
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_LINE_CHARS = 4 * 1024 * 1024

T = TypeVar("T")


class HubClient:
    """Asks a hub.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: The administrator's.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
                trust_env=False,  # a proxy of the environment has no business between us and a hub
            )
        except (httpx.InvalidURL, ValueError) as cause:
            raise UsageError(f"{url[:200]!r} is no URL", hint="such as http://127.0.0.1:8080") from cause
        self.url = url

    @classmethod
    def of(cls, *, url: str | None, data: Path | None) -> HubClient:
        """A client for the hub at `url`, or the one that `data` is the directory of, with its token.

        Raises:
            UsageError: Neither tells where the hub is, or there is no token.
        """
        if data is None:
            raise UsageError("no data directory", hint="name the hub's with --data DIR: its token lies there")
        if not data.is_dir():
            raise UsageError(
                "there is no such directory", where=str(data), hint="start a hub with 'edge hub run --data'"
            )
        directory = DataDir(data)
        token, settings = directory.read_token(), directory.read_settings()
        if token is None or (url is None and settings is None):
            raise UsageError(
                "no hub has run with this data directory", where=str(data), hint="start one with 'edge hub run --data'"
            )
        return cls(url or (settings.url if settings is not None else ""), token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """How the hub is. All methods raise `HubUnreachableError`, `TokenRefusedError` or `AnswerError`."""
        return self._ask("GET", "/api/v1/health", Health, unwell=True)

    def devices(self) -> tuple[DeviceView, ...]:
        """All devices."""
        return self._ask("GET", "/api/v1/devices", DeviceList).devices

    def device(self, device: DeviceId) -> DeviceDetail:
        """One device, with what happened to it last."""
        return self._ask("GET", f"/api/v1/devices/{device}", DeviceDetail)

    def events(self, *, after: int | None = None, limit: int = 100) -> tuple[EventView, ...]:
        """The last events, or those after one, by ascending id."""
        query = f"?limit={limit}" + ("" if after is None else f"&after={after}")
        return self._ask("GET", f"/api/v1/events{query}", EventPage).events

    def send(self, devices: Sequence[DeviceId], command: Command, *, expires_s: float) -> dict[str, str]:
        """Send a command to each device; returns the ids by device."""
        request = CommandRequest(devices=tuple(map(str, devices)), command=command, expires_s=expires_s)
        return self._ask("POST", "/api/v1/commands", Accepted, request).ids

    def command(self, id_: str, *, wait_s: float = 0.0) -> CommandView:
        """What became of a command, waited for at most so long."""
        path = f"/api/v1/commands/{id_}?wait_s={wait_s:g}"
        return self._ask("GET", path, CommandView, timeout_s=wait_s + _ANSWER_S)

    def enrol(self, device: DeviceId, *, again: bool) -> Credentials:
        """Give a device credentials; the password is in this answer and nowhere else."""
        return self._ask("POST", "/api/v1/devices", Credentials, EnrolRequest(device=str(device), again=again))

    def enrol_all(self, devices: Sequence[DeviceId], *, again: bool) -> tuple[Credentials, ...]:
        """Give devices credentials, at most 1000 at once."""
        request = EnrolAllRequest(devices=tuple(map(str, devices)), again=again)
        return self._ask("POST", "/api/v1/enrolments", CredentialsList, request, timeout_s=_ENROL_S).devices

    def news(self, *, after: int | None = None) -> Iterator[tuple[str, bytes]]:
        """What happens from now on (and the events after `after`): topic and JSON, until the hub ends."""
        query = "" if after is None else f"?after={after}"
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        try:
            with self._http.stream("GET", f"/api/v1/stream{query}", timeout=timeout) as response:
                if response.is_error:
                    raise self._refusal(response.status_code, response.read(), "/api/v1/stream")
                topic, data = "message", ""
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        topic = line[7:]
                    elif line.startswith("data: ") and len(line) <= _MAX_LINE_CHARS:
                        data = line[6:]
                    elif not line and data:
                        yield topic, data.encode()
                        topic, data = "message", ""
        except httpx.HTTPError as cause:
            raise self._unreachable(cause) from cause

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
        content = None if body is None else to_json(body)
        try:
            response = self._http.request(
                method,
                path,
                content=content,
                headers={"Content-Type": "application/json"} if content else None,
                timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            )
        except httpx.HTTPError as cause:
            raise self._unreachable(cause) from cause
        if response.is_error and not unwell:
            raise self._refusal(response.status_code, response.content, path)
        return decode(response.content, kind, where=f"{self.url}{path}", max_bytes=_MAX_ANSWER_BYTES)

    def _unreachable(self, cause: httpx.HTTPError) -> HubUnreachableError:
        return HubUnreachableError(
            f"no hub answers ({str(cause) or type(cause).__name__})",
            where=self.url,
            hint="start one with 'edge hub run', or name it with --hub URL",
        )

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
        return error
