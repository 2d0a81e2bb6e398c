"""The hub's own certificate authority: it signs for its broker, its HTTP API and devices, and revokes.

Everything lies in one directory, keys readable for their owner alone. Devices are given the authority's certificate
when they are enrolled and trust that and nothing else, so that no public authority has a say. Certificates begin in
1970: a board without a battery for its clock must get through all the same, and a beginning guards nothing here.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, structs

from edge_hub.datadir import CA, PRIVATE_DIRECTORY, PRIVATE_FILE, read_kept
from edge_sdk import atomic
from edge_sdk.errors import StorageError, UsageError
from edge_sdk.wire import Unix, Wire, canonical

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_S = 20 * 365 * 86_400.0
SERVER_S = 397 * 86_400.0  # what browsers bear; nobody here asks, and renewing is our own affair
DEVICE_S = 10 * 365 * 86_400.0  # the life of a board; `edge hub revoke` ends it earlier
_RENEWED_AT = 2 / 3  # of its life
_MAX_RECORDS_BYTES = 64 * 1024 * 1024
_MAX_NAMES = 100

_HOST = re.compile(r"\A[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")

Serial = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,40}\Z")]


class _Issued(Wire, frozen=True, kw_only=True):
    """A certificate of a device."""

    serial: Serial
    until: Unix
    revoked: Unix | None = None


class _Records(Wire, frozen=True, kw_only=True):
    """All that may have to be revoked, by device."""

    devices: dict[str, tuple[_Issued, ...]] = {}


class Authority:
    """The authority of one hub; made at first use, read afterwards.

    Args:
        directory: Of its files; made 0700.
        now: Seconds since 1970.

    Raises:
        StorageError: The directory cannot be written, or what is in it cannot be read.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        self.ca, self.crl = directory / CA, directory / "crl.pem"
        self.server_cert, self.server_key = directory / "server.pem", directory / "server.key"
        self.api_cert, self.api_key = directory / "api.pem", directory / "api.key"
        self.hub_cert, self.hub_key = directory / "hub.pem", directory / "hub.key"
        self._records = directory / "issued.json"
        self._now = now
        self._recording = threading.Lock()
        with atomic.storage_errors(directory):
            directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        key_path = directory / "ca.key"
        if not (self.ca.exists() and key_path.exists()):
            _begin(self.ca, key_path, now() + AUTHORITY_S)
        self._certificate, self._key = _load(self.ca, key_path)
        self._write_crl(self._read())
        self._ensure(self.hub_cert, self.hub_key, "hub", DEVICE_S, names=None)

    @property
    def ca_pem(self) -> str:
        """What a device trusts."""
        return self.ca.read_text("ascii")

    def ensure_server(self, names: Iterable[str]) -> bool:
        """Have a certificate for these host names and addresses that does not end soon.

        Returns:
            Whether it is a new one.
        """
        return self._ensure_for(names, self.server_cert, self.server_key)

    def ensure_api(self, names: Iterable[str]) -> bool:
        """The same for the HTTP API, which is reached elsewhere than the broker."""
        return self._ensure_for(names, self.api_cert, self.api_key)

    def issue(self, device: str) -> tuple[str, str]:
        """A certificate for a device and its key, both PEM; the key is kept nowhere here. Earlier ones end."""
        return self.issue_all((device,))[0]

    def issue_all(self, devices: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """The same for several, recorded in one go."""
        until = self._now() + DEVICE_S
        made = [self._sign(device, until, names=None) for device in devices]
        with self._recording:
            known = self._read().devices
            if any(known.get(device) for device in devices):
                known = self._revoked(devices).devices
            issued = {
                device: (*known.get(device, ()), _Issued(serial=f"{certificate.serial_number:x}", until=until))
                for device, (certificate, _) in zip(devices, made, strict=True)
            }
            self._write(_Records(devices={**known, **issued}))
        return tuple((_pem(certificate), _pem_of_key(key)) for certificate, key in made)

    def revoke(self, *devices: str) -> int:
        """Let none of these devices' certificates count any more; returns how many did until now."""
        with self._recording:
            before = self._read().devices
            self._revoked(devices)
        return sum(one.revoked is None for device in devices for one in before.get(device, ()))

    def _revoked(self, devices: Iterable[str]) -> _Records:
        """What is recorded once these devices' certificates are revoked."""
        known = self._read().devices
        ended = {
            device: tuple(structs.replace(one, revoked=one.revoked or self._now()) for one in known[device])
            for device in devices
            if device in known
        }
        records = _Records(devices={**known, **ended})
        self._write(records)
        self._write_crl(records)
        return records

    # ------------------------------------------------------------------------------------------------- in detail

    def _ensure_for(self, names: Iterable[str], cert: Path, key: Path) -> bool:
        # As a certificate has them, an address has one way to be written.
        wanted = tuple(dict.fromkeys(str(_general(one).value) for one in names))[:_MAX_NAMES]
        return self._ensure(cert, key, wanted[0], SERVER_S, names=wanted)

    def _ensure(self, cert: Path, key: Path, name: str, life_s: float, *, names: tuple[str, ...] | None) -> bool:
        if cert.exists() and key.exists():
            present, _ = _load(cert, key)
            ends = present.not_valid_after_utc.timestamp()
            is_fresh = self._now() < ends - life_s * (1 - _RENEWED_AT)
            if is_fresh and set(names or ()) <= _names_of(present) and present.issuer == self._certificate.subject:
                return False
        certificate, private = self._sign(name, self._now() + life_s, names=names)
        # The key first: who finds the new certificate finds its key.
        atomic.write_bytes(key, _pem_of_key(private).encode(), mode=PRIVATE_FILE)
        atomic.write_bytes(cert, _pem(certificate).encode(), mode=PRIVATE_FILE)
        return True

    def _sign(
        self, name: str, until: float, *, names: tuple[str, ...] | None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate of a server where it has names, else of a client."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        use = ExtendedKeyUsageOID.CLIENT_AUTH if names is None else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            _builder(_named(name), self._certificate.subject, key, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), critical=False
            )
        return builder.sign(self._key, _sha256()), key

    def _read(self) -> _Records:
        return read_kept(self._records, _Records, max_bytes=_MAX_RECORDS_BYTES) or _Records()

    def _write(self, records: _Records) -> None:
        """Keep them, but for those that have ended by themselves."""
        now = self._now()
        alive = {name: tuple(one for one in mine if one.until > now) for name, mine in records.devices.items()}
        kept = _Records(devices={name: mine for name, mine in alive.items() if mine})
        atomic.write_bytes(self._records, canonical(kept), mode=PRIVATE_FILE)

    def _write_crl(self, records: _Records) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(_when(0))
            .next_update(self._certificate.not_valid_after_utc)  # nobody fetches it: it is written at each change
        )
        for one in (one for mine in records.devices.values() for one in mine if one.revoked is not None):
            entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16))
            builder = builder.add_revoked_certificate(entry.revocation_date(_when(one.revoked or 0)).build())
        signed = builder.sign(self._key, _sha256()).public_bytes(Encoding.PEM)
        atomic.write_bytes(self.crl, signed, mode=PRIVATE_FILE)


def _begin(ca: Path, key_path: Path, until: float) -> None:
    """Make the authority itself."""
    from cryptography import x509

    key, name = _new_key(), _named(f"edge hub {time.strftime('%Y-%m-%d')}")
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signs = {"key_cert_sign": True, "crl_sign": True}
    never = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only")  # fmt: skip
    certificate = (
        _builder(name, name, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**signs, **dict.fromkeys(never, False)), critical=True)
        .add_extension(public, critical=False)
        .sign(key, _sha256())
    )
    atomic.write_bytes(key_path, _pem_of_key(key).encode(), mode=PRIVATE_FILE)
    atomic.write_bytes(ca, _pem(certificate).encode(), mode=PRIVATE_FILE)


def _load(cert: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and the key that belongs to it.

    Raises:
        StorageError: They cannot be read, or do not belong together.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as cause:
        raise StorageError(
            f"no certificate with its key: {cause}", where=str(cert), hint="restore the directory from a back-up"
        ) from cause
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
        raise StorageError("the key is another one's", where=str(key), hint="restore the directory from a back-up")
    return certificate, private


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_when(0))
        .not_valid_after(_when(until))
    )


def _named(name: str) -> x509.Name:
    """A subject; its name says whose it is to people, and is cut to what X.520 allows."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _HOST.match(name) is None:
        raise UsageError(f"{name[:80]!a} is neither a host name nor an address", hint="such as hub.example")
    return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one.value) for one in found}


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _sha256() -> Any:
    from cryptography.hazmat.primitives.hashes import SHA256

    return SHA256()


def _when(at: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(at), dt.timezone.utc)


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
