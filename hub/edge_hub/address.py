"""Where to listen and where to connect: `HOST:PORT` and `mqtt[s]://user:password@host:port`, read strictly."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from edge_hub.errors import UnsafeListenError
from edge_sdk.errors import AddressInUseError, TransportError, UsageError

MQTT_PORT = 1883
MQTTS_PORT = 8883
_MAX_PORT = 65_535


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How the hub itself reaches the broker.

    Attributes:
        username: None connects without a name, which only a broker without access control takes.
        tls: Encrypt, and check the certificate against the system's authorities.
    """

    address: Address
    username: str | None = None
    password: str | None = None
    tls: bool = False

    def __repr__(self) -> str:
        # Never the password: this text reaches logs and errors.
        return f"Endpoint({'mqtts' if self.tls else 'mqtt'}://{self.address})"

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `mqtt[s]://user:password@host:port`.

        Raises:
            UsageError: It is not such a URL. The text does not repeat the URL, which may hold a password.
        """
        hint = "such as mqtts://hub:PASSWORD@broker.example:8883"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as cause:
            raise UsageError(f"the broker's URL has a bad port or host: {cause}", hint=hint) from cause
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
            raise UsageError("the broker's URL is not mqtt[s]://[user:password@]host[:port]", hint=hint)
        tls = parts.scheme == "mqtts"
        return cls(
            address=Address(host=parts.hostname, port=port or (MQTTS_PORT if tls else MQTT_PORT)),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password is not None else None,
            tls=tls,
        )


def as_others_reach(address: Address) -> Address:
    """The address a device is told: where we listen everywhere, this machine's own towards its default route."""
    # Addresses of documentation (RFC 5737, RFC 3849). Connecting a datagram socket looks up the route, sends nothing.
    everywhere = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}  # noqa: S104
    if address.host not in everywhere:
        return address
    family, far = everywhere[address.host]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
            host: str = probe.getsockname()[0]
        except OSError:  # no route: the name is the best there is
            host = socket.gethostname()
    return Address(host=host, port=address.port)


def refuse_unsafe(address: Address, *, what: str, allowed: bool) -> None:
    """Refuse to open a port to the network without encryption, unless the operator said so.

    Raises:
        UnsafeListenError: The address is not loopback and `allowed` is false.
    """
    if address.is_loopback or allowed:
        return
    raise UnsafeListenError(
        f"{what} would listen beyond this machine without encryption, passwords in clear",
        where=str(address),
        hint="listen on 127.0.0.1 behind a TLS proxy or VPN, or insist with --insecure-listen",
    )


def bind(address: Address, *, what: str, hint: str) -> socket.socket:
    """A listening socket.

    Raises:
        AddressInUseError: The port is taken.
        TransportError: The address is not ours to listen on.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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
