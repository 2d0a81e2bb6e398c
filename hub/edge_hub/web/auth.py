"""Who may ask: a bearer token for programs, a signed cookie for a browser, and a browser may only look.

The cookie is worth a token until it expires. It is `SameSite=Strict` and taken for reading only, so that no other
site can have a browser give orders.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from starlette.requests import Request

COOKIE = "edge-hub"
SESSION_S = 7 * 86_400
_MAX_TIME_DIGITS = 12


def may_read(request: Request, token: str) -> bool:
    """A token or a browser's session."""
    return has_token(request, token) or _session_holds(request.cookies.get(COOKIE, ""), token)


def has_token(request: Request, token: str) -> bool:
    """A token."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and token_holds(given.strip(), token)


def token_holds(given: str, token: str) -> bool:
    """It is the token; takes the same time whatever was given."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def new_session(token: str) -> str:
    """The value of a cookie that is worth the token for a while, and void when the token changes."""
    expires = int(time.time()) + SESSION_S
    return f"{expires}.{_mac(token, expires)}"


def _session_holds(value: str, token: str) -> bool:
    expires, _, mac = value.partition(".")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= _MAX_TIME_DIGITS):
        return False
    genuine = hmac.compare_digest(mac.encode("utf-8", "replace"), _mac(token, int(expires)).encode())
    return genuine and time.time() < int(expires)


def _mac(token: str, expires: int) -> str:
    return hmac.new(token.encode(), f"edge-hub session until {expires}".encode(), hashlib.sha256).hexdigest()
