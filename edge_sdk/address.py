"""Where to listen: `HOST:PORT`, read strictly, and a socket that listens there; beyond this machine only on demand."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass

from edge_sdk.errors import AddressInUseError, TransportError, UnsafeListenError, UsageError

_MAX_PORT = 65_535
_UNSAFE_HINT = "listen on 127.0.0.1 behind a TLS proxy or VPN, or insist with --insecure-listen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host (name or number) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT` or `[IPv6]:PORT`.

        Raises:
            UsageError: It is neither.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise UsageError(f"{text[:80]!r} is not HOST:PORT", hint="such as 127.0.0.1:8080 or [::1]:8080")
        return cls(host=host, port=int(port))


def refuse_unsafe(address: Address, *, what: str, allowed: bool, hint: str = _UNSAFE_HINT) -> None:
    """Refuse to open a port to the network without encryption, unless the operator said so.

    Args:
        address: To listen on.
        what: Would listen.
        allowed: The operator said so.
        hint: What to do instead.

    Raises:
        UnsafeListenError: The address is not loopback and `allowed` is false.
    """
    if address.is_loopback or allowed:
        return
    raise UnsafeListenError(
        f"{what} would listen beyond this machine without encryption, passwords in clear",
        where=str(address),
        hint=hint,
    )


def bind(address: Address, *, what: str, hint: str) -> socket.socket:
    """A listening socket.

    Raises:
        AddressInUseError: The port is taken.
        TransportError: The address is not ours to listen on.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Said to be TCP: only then does asyncio send without waiting for an acknowledgement, which costs 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(1024)
    except OSError as cause:
        listener.close()
        if cause.errno == errno.EADDRINUSE:
            raise AddressInUseError(f"{what}: the port is taken", where=str(address), hint=hint) from cause
        raise TransportError(
            f"{what} cannot listen: {cause.strerror or cause}", where=str(address), hint="check the address"
        ) from cause
    listener.setblocking(False)
    return listener


def check_free(address: Address, *, what: str, hint: str) -> None:
    """Find out now, in words of ours, that a port is taken; a child that is to listen there would say it in its own.

    Raises:
        AddressInUseError: The port is taken.
        TransportError: The address is not ours to listen on.
    """
    bind(address, what=what, hint=hint).close()
