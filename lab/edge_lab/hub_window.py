"""The hub as the demonstration looks at it and speaks through it: its HTTP API, nothing else.

The page of a play tells what the hub has stored, never what the daemon says beside it: so the story proves the way
over MQTT.
"""

from __future__ import annotations

import http
import http.client
from pathlib import Path
from typing import Any, TypeVar

from edge_hub.api import (
    MAX_PAGE,
    Accepted,
    CommandRequest,
    CommandView,
    DeviceDetail,
    DeviceView,
    EventPage,
    EventView,
    Health,
    to_json,
)
from edge_hub.datadir import DataDir
from edge_sdk.errors import TransportError
from edge_sdk.mqtt import Command
from edge_sdk.wire import decode

_TIMEOUT_S = 2.0
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_EXPIRES_S = 30.0

T = TypeVar("T")


class HubWindow:
    """Asks a hub on this machine; one connection a question.

    Args:
        address: Of its HTTP API.
        data: Its data directory, where the token lies.
    """

    def __init__(self, address: tuple[str, int], data: Path) -> None:
        self._address = address
        self._data = data

    def health(self) -> Health:
        """How it is.

        Raises:
            TransportError: It does not answer; so for all that follow.
        """
        return self._ask("GET", "/api/v1/health", Health)

    def device(self, name: str) -> DeviceView:
        """What it knows of a device."""
        return self._ask("GET", f"/api/v1/devices/{name}", DeviceDetail).device

    def events(self, after: int) -> tuple[EventView, ...]:
        """The events after this one, the oldest first."""
        return self._ask("GET", f"/api/v1/events?after={after}&limit={MAX_PAGE}", EventPage).events

    def send(self, name: str, command: Command) -> str:
        """Send a command; returns its id."""
        request = CommandRequest(device=name, command=command, expires_s=_EXPIRES_S)
        sent = self._ask("POST", "/api/v1/commands", Accepted, request)
        return sent.id or sent.ids[name]

    def command(self, sent: str) -> CommandView:
        """What became of a command."""
        return self._ask("GET", f"/api/v1/commands/{sent}", CommandView)

    def _ask(self, method: str, path: str, kind: type[T], body: Any = None) -> T:
        token = DataDir(self._data).read_token() or ""
        payload = None if body is None else to_json(body)
        headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": "application/json"} if payload else {})
        connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as cause:
            raise TransportError(
                f"the hub does not answer ({str(cause) or type(cause).__name__})", where=path
            ) from cause
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise TransportError(f"the hub answered {response.status}: {answer[:300]!r}", where=path)
        return decode(answer, kind, where=path, max_bytes=_MAX_ANSWER_BYTES)
