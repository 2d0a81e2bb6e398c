"""mosquitto as a child process, with every file it reads written here.

Facts that shaped this (mosquitto 2.0.11 and its threads): as root it drops to `user` and then cannot read its 0600
password file, so `user` is always the user we are; a client that picks another's client id throws that one off, so
the user name is made the id; a database damaged by a power cut stops it from starting (#3159), so it is moved aside;
SIGHUP has it read accounts, its certificate and the revocation list anew, and it then ends the connection of whom it
would not let in any more by name and password, but not of whose certificate is revoked: so a revoked device loses both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_hub.address import Endpoint, as_we_reach, names_at
from edge_hub.broker.accounts import HUB_USER, Guest, access_file, hash_password, password_file, worker_user
from edge_hub.broker.authority import Authority
from edge_hub.broker.backend import Papers
from edge_hub.broker.child import Child
from edge_hub.datadir import AUTHORITY, PRIVATE_DIRECTORY, PRIVATE_FILE
from edge_hub.errors import BrokerError, BrokerMissingError
from edge_sdk import atomic
from edge_sdk.address import Address
from edge_sdk.errors import EdgeError, UsageError
from edge_sdk.mqtt import MAX_UP_BYTES

_log = logging.getLogger(__name__)

# Debian's package installs it where an ordinary user's PATH does not look.
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_OLDEST = (2, 0)
_PACKET_OVERHEAD_BYTES = 4096
_KEPT_DAMAGED = 3
_LOOKED_AT_EVERY_S = 6 * 3600.0
_DAMAGE = re.compile(r"persistent database|open database|persistence", re.IGNORECASE)


def find_mosquitto() -> str | None:
    """The program's path, or None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_PLACES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """That the broker speaks TLS, with a certificate of the hub's own authority.

    Attributes:
        names: Further host names and addresses at which devices reach it.
        client_certificates: Devices show a certificate as well as a password.
    """

    names: tuple[str, ...] = ()
    client_certificates: bool = False


class Mosquitto:
    """A `BrokerBackend` that runs mosquitto.

    Args:
        address: Where it listens.
        directory: For its configuration, accounts and database; made 0700.
        hub_password: What the hub itself and its workers log in with.
        workers: How many of these may connect, each under a name of its own.
        encryption: How it is encrypted; None if it is not.

    Raises:
        BrokerMissingError: mosquitto is not installed, or too old.
        StorageError: The directory cannot be written.
    """

    kind = "mosquitto"
    enrols = True

    def __init__(
        self,
        *,
        address: Address,
        directory: Path,
        hub_password: str,
        workers: int = 0,
        encryption: Encryption | None = None,
    ) -> None:
        self._program = _require_mosquitto()
        self._encryption = encryption
        self._keeping: asyncio.Task[None] | None = None
        self._directory = directory
        self._hub_password = hub_password
        self._workers = workers
        self._address = address
        self._accounts: Mapping[str, str] = {}
        self._guests: dict[str, tuple[Guest, ...]] = {}
        if "\n" in str(directory):
            raise UsageError("a line break in the path of the data directory", where=repr(str(directory)))
        with atomic.storage_errors(directory):
            directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
            directory.chmod(PRIVATE_DIRECTORY)
        self._authority = None if encryption is None else Authority(directory / AUTHORITY)
        self._child = Child(
            name="mosquitto",
            command=lambda: (self._program, "-c", str(directory / "mosquitto.conf")),
            address=address,
            pid_file=directory / "mosquitto.pid",
            heal=self._heal,
        )

    @property
    def endpoint(self) -> Endpoint:
        """As the user `hub`, from this machine."""
        authority = self._authority
        return Endpoint(
            address=as_we_reach(self._address),
            username=HUB_USER,
            password=self._hub_password,
            tls=authority is not None,
            ca=None if authority is None else authority.ca,
            certificate=None if authority is None else authority.hub_cert,
            key=None if authority is None else authority.hub_key,
        )

    @property
    def for_devices(self) -> Address:
        """Where it listens."""
        return self._address

    @property
    def running(self) -> bool:
        """The process is there."""
        return self._child.running

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._child.restarts

    async def set_accounts(self, accounts: Mapping[str, str]) -> None:
        """Write the password file anew and have the broker read it; those whose password is the same stay connected."""
        self._accounts = dict(accounts)
        ours = (HUB_USER, *map(worker_user, range(self._workers)))
        everyone = {
            **accounts,
            **{user: hash_password(self._hub_password) for user in ours},
            **{guest.user: hash_password(guest.password) for guest in self._everyone_else()},
        }
        atomic.write_bytes(self._directory / "passwords", password_file(everyone), mode=PRIVATE_FILE)
        self._child.send_signal(signal.SIGHUP)

    def papers(self, *devices: str) -> tuple[Papers, ...]:
        """The authority, and certificates where devices need them."""
        if self._authority is None or self._encryption is None:
            return tuple(Papers() for _ in devices)
        ca = self._authority.ca_pem
        if not self._encryption.client_certificates:
            return tuple(Papers(ca=ca) for _ in devices)
        issued = self._authority.issue_all(devices)
        return tuple(Papers(ca=ca, certificate=certificate, key=key) for certificate, key in issued)

    async def revoke(self, *devices: str) -> None:
        """Revoke their certificates; a change of a password, which ends a connection, is the caller's."""
        if self._authority is not None:
            await asyncio.to_thread(self._authority.revoke, *devices)
            self._child.send_signal(signal.SIGHUP)

    async def admit(self, whose: str, guests: Sequence[Guest]) -> None:
        """Write the accounts and the access rules anew and have the broker read them; connections stay."""
        self._guests[whose] = tuple(guests)
        self._write_access()
        await self.set_accounts(self._accounts)

    def endpoint_of(self, guest: Guest) -> Endpoint:
        """As the guest, from this machine."""
        return replace(self.endpoint, username=guest.user, password=guest.password)

    async def start(self) -> None:
        """Write the configuration and start.

        Raises:
            AddressInUseError: The port is taken.
            BrokerError: It does not start.
            StorageError: Its files cannot be written.
        """
        self._write_access()
        atomic.write_bytes(self._directory / "mosquitto.conf", self._configuration(), mode=PRIVATE_FILE)
        if os.geteuid() == 0:
            _log.warning("running as root, and so does the broker; an ordinary user suffices")
        self._renew()
        await self._child.start()
        if self._authority is not None:
            self._keeping = asyncio.create_task(self._keep_certificate(), name="broker-certificate")

    async def stop(self) -> None:
        """End it; it saves its database."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        await self._child.stop()

    def _write_access(self) -> None:
        content = access_file(self._workers, self._everyone_else())
        atomic.write_bytes(self._directory / "access", content, mode=PRIVATE_FILE)

    def _everyone_else(self) -> tuple[Guest, ...]:
        return tuple(guest for guests in self._guests.values() for guest in guests)

    def _renew(self) -> None:
        """A certificate that has what devices may call the broker, before the last one ends."""
        if self._authority is None or self._encryption is None:
            return
        if self._authority.ensure_server(names_at(self._address, self._encryption.names)):
            _log.info("the broker has a new certificate")
            self._child.send_signal(signal.SIGHUP)

    async def _keep_certificate(self) -> None:
        while True:
            await asyncio.sleep(_LOOKED_AT_EVERY_S)
            try:
                self._renew()
            except EdgeError as error:
                _log.error("the broker's certificate could not be renewed: %s", error)

    def _tls(self) -> list[str]:
        if self._authority is None or self._encryption is None:
            return []
        lines = [
            f"cafile {self._authority.ca}",
            f"certfile {self._authority.server_cert}",
            f"keyfile {self._authority.server_key}",
            "tls_version tlsv1.2",  # and what is newer
        ]
        if self._encryption.client_certificates:
            lines += ["require_certificate true", f"crlfile {self._authority.crl}"]
        return lines

    def _configuration(self) -> bytes:
        lines = [
            f"listener {self._address.port} {self._address.host}",
            *self._tls(),
            "allow_anonymous false",
            f"password_file {self._directory / 'passwords'}",
            f"acl_file {self._directory / 'access'}",
            "use_username_as_clientid true",
            "persistence true",
            f"persistence_location {self._directory}/",
            "autosave_interval 60",
            "persistent_client_expiration 14d",
            # The hub reads with a wide window so that it can commit in batches; what it cannot take yet waits here.
            "max_inflight_messages 1000",
            "max_queued_messages 100000",
            "max_queued_bytes 268435456",
            f"max_packet_size {MAX_UP_BYTES + _PACKET_OVERHEAD_BYTES}",
            "set_tcp_nodelay true",
            "sys_interval 0",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_timestamp false",
        ]
        with contextlib.suppress(KeyError):  # a number without a name, as containers have, is never root
            lines.append(f"user {pwd.getpwuid(os.geteuid()).pw_name}")
        return ("\n".join(lines) + "\n").encode()

    def _heal(self, said: Sequence[str]) -> bool:
        """Move a damaged database aside: what it held (retained messages, queues) is sent again by devices and hub."""
        database = self._directory / "mosquitto.db"
        if not database.exists() or not any(_DAMAGE.search(line) for line in said):
            return False
        aside = database.with_name(f"mosquitto.db.damaged-{time.time_ns()}")
        with atomic.storage_errors(aside):
            database.rename(aside)
            for old in sorted(self._directory.glob("mosquitto.db.damaged-*"))[:-_KEPT_DAMAGED]:
                old.unlink()
        _log.error("the broker's database is damaged; moved to %s, starting with an empty one", aside)
        return True


def _require_mosquitto() -> str:
    program = find_mosquitto()
    hint = "apt install mosquitto, or name a broker with --broker mqtt[s]://user:password@host:port"
    if program is None:
        raise BrokerMissingError("mosquitto is not installed", hint=hint)
    try:
        # It knows no --version; -h prints it in the first line and ends with status 3 or 0, by version.
        said = subprocess.run([program, "-h"], capture_output=True, timeout=10, check=False).stdout.decode(
            "utf-8", "replace"
        )
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise BrokerError(f"mosquitto cannot be run: {cause}", where=program, hint=hint) from cause
    found = re.search(r"mosquitto version (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        version = found[0] if found else "of an unknown version"
        raise BrokerMissingError(f"{version} is too old, 2.0 is needed", where=program, hint=hint)
    return program
