"""Where to connect: `mqtt[s]://user:password@host:port`, read strictly, and what a device is told of this machine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edge_sdk.address import Address
from edge_sdk.errors import StorageError, UsageError

MQTT_PORT = 1883
MQTTS_PORT = 8883


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How the hub itself reaches the broker.

    Attributes:
        username: None connects without a name, which only a broker without access control takes.
        tls: Encrypt, and check the certificate against `ca`, or the system's authorities.
        certificate: The hub's own, with `key`, for a broker that asks for one.
    """

    address: Address
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """How to encrypt; None where it is not.

        Raises:
            StorageError: A file is missing or is no certificate or key.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as cause:
            where = str(self.ca or self.certificate)
            raise StorageError(f"no certificate of an authority: {cause}", where=where) from cause
        return context

    def __repr__(self) -> str:
        # Never the password: this text reaches logs and errors.
        return f"Endpoint({'mqtts' if self.tls else 'mqtt'}://{self.address})"

    @classmethod
    def parse(cls, url: str, *, ca: Path | None = None) -> Endpoint:
        """Read `mqtt[s]://user:password@host:port`.

        Args:
            url: The text.
            ca: The authority of the broker's certificate, where the system does not know it.

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
        if ca is not None and not tls:
            raise UsageError("an authority is named for a broker without TLS", hint=hint)
        return cls(
            address=Address(host=parts.hostname, port=port or (MQTTS_PORT if tls else MQTT_PORT)),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password is not None else None,
            tls=tls,
            ca=ca,
        )


def as_we_reach(address: Address) -> Address:
    """The address for a client on this machine: where we listen everywhere, its loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared, not bound
    return Address(host=host, port=address.port)


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


def names_at(address: Address, further: Iterable[str]) -> tuple[str, ...]:
    """What this machine is called by who connects to that address, and these names: what its certificate is for."""
    return (as_others_reach(address).host, "localhost", "127.0.0.1", "::1", socket.gethostname(), *further)
