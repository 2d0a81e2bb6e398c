"""Where a server of models is, `SCHEME://HOST[:PORT][/PREFIX]`: read strictly, by who asks it and who looks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

HINT: Final = "such as http://board-2:8080, https://HOST, grpc://HOST:PORT"
_PORTS: Final = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Its parts; `prefix` is the path that its API lies under."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def is_encrypted(self) -> bool:
        """By TLS."""
        return self.scheme in {"https", "grpcs"}

    @classmethod
    def read(cls, url: str) -> ServerAddress:
        """The parts of an address.

        Raises:
            ValueError: It is none, or holds a name and a password; the text goes on from "it" and repeats none of it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as cause:
            raise ValueError("has a bad host or port") from cause
        if "@" in parts.netloc:
            raise ValueError("holds a name or a password, which are not sent")
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("is not SCHEME://HOST[:PORT]")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("holds characters that none has")
        return cls(
            scheme=parts.scheme, host=parts.hostname, port=port or _PORTS[parts.scheme], prefix=parts.path.rstrip("/")
        )
