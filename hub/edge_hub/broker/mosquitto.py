"""mosquitto as a child process, with every file it reads written here.

Facts that shaped this (mosquitto 2.0.11 and its threads): as root it drops to `user` and then cannot read its 0600
password file, so `user` is always the user we are; a client that picks another's client id throws that one off, so
the user name is made the id; a database damaged by a power cut stops it from starting (#3159), so it is moved aside.
"""

from __future__ import annotations

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
from dataclasses import replace
from pathlib import Path

from edge_hub.address import Endpoint
from edge_hub.broker.accounts import HUB_USER, Guest, access_file, hash_password, password_file
from edge_hub.broker.child import Child
from edge_hub.datadir import PRIVATE_DIRECTORY, PRIVATE_FILE
from edge_hub.errors import BrokerError, BrokerMissingError
from edge_sdk import atomic
from edge_sdk.address import Address
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import MAX_UP_BYTES

_log = logging.getLogger(__name__)

# Debian's package installs it where an ordinary user's PATH does not look.
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_OLDEST = (2, 0)
_PACKET_OVERHEAD_BYTES = 4096
_KEPT_DAMAGED = 3
_DAMAGE = re.compile(r"persistent database|open database|persistence", re.IGNORECASE)


def find_mosquitto() -> str | None:
    """The program's path, or None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_PLACES))


class Mosquitto:
    """A `BrokerBackend` that runs mosquitto.

    Args:
        address: Where it listens.
        directory: For its configuration, accounts and database; made 0700.
        hub_password: What the hub itself logs in with.

    Raises:
        BrokerMissingError: mosquitto is not installed, or too old.
        StorageError: The directory cannot be written.
    """

    kind = "mosquitto"
    enrols = True

    def __init__(self, *, address: Address, directory: Path, hub_password: str) -> None:
        self._program = _require_mosquitto()
        self._directory = directory
        self._hub_password = hub_password
        self._address = address
        self._accounts: Mapping[str, str] = {}
        self._guests: dict[str, tuple[Guest, ...]] = {}
        if "\n" in str(directory):
            raise UsageError("a line break in the path of the data directory", where=repr(str(directory)))
        with atomic.storage_errors(directory):
            directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
            directory.chmod(PRIVATE_DIRECTORY)
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
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._address.host, self._address.host)  # noqa: S104
        return Endpoint(
            address=Address(host=host, port=self._address.port), username=HUB_USER, password=self._hub_password
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
        """Write the password file anew and have the broker read it; connections stay."""
        self._accounts = dict(accounts)
        everyone = {guest.user: hash_password(guest.password) for guest in self._everyone_else()}
        everyone.update({**accounts, HUB_USER: hash_password(self._hub_password)})
        atomic.write_bytes(self._directory / "passwords", password_file(everyone), mode=PRIVATE_FILE)
        self._child.send_signal(signal.SIGHUP)

    async def admit(self, whose: str, guests: Sequence[Guest]) -> None:
        """Write the accounts and the access rules anew and have the broker read them; connections stay."""
        self._guests[whose] = tuple(guests)
        atomic.write_bytes(self._directory / "access", access_file(self._everyone_else()), mode=PRIVATE_FILE)
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
        atomic.write_bytes(self._directory / "access", access_file(self._everyone_else()), mode=PRIVATE_FILE)
        atomic.write_bytes(self._directory / "mosquitto.conf", self._configuration(), mode=PRIVATE_FILE)
        if os.geteuid() == 0:
            _log.warning("running as root, and so does the broker; an ordinary user suffices")
        await self._child.start()

    async def stop(self) -> None:
        """End it; it saves its database."""
        await self._child.stop()

    def _everyone_else(self) -> tuple[Guest, ...]:
        return tuple(guest for guests in self._guests.values() for guest in guests)

    def _configuration(self) -> bytes:
        lines = [
            f"listener {self._address.port} {self._address.host}",
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
