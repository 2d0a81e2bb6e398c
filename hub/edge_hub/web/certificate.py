"""The certificate of the HTTP API: whose it is, and how a new one comes to be served while the hub runs.

The hub's own authority signs it, as it does for the broker; or it lies in files that somebody else renews, such as
certbot. A connection is shown the newest that was in order when it began, and keeps that one: nothing ends or waits for
a change. A new `SSLContext` each time, for one that takes a certificate whose key has not come yet serves neither.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_hub.address import names_at
from edge_hub.broker.authority import Authority
from edge_hub.datadir import DataDir
from edge_hub.errors import CertificateError
from edge_sdk.address import Address
from edge_sdk.errors import EdgeError

if TYPE_CHECKING:
    from cryptography import x509

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_RENEW_S = 6 * 3600.0
_MAX_BYTES = 1024 * 1024
_HINT: Final = "name PEM files that this user may read: fullchain.pem and privkey.pem of certbot, or copies of them"

# Of a file, what is another as soon as it is replaced or written.
_Look = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Https:
    """That the HTTP API speaks TLS.

    Attributes:
        certificate: A PEM file: its certificate, and those between that and its authority; None has the hub's own
            authority sign one.
        key: Of its key, where that is in another file.
        names: Further host names and addresses that the hub's own authority signs for.
    """

    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()


class ServerCertificate:
    """What new connections are shown; read at once.

    Args:
        https: Where it comes from.
        data: Of the hub, with its authority.
        listen: Where the API is.

    Attributes:
        context: For the next connection.
        given: It lies in files of somebody else's.
        pem: The certificate itself.
        ends: When it does, in seconds since 1970.

    Raises:
        CertificateError: It cannot be served.
        StorageError: The authority cannot sign.
        UsageError: A name is none.
    """

    context: ssl.SSLContext
    pem: str
    ends: float

    def __init__(self, https: Https, data: DataDir, listen: Address) -> None:
        self._https = https
        self._listen = listen
        self.given = https.certificate is not None
        self._authority = None if self.given else Authority(data.authority)
        self._renew_at = 0.0
        self._seen: _Look = ()
        self.look()

    @property
    def trouble(self) -> str | None:
        """What is wrong with it."""
        return None if time.time() < self.ends else f"the certificate of the HTTP API ended on {_day(self.ends)}"

    async def keep(self, changed: Callable[[], None]) -> None:
        """Serve a new one soon after there is one.

        Args:
            changed: Called when it was.
        """
        is_new, trouble, told = False, "", ""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                is_new = await asyncio.to_thread(self.look) or is_new
                if is_new:
                    changed()
                is_new, trouble, told = False, "", ""
            except EdgeError as error:
                # Certificate and key do not come at once: what is wrong for a moment is not worth a word.
                if trouble == str(error) != told:
                    told = trouble
                    _log.error("the certificate of the HTTP API: %s", error)
                trouble = str(error)

    def look(self) -> bool:
        """Take a new certificate, where there is one; whether there was.

        Raises:
            EdgeError: As for the constructor; the old one is served on.
        """
        if self._authority is not None and time.monotonic() >= self._renew_at:
            self._authority.ensure_api(names_at(self._listen, self._https.names))
            self._renew_at = time.monotonic() + _RENEW_S
        files = self._files()
        if files == self._seen:
            return False
        cert, key = self._paths()
        found = _certificate(_read(cert), cert)
        if key is not None:
            _read(key)
        self.context = context_of(cert, key)
        self.pem, self.ends = _pem(found), found.not_valid_after_utc.timestamp()
        self._seen = files
        if (trouble := self.trouble) is not None:
            _log.warning("%s: who asks the API will not trust it", trouble)
        else:
            _log.info("the HTTP API has a certificate until %s", _day(self.ends))
        return True

    def _paths(self) -> tuple[Path, Path | None]:
        if self._authority is not None:
            return self._authority.api_cert, self._authority.api_key
        assert self._https.certificate is not None  # noqa: S101 - who has no authority was given one
        return self._https.certificate, self._https.key

    def _files(self) -> _Look:
        return tuple(_state(path) for path in self._paths() if path is not None)


def _state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as cause:
        raise CertificateError(f"cannot be read: {cause.strerror}", where=str(path), hint=_HINT) from cause
    if len(content) > _MAX_BYTES:
        raise CertificateError(f"more than {_MAX_BYTES} bytes", where=str(path), hint=_HINT)
    return content


def _certificate(content: bytes, path: Path) -> x509.Certificate:
    """The first, which is the server's own."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as cause:
        raise CertificateError("holds no certificate", where=str(path), hint=_HINT) from cause


def context_of(cert: Path, key: Path | None) -> ssl.SSLContext:
    """How to encrypt with these files.

    Raises:
        CertificateError: They cannot be served.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    locked: list[str] = []

    def password() -> str:
        """Nobody is there to type one, whom OpenSSL would ask."""
        locked.append("")
        return ""

    try:
        context.load_cert_chain(cert, key, password)
    except (OSError, ValueError) as cause:  # of which OpenSSL's are
        reason = (cause.reason or "PEM_LIB") if isinstance(cause, ssl.SSLError) else None
        if locked:
            what, hint = "the key is locked by a password", "name one without: openssl pkey -in KEY -out PLAIN"
        elif reason == "KEY_VALUES_MISMATCH":
            what, hint = "the key is another certificate's", "name the two that were made together"
        elif reason in {"PEM_LIB", "NO_START_LINE"}:
            what, hint = "holds no key", _HINT if key is not None else "name its file with --https-key"
        else:
            what, hint = f"cannot be served: {reason or cause}", _HINT
        raise CertificateError(what, where=str(key or cert), hint=hint) from cause
    return context


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
