"""Who may ask: whoever has the token."""

from __future__ import annotations

import hmac


def token_holds(authorization: str, token: str) -> bool:
    """It is `Bearer` and the token; takes the same time whatever was given."""
    scheme, _, given = authorization.partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"
