"""Whose certificate a client takes for a hub's, and what it says of one that it does not take."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_hub import environment
from edge_hub.datadir import DataDir
from edge_hub.errors import CertificateError, HubUntrustedError
from edge_sdk.errors import UsageError

# Of OpenSSL (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
_OTHER_NAME = frozenset({62, 64})  # a host's, an address's
# What OpenSSL makes of an answer that is no TLS, by version.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
_CLOCK_HINT: Final = "is this machine's clock right? 'openssl s_client' tells from when to when it counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose certificate counts.

    Attributes:
        ca: Those signed by one of these authorities (PEM); without them and `told_in` the system's sign.
        also: An authority beside the system's.
        told_in: The one that is told in this data directory, whatever name it is for. It may be another in a while.
    """

    ca: Path | None = None
    also: Path | None = None
    told_in: DataDir | None = None

    @classmethod
    def of(cls, data: DataDir | None, url: str | None) -> Trust:
        """That of who has a hub's data directory.

        Args:
            data: The directory, None where there is none.
            url: Where the hub is asked; None where the directory says it.
        """
        if data is None:
            return cls()
        settings = data.read_settings()
        if settings is None or (url is not None and url.rstrip("/") != settings.url):
            return cls(also=data.ca)
        return cls(ca=data.ca) if settings.certificate is None else cls(told_in=data)

    @classmethod
    def named(cls, ca: Path | None, url: str, *, elsewhere: bool) -> Trust | None:
        """The authority that an option names, else `EDGE_HUB_CA`; None where neither does.

        Args:
            ca: What the option says.
            url: Where the hub is asked.
            elsewhere: A URL was given. The variable is of that hub, not of the one of the data directory.

        Raises:
            UsageError: The option, for a hub that is asked without TLS.
        """
        if not url.lower().startswith("https:"):
            if ca is not None:
                raise UsageError("an authority is named for a hub without TLS", hint="ask it at https://")
            return None
        told = environment.value(environment.CA) if elsewhere else None
        found = ca or (None if told is None else Path(told))
        return None if found is None else cls(ca=found)

    def context(self) -> ssl.SSLContext:
        """How to encrypt, and what to check.

        Raises:
            CertificateError: A file is missing or holds no certificate.
            StorageError: The data directory cannot be read.
        """
        if self.told_in is not None:
            settings = self.told_in.read_settings()
            if settings is None or settings.certificate is None:  # a later run of the hub has its authority sign
                return Trust(ca=self.told_in.ca).context()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The certificate itself is what is trusted, not who signed it, for what, or until when: whoever is at the
            # machine is to get through also where its renewal failed, or its clock is wrong.
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
            context.load_verify_locations(cadata=settings.certificate)
        else:
            try:
                context = ssl.create_default_context(cafile=self.ca)
                if self.also is not None:
                    context.load_verify_locations(self.also)
            except (OSError, ValueError) as cause:  # of which OpenSSL's are
                what = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
                raise CertificateError(
                    f"no certificate of an authority: {what}",
                    where=str(self.ca or self.also),
                    hint="a PEM file, such as broker/authority/ca.pem of the hub's data directory",
                ) from cause
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def explained(cause: BaseException, url: str, host: str) -> HubUntrustedError | None:
    """What is wrong where TLS came to nothing; None where it is something else."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        what, hint = _refused(cause, host)
    elif isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        what, hint = "what answers there speaks no TLS", "ask http:// instead, or start the hub with --https"
    else:
        return None
    return HubUntrustedError(what, where=url, hint=hint)


def _refused(cause: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    """What is wrong with a certificate, and what to try."""
    if cause.verify_code == _EXPIRED:
        return "the hub's certificate has ended", _CLOCK_HINT
    if cause.verify_code == _NOT_YET_VALID:
        return "the hub's certificate does not count yet", _CLOCK_HINT
    if cause.verify_code in _OTHER_NAME:
        return (
            f"the hub's certificate is not for {host!r}",
            "ask by a name that it is for, or start the hub with --https --tls-name",
        )
    return (
        f"the hub's certificate is of nobody who is trusted here ({cause.verify_message})",
        f"name who signed it by --hub-ca FILE or {environment.CA}: broker/authority/ca.pem of the hub's data directory",
    )
