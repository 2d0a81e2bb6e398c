"""The ways on which alerts are told: a webhook by HTTP, a topic of the broker."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httpx

from edge_hub.alerts.delivery import Notice
from edge_hub.broker.accounts import ALERT_TOPIC
from edge_hub.tasks import within
from edge_sdk.errors import UsageError
from edge_sdk.wire import encode

# Its lines name the whole URL, which may hold a token.
logging.getLogger("httpx").setLevel(logging.WARNING)

SIGNATURE = "X-Edge-Signature"
TIMESTAMP = "X-Edge-Timestamp"
DELIVERY = "X-Edge-Delivery"
_TIMEOUT_S = 10.0  # of each step of it, as httpx counts
_WHOLE_S = 30.0
_MAX_URL_CHARS = 2000


class Webhook:
    """Posts each notice to a URL, signed. Any address will do, also a private one; redirects are not followed.

    Args:
        url: `http` or `https`.
        secret: Signs: the receiver computes HMAC-SHA256 over `TIMESTAMP.BODY` with it and compares.

    Raises:
        UsageError: It is no such URL.
    """

    def __init__(self, url: str, secret: str) -> None:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if not fits or len(url) > _MAX_URL_CHARS or not url.isprintable() or " " in url:
            raise UsageError("the webhook is no URL", hint="such as https://alerts.example/edge")
        self.name = f"webhook-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._url = url
        self._secret = secret.encode()

    async def tell(self, notice: Notice) -> str | None:
        """Post it; None when the answer is a success."""
        body = encode(notice)
        at = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "edge-hub",
            DELIVERY: notice.id,
            TIMESTAMP: at,
            SIGNATURE: sign(self._secret, at, body),
        }
        try:
            return await within(self._post(body, headers), _WHOLE_S)
        except asyncio.TimeoutError:
            return f"no answer within {_WHOLE_S:.0f} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return str(error) or type(error).__name__

    async def _post(self, body: bytes, headers: dict[str, str]) -> str | None:
        # A client of its own each: alerts are rare, and nothing is left open between them.
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", self._url, content=body, headers=headers) as answer,
        ):
            # What is answered is not read: only whether it was taken counts.
            return None if answer.is_success else f"status {answer.status_code}"


class Topic:
    """Publishes each notice on `edge/v1/hub/alerts`, which no device may read or write.

    Args:
        publish: `Link.publish`.
    """

    name = "mqtt"

    def __init__(self, publish: Callable[[str, bytes], Awaitable[bool]]) -> None:
        self._publish = publish

    async def tell(self, notice: Notice) -> str | None:
        """Hand it to the broker."""
        return None if await self._publish(ALERT_TOPIC, encode(notice)) else "not connected to the broker"


def sign(secret: bytes, at: str, body: bytes) -> str:
    """What stands in `X-Edge-Signature`."""
    return f"sha256={hmac.new(secret, at.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
